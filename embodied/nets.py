"""Small network parts that several agents share."""

from __future__ import annotations

import os
import shutil
import sysconfig
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from embodied import processes
from embodied.errors import UserError, unknown

ACTIVATIONS = {"tanh": nn.Tanh, "relu": nn.ReLU, "elu": nn.ELU, "silu": nn.SiLU}


def mlp(
    inputs: int, hidden: Sequence[int], outputs: int, activation: str = "tanh", last_gain: float = 1
) -> nn.Sequential:
    """A multilayer perceptron with orthogonal weights (gain sqrt 2, the last layer `last_gain`).

    Raises `UserError` for an unknown activation or a size that is none.
    """
    if activation not in ACTIVATIONS:
        raise unknown("activation", activation, ACTIVATIONS)
    if not all(isinstance(size, int) and size >= 1 for size in hidden):
        raise UserError(f"hidden={list(hidden)}: give whole numbers >= 1, as [64, 64]")
    layers: list[nn.Module] = []
    width = inputs
    for size in hidden:
        layers += [_linear(width, size, 2**0.5), ACTIVATIONS[activation]()]
        width = size
    return nn.Sequential(*layers, _linear(width, outputs, last_gain))


def _linear(inputs: int, outputs: int, gain: float) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    nn.init.orthogonal_(layer.weight, gain)
    nn.init.zeros_(layer.bias)
    return layer


class RunningNorm(nn.Module):
    """Normalises `(..., D)` by the mean and variance of all rows seen, clipped to +-`limit`.

    The statistics are buffers, so they are saved with the policy that they belong to.
    """

    mean: Tensor
    var: Tensor
    count: Tensor

    def __init__(self, size: int, limit: float = 10.0) -> None:
        super().__init__()
        self.limit = limit
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("var", torch.ones(size))
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return ((x - self.mean) * torch.rsqrt(self.var + 1e-8)).clamp(-self.limit, self.limit)

    @torch.no_grad()
    def update(self, rows: Tensor) -> None:
        """Take in rows `(K, D)`, those of all processes (Chan et al.'s parallel variance)."""
        if rows.shape[0] == 0:
            return
        var, mean = torch.var_mean(rows.double(), dim=0, correction=0)
        count, mean, m2 = processes.pooled(rows.shape[0], mean, var * rows.shape[0])
        total = self.count + count
        delta = mean - self.mean
        spread = self.var * self.count + m2 + delta**2 * self.count * count / total
        self.mean.copy_(self.mean + delta * count / total)
        self.var.copy_(spread / total)
        self.count.copy_(total)


def usable_device(name: str) -> torch.device:
    """The device of that name; raises `UserError` where torch cannot use it here."""
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        reason = (str(error).splitlines() or ["not usable"])[0]
        raise UserError(f"device={name}: {reason[:120]} (device=cpu works everywhere)") from error


def seeded(seed: int, device: torch.device | str = "cpu") -> torch.Generator:
    """Random numbers of this process's own, made on a device."""
    return torch.Generator(device).manual_seed(processes.own_seed(seed))


def drawn(shape: Sequence[int], noise: torch.Generator) -> Tensor:
    """Standard normal numbers, where the generator is."""
    return torch.randn(tuple(shape), generator=noise, device=noise.device)


def compiled(function: Callable, device: torch.device | None = None) -> Callable:
    """`function` through `torch.compile`, or as it is where its C++ cannot be compiled.

    It may take gradients inside (`torch.autograd.grad`), so that a whole update becomes one piece.
    On a GPU it is launched as a CUDA graph, and its results are overwritten by the next call.
    """
    lacking = missing_for_compile()
    if lacking:
        warnings.warn(f"no {lacking}: running without torch.compile, slower", stacklevel=2)
        return function
    import torch._dynamo.config as tracing

    tracing.trace_autograd_ops = True
    on_gpu = device is not None and device.type == "cuda"
    return torch.compile(function, dynamic=False, mode="reduce-overhead" if on_gpu else None)


def missing_for_compile() -> str:
    """What `torch.compile` lacks on this machine, or an empty string."""
    if not any(shutil.which(name) for name in ("c++", "g++", "clang++")):
        return "C++ compiler (Debian: g++)"
    header = Path(sysconfig.get_paths()["include"]) / "Python.h"
    return "" if header.exists() else "Python headers (Debian: python3-dev)"


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Run torch on `count` threads inside, and on as many as before again afterwards.

    On no more than there are cores for this process: threads that wait for one another on the
    same core are many times slower than one.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(min(count, len(os.sched_getaffinity(0))))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def load_weights(module: nn.Module, state: Mapping[str, Any]) -> None:
    """Load arrays into a module in place; raises `UserError` where they do not fit."""
    own = module.state_dict()
    for name in sorted({*own, *state}):
        here, there = (
            tuple(weights[name].shape) if name in weights else "nothing" for weights in (own, state)
        )
        if here != there:
            raise UserError(
                f"the checkpoint does not fit: {name} is {there} there, {here} here "
                "(another observation space, action space or network size)"
            )
    for name, value in own.items():
        value.copy_(torch.as_tensor(state[name]))


def adam_state(optimiser: torch.optim.Optimizer) -> dict[str, Any]:
    """The state of an Adam optimiser as named arrays (its own has integer keys)."""
    params = [p for group in optimiser.param_groups for p in group["params"]]
    rows = [optimiser.state.get(p, {}) for p in params]
    return {
        "lr": [float(group["lr"]) for group in optimiser.param_groups],
        "rows": [{k: v.detach().clone() for k, v in row.items()} for row in rows],
    }


def load_adam_state(optimiser: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    for group, lr in zip(optimiser.param_groups, state["lr"], strict=True):
        group["lr"] = lr
    params = [p for group in optimiser.param_groups for p in group["params"]]
    for param, row in zip(params, state["rows"], strict=True):
        optimiser.state[param] = {
            k: torch.as_tensor(v, device=param.device).clone() for k, v in row.items()
        }
