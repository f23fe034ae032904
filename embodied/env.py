"""The only step loop: a task in a simulator, N worlds at once, and what every world needs.

`Stepper` is the contract that the collector runs on; `TaskEnv` is the one for our own tasks.
Inner worlds never reset themselves: `step` returns the true successor of every world, and
`reset(mask)` starts the finished ones anew. Gymnasium's autoreset modes are views on that
(`embodied.gym_view`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import gymnasium as gym
import numpy as np

from embodied.errors import UserError
from embodied.random import Draw, world_seeds
from embodied.randomise import Randomisation
from embodied.sim import Rows, Sim
from embodied.task import Task
from embodied.types import ACTION_FAULT, PHYSICS_FAULT, ActionSpec, Array, Carry, Obs, Step


class Stepper(Protocol):
    """N worlds that step together, as the collector sees them."""

    name: str
    num_worlds: int
    max_steps: int
    observation_space: gym.spaces.Dict  # of one world
    instructions: tuple[str, ...]
    """What each world is to do, in words; empty where nobody says."""
    exact_resume: bool
    """Whether `state_dict` holds all there is: a resumed run then equals an uninterrupted one."""

    @property
    def action_space(self) -> gym.Space:
        """Of one world."""

    @property
    def action_spec(self) -> ActionSpec | None:
        """What an action is; None where it is not a vector of numbers."""

    def reset(self, mask: Array | None = None, seed: Array | int | None = None) -> Obs:
        """Start new episodes in the worlds of `mask` (all by default); observations of all."""

    def step(self, action: Array) -> Step: ...

    def stagger(self) -> bool:
        """Give the running episodes limits of differing length; False where that cannot be."""

    def readouts(self) -> dict[str, Array]:
        """Further `(N, ...)` quantities that reward models may declare they need."""

    def render(self, camera: str | None, ids: Array, height: int, width: int) -> np.ndarray:
        """Images of some worlds, `(n, height, width, 3)` uint8."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...

    def close(self) -> None: ...


class TaskEnv:
    """A `Task` in a `Sim`: limits, delay, noise, faults, resets.

    A step clamps the action to its limits and delays it, asks the task for controls, steps the
    physics, and collects named reward terms. An action or a physics that is not finite ends that
    world's episode (`truncated`, with its `fault`), shows the previous observation, and pays 0.
    World i draws from seed `seed + first_world + i` alone.
    """

    def __init__(
        self,
        task: Task,
        sim: Sim,
        max_steps: int | None = None,
        seed: int = 0,
        first_world: int = 0,
        randomise: Randomisation | None = None,
    ) -> None:
        lacking = task.readouts & sim.missing
        if lacking:
            raise UserError(f"{task.name} needs readouts this sim lacks: {sorted(lacking)}")
        self.task, self.sim, self.name = task, sim, task.name
        self.num_worlds = n = sim.num_worlds
        self.exact_resume = getattr(sim, "exact_resume", True)
        self.instructions = task.instructions[:1] * n
        self.max_steps = task.max_steps if max_steps is None else max_steps
        if self.max_steps < 1:
            raise UserError(f"env.max_steps={max_steps}: give a whole number >= 1")
        self.substeps = max(1, round(1.0 / (task.rate_hz * sim.timestep_s)))
        self.randomise = randomise or Randomisation()
        self._nominal = self.randomise.nominal(sim)
        self.first_world = first_world
        task.bind(sim)
        self.action_spec = spec = task.action_spec(sim)
        xp, dev = sim.xp, sim.device
        self._low = xp.asarray(spec.low, device=dev)
        self._high = xp.asarray(spec.high, device=dev)
        self._weights = {k: float(v) for k, v in task.weights.items()}
        self._seed = xp.asarray(world_seeds(seed, n, first_world), device=dev)
        self._episode = xp.full(n, -1, dtype=xp.int64, device=dev)
        self._drawn = xp.full(n, -1, dtype=xp.int64, device=dev)  # see _starts
        self._elapsed = xp.zeros(n, dtype=xp.int64, device=dev)
        self._delay = xp.zeros(n, dtype=xp.int64, device=dev)
        self._queue = xp.zeros(
            (self.randomise.max_delay_steps, n, spec.size), dtype=xp.float32, device=dev
        )
        self._worlds = xp.arange(n, dtype=xp.int64, device=dev)
        self._fresh: Carry = task.memory(sim)
        self.memory: Carry = dict(self._fresh)
        self._obs: Obs = {}
        self.reset()
        self.observation_space = gym.spaces.Dict({k: _box(v) for k, v in self._obs.items()})
        self.action_space = gym.spaces.Box(spec.low, spec.high, dtype=np.float32)

    def reset(self, mask: Array | None = None, seed: Array | int | None = None) -> Obs:
        xp, sim = self.sim.xp, self.sim
        if seed is not None:
            seeds = seed
            if np.ndim(seed) == 0:
                seeds = world_seeds(seed, self.num_worlds, self.first_world)
            new = xp.asarray(seeds, dtype=xp.int64, device=sim.device)
            fresh = xp.full_like(self._episode, -1)
            self._seed = new if mask is None else xp.where(mask, new, self._seed)
            self._episode = fresh if mask is None else xp.where(mask, fresh, self._episode)
            self._drawn = xp.full_like(self._episode, -1)
        which = self._which(mask)
        if not sim.masked and which.shape[0] == 0:
            return self._obs
        self._episode = self._put(self._episode, which, self._episode + 1)
        self._elapsed = self._put(self._elapsed, which, xp.zeros_like(self._elapsed))
        rows, parameters, memory, delay = self._starts(which)
        if parameters:
            sim.set_parameters(self._of(parameters, which), which)
        sim.reset(self._of(rows, which), which)
        if self.randomise.max_delay_steps:
            self._delay = self._put(self._delay, which, delay)
            self._queue = xp.stack([self._put(q, which, xp.zeros_like(q)) for q in self._queue])
        for key, value in self.memory.items():
            self.memory[key] = self._put(value, which, memory.get(key, self._fresh[key]))
        self._obs = self._observe()
        return self._obs

    def _which(self, mask: Array | None) -> Array:
        """The worlds of `mask` as the sim takes them: as a mask, or as their numbers."""
        xp, sim = self.sim.xp, self.sim
        if not sim.masked:
            return self._worlds if mask is None else xp.nonzero(mask)[0]
        return xp.ones(self.num_worlds, dtype=xp.bool, device=sim.device) if mask is None else mask

    def _put(self, old: Array, which: Array, new: Array) -> Array:
        """`old` with the rows of `new` in some worlds; a step handed out before may share `old`."""
        xp = self.sim.xp
        if self.sim.masked:
            return xp.where(xp.reshape(which, (-1,) + (1,) * (old.ndim - 1)), new, old)
        out = xp.asarray(old, copy=True)
        out[which] = new[which]
        return out

    def _of(self, rows: Rows, which: Array) -> Rows:
        return rows if self.sim.masked else {k: v[which] for k, v in rows.items()}

    def _starts(self, which: Array) -> tuple[Rows, Rows, Carry, Array]:
        """How the episodes that begin in some worlds start: rows of all worlds, `(N, ...)`.

        They depend on seed and episode alone, so they are drawn for all worlds at once. On the
        host that is done one episode ahead, and again when a world has used up its own: drawing
        for the few worlds that finish in a step would cost as much, at every step.
        """
        xp = self.sim.xp
        if self.sim.masked:
            return self._draw_starts(Draw(self._seed, self._episode))
        if xp.any(self._drawn[which] != self._episode[which]):
            self._drawn = self._episode + 1
            self._drawn[which] -= 1
            self._ahead = self._draw_starts(Draw(self._seed, self._drawn))
        return self._ahead

    def _draw_starts(self, draw: Draw) -> tuple[Rows, Rows, Carry, Array]:
        rows, parameters, memory = self.task.reset(self.sim, draw)
        parameters = self.randomise.parameters(self._nominal, draw, parameters)
        return rows, parameters, memory, self.randomise.delays(draw)

    def step(self, action: Array) -> Step:
        task, sim, xp = self.task, self.sim, self.sim.xp
        action, bad_action = self._execute(action)
        control, memory = task.control(sim, action, self.memory)
        before = task.before(sim)
        sim.step(control, self.substeps)
        terms, self.memory = task.reward(sim, action, before, memory)
        self._elapsed = self._elapsed + 1
        reward = self._weigh(terms)
        obs = self._observe()
        terminated = task.terminated(sim, self.memory)
        success = task.success(sim, self.memory)
        truncated = (self._elapsed >= self.max_steps) & ~terminated
        fault = xp.zeros(self.num_worlds, dtype=xp.int8, device=sim.device)
        step = Step(obs, reward, terms, terminated, truncated, success, fault, action)
        broken = sim.faults()
        if sim.masked or bad_action is not None or xp.any(broken):
            self._mark_faults(step, bad_action, broken)
        self._obs = step.obs
        return step

    def carried(self) -> dict[str, Array]:
        """What lives from step to step beside the sim, by name, `(N, ...)` each but the queue."""
        return {
            **{name: getattr(self, f"_{name}") for name in _CARRIED},
            **{f"memory/{key}": value for key, value in self.memory.items()},
            **{f"obs/{key}": value for key, value in self._obs.items()},
        }

    def take_up(self, carried: Mapping[str, Array]) -> None:
        """Go on with what was `carried`."""
        for name in _CARRIED:
            setattr(self, f"_{name}", carried[name])
        self.memory = {key: carried[f"memory/{key}"] for key in self.memory}
        self._obs = {key: carried[f"obs/{key}"] for key in self._obs}

    def stagger(self) -> bool:
        xp = self.sim.xp
        played = Draw(self._seed, self._episode).integers("stagger", (), self.max_steps)
        self._elapsed = xp.maximum(self._elapsed, played)
        return True

    def readouts(self) -> dict[str, Array]:
        """Those of the task, and its `quantities` as "world.NAME"."""
        world = self.task.world(self.sim, self.memory)
        told = {f"world.{q.name}": world[q.name] for q in self.task.quantities}
        return {**self.task.readout(self.sim, self.memory), **told}

    def expert(self, flaw: str | None = None) -> Array:
        """The scripted expert's action in every world, `(N, A)`."""
        return self.task.expert(self.sim, self.memory, self._draw(), flaw)

    def render(self, camera: str | None, ids: Array, height: int, width: int) -> np.ndarray:
        if camera is None:
            camera = self.task.cameras[0] if self.task.cameras else "track"
        return self.sim.render(camera, ids, height, width)

    def _execute(self, action: Array) -> tuple[Array, Array | None]:
        """The action that reaches the robot, and which worlds got one that is not finite."""
        xp = self.sim.xp
        action = xp.asarray(action, dtype=xp.float32, device=self.sim.device)
        if tuple(action.shape) != (self.num_worlds, self.action_spec.size):
            want = (self.num_worlds, self.action_spec.size)
            raise ValueError(f"action has shape {tuple(action.shape)}, expected {want}")
        bad = None
        finite = xp.isfinite(action)
        if self.sim.masked or not xp.all(finite):
            bad = ~xp.all(finite, axis=-1)
            action = xp.where(bad[:, None], xp.zeros_like(action), action)
        action = xp.minimum(xp.maximum(action, self._low), self._high)
        depth = self.randomise.max_delay_steps
        if depth:
            history = xp.concat([action[None], self._queue], axis=0)
            self._queue = history[:depth]
            action = history[self._delay, self._worlds]
        return action, bad

    def _weigh(self, terms: dict[str, Array]) -> Array:
        reward = None
        for name, value in terms.items():
            weight = self._weights.get(name, 1.0)
            part = value if weight == 1.0 else weight * value
            reward = part if reward is None else reward + part
        return reward

    def _observe(self) -> Obs:
        obs = self.task.observe(self.sim, self.memory)
        return self.randomise.noisy(obs, self._draw()) if self.randomise.obs_noise else obs

    def _draw(self) -> Draw:
        return Draw(self._seed, self._episode).at(self._elapsed)

    def _mark_faults(self, step: Step, bad_action: Array | None, broken: Array) -> None:
        xp = self.sim.xp
        step.fault = xp.where(broken, PHYSICS_FAULT, step.fault)
        if bad_action is not None:
            step.fault = xp.where(bad_action, ACTION_FAULT, step.fault)
        fault = step.fault != 0
        step.terminated = step.terminated & ~fault
        step.truncated = step.truncated | fault
        step.success = step.success & ~fault
        step.reward = xp.where(fault, xp.zeros_like(step.reward), step.reward)
        step.reward_terms = {
            k: xp.where(fault, xp.zeros_like(v), v) for k, v in step.reward_terms.items()
        }
        for key, value in step.obs.items():
            mask = xp.reshape(fault, (-1,) + (1,) * (value.ndim - 1))
            step.obs[key] = xp.where(mask, self._obs[key], value)

    def state_dict(self) -> dict[str, Any]:
        def copy(value: Array) -> Array:
            return self.sim.xp.asarray(value, copy=True)

        return {
            "sim": self.sim.state_dict(),
            "memory": {k: copy(v) for k, v in self.memory.items()},
            "obs": {k: copy(v) for k, v in self._obs.items()},
            **{name: copy(getattr(self, f"_{name}")) for name in _CARRIED},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        xp, dev = self.sim.xp, self.sim.device

        def array(value: Any, like: Array) -> Array:
            value = xp.asarray(value, device=dev)
            if value.shape != like.shape:
                raise UserError(
                    f"the checkpoint is of another {self.name}: {tuple(value.shape)} where this "
                    f"env has {tuple(like.shape)} (same num_envs and settings are needed)"
                )
            return xp.asarray(value, copy=True)

        self._seed = array(state["seed"], self._seed)
        self._episode = array(state["episode"], self._episode)
        self._elapsed = array(state["elapsed"], self._elapsed)
        self._drawn = xp.full_like(self._episode, -1)
        self._delay = array(state["delay"], self._delay)
        self._queue = array(state["queue"], self._queue)
        self.memory = {k: array(state["memory"][k], v) for k, v in self.memory.items()}
        self._obs = {k: array(state["obs"][k], v) for k, v in self._obs.items()}
        self.sim.load_state_dict(state["sim"])

    def close(self) -> None:
        self.sim.close()


_CARRIED = ("seed", "episode", "elapsed", "delay", "queue")


def _box(value: Array) -> gym.spaces.Box:
    shape, dtype = tuple(value.shape[1:]), np.dtype(str(value.dtype).removeprefix("torch."))
    if dtype == np.uint8:
        return gym.spaces.Box(0, 255, shape, np.uint8)
    return gym.spaces.Box(-np.inf, np.inf, shape, dtype.type)
