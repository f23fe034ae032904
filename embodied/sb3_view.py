"""A `Stepper` as Stable-Baselines3 sees it: a `VecEnv` whose worlds restart by themselves."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecEnv

from embodied.collect import Episodes
from embodied.env import Stepper
from embodied.gym_view import ObsView, checked_render_mode, fresh

Indices = None | int | Iterable[int]


class SB3View(VecEnv):
    """N worlds for any algorithm of Stable-Baselines3: `PPO("MlpPolicy", SB3View(env))`.

    Observations are an array where there is only "state", else a dict (`MultiInputPolicy`); `keys`
    restricts them. Infos are empty but where an episode ends; there they hold what SB3 reads:
    `terminal_observation`, `TimeLimit.truncated`, `is_success`, `episode` (as from a `Monitor`,
    with the sum of every reward term), and our `fault`. `faults` (N,) are those of the last step.
    """

    def __init__(
        self, env: Stepper, keys: Sequence[str] | None = None, render_mode: str | None = None
    ) -> None:
        self.env, self._view = env, ObsView(env.observation_space, keys)
        self._render_mode = checked_render_mode(render_mode)
        super().__init__(env.num_worlds, self._view.space, env.action_space)
        self.faults = np.zeros(env.num_worlds, np.int8)
        self._episodes = Episodes(env.num_worlds)
        self._started_s = np.full(env.num_worlds, time.perf_counter())
        self._empty: list[dict[str, Any]] = [{} for _ in range(env.num_worlds)]
        self._actions: np.ndarray | None = None

    def reset(self) -> Any:
        given = [seed for seed in self._seeds if seed is not None]
        seeds = np.array(given, np.int64) if len(given) == self.num_envs else None
        self._reset_seeds()
        self._reset_options()
        self._episodes = Episodes(self.num_envs)
        self._started_s[:] = time.perf_counter()
        return self._view(self.env.reset(seed=seeds))

    def step_async(self, actions: np.ndarray) -> None:
        self._actions = np.reshape(actions, (self.num_envs, -1))

    def step_wait(self) -> tuple[Any, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        assert self._actions is not None, "call step_async before step_wait"
        step, self._actions = self.env.step(self._actions), None
        self.faults = fresh(step.fault)
        done = fresh(step.terminated) | fresh(step.truncated)
        self._episodes.add(step, done)
        infos, obs = self._empty.copy(), step.obs
        if done.any():
            last, terminated = self._view(obs), fresh(step.terminated)
            finished, now_s = self._episodes.drain(), time.perf_counter()
            for k, i in enumerate(np.flatnonzero(done)):
                episode = {name: float(value[k]) for name, value in finished.items()}
                episode |= {"r": episode.pop("return"), "l": int(episode.pop("length"))}
                infos[i] = {
                    "terminal_observation": _row(last, int(i)),
                    "TimeLimit.truncated": not terminated[i],
                    "is_success": bool(episode["success"]),
                    "fault": int(self.faults[i]),
                    "episode": episode | {"t": round(now_s - self._started_s[i], 6)},
                }
            self._started_s[done] = now_s
            obs = self.env.reset(done)
        return self._view(obs), fresh(step.reward).astype(np.float32), done, infos

    def get_images(self) -> Sequence[np.ndarray | None]:
        return list(self.env.render(None, np.arange(self.num_envs), 480, 480))

    def close(self) -> None:
        self.env.close()

    def get_attr(self, attr_name: str, indices: Indices = None) -> list[Any]:
        """An attribute of the batch, the same for every world."""
        own = {"render_mode": self._render_mode}
        value = own[attr_name] if attr_name in own else getattr(self.env, attr_name)
        return [value for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Indices = None) -> None:
        if list(self._get_indices(indices)) != list(range(self.num_envs)):
            raise AttributeError("the worlds of a batch share their attributes: set all at once")
        setattr(self.env, attr_name, value)

    def env_method(self, method_name: str, *args: Any, indices: Indices = None, **kw: Any) -> Any:
        raise AttributeError(f"the worlds of a batch have no methods of their own: {method_name}")

    def env_is_wrapped(self, wrapper_class: type, indices: Indices = None) -> list[bool]:
        """True for `Monitor`, since its statistics are here."""
        return [wrapper_class is Monitor for _ in self._get_indices(indices)]


def _row(obs: Any, i: int) -> Any:
    return {key: value[i] for key, value in obs.items()} if isinstance(obs, dict) else obs[i]
