"""Supervised fine-tuning: what is learned, of which tokens, and with adapters."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from embodied.agents.rloo import RLOO
from embodied.agents.sft import SFT

from embodied.causal_lm import IGNORED, CausalLM
from embodied.conversations import Conversation, converse, experts
from embodied.errors import UserError
from tests.talks import doors, lm, talk
from tests.toys import through_disk

SMALL = {"width": 32, "heads": 2, "vocabulary": 400, "context": 256, "lr": 3e-3}


def test_only_what_was_said_is_to_be_said() -> None:
    sft = SFT(**SMALL)
    sft._begin(lm().clone())
    ids, targets = sft._row(lm(), Conversation(["a door", "it opens", "out"], ["say oak", "go"]))
    said = lm().tokenizer.decode(ids[targets != IGNORED].tolist())
    assert said == "say oak<|im_end|>go<|im_end|>"
    assert "out" not in lm().tokenizer.decode(ids.tolist())  # nothing is said after it


def test_a_small_model_learns_the_gold_actions_and_succeeds() -> None:
    env = doors(16, 1)
    sft = SFT(steps=800, reading=0.2, **SMALL)
    figures = sft.fit(experts(env, range(32)))
    assert figures["loss_after"] < 0.2 < figures["loss_before"]
    told = converse(env, sft.policy, range(1000, 1016), "sft")
    assert np.mean([one.success for one in told]) > 0.4  # of doors that it has not seen


def test_adapters_learn_and_leave_the_model_as_it_was(tmp_path: Path) -> None:
    """LoRA on a checkpoint of a real architecture with its own chat template."""
    lm().model.save_pretrained(tmp_path / "qwen")
    lm().tokenizer.save_pretrained(tmp_path / "qwen")
    given = {"model": str(tmp_path / "qwen"), "lora": {"r": 4, "target_modules": ["q_proj"]}}
    sft = SFT(steps=20, context=256, lr=1e-2, **given)
    model = CausalLM.load(tmp_path / "qwen", lora=given["lora"])
    before = {k: v.clone() for k, v in model.model.state_dict().items()}
    sft._begin(model)
    sft.fit(experts(doors(4, 1), range(4)))
    after = model.model.state_dict()
    changed = {k for k in before if not torch.equal(before[k], after[k])}
    assert changed and all("lora_" in k for k in changed)
    state = through_disk(sft.state_dict(), tmp_path)
    assert set(state["lm"]["weights"]) == set(model.trained()) and state["lm"]["made"] is None
    learner = RLOO(context=256, kl=0.1, **given)
    learner.load_state_dict({**state, "heads": {}})
    np.testing.assert_array_equal(
        learner.policy.lm.hidden(torch.tensor([[3, 4, 5]])).detach(),
        model.hidden(torch.tensor([[3, 4, 5]])).detach(),
    )
    assert learner.policy.lm.reference_state() is None  # without its adapters it is what it was
    traj = talk(model=learner.policy.lm)
    traj.reward = np.where(traj.valid, [[1.0, 0.0, 1.0, 0.0]], 0.0).astype(np.float32)
    assert np.isfinite(list(learner.update(traj).values())).all()


def test_a_text_that_is_too_long_is_told() -> None:
    sft = SFT(**{**SMALL, "context": 64})
    with pytest.raises(UserError, match="give more agent.context"):
        sft.fit([Conversation(["a door " * 200, ""], ["say oak"], task=7)])


def test_it_does_not_learn_by_doing() -> None:
    with pytest.raises(UserError, match="embodied imitate agent=sft"):
        _ = SFT().gamma


@pytest.mark.parametrize(("cooldown", "last"), [(0.1, 0.25), (0.5, 0.05), (0.0, 1.0)])
def test_the_rate_falls_over_the_last_share_of_the_steps(cooldown: float, last: float) -> None:
    sft = SFT(steps=40, cooldown=cooldown, **SMALL)
    sft.fit(experts(doors(2, 1), range(2)))
    assert sft.optimiser.param_groups[0]["lr"] == pytest.approx(last * SMALL["lr"])
