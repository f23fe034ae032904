"""A toy to test on, in NumPy alone: points steer to a goal. And rollouts made by hand.

`embodied` finds these by `_target_` (see `conf_of_toys`), as it finds anybody's own package.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import array_api_compat.numpy
import numpy as np

from embodied.checkpoint import load_checkpoint, save_checkpoint
from embodied.env import TaskEnv
from embodied.random import Draw
from embodied.reward_model import Needs
from embodied.sim import ModelSource
from embodied.task import Flaw, Task
from embodied.types import SCORED, Array, Carry, Moment, Obs, Score, Trajectory


class PointSim:
    """Points in `dims` dimensions whose control is their velocity, beside a goal that rests."""

    xp: Any = array_api_compat.numpy
    device, timestep_s, missing, masked = None, 0.1, frozenset(), False

    def __init__(self, source: ModelSource, num_worlds: int) -> None:
        dims = int(source.xml)
        self.num_worlds = num_worlds
        self.qpos, self.goal = np.zeros((num_worlds, dims)), np.zeros((num_worlds, dims))
        self.control_range = np.array([[-1.0, 1.0]] * dims)

    def step(self, control: Array, substeps: int) -> None:
        self.qpos += control * self.timestep_s * substeps

    def reset(self, rows: Mapping[str, Array], ids: Array) -> None:
        self.qpos[ids], self.goal[ids] = rows["qpos"], rows["goal"]

    def faults(self) -> Array:
        return ~np.isfinite(self.qpos).all(axis=1)

    def state_dict(self) -> dict[str, Array]:
        return {"qpos": self.qpos.copy(), "goal": self.goal.copy()}

    def load_state_dict(self, state: Mapping[str, Array]) -> None:
        self.qpos[:], self.goal[:] = state["qpos"], state["goal"]

    def close(self) -> None:
        pass


class Reach(Task):
    """Come within 0.1 of the goal; with `ends` that ends the episode, else its limit of 15 does."""

    name, rate_hz, max_steps = "reach_point", 10.0, 15
    weights = {"distance": -1.0, "effort": -0.01}
    flaws = (Flaw("idle", "fails"),)

    def __init__(self, dims: int = 2, ends: bool = False) -> None:
        self.dims, self.ends = dims, ends

    def model(self) -> ModelSource:
        return ModelSource(str(self.dims))

    def reset(self, sim: Any, draw: Draw) -> tuple[dict, dict, Carry]:
        return {k: draw.uniform(k, (self.dims,), -0.5, 0.5) for k in ("qpos", "goal")}, {}, {}

    def reward(self, sim: Any, action: Array, before: dict, memory: Carry) -> tuple[dict, Carry]:
        return {"distance": self._distance(sim), "effort": (action**2).sum(-1)}, memory

    def observe(self, sim: Any, memory: Carry) -> Obs:
        return {"state": np.concatenate([sim.qpos, sim.goal], axis=-1)}

    def terminated(self, sim: Any, memory: Carry) -> Array:
        return self.success(sim, memory) if self.ends else super().terminated(sim, memory)

    def success(self, sim: Any, memory: Carry) -> Array:
        return self._distance(sim) < 0.1

    def expert(self, sim: Any, memory: Carry, draw: Draw, flaw: str | None = None) -> Array:
        return np.clip((sim.goal - sim.qpos) / 0.1, -1.0, 1.0) * (flaw is None)

    def readout(self, sim: Any, memory: Carry) -> dict[str, Array]:
        return {"distance": self._distance(sim)}

    def _distance(self, sim: Any) -> Array:
        return np.linalg.norm(sim.qpos - sim.goal, axis=-1)


def reach(num_worlds: int = 4, dims: int = 2, ends: bool = False, **settings: Any) -> TaskEnv:
    task = Reach(dims, ends)
    return TaskEnv(task, PointSim(task.model(), num_worlds), **settings)


class Wander:
    """Steers by a number that its carry counts up from each episode's start."""

    def __init__(self, env: TaskEnv) -> None:
        self.action_spec = env.action_spec

    def carry(self, num_worlds: int) -> Carry:
        return {"count": np.zeros(num_worlds, np.int64)}

    def act(self, carry: Carry, obs: Obs, greedy: bool = False) -> tuple[Carry, Array]:
        turns = np.arange(self.action_spec.size) + carry["count"][:, None] + obs["state"][:, :1]
        return {"count": carry["count"] + 1}, np.sin(turns).astype(np.float32)


class Nearness:
    """How near the goal is: minus the distance. Stateless."""

    kind, scope, causal, value_range = "potential", "step", True, (-4.0, 0.0)
    needs = Needs()

    def begin(self, carry: Carry, mask: Array, moment: Moment) -> tuple[Carry, Array]:
        return carry, self._value(moment.obs)

    def score(self, carry: Carry, traj: Trajectory) -> tuple[Carry, Score]:
        value = self._value(traj.next_obs)
        return carry, Score(value, np.full(value.shape, SCORED, np.int8))

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        pass

    def _value(self, obs: Obs) -> Array:
        here, goal = np.split(np.asarray(obs["state"], np.float32), 2, axis=-1)
        return -np.sqrt(((here - goal) ** 2).sum(-1))


class Nearest(Nearness):
    """The nearest that an episode has come to the goal so far: its carry remembers it."""

    def begin(self, carry: Carry, mask: Array, moment: Moment) -> tuple[Carry, Array]:
        value = self._value(moment.obs)
        return {"best": np.where(mask, value, carry.get("best", value))}, value

    def score(self, carry: Carry, traj: Trajectory) -> tuple[Carry, Score]:
        values, best = self._value(traj.next_obs), carry["best"]
        for t in range(len(values)):
            values[t] = best = np.maximum(best, values[t])
        return {"best": best}, Score(values, np.full(values.shape, SCORED, np.int8))


def rollout(
    successor: Array, start: Array, terminated: Array, truncated: Array, **readouts: Array
) -> Trajectory:
    """A trajectory by hand: `successor` and `start` are `(T, N, D)`, the ends `(T, N)` bool.

    `start[t]` is what an episode begins with whose first step is t; all begin at step 0.
    """
    steps, worlds, _ = successor.shape
    terminated, truncated = np.asarray(terminated, bool), np.asarray(truncated, bool)
    done = terminated | truncated
    is_first = np.concatenate([np.ones((1, worlds), bool), done[:-1]])
    before = np.concatenate([start[:1], successor[:-1]])
    index = np.full((steps, worlds), -1, np.int64)
    index[done] = np.arange(done.sum())
    return Trajectory(
        obs={"state": np.where(is_first[..., None], start, before).astype(np.float32)},
        last_obs={"state": successor[-1].astype(np.float32)},
        action=np.zeros((steps, worlds, 1), np.float32),
        action_executed=np.zeros((steps, worlds, 1), np.float32),
        reward=np.zeros((steps, worlds), np.float32),
        reward_terms={},
        terminated=terminated,
        truncated=truncated,
        is_first=is_first,
        valid=np.ones((steps, worlds), bool),
        step_id=np.arange(steps * worlds, dtype=np.int64).reshape(steps, worlds),
        final_index=index,
        final_obs={"state": successor[done].astype(np.float32)},
        readouts=readouts,
    )


def episode_step(traj: Trajectory) -> Array:
    """Each step's number in its episode, `(T, N)`."""
    count, rows = np.zeros(traj.shape[1], np.int64), []
    for first in traj.is_first:
        count = np.where(first, 0, count + 1)
        rows.append(count)
    return np.stack(rows)


def chunks(traj: Trajectory, length: int) -> list[Trajectory]:
    return [traj.slice(t, min(t + length, traj.shape[0])) for t in range(0, traj.shape[0], length)]


def through_disk(state: Any, folder: Path) -> Any:
    """A state as a checkpoint gives it back: nothing is shared with what was saved."""
    return load_checkpoint(save_checkpoint(folder / "through_disk", state, step=0)).state


def conf_of_toys(folder: Path) -> Path:
    """A `--config-dir` with the options env=point, sim=points and reward_model=near."""
    options = {
        "env/point": "name: point\ntask:\n  _target_: tests.toys.Reach\n",
        "sim/points": "_target_: tests.toys.PointSim\n",
        "reward_model/near": "# @package reward_model.near\n_target_: tests.toys.Nearness\n"
        "weight: 1.0\nshaping: delta\nevery: 1\n",
    }
    for name, text in options.items():
        file = folder / f"{name}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return folder
