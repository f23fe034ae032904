"""The collector: steps a policy through the worlds and owns everything that lives between steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from embodied.agent import Policy
from embodied.env import Stepper
from embodied.errors import UserError
from embodied.late import Late
from embodied.rewards import Rewards
from embodied.rollout import Rollout, no_readout
from embodied.trust import Trust
from embodied.types import FAULTS, Array, Carry, Moment, Obs, Step, Trajectory


class Episodes:
    """Running totals of every world's episode, and the finished ones since the last `drain`."""

    def __init__(self, num_worlds: int) -> None:
        self._totals: dict[str, np.ndarray] = {
            "return": np.zeros(num_worlds),
            "length": np.zeros(num_worlds),
            "success": np.zeros(num_worlds),
        }
        self._finished: list[dict[str, np.ndarray]] = []
        self._partial = np.zeros(num_worlds, bool)

    def skip_current(self) -> None:
        """Leave the running episodes out of the figures: they were cut short on purpose."""
        self._partial[:] = True

    def add(self, step: Step, done: np.ndarray, live: np.ndarray | None = None) -> None:
        """Take in a step; of the worlds that are `live` where some rest (they pay nothing)."""
        totals = self._totals
        totals["return"] += step.reward
        totals["length"] += 1.0 if live is None else live
        np.maximum(totals["success"], step.success, out=totals["success"])
        for name, value in step.reward_terms.items():
            if f"term/{name}" not in totals:
                totals[f"term/{name}"] = np.zeros(len(done))
            totals[f"term/{name}"] += value
        if done.any():
            whole = done & ~self._partial
            if whole.any():
                self._finished.append({name: value[whole] for name, value in totals.items()})
            for value in totals.values():
                value[done] = 0.0
            self._partial &= ~done

    def drain(self) -> dict[str, np.ndarray]:
        """Totals of the episodes finished since the last call, one array a figure."""
        finished, self._finished = self._finished, []
        names = finished[-1] if finished else ()
        return {name: np.concatenate([f[name] for f in finished if name in f]) for name in names}

    def state_dict(self) -> dict[str, Any]:
        return {
            "totals": {name: value.copy() for name, value in self._totals.items()},
            "finished": list(self._finished),
            "partial": self._partial.copy(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._totals = {k: np.array(v) for k, v in state["totals"].items()}
        self._finished = [{k: np.array(v) for k, v in row.items()} for row in state["finished"]]
        self._partial = np.array(state["partial"])


class Seen(Protocol):
    """What was seen of a rollout that no policy may see, `(T, N)` each."""

    fault: Array
    episode_step: Array
    success: Array
    env_reward: Array


class Transform(Protocol):
    """Rewrites rollouts of whole episodes before they are rewarded."""

    readouts: frozenset[str]

    def __call__(self, traj: Trajectory) -> Trajectory: ...


class Collector:
    """Rolls out a policy and labels what it did.

    `collect` hands back `(T, N)` trajectories in which time never skips: the next call goes on
    where this one stopped. A faulted step is kept, marked invalid; when more than
    `max_fault_rate` of a rollout's steps are faults, or of a reward model's verdicts are failures
    or abstentions, the run stops, since nothing sound is left to learn from. With `stagger` the
    first episodes get limits of differing length, so that worlds do not stay in step and every
    rollout sees all parts of an episode.
    """

    def __init__(
        self,
        env: Stepper,
        rewards: Rewards,
        max_fault_rate: float = 0.1,
        stagger: bool = False,
        transform: Transform | None = None,
    ) -> None:
        self.env, self.rewards, self.max_fault_rate = env, rewards, max_fault_rate
        self.transform = transform
        self.stagger = stagger
        self.episodes = Episodes(env.num_worlds)
        self.trust = Trust(env.num_worlds) if rewards.learned and not rewards.lag else None
        self.faults = 0
        self.steps = 0  # of every world together
        self._obs: Obs | None = None
        self._carry: Carry = {}
        self._is_first = np.ones(env.num_worlds, bool)
        self._episode_step = np.zeros(env.num_worlds, np.int64)
        self._fresh = False  # all worlds have just begun

    def start(self, policy: Policy, stagger: bool = True) -> None:
        """Begin episodes in all worlds.

        Raises `UserError` where a reward model cannot begin, or needs what the env does not give.
        """
        self._obs = self.env.reset()
        given = {"reward", "success", *self.env.readouts()}
        for name in self.rewards.readouts - given:
            if not name.startswith("term/"):  # those are known after a step
                raise no_readout(name, given)
        if self.stagger and stagger and self.env.stagger():
            self.episodes.skip_current()
        self._carry = policy.carry(self.env.num_worlds)
        self._is_first[:] = True
        self._episode_step[:] = 0
        everyone = np.arange(self.env.num_worlds)
        images = {
            camera: self.env.render(camera, everyone, size, size)
            for camera, size in self.rewards.cameras.items()
        }
        self.rewards.begin(Moment(self._obs, images, self.env.instructions))
        self._fresh = True

    def collect(self, policy: Policy, steps: int | None) -> Trajectory:
        """The next `steps` steps of all worlds, with rewards; or, for None, one whole episode of
        each: see `collect_episodes`.

        Raises `UserError` when too many steps fault, or a reward model cannot judge too many.
        """
        if steps is None:
            return self.collect_episodes(policy)
        if self._obs is None:
            self.start(policy)
        self._fresh = False
        env, rollout = self.env, Rollout(self.env, steps, self.rewards)
        obs, carry = self._obs, self._carry
        assert obs is not None
        for t in range(steps):
            carry, action = policy.act(carry, obs)
            rollout.before(t, obs, action, self._is_first, self._episode_step)
            step = env.step(action)
            done = step.terminated | step.truncated
            rollout.after(t, step, done)
            self.episodes.add(step, done)
            obs = step.obs
            self._is_first = done
            if done.any():
                obs = env.reset(done)
                carry = _restart(carry, policy, done)
                self._episode_step = np.where(done, 0, self._episode_step + 1)
            else:
                self._episode_step = self._episode_step + 1
        self._obs, self._carry = obs, carry
        return self._labelled(rollout.trajectory(obs, self.steps), rollout)

    def collect_episodes(self, policy: Policy) -> Trajectory:
        """One whole episode of every world, `(T, N)` with T the longest of them.

        All begin anew. A world whose episode is over rests until the others' are: its further rows
        are not `valid`, and pay nothing. Raises `UserError` as `collect` does.
        """
        if not self._fresh:
            self.start(policy, stagger=False)
        env, self._fresh = self.env, False
        rollout = Rollout(env, env.max_steps, self.rewards)
        if self.transform is not None:
            rollout.wanted |= self.transform.readouts
        obs, carry, made = self._obs, self._carry, 0
        assert obs is not None
        live = np.ones(env.num_worlds, bool)
        while live.any():
            t, worlds = made, np.flatnonzero(live)
            mine, chosen = policy.act(_rows(carry, worlds), _rows(obs, worlds))
            action = np.zeros((env.num_worlds, *chosen.shape[1:]), chosen.dtype)
            action[worlds] = chosen
            for key, value in mine.items():
                carry[key][worlds] = value
            age = np.full(env.num_worlds, t)
            rollout.before(t, obs, action, np.full(env.num_worlds, t == 0), age)
            rollout.tell(t, worlds, getattr(policy, "extras", {}))
            step = _only(env.step(action), live)
            done = step.terminated | step.truncated
            rollout.live[t] = live
            rollout.after(t, step, done)
            self.episodes.add(step, done, live)
            obs, live, made = step.obs, live & ~done, made + 1
        rollout.cut(made)
        self._is_first[:] = True
        traj = rollout.trajectory(obs, self.steps)
        traj = self.transform(traj) if self.transform is not None else traj
        return self._labelled(traj, rollout, int(rollout.live.sum()))

    def _labelled(self, traj: Trajectory, seen: Seen, steps: int | None = None) -> Trajectory:
        """A rollout of so many steps (all) with rewards, counted and checked."""
        self.steps += traj.reward.size if steps is None else steps
        self._check_faults(seen.fault)
        before = dict(self.rewards.counts)
        self.rewards.label(traj, seen.episode_step)
        self._check_judges(before)
        if self.trust is not None:
            judged, verdict = self.rewards.judged, self.rewards.verdict
            self.trust.add(traj, judged, seen.success, verdict, seen.env_reward)
        return traj

    def arrived(self) -> list[Late]:
        """The labels of earlier steps that are known by now.

        Raises `UserError` where a reward model could not judge too many.
        """
        before = dict(self.rewards.counts)
        found = self.rewards.arrived(self.steps // self.env.num_worlds)
        self._check_judges(before)
        return found

    def _check_faults(self, fault: np.ndarray) -> None:
        count = int(np.count_nonzero(fault))
        self.faults += count
        if count > self.max_fault_rate * fault.size:
            codes = np.bincount(fault.reshape(-1), minlength=len(FAULTS))
            why = FAULTS[int(np.argmax(codes[1:])) + 1]
            raise UserError(
                f"{count} of {fault.size} steps faulted ({why}), more than "
                f"max_fault_rate={self.max_fault_rate}: nothing sound is left to learn from"
            )

    def _check_judges(self, before: Mapping[str, int]) -> None:
        told = {status: count - before[status] for status, count in self.rewards.counts.items()}
        asked = sum(told.values()) - told["silent"]
        for status in ("failed", "abstained"):
            if told[status] > self.max_fault_rate * asked:
                raise UserError(
                    f"the reward models {status} on {told[status]} of {asked} steps, more than "
                    f"max_fault_rate={self.max_fault_rate}: nothing sound is left to learn from"
                )

    def state_dict(self) -> dict[str, Any]:
        return {
            "env": self.env.state_dict(),
            "rewards": self.rewards.state_dict(),
            "episodes": self.episodes.state_dict(),
            "obs": self._obs,
            "carry": dict(self._carry),
            "is_first": self._is_first,
            "episode_step": self._episode_step,
            "steps": self.steps,
            "faults": self.faults,
            "trust": None if self.trust is None else self.trust.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state; an env without an exact one restarts its episodes."""
        self.steps, self.faults = int(state["steps"]), int(state["faults"])
        self.env.load_state_dict(state["env"])
        self.rewards.load_state_dict(state["rewards"])
        if not self.env.exact_resume or state["obs"] is None:
            return  # `collect` starts
        self.episodes.load_state_dict(state["episodes"])
        if self.trust is not None:
            self.trust.load_state_dict(state["trust"])
        self._obs = {k: np.array(v) for k, v in state["obs"].items()}
        self._carry = {k: np.array(v) for k, v in state["carry"].items()}
        self._is_first = np.array(state["is_first"])
        self._episode_step = np.array(state["episode_step"])


def _rows(values: dict[str, Array], which: Array) -> dict[str, Array]:
    return {key: value[which] for key, value in values.items()}


def _only(step: Step, live: Array) -> Step:
    """A step as it is for the worlds that are live; the others rest."""
    if live.all():
        return step
    return replace(
        step,
        reward=np.where(live, step.reward, 0.0),
        reward_terms={name: np.where(live, v, 0.0) for name, v in step.reward_terms.items()},
        terminated=step.terminated & live,
        truncated=step.truncated & live,
        success=step.success & live,
        fault=np.where(live, step.fault, 0).astype(np.int8),
    )


def _restart(carry: Carry, policy: Policy, done: Array) -> Carry:
    """The carry with the worlds of `done` as at an episode's start."""
    if not carry:
        return carry
    fresh = policy.carry(len(done))
    return {
        k: np.where(done.reshape(-1, *(1,) * (v.ndim - 1)), fresh[k], v) for k, v in carry.items()
    }
