"""A `Stepper` as Gymnasium sees it: `GymView` (N worlds, three autoreset modes) and `SingleEnv`.

Views: the inner worlds never reset themselves, and all that is handed out is fresh NumPy.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from embodied.env import Stepper
from embodied.errors import UserError
from embodied.random import world_seeds
from embodied.text_space import texts
from embodied.types import Array, Obs, Step

Seed = int | Sequence[int] | np.ndarray | None


class ObsView:
    """Observations as outsiders see them: of the single key "state" a plain array, else a dict.

    `keys` restricts which are shown; with `flatten=False` even a single one stays in its dict.
    """

    def __init__(
        self, space: gym.spaces.Dict, keys: Sequence[str] | None = None, flatten: bool = True
    ) -> None:
        self.keys = tuple(space.spaces if keys is None else keys)
        self.flat = flatten and self.keys == ("state",)
        shown = gym.spaces.Dict({key: space[key] for key in self.keys})
        self.space: gym.Space = space["state"] if self.flat else shown

    def __call__(self, obs: Obs) -> Any:
        """Fresh arrays `(N, ...)` in the form of `space`."""
        return fresh(obs["state"]) if self.flat else {key: fresh(obs[key]) for key in self.keys}


def fresh(value: Array) -> np.ndarray:
    """A NumPy copy of a NumPy or torch array."""
    return np.array(value.detach().cpu() if hasattr(value, "detach") else value)


class GymView(gym.vector.VectorEnv):
    """N worlds as a `gymnasium.vector.VectorEnv`.

    World i is seeded with `seed + i`, or with the i-th of a list of seeds. `infos` holds `success`
    (N,) bool, `fault` (N,) int8 (see `embodied.types.FAULTS`) and a dict `reward_terms`, each with
    its mask `_success`, ... In the mode SAME_STEP `final_obs` is dense, as the observations are:
    the true successor of every world, told by `_final_obs` to be its last; `final_info` goes with
    it. DISABLED wants `reset(options={"reset_mask": mask})` for the worlds that ended.
    """

    def __init__(
        self,
        env: Stepper,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        flatten: bool = True,
        render_mode: str | None = None,
        camera: str | None = None,
        height: int = 480,
        width: int = 480,
    ) -> None:
        modes = [mode.value for mode in AutoresetMode]
        if not isinstance(autoreset_mode, AutoresetMode) and autoreset_mode not in modes:
            raise UserError(f"autoreset_mode={autoreset_mode!r}: one of {', '.join(modes)}")
        self.env, self.mode = env, AutoresetMode(autoreset_mode)
        self.num_envs = env.num_worlds
        self.metadata = {**metadata(env), "autoreset_mode": self.mode}
        self.render_mode, self._image = checked_render_mode(render_mode), (camera, height, width)
        self._view = ObsView(env.observation_space, flatten=flatten)
        self.single_observation_space = self._view.space
        self.single_action_space = env.action_space
        self.observation_space = batch_space(self._view.space, self.num_envs)
        self.action_space = batch_space(env.action_space, self.num_envs)
        self._obs: Obs = {}
        self._ended = np.zeros(self.num_envs, bool)

    def reset(self, *, seed: Seed = None, options: dict[str, Any] | None = None) -> Any:
        """Start episodes in all worlds, or in those of `options["reset_mask"]` (N,) bool."""
        mask = self._mask(options)
        if isinstance(seed, int | np.integer):
            super().reset(seed=int(seed))
        seeds = None if seed is None else self._seeds(seed)
        if mask is None:
            self._obs = _copied(self.env.reset(seed=seeds))
            self._ended[:] = False
        else:
            if not self._obs:
                raise gym.error.ResetNeeded("reset all worlds once before some of them")
            self._put(self.env.reset(mask, seed=seeds), mask)
            self._ended[mask] = False
        return self._view(self._obs), {}

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        if not self._obs:
            raise gym.error.ResetNeeded("call reset before step")
        actions, stepped = self._actions(actions), ~self._ended
        step = self.env.step(actions)
        self._obs = _copied(step.obs)
        reward = fresh(step.reward).astype(np.float64)
        terminated, truncated = fresh(step.terminated), fresh(step.truncated)
        if not stepped.all():  # in NEXT_STEP: this step starts them anew
            self._put(self.env.reset(~stepped), ~stepped)
            reward[~stepped], terminated[~stepped], truncated[~stepped] = 0.0, False, False
        done = terminated | truncated
        info = infos(step, stepped)
        if self.mode is AutoresetMode.SAME_STEP:
            if done.any():
                info = infos(step, ~done) | masked("final_info", infos(step, done), done)
                info |= masked("final_obs", self._view(self._obs), done)
                self._put(self.env.reset(done), done)
        else:
            self._ended = done.copy()
        return self._view(self._obs), reward, terminated, truncated, info

    def render(self) -> tuple[np.ndarray, ...] | None:
        """One image `(height, width, 3)` uint8 a world."""
        if self.render_mode is None:
            gym.logger.warn("render() needs render_mode='rgb_array' when the env is made")
            return None
        camera, height, width = self._image
        return tuple(self.env.render(camera, np.arange(self.num_envs), height, width))

    def close_extras(self, **kwargs: Any) -> None:
        self.env.close()

    def _actions(self, actions: Any) -> np.ndarray:
        """Actions `(N, A)`; those of worlds that this step starts anew do not matter."""
        text = isinstance(self.single_action_space, gym.spaces.Text)
        actions = texts(list(actions)) if text else np.asarray(actions)
        want = (self.num_envs,) if text else self.action_space.shape
        if actions.shape != want:
            raise ValueError(f"actions have shape {actions.shape}, expected {want}")
        if self.mode is AutoresetMode.DISABLED and self._ended.any():
            raise gym.error.ResetNeeded(
                f"the episodes of worlds {np.flatnonzero(self._ended).tolist()} have ended: "
                'reset(options={"reset_mask": mask}) them'
            )
        return actions if text else actions.reshape(self.num_envs, -1)

    def _put(self, obs: Obs, mask: np.ndarray) -> None:
        for key, value in obs.items():
            self._obs[key][mask] = fresh(value)[mask]

    def _seeds(self, seed: Seed) -> np.ndarray:
        if isinstance(seed, int | np.integer):
            return world_seeds(int(seed) % 2**62, self.num_envs)
        seeds = np.array(seed, np.int64)
        if seeds.shape != (self.num_envs,):
            raise ValueError(f"seed has shape {seeds.shape}: give one a world, ({self.num_envs},)")
        return seeds

    def _mask(self, options: Mapping[str, Any] | None) -> np.ndarray | None:
        if not options or "reset_mask" not in options:
            return None
        mask, shape = options["reset_mask"], (self.num_envs,)
        if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_:
            raise TypeError("options['reset_mask'] must be a NumPy array of bool")
        if mask.shape != shape or not mask.any():
            raise ValueError(f"options['reset_mask'] must have shape {shape} and be True somewhere")
        return mask


class SingleEnv(gym.Env):
    """One world as a `gymnasium.Env`, with the same infos as plain numbers.

    `is_success` repeats `success` under the name that Stable-Baselines3's statistics read.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 30}

    def __init__(
        self,
        env: Stepper,
        flatten: bool = True,
        render_mode: str | None = None,
        camera: str | None = None,
        height: int = 480,
        width: int = 480,
    ) -> None:
        if env.num_worlds != 1:
            raise UserError(f"SingleEnv shows one world, not {env.num_worlds}: use GymView")
        self.env, self._view = env, ObsView(env.observation_space, flatten=flatten)
        self.metadata = metadata(env)
        self.render_mode, self._image = checked_render_mode(render_mode), (camera, height, width)
        self.observation_space, self.action_space = self._view.space, env.action_space

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        seeds = None if seed is None else np.array([seed % 2**62])
        return self._first(self.env.reset(seed=seeds)), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if isinstance(self.action_space, gym.spaces.Text):
            step = self.env.step(texts([action]))
        else:
            shape = self.action_space.shape
            if np.shape(action) != shape:
                raise ValueError(f"the action has shape {np.shape(action)}, expected {shape}")
            step = self.env.step(np.reshape(action, (1, -1)))
        success = bool(step.success[0])
        info = {"success": success, "is_success": success, "fault": int(step.fault[0])}
        terms = {name: float(value[0]) for name, value in step.reward_terms.items()}
        ended = bool(step.terminated[0]), bool(step.truncated[0])
        return self._first(step.obs), float(step.reward[0]), *ended, {**info, "reward_terms": terms}

    def render(self) -> np.ndarray | None:
        """An image `(height, width, 3)` uint8."""
        if self.render_mode is None:
            gym.logger.warn("render() needs render_mode='rgb_array' when the env is made")
            return None
        camera, height, width = self._image
        return self.env.render(camera, np.arange(1), height, width)[0]

    def close(self) -> None:
        self.env.close()

    def _first(self, obs: Obs) -> Any:
        shown = self._view(obs)
        return shown[0] if self._view.flat else {key: value[0] for key, value in shown.items()}


def infos(step: Step, mask: np.ndarray) -> dict[str, Any]:
    """A step as Gymnasium's vector infos, valid where `mask` (N,)."""
    terms: dict[str, Any] = {}
    for name, value in step.reward_terms.items():
        terms |= masked(name, fresh(value), mask)
    success, fault = fresh(step.success), fresh(step.fault)
    info = masked("success", success, mask) | masked("fault", fault, mask)
    return info | masked("reward_terms", terms, mask)


def masked(name: str, value: Any, mask: np.ndarray) -> dict[str, Any]:
    """An entry of vector infos with its mask."""
    return {name: value, f"_{name}": mask.copy()}


def metadata(env: Stepper) -> dict[str, Any]:
    """What Gymnasium's recorders want to know."""
    rate_hz = env.action_spec.rate_hz if env.action_spec is not None else 30.0
    return {"render_modes": ["rgb_array"], "render_fps": round(rate_hz)}


def checked_render_mode(render_mode: str | None) -> str | None:
    if render_mode not in (None, "rgb_array"):
        raise UserError(f"render_mode={render_mode!r}: 'rgb_array' or None")
    return render_mode


def random_seed() -> int:
    """A seed from the operating system, for envs that were given none."""
    return secrets.randbits(32)


def _copied(obs: Obs) -> Obs:
    return {key: fresh(value) for key, value in obs.items()}
