"""Several processes that train one policy together, as `torchrun` starts them.

Each has worlds of its own, numbered on from those of the process before, and the same networks.
What is averaged over rows of a batch (gradients, statistics of normalisers and of advantages) is
averaged over the rows of all processes, so that two of them do what one with twice the worlds
would. Alone, all of this does nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from embodied.errors import UserError


def join(device: str = "cpu") -> None:
    """Join the others, where `torchrun` has started several. Raises `UserError` if that fails."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or dist.is_initialized():
        return
    try:
        if device.startswith("cuda"):
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.startswith("cuda") else "gloo")
    except (RuntimeError, ValueError) as error:
        raise UserError(f"the processes cannot find each other: {str(error)[:120]}") from error


def leave() -> None:
    """The end, for all of them."""
    if dist.is_initialized():
        dist.destroy_process_group()


def count() -> int:
    """How many there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Which one this is, from 0: the first writes and tells."""
    return dist.get_rank() if dist.is_initialized() else 0


def own_seed(seed: int) -> int:
    """A seed for what is to differ between processes."""
    return seed + (rank() << 32)


def total(value: Tensor) -> Tensor:
    """The sum over all processes of a tensor that each has."""
    if count() == 1:
        return value
    value = value.clone()
    dist.all_reduce(value)
    return value


def average_gradients(parameters: Iterable[Tensor]) -> None:
    """Give every process the mean of the gradients of all."""
    if count() == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    for gradient, mean in zip(gradients, averaged(gradients), strict=True):
        gradient.copy_(mean)


def averaged(values: Sequence[Tensor]) -> Sequence[Tensor]:
    """The mean over all processes of tensors that each has."""
    if count() == 1:
        return values
    flat = torch.cat([value.reshape(-1) for value in values])
    dist.all_reduce(flat)
    parts = (flat / count()).split([value.numel() for value in values])
    return [part.view_as(value) for part, value in zip(parts, values, strict=True)]


def pooled(number: float, mean: Tensor, m2: Tensor) -> tuple[float, Tensor, Tensor]:
    """Moments of the rows of all processes from those of each: how many, their mean `(D,)`, and the
    sum of squares about it `(D,)` (Chan et al.), put together in the same order everywhere."""
    if count() == 1:
        return number, mean, m2
    own = torch.stack([torch.full_like(mean, number), mean, m2])
    parts = [torch.empty_like(own) for _ in range(count())]
    dist.all_gather(parts, own)
    rows, centre, spread = (torch.zeros_like(mean) for _ in range(3))
    for n, m, s in parts:
        together = (rows + n).clamp(min=1.0)
        delta = m - centre
        centre = centre + delta * n / together
        spread = spread + s + delta * delta * rows * n / together
        rows = rows + n
    return float(rows.reshape(-1)[0]), centre, spread


def first_says(values: Sequence[float]) -> list[float]:
    """Numbers as the first process has them."""
    if count() == 1:
        return list(values)
    told = torch.tensor(list(values), dtype=torch.float64)
    dist.broadcast(told, 0)
    return told.tolist()


def any_says(flag: bool) -> bool:
    """Whether it is so in some process."""
    return bool(total(torch.tensor([float(flag)])).item())


def fewest(value: int) -> int:
    """The least of a number that each has."""
    if count() == 1:
        return value
    told = torch.tensor([value], dtype=torch.int64)
    dist.all_reduce(told, dist.ReduceOp.MIN)
    return int(told.item())
