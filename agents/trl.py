"""TRL's `GRPOTrainer` on our worlds of text and our rewards: for large models, vLLM, several GPUs.

    args = GRPOConfig("runs/trl", max_steps=200, num_generations=8, per_device_train_batch_size=8,
                      gradient_accumulation_steps=8, max_completion_length=64, use_vllm=True)
    trl_trainer(["env=household", "agent=gigpo", "agent.model=FOLDER"], args).train()

TRL samples the replies and learns; the worlds, what is paid for, and what every turn was worth are
those of `embodied train`. Where they meet: TRL's loss takes advantages of tokens, `(B, T)`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf

from embodied.build import make_agent, make_collector, make_env, make_rewards
from embodied.causal_lm import CausalLM
from embodied.checkpoint import load_checkpoint, save_checkpoint
from embodied.collect import Collector
from embodied.config import GROUPS, compose_config, resolved
from embodied.errors import UserError
from embodied.gate import audit_of
from embodied.rewards import Rewards

from .language import LanguageAgent
from .trl_rollout import TRLGeneration, sequences

try:
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer
except ImportError as error:
    raise UserError("embodied.agents.trl needs TRL: pip install 'embodied-rl[trl]'") from error

ARGUMENTS = {
    "num_envs": "per_device_train_batch_size", "env.group": "num_generations",
    "agent.minibatches": "steps_per_generation", "agent.epochs": "num_iterations",
    "agent.lr": "learning_rate", "agent.anneal": "lr_scheduler_type",
    "agent.clip": "epsilon", "agent.entropy": "entropy_coef",
    "agent.kl": "beta", "agent.max_grad_norm": "max_grad_norm", "agent.device": "use_cpu",
    "agent.max_tokens": "max_completion_length", "agent.temperature": "temperature",
    "agent.context": "vllm_max_model_length", "total_steps": "max_steps", "run_dir": "output_dir",
}  # fmt: skip
"""Settings of a run that TRL has as its own."""
KEPT = ("seed", "max_fault_rate", "allow_unaudited")
"""Of the others that belong to no group, those that count here."""


def trl_trainer(
    overrides: Sequence[str], args: GRPOConfig, config_dir: str | Path | None = None, **options: Any
) -> TurnTrainer:
    """A trainer of what `embodied train` would train with these `overrides`; `args` are TRL's own.

    A process plays `per_device_train_batch_size * steps_per_generation` episodes at once, in groups
    of `num_generations` that play one task; `max_completion_length` is of one reply. `seed` is that
    of the worlds. `options` go to `GRPOTrainer`: `callbacks`, `optimizers`.

    Raises `UserError` for what cannot be trained in this way.
    """
    _check_given(overrides)
    _check_args(args)
    cfg = compose_config(overrides, config_dir=config_dir)
    if "group" not in cfg.env or "max_tokens" not in cfg.agent:
        raise UserError("give a world of text and an agent that speaks: env=textworld agent=gigpo")
    if cfg.agent.memory is not None:
        raise UserError("agent.memory: TRL takes an episode as one sequence: leave it out")
    worlds = args.per_device_train_batch_size * args.steps_per_generation
    own = {
        "num_envs": worlds,
        "env.group": args.num_generations,
        "seed": cfg.seed + args.process_index * worlds,
        "agent.max_tokens": args.max_completion_length,
        "agent.temperature": args.temperature,
        "agent.context": args.vllm_max_model_length or 1 << 20,
        "agent.device": "cpu",  # until TRL has placed it
    }
    for key, value in own.items():
        OmegaConf.update(cfg, key, value)
    cfg = OmegaConf.create(resolved(cfg))
    env = make_env(cfg)
    agent: Any = make_agent(cfg, env)
    _check_agent(agent)
    rewards = make_rewards(cfg, env, agent.gamma, agent)
    _check_rewards(cfg, rewards, env.name, args)
    check_model(agent.policy.lm, cfg.agent.start, args)
    return TurnTrainer(agent, make_collector(cfg, env, agent, rewards), args, **options)


class TurnTrainer(GRPOTrainer):
    """Trains the model of the policy of `agent` on whole episodes of the worlds of `collector`.

    TRL's own scalar advantages are not used (`scale_rewards` has no effect): each token has what
    `agent.advantages` finds its turn worth. Checkpoints are TRL's, with the state of the worlds and
    the rewards beside them; a run that `resume_from_checkpoint` goes on plays on from there.
    """

    def __init__(
        self, agent: LanguageAgent, collector: Collector, args: GRPOConfig, **options: Any
    ) -> None:
        lm, rewards = agent.policy.lm, collector.rewards
        if not lm.has_adapters:
            lm.model.float()  # as TRL does by default: small steps would be lost in half precision
        super().__init__(
            model=lm.model, args=args, processing_class=lm.tokenizer,
            reward_funcs=[_paid(name) for name in rewards.channels],
            train_dataset=_prompts(collector.env.name, args), **options,
        )  # fmt: skip
        self.agent, self.collector = agent, collector
        self.reward_weights = torch.tensor(
            [0.0 if name in rewards.combined else c.weight for name, c in rewards.channels.items()]
        )
        lm.device = self.accelerator.device
        agent.policy.generation = TRLGeneration(lm, self)
        self.rollout_func = play
        self.advantages: list[list[float]] = []
        """Of the last rollout's tokens, episode by episode."""

    def tell(self, figures: Mapping[str, float]) -> None:
        """Log figures of a rollout, averaged over processes."""
        values = torch.tensor(list(figures.values()), device=self.accelerator.device)
        means = self.accelerator.gather(values[None]).mean(0).tolist()
        for name, mean in zip(figures, means, strict=True):
            self._metrics["train"][name].append(mean)

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """TRL's batch, with advantages of tokens, `(B, T)`."""
        output = super()._generate_and_score_completions(inputs)
        advantages = torch.zeros(output["completion_ids"].shape)
        for row, values in zip(advantages, self.advantages, strict=True):
            row[: len(values)] = torch.tensor(values)
        output["advantages"] = advantages.to(output["completion_ids"].device)
        said = output["completion_mask"] * output["tool_mask"]
        means = (output["advantages"] * said).sum(1) / said.sum(1).clamp(min=1)
        self._logs["advantages"].extend(self.accelerator.gather(means).tolist())
        return output

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        folder = Path(self._get_output_dir(trial), f"checkpoint-{self.state.global_step}")
        state = {**self.collector.state_dict(), "carry": {}}  # episodes begin anew
        save_checkpoint(folder / self._own, state, step=self.state.global_step)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            self.collector.load_state_dict(load_checkpoint(Path(checkpoint, self._own)).state)

    @property
    def _own(self) -> str:
        return f"worlds_{self.accelerator.process_index}"


def play(prompts: Sequence[str], trainer: TurnTrainer) -> dict[str, Any]:
    """TRL's `rollout_func`: an episode of every world; `prompts` say no more than how many."""
    agent, collector = trainer.agent, trainer.collector
    if len(prompts) != collector.env.num_worlds:
        raise UserError(
            f"TRL asks for {len(prompts)} episodes, there are {collector.env.num_worlds} worlds: "
            "it trains alone, evaluate with embodied.conversations.converse"
        )
    agent.policy.lm.version += 1
    traj = collector.collect(agent.policy, None)
    learned = collector.rewards.learn(traj)
    said = np.asarray(traj.valid)
    trainer.tell(
        {f"episode/{name}": float(v.mean()) for name, v in collector.episodes.drain().items()}
        | {f"model/{name}": value for name, value in learned.items()}
        | {"malformed": float(traj.extras["malformed"][said].sum() / max(1, said.sum()))}
    )
    out = sequences(agent, traj)
    trainer.advantages = out.pop("advantages")
    paid = {name: np.where(said, v, 0.0).sum(0) for name, v in traj.reward_terms.items()}
    out["paid"] = [{name: float(v[n]) for name, v in paid.items()} for n in range(len(prompts))]
    return out


def _paid(name: str) -> Callable[..., list[float]]:
    """TRL's reward function, for its log: what a reward model paid for whole episodes."""

    def reward(paid: Sequence[Mapping[str, float]], **given: Any) -> list[float]:
        return [one[name] for one in paid]

    reward.__name__ = name
    return reward


def _prompts(name: str, args: GRPOConfig) -> Dataset:
    """As many rows as TRL will ask for: the worlds themselves know what is to be done."""
    rollouts = math.ceil(
        args.max_steps * args.gradient_accumulation_steps
        / (args.steps_per_generation * args.num_iterations)
    )  # fmt: skip
    groups = args.generation_batch_size // args.num_generations
    return Dataset.from_dict({"prompt": [name] * (rollouts * groups)})


def _check_given(overrides: Sequence[str]) -> None:
    for key in (text.partition("=")[0].lstrip("+~") for text in overrides):
        if key in ARGUMENTS:
            raise UserError(f"{key}: that is TRL's to say: GRPOConfig({ARGUMENTS[key]}=...)")
        if "." not in key and key not in (*GROUPS, *KEPT):
            raise UserError(f"{key}: the run is TRL's own: leave it out, and see its GRPOConfig")


def _check_args(args: GRPOConfig) -> None:
    worlds = args.per_device_train_batch_size * args.steps_per_generation
    if worlds % args.num_generations:
        raise UserError(
            f"per_device_train_batch_size={args.per_device_train_batch_size} x steps_per_generation"
            f"={args.steps_per_generation}: give a multiple of num_generations="
            f"{args.num_generations}, so that a process has whole groups"
        )
    if args.max_steps < 1:
        raise UserError(f"max_steps={args.max_steps}: the worlds have no end: give updates to make")
    if args.eval_strategy != "no":
        raise UserError("eval_strategy: TRL trains alone: leave it out")
    if args.reward_weights is not None:
        raise UserError("reward_weights: give reward_model.NAME.weight=... instead")
    alone = args.vllm_mode == "colocate" and args.vllm_tensor_parallel_size == 1
    sharded = args.deepspeed or args.fsdp
    if args.world_size > 1 and not (alone if args.use_vllm else not sharded):
        raise UserError(
            "several processes would wait for each other, since their episodes differ in turns: "
            "give use_vllm=True with vllm_mode='colocate' and vllm_tensor_parallel_size=1"
        )


def _check_agent(agent: Any) -> None:
    own = not isinstance(agent, LanguageAgent) or type(agent).prepared is not LanguageAgent.prepared
    if own:  # a critic, above all
        raise UserError("TRL compares episodes of one task: take agent=gigpo, grpo or rloo")


def _check_rewards(cfg: DictConfig, rewards: Rewards, env: str, args: GRPOConfig) -> None:
    if rewards.lag:
        raise UserError(f"reward_model.NAME.late={rewards.lag}: TRL learns from a rollout at once")
    if rewards.learning and args.world_size > 1:
        raise UserError(f"reward_model={rewards.learning[0]} learns in one process, not in several")
    for name, model in rewards.learned.items():
        verdict, detail = audit_of(model, cfg.reward_model[name], env)
        if verdict != "passed" and not cfg.allow_unaudited:
            raise UserError(
                f"reward_model.{name}: {verdict} ({detail}): run `embodied audit`, or train on it "
                "all the same with allow_unaudited=true"
            )


def check_model(lm: CausalLM, start: str | None, args: GRPOConfig) -> None:
    """Where TRL reads a checkpoint by itself, that has to be the model which is trained."""
    if args.use_vllm and lm.origin is None:
        raise UserError("use_vllm: vLLM reads a checkpoint from a folder: give agent.model=FOLDER")
    if args.beta and start is not None and not lm.has_adapters:
        raise UserError(
            f"beta={args.beta}: TRL stays near a checkpoint in a folder: give agent.model=FOLDER"
        )
