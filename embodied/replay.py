"""What off-policy agents learn from again and again: the last steps of all worlds, on their device.

Rewards are not stored but their channels, one a reward model, so that labels may come late and
weights may change; the reward is formed when a step is drawn. A step whose label is still to come
is NaN in some channel, and is not drawn.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from embodied.errors import UserError

TRIES = 8
"""Draws before the steps that may be drawn are listed, which is slow where there are many."""


@dataclass
class Batch:
    """Steps drawn from a replay, B of them, each with the n steps that follow it as one."""

    obs: Tensor  # (B, D)
    action: Tensor  # (B, A)
    reward: Tensor  # (B,) discounted sum over the steps
    discount: Tensor  # (B,) of what follows them: gamma**n, 0 where they ended in termination
    next_obs: Tensor  # (B, D) after them


class Replay:
    """A ring of the last `capacity` steps of `num_worlds` worlds, as rows of time by world.

    The row of a step follows from its number, so `relabel` finds it, or that it was overwritten.
    """

    def __init__(
        self,
        capacity: int,
        num_worlds: int,
        obs_size: int,
        action_size: int,
        device: torch.device | str = "cpu",
    ) -> None:
        self.length, self.num_worlds = capacity // num_worlds, num_worlds
        if self.length < 2:
            raise UserError(f"a replay of {capacity} steps for {num_worlds} worlds: give more")
        self.device = torch.device(device)
        self.sizes = {"obs": obs_size, "action": action_size, "next_obs": obs_size}
        self.names: tuple[str, ...] = ()
        self.rows: dict[str, Tensor] = {}
        self.next_row = 0
        """The number, from the run's start, of the row that is written next."""

    def __len__(self) -> int:
        """Steps in it, drawn or not."""
        return min(self.next_row, self.length) * self.num_worlds if self.rows else 0

    def add(
        self,
        step_id: Tensor,
        obs: Tensor,
        action: Tensor,
        next_obs: Tensor,
        channels: Mapping[str, Tensor],
        terminated: Tensor,
        is_first: Tensor,
        valid: Tensor,
    ) -> None:
        """Take in the T steps of all worlds that follow, `(T, N, ...)`; the oldest go."""
        if not self.rows:
            self._make(tuple(channels))
        if set(channels) != set(self.names):
            raise UserError(f"reward channels {sorted(channels)}, the replay has {self.names}")
        self.next_row = int(step_id[0, 0]) // self.num_worlds
        new = {
            "step_id": step_id,
            "obs": obs,
            "action": action,
            "next_obs": next_obs,
            "channels": torch.stack([channels[name] for name in self.names], -1),
            "terminated": terminated,
            "is_first": is_first,
            "valid": valid,
        }
        kept = range(max(0, len(obs) - self.length), len(obs))
        at = torch.tensor([(self.next_row + t) % self.length for t in kept], device=self.device)
        for name, value in new.items():
            self.rows[name][at] = value[kept.start :].to(self.device, self.rows[name].dtype)
        self.next_row += len(obs)

    def relabel(self, step_id: Tensor, channels: Mapping[str, Tensor]) -> int:
        """Fill in labels `(K,)` of steps `(K,)` that came late; how many of them were still there.

        Raises `UserError` for a channel that there is not.
        """
        if not self.rows:
            return 0
        if unknown := set(channels) - set(self.names):
            raise UserError(f"no reward channel {sorted(unknown)}: there are {list(self.names)}")
        step_id = step_id.to(self.device)
        row = torch.div(step_id, self.num_worlds, rounding_mode="floor") % self.length
        world = step_id % self.num_worlds
        there = self.rows["step_id"][row, world] == step_id
        row, world = row[there], world[there]
        for name, value in channels.items():
            new = value.to(self.device, torch.float32)[there]
            self.rows["channels"][row, world, self.names.index(name)] = new
        return int(there.sum())

    def draw(
        self,
        count: int,
        noise: torch.Generator,
        weights: Mapping[str, float],
        gamma: float,
        steps: int = 1,
    ) -> Batch:
        """`count` steps, each as likely, of those that are labelled and valid.

        The reward is the channels' sum by their `weights`, discounted over up to `steps` steps: as
        many as follow before the episode ends, or something is not to be learned from. Raises
        `UserError` where no step may be drawn.
        """
        row, world = self._pick(count, noise)
        scale = torch.tensor([weights.get(name, 1.0) for name in self.names], device=self.device)
        first = {name: self.rows[name][row, world] for name in ("obs", "action")}
        reward, discount = scale.new_zeros(count), scale.new_ones(count)
        next_obs, going = first["obs"], torch.ones_like(discount, dtype=torch.bool)
        newest = (self.next_row - 1) % self.length
        for k in range(steps):
            paid = (self.rows["channels"][row, world] * scale).sum(-1)
            if k:  # an episode that a resumed run cut short has no end, but the next has a start
                going = going & ~self.rows["is_first"][row, world]
                going = going & self.rows["valid"][row, world] & torch.isfinite(paid)
            reward = reward + torch.where(going, discount * paid, 0.0)
            over = torch.where(self.rows["terminated"][row, world], 0.0, gamma)
            discount = torch.where(going, discount * over, discount)
            following = self.rows["next_obs"][row, world]
            next_obs = torch.where(going[:, None], following, next_obs)
            going = going & (row != newest)
            row = (row + 1) % self.length
        return Batch(first["obs"], first["action"], reward, discount, next_obs)

    def _pick(self, count: int, noise: torch.Generator) -> tuple[Tensor, Tensor]:
        """Rows and worlds `(count,)` of steps that may be drawn."""
        size = len(self)
        if not size:
            raise UserError("the replay is empty: nothing to learn from yet")

        def usable(index: Tensor) -> Tensor:
            row, world = index // self.num_worlds, index % self.num_worlds
            labelled = torch.isfinite(self.rows["channels"][row, world]).all(-1)
            return labelled & self.rows["valid"][row, world]

        def random(high: int) -> Tensor:
            return torch.randint(high, (count,), generator=noise).to(self.device)

        index = random(size)
        for _ in range(TRIES):
            good = usable(index)
            if good.all():
                break
            index = torch.where(good, index, random(size))
        else:
            known = usable(torch.arange(size, device=self.device)).nonzero().flatten()
            if not len(known):
                raise UserError("no step of the replay is both labelled and valid")
            index = torch.where(usable(index), index, known[random(len(known))])
        return index // self.num_worlds, index % self.num_worlds

    def _make(self, names: tuple[str, ...]) -> None:
        def new(*shape: int, dtype: torch.dtype = torch.float32, fill: float = 0) -> Tensor:
            whole = (self.length, self.num_worlds, *shape)
            return torch.full(whole, fill, dtype=dtype, device=self.device)

        self.names = names
        self.rows = {name: new(size) for name, size in self.sizes.items()}
        self.rows["channels"] = new(len(names), fill=torch.nan)
        self.rows["step_id"] = new(dtype=torch.int64, fill=-1)
        for name in ("terminated", "is_first", "valid"):
            self.rows[name] = new(dtype=torch.bool)

    def state_dict(self) -> dict[str, Any]:
        """What is in it, the oldest row first or not: as it lies in the ring."""
        filled = min(self.next_row, self.length)
        rows = {name: value[:filled] for name, value in self.rows.items()}
        return {"names": list(self.names), "next_row": self.next_row, "rows": rows}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.names, self.next_row, self.rows = (), int(state["next_row"]), {}
        if not state["names"]:
            return
        self._make(tuple(state["names"]))
        for name, value in state["rows"].items():
            part = torch.as_tensor(value)
            if part.shape[1:] != self.rows[name].shape[1:] or len(part) > self.length:
                raise UserError(
                    f"the saved replay does not fit: {name} is {tuple(part.shape)} there, "
                    f"{tuple(self.rows[name].shape)} here"
                )
            self.rows[name][: len(part)] = part.to(self.device)
