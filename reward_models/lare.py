"""LaRe: an episode's return, shared out over its steps by way of factors that code names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from embodied.errors import UserError, check_range, unknown
from embodied.nets import RunningNorm, adam_state, load_adam_state, torch_threads
from embodied.reward_folder import read_reward
from embodied.reward_graph import RewardGraph
from embodied.reward_model import Needs
from embodied.types import SCORED, Array, Carry, Moment, Score, Trajectory

RETURNS = ("success", "reward")


class LaRe:
    """A step's share of its episode's return, learned while a policy is trained (Qu et al. 2024,
    arXiv 2412.11120).

    The code in the folder `path` (see `embodied write-reward mode=lare`) gives factors of every
    step; a network makes a reward of them, such that its sum over an episode is the episode's
    return: whether it succeeded (`returns=success`), or the sum of the env's own reward. After each
    rollout it learns `updates` times from `batch` of the last `episodes` that ended. With `subset`,
    from that many random steps of each alone (randomised return decomposition, Ren et al. 2022,
    arXiv 2111.13485), which is cheaper where episodes are long.

    Where we differ: the factors are replayed from their graph, never run as code; they and the
    returns are normalised by what was seen.

    Until an episode has ended, every step is paid 0. Raises `UserError` for a folder that holds no
    traced code.
    """

    kind = "reward"
    scope = "step"
    causal = True
    blind = True
    value_range = (-float("inf"), float("inf"))

    def __init__(
        self,
        path: str | None = None,
        returns: str = "success",
        episodes: int = 512,
        updates: int = 20,
        batch: int = 64,
        subset: int | None = None,
        lr: float = 1e-3,
        hidden: Sequence[int] = (64, 64),
        seed: int = 0,
    ) -> None:
        where = "reward_model.lare"
        if path is None:
            raise UserError(f"{where}.path: give a folder that `embodied write-reward` wrote")
        if returns not in RETURNS:
            raise unknown(f"{where}.returns", returns, RETURNS)
        check_range(where, 1, episodes=episodes, updates=updates, batch=batch, subset=subset or 1)
        check_range(where, 0, lr=lr)
        self.file = read_reward(path)
        if self.file.graph is None:
            raise UserError(f"{path}: this code cannot be traced, so it gives no factors here")
        self.path, self.returns, self.most = path, returns, episodes
        self.updates, self.batch, self.subset = updates, batch, subset
        self.graph = RewardGraph(self.file.graph)
        read = self.file.needs
        self.needs = Needs(
            readouts=read.readouts | {returns}, privileged=read.privileged | {returns}
        )
        self.noise = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.net = _Net(len(self.graph.terms), hidden)
        self.optimiser = torch.optim.Adam(self.net.parameters(), lr)
        self.running: list[list[np.ndarray]] = []
        """Of every world, the factors `(t, F)` and returns `(t,)` of the episode that goes on."""
        self.ended: list[tuple[np.ndarray, float]] = []
        self.scale = 0.0

    # --- judging

    def begin(self, carry: Carry, mask: Array, moment: Moment) -> tuple[Carry, Array]:
        return carry, np.zeros(mask.shape, np.float32)

    def score(self, carry: Carry, traj: Trajectory) -> tuple[Carry, Score]:
        factors = self.factors(traj)
        with torch.no_grad(), torch_threads(1):
            value = self.net(torch.from_numpy(factors)).numpy() * np.float32(self.scale)
        parts = {name: factors[..., k] for k, name in enumerate(self.graph.terms)}
        return carry, Score(value, np.full(traj.shape, SCORED, np.int8), parts)

    def factors(self, traj: Trajectory) -> np.ndarray:
        """What the code makes of every step, `(T, N, F)`; what is not finite is 0."""
        flat = self.file.rows(traj)
        told = np.stack([*self.graph(flat).values()], -1).astype(np.float32)
        return np.nan_to_num(told, posinf=0.0, neginf=0.0).reshape(*traj.shape, -1)

    # --- learning

    def learn(self, traj: Trajectory) -> dict[str, float]:
        """Learn from the episodes that a rollout ended, and from those before."""
        self._remember(traj)
        if not self.ended:
            return {}
        rates = np.array([total / len(factors) for factors, total in self.ended])
        self.scale = max(float(rates.std()), float(np.abs(rates).mean()), 1e-6)
        with torch_threads(1):
            losses = [self._step() for _ in range(self.updates)]
        return {"loss": float(np.mean(losses)), "episodes": float(len(self.ended))}

    def _remember(self, traj: Trajectory) -> None:
        """Take a rollout in; an episode with a step that is not valid counts for nothing."""
        factors, told = self.factors(traj), np.asarray(traj.readouts[self.returns], np.float32)
        self.net.norm.update(torch.from_numpy(factors[traj.valid]))
        done = traj.terminated | traj.truncated
        worlds = traj.shape[1]
        if len(self.running) != worlds:
            self.running = [[] for _ in range(worlds)]
        for n in range(worlds):
            start = 0
            for end in (*np.flatnonzero(done[:, n]).tolist(), None):
                rows = slice(start, None if end is None else end + 1)
                if traj.is_first[start : start + 1, n].any():
                    self.running[n] = []
                bad = ~traj.valid[rows, n]
                returns = np.where(bad, np.float32(np.nan), told[rows, n])
                self.running[n].append(np.column_stack([factors[rows, n], returns]))
                if end is not None:
                    self._end(np.concatenate(self.running[n]))
                    self.running[n], start = [], end + 1
        self.ended = self.ended[-self.most :]

    def _end(self, episode: np.ndarray) -> None:
        """An episode `(t, F + 1)` is over."""
        factors, told = episode[:, :-1], episode[:, -1]
        if np.isfinite(told).all() and len(told):
            total = float(told.max() if self.returns == "success" else told.sum())
            self.ended.append((factors, total))

    def _step(self) -> float:
        """One step from a batch of episodes: the mean reward is to be their return a step."""
        chosen = torch.randint(len(self.ended), (self.batch,), generator=self.noise).tolist()
        drawn = [self._drawn(torch.from_numpy(self.ended[k][0])) for k in chosen]
        rates = [self.ended[k][1] / len(self.ended[k][0]) / self.scale for k in chosen]
        value = self.net(torch.cat(drawn))
        means = torch.stack([part.mean() for part in value.split([len(d) for d in drawn])])
        loss = (means - torch.tensor(rates)).square().mean()
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        return float(loss.detach())

    def _drawn(self, factors: Tensor) -> Tensor:
        if self.subset is None or len(factors) <= self.subset:
            return factors
        return factors[torch.randperm(len(factors), generator=self.noise)[: self.subset]]

    # --- files

    def state_dict(self) -> dict[str, Any]:
        return {
            "fingerprint": self.file.fingerprint,
            "net": self.net.state_dict(),
            "optimiser": adam_state(self.optimiser),
            "noise": self.noise.get_state(),
            "scale": self.scale,
            "running": _packed([np.concatenate(r) if r else None for r in self.running]),
            "ended": _packed([np.column_stack([f, np.full(len(f), t)]) for f, t in self.ended]),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if state.get("fingerprint") != self.file.fingerprint:
            raise UserError(f"{self.path}: these are not the factors that the run began with")
        self.net.load_state_dict({k: torch.as_tensor(v) for k, v in state["net"].items()})
        load_adam_state(self.optimiser, state["optimiser"])
        self.noise.set_state(torch.as_tensor(state["noise"]))
        self.scale = float(state["scale"])
        running = _unpacked(state["running"])
        self.running = [[rows.astype(np.float32)] if len(rows) else [] for rows in running]
        ended = _unpacked(state["ended"])
        self.ended = [(rows[:, :-1].astype(np.float32), float(rows[0, -1])) for rows in ended]


class _Net(nn.Module):
    """Factors `(..., F)` to rewards `(...)`."""

    def __init__(self, factors: int, hidden: Sequence[int]) -> None:
        super().__init__()
        self.norm = RunningNorm(factors)
        sizes = [factors, *hidden]
        layers: list[nn.Module] = []
        for before, after in zip(sizes[:-1], sizes[1:], strict=True):
            layers += [nn.Linear(before, after), nn.Tanh()]
        self.layers = nn.Sequential(*layers, nn.Linear(sizes[-1], 1))

    def forward(self, factors: Tensor) -> Tensor:
        return self.layers(self.norm(factors)).squeeze(-1)


def _packed(rows: Sequence[np.ndarray | None]) -> dict[str, np.ndarray]:
    """Arrays of differing length as one."""
    lengths = np.array([0 if r is None else len(r) for r in rows], np.int64)
    kept = [r for r in rows if r is not None and len(r)]
    whole = np.concatenate(kept).astype(np.float64) if kept else np.zeros((0, 1))
    return {"lengths": lengths, "rows": whole}


def _unpacked(state: Mapping[str, Any]) -> list[np.ndarray]:
    ends = np.cumsum(np.asarray(state["lengths"]))[:-1]
    return np.split(np.asarray(state["rows"]), ends) if len(state["lengths"]) else []
