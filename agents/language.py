"""What all learners of a policy that speaks share: one update, and the loss.

What differs between them is how the rewards of turns become advantages: `grpo`, `rloo`, `gigpo`,
`language_ppo`.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn

from embodied.causal_lm import CausalLM
from embodied.errors import UserError, check_range
from embodied.nets import adam_state, load_adam_state, torch_threads
from embodied.self_correction import SelfCorrection
from embodied.signatures import inherited
from embodied.transcripts import Transcripts, transcripts
from embodied.types import Array, Trajectory

from .language_policy import LanguagePolicy
from .language_state import begin_model, model_state, read_model


class LanguageAgent:
    """What the learners of a language policy share; they say by `advantages` what a turn was worth.

    The model is the checkpoint in the folder `model` (with adapters of `lora`, the settings of
    peft's `LoraConfig`, or all of its weights), or the one that the run `start` ended with, of
    `embodied imitate agent=sft` above all. A rollout is one whole episode of every world; it is
    learned from `epochs` times in `minibatches` parts, token by token, by PPO's clipped loss. With
    `anneal` the learning rates fall linearly to zero over the run.

    Advantages are standardised over the tokens that were said in a rollout (`standardise`): failed
    episodes are longer than others, and would else, on the whole, teach a model to say less of all
    that it says. What was worth less than the rest counts `negative` times: below 1 a small model
    forgets less of its language. Sequences in which nothing counts are not read again: figures are
    of the others.

    With `self_correct` failed calls that a later try put right are taken out before anything is
    learned (`embodied.self_correction`). `malformed_penalty` is taken from the reward of a reply
    that holds no action; `kl` weighs the divergence from the model as it began (Schulman's
    estimator that is never negative).
    """

    rollout_steps = None
    head_lr = 0.0
    __signature__: inspect.Signature

    def __init_subclass__(cls) -> None:
        """A learner's own settings come with those that all have."""
        cls.__signature__ = inherited(cls)

    def __init__(
        self,
        observation_space: gym.spaces.Dict | None = None,
        seed: int = 0,
        model: str | None = None,
        start: str | None = None,
        lora: Mapping[str, Any] | None = None,
        system: str | None = None,
        max_tokens: int = 24,
        temperature: float = 1.0,
        context: int = 1024,
        memory: int | None = None,
        lr: float = 3e-4,
        anneal: bool = False,
        epochs: int = 2,
        minibatches: int = 4,
        clip: float = 0.2,
        entropy: float = 0.0,
        kl: float = 0.0,
        max_grad_norm: float = 1.0,
        standardise: bool = True,
        negative: float = 1.0,
        malformed_penalty: float = 0.1,
        self_correct: bool = False,
        gamma: float = 1.0,
        device: str = "cpu",
        threads: int = 1,
    ) -> None:
        if observation_space is not None and "text" not in observation_space.spaces:
            raise UserError("an agent that speaks needs a world of text, as env=textworld")
        check_range("agent", 1, epochs=epochs, minibatches=minibatches, threads=threads)
        check_range("agent", 0, 1, gamma=gamma)
        check_range("agent", 0, lr=lr, clip=clip, entropy=entropy, kl=kl)
        check_range("agent", 0, malformed_penalty=malformed_penalty, negative=negative)
        check_range("agent", 1e-6, max_grad_norm=max_grad_norm)
        self._origin, self.system, self.device = (model, lora, start), system, device
        self._speech = (max_tokens, temperature, context, memory, seed)
        self.temperature, self.lr, self.epochs, self.minibatches = (
            temperature,
            lr,
            epochs,
            minibatches,
        )
        self.clip, self.entropy, self.kl = clip, entropy, kl
        self.standardise, self.negative = standardise, negative
        self.max_grad_norm, self.malformed_penalty = max_grad_norm, malformed_penalty
        self.gamma, self.threads, self.anneal, self.progress = gamma, threads, anneal, 0.0
        self.shuffle = torch.Generator().manual_seed(seed)
        correct = SelfCorrection(lambda: self.language, temperature=temperature)
        self.transform = correct if self_correct else None
        self._policy: LanguagePolicy | None = None
        torch.set_num_threads(threads)

    @property
    def policy(self) -> LanguagePolicy:
        """The policy; its model is read the first time it is asked for, or a run is loaded."""
        if self._policy is None:
            self._begin(begin_model(*self._origin, self.device, self.system))
            lm = self.policy.lm
            if self.kl and not (lm.has_adapters and self._origin[2] is None):
                lm.remember()  # adapters that are new are taken off instead
        assert self._policy is not None
        return self._policy

    @property
    def language(self) -> CausalLM:
        """The model, for reward models that need one."""
        return self.policy.lm

    def _begin(self, lm: CausalLM) -> None:
        self._policy = LanguagePolicy(lm, *self._speech)
        learned, heads = list(lm.trained().values()), self.heads(lm)
        groups = [{"params": learned, "lr": self.lr}, {"params": heads, "lr": self.head_lr}]
        self.parameters = [*learned, *heads]
        self.optimiser = torch.optim.AdamW(groups[: 1 + bool(heads)], weight_decay=0.0)

    def heads(self, lm: CausalLM) -> list[nn.Parameter]:
        """Further weights that a learner trains with the model, at `head_lr`."""
        return []

    def advantages(self, traj: Trajectory, reward: Array) -> Array:
        """What every turn was worth, `(T, N)`, given its reward."""
        raise NotImplementedError

    def update(self, traj: Trajectory) -> dict[str, float]:
        """Learn from one rollout of whole episodes, `(T, N)`."""
        lm = self.policy.lm
        traj = sound_alone(traj)
        if not traj.valid.any():
            return {}
        with torch_threads(self.threads):
            malformed = traj.extras["malformed"].astype(bool) & traj.valid
            reward = np.where(traj.valid, traj.reward - self.malformed_penalty * malformed, 0.0)
            data = transcripts(traj, lm.pad, lm.device)
            figures = self._learn(data, self.prepared(traj, data, reward))
        lm.version += 1
        figures["malformed"] = float(malformed.sum() / max(1, traj.valid.sum()))
        figures["tokens"] = float((data.turn >= 0).sum() / max(1, traj.valid.sum()))
        return figures

    def prepared(self, traj: Trajectory, data: Transcripts, reward: Array) -> dict[str, Tensor]:
        """What the loss is given of every token beside the transcripts, `(B, L)` each."""
        worth = data.spread(self.advantages(traj, reward))
        return {"advantage": self.weighed(worth, data.turn >= 0)}

    def weighed(self, advantage: Tensor, said: Tensor) -> Tensor:
        """Advantages of tokens `(B, L)` as the loss takes them; 0 where nothing was `said`."""
        if self.standardise and said.any():
            among = advantage[said]
            advantage = (advantage - among.mean()) / (among.std(correction=0) + 1e-6)
        advantage = torch.where(advantage < 0, self.negative * advantage, advantage)
        return torch.where(said, advantage, 0.0)

    def loss(self, part: Transcripts, given: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The loss of some sequences, and figures: the mean over the tokens that were said."""
        hidden = self.policy.lm.hidden(part.ids)
        said = (part.turn >= 0).float()
        count = said.sum().clamp(min=1.0)
        log_prob, entropy = self.policy.lm.likelihood(hidden, part.targets, self.temperature)
        log_ratio = (log_prob - part.log_prob) * said
        ratio, advantage = log_ratio.exp(), given["advantage"]
        surrogate = torch.minimum(
            advantage * ratio, advantage * ratio.clamp(1.0 - self.clip, 1.0 + self.clip)
        )
        policy_loss = -(surrogate * said).sum() / count
        loss = policy_loss - self.entropy * (entropy * said).sum() / count
        if self.kl:
            away = self.policy.lm.reference(part.ids, part.targets, self.temperature) - log_prob
            loss = loss + self.kl * ((away.exp() - 1.0 - away) * said).sum() / count
        loss = loss + self.head_loss(part, hidden, given)
        kl = ((ratio - 1.0 - log_ratio) * said).sum() / count
        clipped = (((ratio - 1.0).abs() > self.clip) * said).sum() / count
        figures = [policy_loss, (entropy * said).sum() / count, kl, clipped]
        return loss, torch.stack(figures).detach()

    def head_loss(
        self, part: Transcripts, hidden: Tensor, given: Mapping[str, Tensor]
    ) -> Tensor | float:
        """What a learner's further weights add to the loss."""
        return 0.0

    def _learn(self, data: Transcripts, given: Mapping[str, Tensor]) -> dict[str, float]:
        figures = []
        if self.anneal:
            for group, base in zip(
                self.optimiser.param_groups, (self.lr, self.head_lr), strict=False
            ):
                group["lr"] = base * max(1e-3, 1.0 - self.progress)
        for _ in range(self.epochs):
            order = torch.randperm(len(data), generator=self.shuffle).to(data.ids.device)
            for which in order.chunk(self.minibatches):
                useful = self._useful(which, given)
                part = data.rows(useful)
                length = part.ids.shape[1]
                mine = {name: value[useful, :length] for name, value in given.items()}
                loss, report = self.loss(part, mine)
                share = (part.turn >= 0).sum() / (data.turn[which] >= 0).sum()
                self.optimiser.zero_grad(set_to_none=True)
                (share * loss).backward()
                nn.utils.clip_grad_norm_(self.parameters, self.max_grad_norm)
                self.optimiser.step()
                figures.append(report)
        means = torch.stack(figures).mean(0).tolist()
        return dict(zip(("policy_loss", "entropy", "kl", "clipped"), means, strict=True))

    def _useful(self, which: Tensor, given: Mapping[str, Tensor]) -> Tensor:
        """Those of some sequences that the loss depends on, one at least: the rest isn't read."""
        if self.entropy or self.kl or self.heads(self.policy.lm):
            return which
        kept = which[(given["advantage"][which] != 0).any(1)]
        return kept if len(kept) else which[:1]

    def state_dict(self) -> dict[str, Any]:
        lm = self.policy.lm
        return {
            "lm": model_state(lm),
            "noise": self.policy.noise.get_state(),
            "shuffle": self.shuffle.get_state(),
            "optimiser": adam_state(self.optimiser),
            "heads": {str(k): p.detach() for k, p in enumerate(self.heads(lm))},
            "reference": lm.reference_state(),
            "progress": self.progress,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._begin(read_model(state["lm"], self.device, self.system))
        lm = self.policy.lm
        lm.load_reference_state(state["reference"])
        with torch.no_grad():
            for k, p in enumerate(self.heads(lm)):
                p.copy_(torch.as_tensor(state["heads"][str(k)]))
        self.policy.noise.set_state(torch.as_tensor(state["noise"]))
        self.shuffle.set_state(torch.as_tensor(state["shuffle"]))
        load_adam_state(self.optimiser, state["optimiser"])
        self.progress = state["progress"]


def sound_alone(traj: Trajectory) -> Trajectory:
    """A rollout without the episodes in which something broke: they say nothing of what was said.

    They are in no group, and nothing of them is valid.
    """
    due = np.ones(traj.shape, bool) if traj.due is None else np.asarray(traj.due)
    broken = (due & ~traj.valid).any(0)
    if not broken.any():
        return traj
    group = (
        None if traj.group is None else np.where(broken, -1 - np.arange(len(broken)), traj.group)
    )
    return replace(traj, valid=traj.valid & ~broken, group=group)


def of_group(traj: Trajectory) -> Array:
    """The group of every world `(N,)`. Raises `UserError` where each plays a task of its own."""
    if traj.group is None or len(np.unique(traj.group)) == len(traj.group):
        raise UserError(
            "this agent compares episodes of one task: give env.group=8 (a divisor of num_envs), "
            "or take agent=language_ppo"
        )
    return np.asarray(traj.group)


def per_turn(episodes: Array, traj: Trajectory) -> Array:
    """Values of episodes `(N,)` as those of their turns, `(T, N)`."""
    return np.where(traj.valid, np.asarray(episodes, np.float32), np.float32(0.0))
