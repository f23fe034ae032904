"""The arrays of one rollout, filled step by step, and the images that reward models ask for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from embodied.env import Stepper
from embodied.errors import UserError
from embodied.rewards import Rewards
from embodied.text_space import TEXT
from embodied.types import Array, Frames, Obs, Step, Trajectory


class Rollout:
    """The arrays of one rollout, filled step by step."""

    def __init__(self, env: Stepper, steps: int, rewards: Rewards) -> None:
        n = env.num_worlds
        self.env, self.rewards = env, rewards
        self.film = {camera: _Film(steps, n) for camera in rewards.cameras}
        self.obs = {
            key: np.empty((steps, n, *(box.shape or ())), _stored(box.dtype))
            for key, box in env.observation_space.spaces.items()
        }
        self.action: np.ndarray | None = None
        self.executed: np.ndarray | None = None
        self.terminated = np.empty((steps, n), bool)
        self.truncated = np.empty((steps, n), bool)
        self.fault = np.empty((steps, n), np.int8)
        self.is_first = np.empty((steps, n), bool)
        self.episode_step = np.empty((steps, n), np.int64)
        self.final_index = np.full((steps, n), -1, np.int64)
        self.finals: list[Obs] = []
        self.num_finals = 0
        self.wanted = rewards.readouts
        self.success = np.zeros((steps, n), bool)
        self.env_reward = np.zeros((steps, n), np.float32)
        self.readouts: dict[str, np.ndarray] = {}
        self.extras: dict[str, np.ndarray] = {}
        self.live = np.ones((steps, n), bool)

    def before(self, t: int, obs: Obs, action: Array, is_first: Array, episode_step: Array) -> None:
        for key, buffer in self.obs.items():
            buffer[t] = obs[key]
        if self.action is None:
            self.action = np.empty((len(self.fault), *action.shape), action.dtype)
            self.executed = np.empty_like(self.action)
        self.action[t] = action
        self.is_first[t] = is_first
        self.episode_step[t] = episode_step
        if self.film and is_first.any():
            for camera, film in self.film.items():
                film.first[t, is_first] = self._take(camera, is_first)

    def tell(self, t: int, worlds: Array, extras: Mapping[str, Array]) -> None:
        """Keep what a policy tells of its actions in some worlds, `(n,)` each."""
        for name, values in extras.items():
            if name not in self.extras:
                self.extras[name] = np.empty(self.fault.shape, np.asarray(values).dtype)
            self.extras[name][t, worlds] = values

    def cut(self, steps: int) -> None:
        """Only so many steps were made."""
        for part in (self.obs, self.readouts, self.extras):
            part.update({name: value[:steps] for name, value in part.items()})
        for name in _ROWS:
            setattr(self, name, getattr(self, name)[:steps])
        for film in self.film.values():
            film.index, film.first = film.index[:steps], film.first[:steps]

    def after(self, t: int, step: Step, done: Array) -> None:
        assert self.executed is not None
        self.executed[t] = step.action_executed
        self.terminated[t] = step.terminated
        self.truncated[t] = step.truncated
        self.fault[t] = step.fault
        self.success[t] = step.success
        self.env_reward[t] = step.reward
        if self.wanted:
            self._read(t, step)
        for camera, film in self.film.items():
            shown = self.rewards.shown(camera, self.episode_step[t], done)
            if shown.any():
                film.index[t, shown] = self._take(camera, shown)
        if done.any():
            worlds = np.flatnonzero(done)
            self.finals.append({key: step.obs[key][worlds] for key in self.obs})
            self.final_index[t, worlds] = self.num_finals + np.arange(len(worlds))
            self.num_finals += len(worlds)

    def _take(self, camera: str, worlds: Array) -> Array:
        """Render the worlds of a mask as they are now; the rows their images get."""
        film, size = self.film[camera], self.rewards.cameras[camera]
        images = self.env.render(camera, np.flatnonzero(worlds), size, size)
        film.images.append(images)
        film.count += len(images)
        return np.arange(film.count - len(images), film.count)

    def _read(self, t: int, step: Step) -> None:
        """Keep the readouts that some reward model declares it needs."""
        given: dict[str, Array] = {"reward": step.reward, "success": step.success}
        given |= {f"term/{name}": value for name, value in step.reward_terms.items()}
        if not self.wanted <= given.keys():
            given |= self.env.readouts()
        for name in self.wanted:
            if name not in given:
                raise no_readout(name, given)
            value = given[name]
            if name not in self.readouts:
                self.readouts[name] = np.empty((len(self.fault), *value.shape), value.dtype)
            self.readouts[name][t] = value

    def trajectory(self, last_obs: Obs, first_step: int) -> Trajectory:
        steps, worlds = self.fault.shape
        assert self.action is not None and self.executed is not None
        final_obs = {
            key: np.concatenate([f[key] for f in self.finals]).astype(buffer.dtype)
            if self.finals
            else np.empty((0, *buffer.shape[2:]), buffer.dtype)
            for key, buffer in self.obs.items()
        }
        ids = np.arange(steps * worlds, dtype=np.int64).reshape(steps, worlds)
        return Trajectory(
            obs=self.obs,
            last_obs={k: np.array(last_obs[k], b.dtype) for k, b in self.obs.items()},
            action=self.action,
            action_executed=self.executed,
            reward=np.zeros((steps, worlds), np.float32),
            reward_terms={},
            terminated=self.terminated,
            truncated=self.truncated,
            is_first=self.is_first,
            valid=(self.fault == 0) & self.live,
            step_id=first_step + ids,
            final_index=self.final_index,
            final_obs=final_obs,
            due=None if self.live.all() else self.live,
            instructions=self.env.instructions,
            group=getattr(self.env, "group", None),
            readouts=self.readouts,
            extras=self.extras,
            frames={camera: film.frames() for camera, film in self.film.items()},
        )


_ROWS = (
    "action executed terminated truncated fault is_first episode_step final_index success "
    "env_reward live"
).split()


class _Film:
    """One camera's images of a rollout, in the order they were taken."""

    def __init__(self, steps: int, num_worlds: int) -> None:
        self.images: list[np.ndarray] = []
        self.count = 0
        self.index = np.full((steps, num_worlds), -1, np.int64)
        self.first = np.full((steps, num_worlds), -1, np.int64)

    def frames(self) -> Frames:
        images = self.images or [np.empty((0, 1, 1, 3), np.uint8)]
        return Frames(np.concatenate(images), self.index, self.first)


def no_readout(name: str, given: Iterable[str]) -> UserError:
    return UserError(f"the env gives no readout {name!r}; it gives: {', '.join(sorted(given))}")


def _stored(dtype: np.dtype | type | None) -> Any:
    """Observations are kept in single precision, images in bytes, texts as they are."""
    if dtype is not None and issubclass(np.dtype(dtype).type, np.str_):
        return TEXT
    return np.dtype(np.float32) if np.issubdtype(dtype, np.floating) else np.dtype(dtype)
