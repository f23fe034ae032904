"""The training loop of supervised parts: reward models and imitation."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn

from embodied.errors import UserError
from embodied.nets import torch_threads


def train_steps(
    parameters: Iterable[nn.Parameter],
    loss: Callable[[torch.Generator], Tensor],
    steps: int,
    lr: float = 1e-3,
    weight_decay: float = 1e-4,
    seed: int = 0,
    threads: int = 2,
    title: str = "fit",
) -> dict[str, float]:
    """Minimise `loss`, which draws its own batch with the generator it is given.

    What draws from torch's own stream, as dropout does, is seeded alike, and that stream is left as
    it was. AdamW with a short linear warm-up and a cosine to a tenth. Returns the mean loss of the
    first and of the last twentieth of the steps. Raises `UserError` when it is not finite.
    """
    noise = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(list(parameters), lr=lr, weight_decay=weight_decay)
    warm_up = max(1, steps // 20)

    def rate(step: int) -> float:
        if step < warm_up:
            return (step + 1) / warm_up
        return 0.55 + 0.45 * math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, rate)
    losses = []
    console = Console(file=sys.stderr)
    with torch_threads(threads), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for _ in track(
            range(steps), title, console=console, transient=True, disable=not sys.stderr.isatty()
        ):
            value = loss(noise)
            optimiser.zero_grad(set_to_none=True)
            value.backward()
            nn.utils.clip_grad_norm_(optimiser.param_groups[0]["params"], 1.0)
            optimiser.step()
            schedule.step()
            losses.append(value.item())
            if not math.isfinite(losses[-1]):
                raise UserError(
                    f"{title}: the loss is {losses[-1]} after {len(losses)} steps: look for huge "
                    "numbers in the data, or learn more slowly"
                )
    return {
        "loss_before": sum(losses[:warm_up]) / warm_up,
        "loss_after": sum(losses[-warm_up:]) / warm_up,
    }
