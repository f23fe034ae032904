"""`embodied demo`: what it refuses before it starts. It is run whole by `benchmarks/demo.py`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from embodied.config import compose_config
from embodied.demo import CLONE, ENV, MODEL, TRAINING, _mixture, _recall, demo
from embodied.errors import UserError


@pytest.mark.parametrize("wrong", ["total_stesp=5", "agent.nothing=1", "reward_model.hop.every=2"])
def test_a_mistake_is_said_before_anything_is_written(
    wrong: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError):
        demo([wrong, f"run_dir={tmp_path}/run"])
    assert not (tmp_path / "run").exists() and capsys.readouterr().err == ""


def test_the_policy_begins_as_the_clone_can() -> None:
    """What `agent.start` asks of both: the same networks."""
    ours = compose_config([f"env={ENV}", *(f"{key}={value}" for key, value in TRAINING.items())])
    clone = compose_config([f"env={ENV}", "dataset=none", *CLONE], "imitate")
    for key in ("hidden", "activation"):
        assert ours.agent[key] == clone.agent[key]
    assert compose_config([f"env={ENV}", f"reward_model={MODEL}"]).reward_model[MODEL].threshold


@pytest.mark.parametrize("seen", ["state", "pixels"])
def test_the_reward_is_fitted_audited_and_trained_on_alike(
    seen: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A judge of images is asked seldom, and remembers what it is asked about."""
    steps: dict[str, list[str]] = {}
    monkeypatch.setattr(
        "embodied.demo._step", lambda verb, given: steps.update({verb.__name__: given})
    )
    monkeypatch.setattr("embodied.demo._success", lambda run, worlds=(): 1.0)
    monkeypatch.setattr("embodied.demo._recall", lambda model: 0.8)
    demo([f"run_dir={tmp_path}/run", f"reward_model.{MODEL}.input={seen}"])
    told = [t for t in steps["train"] if not t.startswith(("run_dir", "agent"))]
    asked = compose_config(told).reward_model[MODEL]
    assert asked.input == seen and asked.stride % asked.every == 0
    assert (asked.every, asked.threshold) == ((10, 0.8) if seen == "pixels" else (5, 0.95))
    for held in ("agent.anchor=0.05", "agent.init_std=0.1", "agent.lr=2e-4", "agent.epochs=4"):
        assert (held in steps["train"]) == (seen == "pixels")
    own = {text for text in told if text.startswith("reward_model") and "path" not in text}
    assert own <= set(steps["fit"]) and own <= set(steps["audit"])
    assert ("stop_at_judged=0.80" in told) == (seen == "pixels")
    for step in ("collect", "fit", "imitate", "train"):  # delays are for the policy alone
        worlds = compose_config([t for t in steps[step] if t.startswith("env")]).env.randomise
        assert worlds.obs_noise == (0.002 if seen == "state" else 0.0)
        late = step == "train" and seen == "state"
        assert list(worlds.delay_steps) == [0, int(late)]


def test_worlds_vary_as_one_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: dict[str, list[str]] = {}
    monkeypatch.setattr(
        "embodied.demo._step", lambda verb, given: steps.update({verb.__name__: given})
    )
    monkeypatch.setattr("embodied.demo._success", lambda run, worlds=(): 1.0)
    demo([f"run_dir={tmp_path}/run", "env.randomise.delay_steps=[0,2]"])
    worlds = compose_config(steps["train"]).env.randomise
    assert (list(worlds.delay_steps), worlds.obs_noise) == ([0, 2], 0.002)
    shown = compose_config([t for t in steps["imitate"] if t.startswith("env")]).env.randomise
    assert (list(shown.delay_steps), shown.obs_noise) == ([0, 2], 0.002)


def test_it_is_judged_on_every_flaw_of_the_task() -> None:
    names = _mixture().strip("[]").split(",")
    assert {"expert*12", "expert:near_miss*6", "expert:drops*6", "random*6"} <= set(names)


def test_a_judge_is_trusted_as_far_as_it_knew_held_out_successes(tmp_path: Path) -> None:
    rows = [
        {"source": "expert", "true_success": 1.0, "accepted_ever": 0.5, "episodes": 12},
        {"source": "expert:slow", "true_success": 1.0, "accepted_ever": 1.0, "episodes": 4},
        {"source": "expert:drops", "true_success": 0.0, "accepted_ever": 0.0, "episodes": 6},
    ]
    (tmp_path / "audit.json").write_text(json.dumps({"sources": rows}))
    assert _recall(tmp_path) == pytest.approx(0.815, abs=5e-4)  # of 10 in 16, by Wilson
