"""PPO of Stable-Baselines3 on our worlds: `agent=sb3_ppo`.

SB3 owns its loop, so the agent has `learn` instead of `update`, learns from the env's own reward,
and its runs resume from weights, optimiser and normalisers, but not bit for bit.
"""

from __future__ import annotations

import json
import logging
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import VecNormalize

from embodied.env import Stepper
from embodied.errors import UserError, check_range, unknown
from embodied.gym_view import ObsView
from embodied.nets import ACTIVATIONS, adam_state, load_adam_state, load_weights
from embodied.sb3_view import SB3View
from embodied.spaces import vector_keys
from embodied.types import ActionSpec

from .sb3_buffer import DictFaultless, Faultless
from .sb3_policy import NORMALISER, Normaliser, SB3Policy, load_sb3_zip

__all__ = ["SB3PPO", "load_sb3_zip"]

log = logging.getLogger(__name__)
FIGURES = {
    "train/policy_gradient_loss": "policy_loss",
    "train/value_loss": "value_loss",
    "train/entropy_loss": "entropy_loss",
    "train/approx_kl": "kl",
    "train/clip_fraction": "clipped",
    "train/explained_variance": "explained_variance",
    "train/std": "std",
    "train/learning_rate": "lr",
}


class SB3PPO:
    """The agent. Keys are named as in SB3; `net_arch` sizes policy and value network alike.

    Normalisation is `VecNormalize`'s. A faulted step is kept out of every minibatch, and more
    than `max_fault_rate` of them in a rollout end the run.
    """

    def __init__(
        self,
        observation_space: gym.spaces.Dict,
        action_space: gym.Space,
        action_spec: ActionSpec | None,
        num_worlds: int,
        seed: int = 0,
        n_steps: int = 32,
        batch_size: int = 2048,
        n_epochs: int = 4,
        learning_rate: float = 1e-3,
        anneal: bool = False,
        gamma: float = 0.99,
        gae_lambda: float = 0.95,
        clip_range: float = 0.2,
        clip_range_vf: float | None = None,
        normalize_advantage: bool = True,
        ent_coef: float = 0.0,
        vf_coef: float = 0.5,
        max_grad_norm: float = 0.5,
        target_kl: float | None = None,
        use_sde: bool = False,
        sde_sample_freq: int = -1,
        net_arch: Sequence[int] = (64, 64),
        activation: str = "tanh",
        log_std_init: float = 0.0,
        ortho_init: bool = True,
        normalise_obs: bool = True,
        normalise_reward: bool = True,
        max_fault_rate: float = 0.1,
        device: str = "cpu",
        threads: int | None = None,
    ) -> None:
        check_range("agent", 2, n_steps=n_steps, batch_size=batch_size)
        check_range("agent", 1, n_epochs=n_epochs, threads=1 if threads is None else threads)
        check_range("agent", 0, 1, gamma=gamma, gae_lambda=gae_lambda)
        check_range("agent", 0, learning_rate=learning_rate, clip_range=clip_range)
        if activation not in ACTIVATIONS:
            raise unknown("agent.activation", activation, ACTIVATIONS)
        if isinstance(action_space, gym.spaces.Box) and not action_space.is_bounded():
            raise UserError("agent=sb3_ppo needs actions with finite limits: take agent=ppo")
        self.gamma, self.rollout_steps = gamma, n_steps
        self.max_fault_rate, self.threads, self.elapsed_s = max_fault_rate, threads, 0.0
        self.normalise_obs, self.normalise_reward = normalise_obs, normalise_reward
        self.keys = vector_keys(observation_space)
        view = ObsView(observation_space, self.keys)
        self.normaliser = Normaliser({k: observation_space[k].shape or () for k in self.keys})
        kind = "MlpPolicy" if view.flat else "MultiInputPolicy"
        policy_kwargs = {
            "net_arch": list(net_arch),
            "activation_fn": ACTIVATIONS[activation],
            "log_std_init": log_std_init,
            "ortho_init": ortho_init,
        }
        self.model = _PPO(
            kind,
            None,  # type: ignore[arg-type]  # its spaces are set below, its worlds in `learn`
            LinearSchedule(learning_rate, 0.0, 1.0) if anneal else learning_rate,
            n_steps, batch_size, n_epochs, gamma, gae_lambda, clip_range, clip_range_vf,
            normalize_advantage, ent_coef, vf_coef, max_grad_norm, use_sde, sde_sample_freq,
            target_kl=target_kl, policy_kwargs=policy_kwargs, seed=seed, device=device,
            rollout_buffer_class=Faultless if view.flat else DictFaultless, _init_setup_model=False,
        )  # fmt: skip
        self.model.observation_space = deepcopy(view.space)
        self.model.action_space = deepcopy(action_space)
        self.model.n_envs = num_worlds
        self.model._setup_model()
        self.model.set_logger(Logger(None, []))
        self.policy = SB3Policy(
            self.model.policy, view, action_spec, self.normaliser if normalise_obs else None
        )

    def learn(
        self, env: Stepper, total_steps: int, on_update: Callable[[dict[str, float]], bool]
    ) -> None:
        """Train until `total_steps` steps of all worlds, or until `on_update(figures)` is true.

        Raises `UserError` when too many steps fault.
        """
        model, view = self.model, SB3View(env, self.keys)
        if model.num_timesteps:
            log.warning("sb3_ppo goes on from its weights, not bit for bit: episodes start anew")
        model.set_env(self._normalised(view))
        report = _Report(self, view, on_update)
        model.report = report
        with _torch_threads(self.threads):
            model.learn(max(0, total_steps - model.num_timesteps), reset_num_timesteps=False)

    def _normalised(self, view: SB3View) -> VecNormalize:
        """The worlds with our statistics, which SB3 goes on updating in place."""
        venv = VecNormalize(
            view, norm_obs=self.normalise_obs, norm_reward=self.normalise_reward, gamma=self.gamma,
            clip_obs=self.normaliser.limit, epsilon=self.normaliser.epsilon,
        )  # fmt: skip
        if self.normalise_obs:
            flat = self.policy.view.flat
            seen: Any = self.normaliser.obs
            venv.obs_rms = seen["state"] if flat else seen
        venv.ret_rms = self.normaliser.reward
        return venv

    def state_dict(self) -> dict[str, Any]:
        return {
            "policy": self.model.policy.state_dict(),
            "optimiser": adam_state(self.model.policy.optimizer),
            "normaliser": self.normaliser.state_dict(),
            "steps": int(self.model.num_timesteps),
            "updates": int(self.model._n_updates),
            "elapsed_s": self.elapsed_s,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        load_weights(self.model.policy, state["policy"])
        load_adam_state(self.model.policy.optimizer, state["optimiser"])
        self.normaliser.load_state_dict(state["normaliser"])
        self.model.num_timesteps = int(state["steps"])
        self.model._n_updates = int(state["updates"])
        self.elapsed_s = float(state["elapsed_s"])

    def save_zip(self, path: str | Path) -> None:
        """SB3's own `.zip`, readable by `PPO.load`, with the normaliser as one more JSON member."""
        path = Path(path)
        if path.suffix != ".zip":
            raise UserError(f"{path}: name it .zip")
        self.model.save(path)
        if self.normalise_obs:
            with zipfile.ZipFile(path, "a") as archive:
                archive.writestr(NORMALISER, json.dumps(self.normaliser.to_json()))


class _PPO(PPO):
    """PPO that reports after every update and stops when told to."""

    report: _Report | None = None

    def collect_rollouts(self, *args: Any, **kwargs: Any) -> bool:
        report = self.report
        assert report is not None
        if report.stop:
            return False
        report.begin()
        self.rollout_buffer.view = report.view  # type: ignore[attr-defined]
        return super().collect_rollouts(*args, **kwargs)

    def _update_info_buffer(self, infos: list[dict[str, Any]], dones: Any = None) -> None:
        super()._update_info_buffer(infos, dones)
        assert self.report is not None
        self.report.episodes += [info["episode"] for info in infos if info]

    def train(self) -> None:
        assert self.report is not None
        self.report.check_faults(self.rollout_buffer.valid)  # type: ignore[attr-defined]
        super().train()
        self.report.end()

    def _excluded_save_params(self) -> list[str]:
        """What of ours would need our code to load."""
        return [*super()._excluded_save_params(), "report", "rollout_buffer_class"]


class _Report:
    """Turns SB3's figures into ours after every update."""

    def __init__(
        self, agent: SB3PPO, view: SB3View, on_update: Callable[[dict[str, float]], bool]
    ) -> None:
        self.agent, self.view, self.on_update = agent, view, on_update
        self.episodes: list[dict[str, float]] = []
        self.faults, self.stop = 0, False
        self.begun_s = time.perf_counter()

    def begin(self) -> None:
        self.begun_s = time.perf_counter()

    def check_faults(self, valid: np.ndarray) -> None:
        count = int(np.count_nonzero(~valid))
        self.faults += count
        if count > self.agent.max_fault_rate * valid.size:
            raise UserError(
                f"{count} of {valid.size} steps faulted, more than "
                f"max_fault_rate={self.agent.max_fault_rate}: nothing sound is left to learn from"
            )

    def end(self) -> None:
        agent, model = self.agent, self.agent.model
        spent_s = time.perf_counter() - self.begun_s
        agent.elapsed_s += spent_s
        figures = {"steps": float(model.num_timesteps), "elapsed_s": agent.elapsed_s}
        figures["steps_per_s"] = model.n_steps * model.n_envs / spent_s
        finished, self.episodes = self.episodes, []
        for name in finished[0] if finished else ():
            short = {"r": "return", "l": "length"}.get(name, name)
            if name != "t":
                figures[f"episode/{short}"] = float(np.mean([row[name] for row in finished]))
        told = model.logger.name_to_value
        figures |= {
            f"agent/{ours}": float(told[name]) for name, ours in FIGURES.items() if name in told
        }
        figures["faults"] = float(self.faults)
        self.stop = bool(self.on_update(figures))


@contextmanager
def _torch_threads(threads: int | None) -> Any:
    before = torch.get_num_threads()
    try:
        if threads is not None:
            torch.set_num_threads(threads)
        yield
    finally:
        torch.set_num_threads(before)
