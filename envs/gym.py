"""Any Gymnasium env as worlds that step together: `env=gym env.id=Pendulum-v1`."""

from __future__ import annotations

import contextlib
import importlib
import logging
import warnings
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np

from embodied.errors import UserError, unknown
from embodied.random import world_seeds
from embodied.types import ACTION_FAULT, PHYSICS_FAULT, WORLD_FAULT, Array, Obs, Step

from .gym_spaces import described, encoders

log = logging.getLogger(__name__)
DEFAULT_MAX_STEPS = 1000


class GymEnv:
    """N copies of a Gymnasium env, one after another in this process.

    A `Box` observation becomes `{"state": ...}`; what is neither numbers nor an image is encoded
    as numbers (`Discrete` as one-hot). Discrete actions are whole numbers in `(N, A)` float32 and
    have no `action_spec`. World i is seeded with `seed + i`. An exception in a world ends its
    episode (fault "world failed") and the world is made anew at its next reset. Other people's
    envs cannot save their state: after a resume they start new episodes.

    Raises `UserError` for an unknown id (with the nearest ones), spaces that cannot be learned
    on, or an env that cannot be made.
    """

    exact_resume = False

    def __init__(
        self,
        id: str | None,
        num_worlds: int,
        max_steps: int | None = None,
        seed: int = 0,
        kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        if not id:
            raise UserError("env=gym needs the env's id: env.id=Pendulum-v1")
        if num_worlds < 1:
            raise UserError(f"num_envs={num_worlds}: give a whole number >= 1")
        if max_steps is not None and max_steps < 1:
            raise UserError(f"env.max_steps={max_steps}: give a whole number >= 1")
        self.name, self.num_worlds, self._kwargs = id, num_worlds, dict(kwargs or {})
        self.instructions: tuple[str, ...] = ()
        self.max_steps = max_steps or find_spec(id).max_episode_steps or DEFAULT_MAX_STEPS
        first = self._make()
        self.render_modes = first.metadata.get("render_modes") or []
        if "rgb_array" in self.render_modes and "render_mode" not in self._kwargs:
            self._kwargs["render_mode"] = "rgb_array"
            first.close()
            first = self._make()
        self.worlds = [first, *(self._make() for _ in range(num_worlds - 1))]
        self._encoders = encoders(first.observation_space)
        boxes = {key: box for key, (box, _) in self._encoders.items()}
        self.observation_space = gym.spaces.Dict(dict(boxes))
        self._space = first.action_space
        self.action_space, self.action_spec = described(first)
        self.failures = 0
        self._seed = world_seeds(seed, num_worlds)
        self._episode = np.zeros(num_worlds, np.int64)
        self._left = np.zeros(num_worlds, np.int64)  # steps until the time limit
        self._reseed = np.ones(num_worlds, bool)
        self._broken = np.zeros(num_worlds, bool)
        self._over = np.zeros((2, num_worlds), bool)  # terminated, truncated
        self._obs: Obs = {
            key: np.zeros((num_worlds, *box.shape), box.dtype) for key, box in boxes.items()
        }

    def reset(self, mask: Array | None = None, seed: Array | int | None = None) -> Obs:
        ids = np.arange(self.num_worlds) if mask is None else np.flatnonzero(mask)
        if seed is not None:
            seeds = np.asarray(seed, np.int64)
            seeds = seeds if seeds.ndim else world_seeds(int(seeds), self.num_worlds)
            self._seed[ids], self._episode[ids], self._reseed[ids] = seeds[ids], 0, True
        for i in ids:
            obs = self._restart(int(i))
            for key, (_, encode) in self._encoders.items():
                self._obs[key][i] = encode(obs)
        self._over[:, ids], self._left[ids] = False, self.max_steps
        return self._copy()

    def step(self, action: Array) -> Step:
        """One step of every world; one that has ended stands still until its reset."""
        n = self.num_worlds
        action, bad = self._execute(action)
        reward, success, fault = np.zeros(n), np.zeros(n, bool), np.zeros(n, np.int8)
        for i in np.flatnonzero(~self._over.any(axis=0)):
            if bad[i]:
                fault[i] = ACTION_FAULT
            else:
                reward[i], success[i], fault[i] = self._step_world(int(i), action[i])
        self._left -= 1
        self._over[1] |= (self._left <= 0) & ~self._over[0]
        self._over[:, fault != 0] = [[False], [True]]
        terminated, truncated = self._over.copy()
        terms = {"reward": reward.copy()}
        return Step(self._copy(), reward, terms, terminated, truncated, success, fault, action)

    def stagger(self) -> bool:
        played = np.random.default_rng(self._seed).integers(self.max_steps, size=self.num_worlds)
        self._left = np.minimum(self._left, self.max_steps - played)
        return True

    def readouts(self) -> dict[str, Array]:
        return {}

    def render(self, camera: str | None, ids: Array, height: int, width: int) -> np.ndarray:
        if camera is not None:
            raise UserError(f"{self.name} has no named cameras: leave out camera={camera}")
        if "rgb_array" not in self.render_modes:
            raise UserError(f"{self.name} renders no images, only: {self.render_modes}")
        try:
            images = [self.worlds[i].render() for i in ids]
        except Exception as error:  # a package that its renderer lacks, for one
            raise UserError(f"{self.name} cannot render: {_one_line(error)}") from error
        return np.stack([_resized(image, height, width) for image in images])

    def state_dict(self) -> dict[str, Any]:
        return {"seed": self._seed.copy(), "episode": self._episode.copy()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The worlds start new episodes at the next reset, none that they have seen before."""
        if np.shape(state["seed"]) != self._seed.shape:
            raise UserError(
                f"the checkpoint has {len(state['seed'])} worlds of {self.name}, "
                f"this env {self.num_worlds}: same num_envs is needed"
            )
        log.info("%s cannot save its state: its episodes start anew", self.name)
        self._seed, self._episode = np.array(state["seed"]), np.array(state["episode"])
        self._reseed[:] = True

    def close(self) -> None:
        for world in self.worlds:
            world.close()

    def _make(self) -> gym.Env:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return gym.make(
                    self.name,
                    max_episode_steps=self.max_steps,
                    disable_env_checker=True,
                    **self._kwargs,
                )
        except UserError:
            raise
        except Exception as error:  # whatever somebody else's constructor raises
            raise UserError(f"cannot make {self.name}: {_one_line(error)}") from error

    def _restart(self, i: int) -> Any:
        """The first observation of a new episode; a broken world is made anew, once."""
        for last_try in (False, True):
            if self._broken[i]:
                with contextlib.suppress(Exception):
                    self.worlds[i].close()
                self.worlds[i] = self._make()
                self._broken[i], self._reseed[i] = False, True
            try:
                obs, _ = self.worlds[i].reset(seed=self._next_seed(i))
                self._episode[i] += 1
                self._reseed[i] = False
                return obs
            except Exception as error:
                self._note(i, error)
                if last_try:
                    raise UserError(f"{self.name} cannot be reset: {_one_line(error)}") from error
        raise AssertionError

    def _next_seed(self, i: int) -> int | None:
        """The world's own seed at first; after a rebuild or a resume one that is new to it."""
        if not self._reseed[i]:
            return None
        seed, episode = int(self._seed[i]), int(self._episode[i])
        if episode == 0:
            return seed
        return int(np.random.SeedSequence([abs(seed), episode]).generate_state(1)[0])

    def _step_world(self, i: int, action: np.ndarray) -> tuple[float, bool, int]:
        """Reward, success and fault of one world's step."""
        try:
            given = self.worlds[i].step(self._native(action))
            obs, reward, terminated, truncated, info = given
            encoded = {key: encode(obs) for key, (_, encode) in self._encoders.items()}
            reward = float(reward)
            success = bool(info.get("is_success", info.get("success", False)))
        except Exception as error:
            self._note(i, error)
            return 0.0, False, WORLD_FAULT
        if not np.isfinite(reward) or not all(np.isfinite(v).all() for v in encoded.values()):
            return 0.0, False, PHYSICS_FAULT
        for key, value in encoded.items():
            self._obs[key][i] = value
        self._over[:, i] = terminated, truncated and not terminated
        return reward, success, 0

    def _execute(self, action: Array) -> tuple[np.ndarray, np.ndarray]:
        """Actions `(N, A)` within their limits, and which were not finite."""
        action = np.array(action, np.float32)
        size = int(np.prod(self.action_space.shape or (1,)))
        if action.shape != (self.num_worlds, size):
            want = (self.num_worlds, size)
            raise ValueError(f"action has shape {action.shape}, expected {want}")
        bad = ~np.isfinite(action).all(axis=1)
        action[bad] = 0.0
        if isinstance(self.action_space, gym.spaces.Box):
            action = np.clip(action, self.action_space.low, self.action_space.high)
        return action, bad

    def _native(self, action: np.ndarray) -> Any:
        """One world's action `(A,)` in the form that the env itself takes."""
        if isinstance(self._space, gym.spaces.Discrete):
            return self._space.dtype.type(round(float(action[0])))
        if isinstance(self._space, gym.spaces.Box):
            return action.reshape(self._space.shape).astype(self._space.dtype)
        return np.rint(action).reshape(self._space.shape).astype(self._space.dtype)

    def _note(self, i: int, error: Exception) -> None:
        self.failures += 1
        self._broken[i] = True
        if self.failures == 1:
            log.warning("%s: world %d failed, it starts anew: %s", self.name, i, _one_line(error))

    def _copy(self) -> Obs:
        return {key: value.copy() for key, value in self._obs.items()}


def find_spec(id: str) -> gym.envs.registration.EnvSpec:
    """Gymnasium's entry for an id ("module:id" imports the module that registers it).

    Raises `UserError`, with the nearest ids, where there is none.
    """
    module, _, name = id.rpartition(":")
    try:
        if module:
            importlib.import_module(module)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return gym.spec(name)
    except gym.error.Error:
        raise unknown("env.id", name, gym.registry) from None
    except ImportError as error:
        raise UserError(f"env.id={id}: {_one_line(error)}") from error


def _resized(image: Any, height: int, width: int) -> np.ndarray:
    import cv2

    image = np.asarray(image, np.uint8)
    if image.shape[:2] == (height, width):
        return image
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA))


def _one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
