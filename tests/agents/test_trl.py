"""TRL's trainer on our worlds: it runs, learns what our own learners would, and goes on."""

from __future__ import annotations

import importlib
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from embodied.agents.gigpo import GiGPO
from embodied.agents.language import LanguageAgent
from embodied.agents.sft import SFT
from embodied.reward_models.turns.outcome import Outcome
from embodied.reward_models.turns.verified_turn import VerifiedTurn

from embodied.causal_lm import CausalLM
from embodied.checkpoint import load_checkpoint
from embodied.collect import Collector
from embodied.conversations import experts
from embodied.errors import UserError
from embodied.reward_model import Channel
from embodied.rewards import Rewards
from embodied.transcripts import transcripts
from embodied.types import Trajectory
from tests.talks import doors
from tests.test_processes import together

transformers = pytest.importorskip("transformers")
trl = pytest.importorskip("trl")
pytest.importorskip("datasets")

from embodied.agents.trl import TurnTrainer, check_model, trl_trainer  # noqa: E402

DOORS = """
name: doors
group: 1
stepper:
  _target_: embodied.text_env.TextEnv
  _recursive_: false
  name: doors
  group: ${env.group}
  world: {_target_: tests.text_toys.Doors, doors: 2}
"""
GIVEN = ["env=doors", "env.max_steps=4", "agent=gigpo", "reward_model=[outcome,verified_turn]"]


@cache
def taught() -> SFT:
    """A small model that has heard a dozen conversations, and knows half of what it should."""
    sft = SFT(steps=180, width=32, heads=2, vocabulary=400, context=256, lr=3e-3)
    sft.fit(experts(doors(12, 1), range(12)))
    return sft


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as a checkpoint, and the doors as an option of the group env."""
    path = tmp_path_factory.mktemp("trl")
    lm = taught().policy.lm
    lm.model.save_pretrained(path / "model")
    lm.tokenizer.save_pretrained(path / "model")
    (path / "conf/env").mkdir(parents=True)
    (path / "conf/env/doors.yaml").write_text(DOORS)
    return path


def config(path: Path, **settings: Any) -> Any:
    given = {
        "max_steps": 2, "num_generations": 4, "per_device_train_batch_size": 8,
        "max_completion_length": 8, "learning_rate": 3e-3, "lr_scheduler_type": "constant",
        "use_cpu": True, "bf16": False, "disable_tqdm": True, "save_strategy": "no",
    }  # fmt: skip
    return trl.GRPOConfig(str(path), **{**given, **settings})


def trainer(
    path: Path, agent: LanguageAgent | None = None, worlds: int = 8, **settings: Any
) -> TurnTrainer:
    agent = agent or GiGPO(process=["verified_turn"], max_tokens=8, context=256)
    agent._begin(taught().policy.lm.clone())
    models = {"outcome": Outcome(), "verified_turn": VerifiedTurn()}
    rewards = Rewards({n: Channel(n, m, whole=True) for n, m in models.items()}, worlds, 1.0)
    args = config(path, **settings)
    env = doors(worlds, args.num_generations, max_steps=4)
    return TurnTrainer(agent, Collector(env, rewards), args)


def watched(made: TurnTrainer) -> tuple[list[Trajectory], list[dict[str, Any]]]:
    """The rollouts that a trainer sees from now on, and the batches that its loss is given."""
    rollouts: list[Trajectory] = []
    batches: list[dict[str, Any]] = []
    collect, loss = made.collector.collect, made._compute_loss

    def collected(*given: Any) -> Trajectory:
        rollouts.append(collect(*given))
        return rollouts[-1]

    def lost(model: Any, inputs: dict[str, Any]) -> Any:
        batches.append(inputs)
        return loss(model, inputs)

    made.collector.collect = collected  # type: ignore[method-assign]
    made._compute_loss = lost
    return rollouts, batches


def test_the_loss_gets_the_tokens_and_the_advantages_of_our_own_learner(tmp_path: Path) -> None:
    made = trainer(tmp_path, steps_per_generation=2, per_device_train_batch_size=4)
    before = {name: w.clone() for name, w in made.agent.policy.lm.trained().items()}
    rollouts, batches = watched(made)
    made.train()
    assert len(rollouts) == 1 and len(batches) == 2  # an update of each half
    traj = rollouts[0]
    learner, given = GiGPO(process=["verified_turn"], max_tokens=8, context=256), {}

    def seen(data: Any, prepared: Any) -> dict[str, float]:
        given.update(prepared, data=data)
        return {}

    learner._begin(taught().policy.lm.clone())
    learner._learn = seen  # type: ignore[method-assign]
    learner.update(traj)
    data = given["data"]
    ours = [
        (ids[: len(turn) - turn.flip(0).ge(0).int().argmax()].tolist(), worth[turn >= 0].tolist())
        for ids, turn, worth in zip(data.ids, data.turn, given["advantage"], strict=True)
    ]
    theirs = []
    for batch in batches:
        real, said = batch["completion_mask"].bool(), batch["tool_mask"].bool()
        assert batch["advantages"].shape == batch["completion_ids"].shape
        assert not batch["advantages"][~(real & said)].any()
        for n in range(4):
            prompt = batch["prompt_ids"][n][batch["prompt_mask"][n].bool()].tolist()
            worth = batch["advantages"][n][real[n] & said[n]].tolist()
            theirs.append((prompt + batch["completion_ids"][n][real[n]].tolist(), worth))
    assert sorted(theirs) == sorted(ours)  # TRL shuffles them
    assert any(len(set(worth)) > 1 for _, worth in ours)
    now = made.agent.policy.lm.trained()
    assert any(not torch.equal(before[name], w) for name, w in now.items())
    log = made.state.log_history[-1]
    outcome = traj.reward_terms["outcome"].sum() / 8
    assert log["rewards/outcome/mean"] == pytest.approx(outcome) == log["episode/success"]
    paid = traj.reward_terms["verified_turn"].sum() / 8
    assert log["reward"] == pytest.approx(outcome + paid, abs=1e-5)


def test_the_gradient_equals_our_own(tmp_path: Path) -> None:
    made = trainer(tmp_path, loss_type="bnpo", max_steps=1)  # a mean over tokens, as ours
    rollouts, _ = watched(made)
    gradient: dict[str, torch.Tensor] = {}
    step = made.training_step

    def noted(model: Any, *given: Any) -> Any:
        out = step(model, *given)
        gradient.update({name: p.grad.clone() for name, p in model.named_parameters()})
        return out

    made.training_step = noted  # type: ignore[method-assign]
    made.train()
    learner = GiGPO(process=["verified_turn"], max_tokens=8, context=256)
    learner._begin(taught().policy.lm.clone())
    traj = rollouts[0]
    data = transcripts(traj)
    malformed = traj.extras["malformed"].astype(bool) & traj.valid
    given = learner.prepared(traj, data, traj.reward - 0.1 * malformed)
    learner.loss(data, given)[0].backward()
    for name, p in learner.policy.lm.model.named_parameters():
        torch.testing.assert_close(gradient[name], p.grad, rtol=1e-3, atol=1e-6)


def test_it_learns_to_read_the_doors(tmp_path: Path) -> None:
    made = trainer(
        tmp_path, worlds=64, num_generations=8,
        per_device_train_batch_size=16, steps_per_generation=4, num_iterations=2,
        max_steps=8 * 40, loss_type="bnpo", logging_steps=8,
    )  # fmt: skip
    success: list[float] = []

    class Watch(transformers.TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any, **given: Any) -> None:
            if "episode/success" in logs:
                success.append(logs["episode/success"])
                control.should_training_stop = len(success) > 4 and np.mean(success[-3:]) > 0.8

    made.add_callback(Watch())
    made.train()
    assert success[0] < 0.6 and np.mean(success[-3:]) > 0.8, success


def test_a_run_that_goes_on_equals_one_that_was_not_interrupted(tmp_path: Path) -> None:
    saving = {"save_strategy": "steps", "save_steps": 2, "max_steps": 4}
    whole = trainer(tmp_path / "whole", **saving)
    rollouts, _ = watched(whole)
    whole.train()
    resumed = trainer(tmp_path / "part", **saving)
    again, _ = watched(resumed)
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole/checkpoint-2"))
    assert len(rollouts) == 4 and len(again) == 2
    for one, other in zip(rollouts[2:], again, strict=True):
        assert one.obs["text"].tolist() == other.obs["text"].tolist()
        assert one.action.tolist() == other.action.tolist()
    theirs = resumed.agent.policy.lm.state_dict()
    for name, weight in whole.agent.policy.lm.state_dict().items():
        torch.testing.assert_close(weight, theirs[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("lora", ["null", "{r: 4}"])
def test_what_embodied_train_takes_is_trained(folder: Path, tmp_path: Path, lora: str) -> None:
    given = [
        *GIVEN[:3], "reward_model=[outcome,implicit_process]", "agent.process=[implicit_process]",
        f"agent.model={folder}/model", f"agent.lora={lora}", "seed=3",
    ]  # fmt: skip
    made = trl_trainer(given, config(tmp_path), folder / "conf")
    rollouts, _ = watched(made)
    made.train()
    assert made.agent.policy.max_tokens == 8 and made.collector.env.num_worlds == 8
    tasks = [row["task"] for row in made.collector.env.snapshot(np.arange(8))]
    assert len(set(tasks)) == 2 and tasks == [*[tasks[0]] * 4, *[tasks[4]] * 4]
    assert np.any(rollouts[1].reward_terms["implicit_process"] != 0.0)
    assert np.isfinite(made.state.log_history[-1]["model/implicit_process/loss"])
    assert made.agent.policy.lm.has_adapters == (lora != "null")
    made.save_model(str(tmp_path / "end"))
    assert list((tmp_path / "end").glob("*.safetensors"))


@pytest.mark.parametrize(
    ("given", "settings", "says"),
    [
        (["env.group=4"], {}, r"env.group: .*GRPOConfig\(num_generations=...\)"),
        (["num_envs=4"], {}, r"num_envs: .*GRPOConfig\(per_device_train_batch_size=...\)"),
        (["agent.lr=1e-5"], {}, r"agent.lr: .*GRPOConfig\(learning_rate=...\)"),
        (["video=false"], {}, "video: the run is TRL's own"),
        (["agent.memory=2"], {}, "agent.memory: TRL takes an episode as one sequence"),
        (["agent=language_ppo"], {}, "take agent=gigpo, grpo or rloo"),
        (["agent=sft"], {}, "embodied imitate agent=sft"),
        (["agent=ppo"], {}, "a world of text and an agent that speaks"),
        (["env=hopper"], {}, "a world of text and an agent that speaks"),
        (["+reward_model.outcome.late=2"], {}, "late=2"),
        (["agent.model=none"], {}, "none holds no model"),
        ([], {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "world": 2},
         "give a multiple of num_generations=4, so that a process has whole groups"),
        ([], {"max_steps": -1}, "max_steps=-1: .*give updates to make"),
        ([], {"eval_strategy": "steps", "eval_steps": 1}, "eval_strategy: TRL trains alone"),
        ([], {"reward_weights": [1.0]}, "give reward_model.NAME.weight"),
    ],
)  # fmt: skip
def test_what_cannot_be_trained_is_told(
    folder: Path, tmp_path: Path, given: list[str], settings: dict[str, Any], says: str
) -> None:
    kept = [text for text in GIVEN if text.split("=")[0] not in {g.split("=")[0] for g in given}]
    model = [] if "agent.model=none" in given else [f"agent.model={folder}/model"]
    given = [*kept, *(model if "agent=ppo" not in given else []), *given]
    wide = settings.pop("world", 1)
    args = config(tmp_path, **settings)
    if wide > 1:  # as if there were more processes
        args.steps_per_generation //= wide
    with pytest.raises(UserError, match=says):
        trl_trainer(given, args, folder / "conf")


def test_processes_that_would_wait_for_each_other_are_told(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    args = config(tmp_path)
    monkeypatch.setattr(type(args), "world_size", 2)
    args.use_vllm, args.vllm_mode = True, "server"
    with pytest.raises(UserError, match="would wait for each other.*vllm_mode='colocate'"):
        trl_trainer([*GIVEN, f"agent.model={folder}/model"], args, folder / "conf")


def test_a_model_that_trl_would_not_find_again_is_told(folder: Path, tmp_path: Path) -> None:
    args = config(tmp_path, beta=0.1)
    with pytest.raises(UserError, match="beta=0.1: .*give agent.model=FOLDER"):
        check_model(taught().policy.lm, "runs/taught", args)
    loaded = CausalLM.load(folder / "model")
    check_model(loaded, None, args)
    args.use_vllm = True
    with pytest.raises(UserError, match="use_vllm: .*give agent.model=FOLDER"):
        check_model(taught().policy.lm, None, args)
    check_model(loaded, None, args)


SCRIPT = """
import sys
from pathlib import Path
from trl import GRPOConfig
from embodied.agents.trl import trl_trainer
folder, out = map(Path, sys.argv[1:])
args = GRPOConfig(
    str(out), max_steps=1, num_generations=4, per_device_train_batch_size=8, bf16=False,
    max_completion_length=8, use_cpu=True, disable_tqdm=True, save_strategy="steps", save_steps=1,
)
given = ["env=doors", "env.max_steps=4", "agent=gigpo", "reward_model=[outcome,verified_turn]"]
trl_trainer([*given, f"agent.model={folder}/model"], args, folder / "conf").train()
"""


def test_two_processes_have_worlds_of_their_own(folder: Path, tmp_path: Path) -> None:
    script = tmp_path / "learn.py"
    script.write_text(SCRIPT)
    done = together(str(script), str(folder), str(tmp_path / "run"))
    assert done.returncode == 0, done.stderr[-2000:]
    saved = [
        load_checkpoint(tmp_path / f"run/checkpoint-1/worlds_{rank}").state for rank in range(2)
    ]
    tasks = [state["env"]["task"].tolist() for state in saved]
    assert [len(set(own)) for own in tasks] == [2, 2] and not set(tasks[0]) & set(tasks[1])


def test_evaluation_is_not_trl_s(tmp_path: Path) -> None:
    made = trainer(tmp_path)
    with pytest.raises(UserError, match="TRL asks for 3 episodes, there are 8 worlds"):
        made.rollout_func(["doors"] * 3, made)


def test_where_trl_is_missing_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "embodied.agents.trl")
    monkeypatch.setitem(sys.modules, "trl", None)
    with pytest.raises(UserError, match=r"pip install 'embodied-rl\[trl\]'"):
        importlib.import_module("embodied.agents.trl")
