"""The audit: its verdict, its record, and what the gate makes of it."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from omegaconf import OmegaConf

from embodied.audit import audit, finite, run_audit
from embodied.card import accepted, measure
from embodied.checks import Clip
from embodied.errors import UserError
from embodied.gate import RECORD, audit_of, dataset_fingerprint, fingerprint
from embodied.lerobot import write_dataset
from tests import judges
from tests.judges import Clock, Honest, episodes
from tests.toys import conf_of_toys


@pytest.fixture
def world(tmp_path):
    """A configuration with the judges as options, and their episodes on disk."""
    conf = conf_of_toys(tmp_path / "conf")
    for name in ("Honest", "Clock", "AlwaysYes"):
        (conf / "reward_model" / f"toy_{name.lower()}.yaml").write_text(
            f"# @package reward_model.toy_{name.lower()}\n_target_: tests.judges.{name}\n"
            "path: null\ngain: 1.0\nweight: 1.0\nshaping: potential\nthreshold: 0.95\n"
            "bonus: 1.0\nevery: 1\n"
        )
    write_dataset(tmp_path / "data", episodes(2))
    return tmp_path


def arguments(world, name, *more):
    return [
        "env=point", "sim=points", f"reward_model=toy_{name}", f"dataset={world / 'data'}", *more
    ]  # fmt: skip


def node(**given):
    return OmegaConf.create(
        {"_target_": "tests.judges.Honest", "path": None, "gain": 1.0, "weight": 1.0,
         "threshold": 0.95, "every": 1, **given}
    )  # fmt: skip


def test_it_passes_the_honest_and_fails_the_clock(world, capsys):
    out = f"out={world / 'out'}"
    assert audit(arguments(world, "honest", out), world / "conf") == 0
    told = capsys.readouterr().out
    assert told.startswith("PASSED  toy_honest on reach_point") and "near_miss" in told
    assert audit(arguments(world, "clock", out), world / "conf") == 1
    told = capsys.readouterr().out
    assert told.startswith("FAILED  toy_clock on reach_point") and "follows time" in told
    assert "does not apply" in told and "expert:retries" in told
    record = json.loads((world / "out" / RECORD).read_text())
    assert record["gate"] == "failed" and record["model"] == "toy_clock"
    assert record["dataset"]["episodes"] == 16 and len(record["dataset"]["fingerprint"]) == 16
    assert {row["source"] for row in record["sources"]} == set(judges.SOURCES)
    assert (world / "out" / "report.html").read_text().startswith("<!doctype html>")


def test_the_record_lies_beside_the_model_and_the_gate_reads_it(world):
    folder = world / "model"
    Honest().save(folder)
    given = [f"reward_model.toy_honest.path={folder}"]
    done = run_audit(arguments(world, "honest", *given), world / "conf")
    assert done.record_path == folder / RECORD and done.report_path == folder / "report.html"
    model = Honest(path=str(folder))
    assert audit_of(model, node(path=str(folder)), "reach_point")[0] == "passed"
    assert audit_of(model, node(path=str(folder), weight=3.0), "reach_point")[0] == "passed"
    verdict, detail = audit_of(model, node(path=str(folder)), "elsewhere")
    assert verdict == "never audited" and "env=reach_point" in detail
    laxer = node(path=str(folder), threshold=0.5)
    assert audit_of(model, laxer, "reach_point")[0] == "never audited"
    model.gain = 2.0  # as if it had been fitted again
    verdict, detail = audit_of(model, node(path=str(folder)), "reach_point")
    assert verdict == "never audited" and "changed" in detail


def test_a_failed_audit_is_told_from_none(world, tmp_path):
    folder = world / "clock"
    Clock().save(folder)
    given = [f"reward_model.toy_clock.path={folder}"]
    assert audit(arguments(world, "clock", *given), world / "conf") == 1
    clock = Clock(path=str(folder))
    configured = OmegaConf.merge(node(path=str(folder)), {"_target_": "tests.judges.Clock"})
    verdict, detail = audit_of(clock, configured, "reach_point")
    assert verdict == "failed" and "follows time" in detail
    assert audit_of(Honest(), node(), "reach_point")[0] == "never audited"
    empty = Honest().save(tmp_path / "fresh")
    assert audit_of(Honest(path=str(empty)), node(), "reach_point")[0] == "never audited"
    (folder / RECORD).write_text("{broken")
    assert audit_of(clock, configured, "reach_point")[0] == "never audited"


def test_fingerprints_heed_what_matters():
    assert fingerprint(Honest(), node()) == fingerprint(Honest(), dict(node(weight=2.0, seed=4)))
    assert fingerprint(Honest(), node()) != fingerprint(Honest(gain=1.5), node())
    assert fingerprint(Honest(), node()) != fingerprint(Honest(), node(threshold=0.9))
    data, same, other = episodes(2), episodes(2), episodes(2)
    other.episodes[3].state[1, 0] += 1e-3
    assert dataset_fingerprint(data) == dataset_fingerprint(same) != dataset_fingerprint(other)
    seen, changed = episodes(1, images=True), episodes(1, images=True)
    changed.episodes[0].images["front"][0, 5, 5, 0] += 1
    assert dataset_fingerprint(seen) != dataset_fingerprint(changed)


def test_other_tasks_and_the_own_policy_are_heard(world):
    other = episodes(1, sources=("expert",), task=judges.OTHER)
    write_dataset(world / "other", other)
    policy = episodes(4, sources=("expert", "expert:stops_short"))
    write_dataset(world / "policy", policy)
    more = (
        f"others={world / 'other'}", f"rollouts={world / 'policy'}", f"out={world / 'out'}",
    )  # fmt: skip
    done = run_audit(arguments(world, "alwaysyes", *more), world / "conf")
    told = done.card.rollouts
    assert (told["judged_success"], told["true_success"], told["gap"]) == (1.0, 0.5, 0.5)
    assert told["auroc"] == 0.5
    assert "policy_gap" in {finding.check.name for finding in done.card.failed}
    fine = run_audit(arguments(world, "honest", *more), world / "conf")
    assert fine.card.rollouts["gap"] == 0.0 and fine.card.rollouts["auroc"] == 1.0
    assert fine.card.gate == "passed"


@pytest.mark.parametrize(
    ("drop", "add", "words"),
    [
        ("dataset", (), "dataset=FOLDER"),
        ("dataset", ("dataset=nowhere", "out=x"), "nowhere"),
        ("reward_model", ("reward_model=[]",), "one reward model"),
        ("", (), "out=FOLDER"),
        ("", ("datasets=x",), "did you mean dataset"),
    ],
)
def test_bad_input_is_one_line(world, drop, add, words):
    given = [
        text for text in arguments(world, "honest", *add)
        if text in add or not text.startswith(f"{drop}=")
    ]  # fmt: skip
    with pytest.raises(UserError, match=words) as caught:
        run_audit(given, world / "conf")
    assert "\n" not in str(caught.value)
    assert not (world / "x").exists()


def test_a_dataset_of_another_env_is_refused(world):
    data = episodes(1)
    data = type(data)(type(data.info)(**{**data.info.__dict__, "env": "push"}), data.episodes)
    write_dataset(world / "reach", data)
    given = arguments(world, "honest", "out=x")
    given = [f"dataset={world / 'reach'}" if a.startswith("dataset=") else a for a in given]
    with pytest.raises(UserError, match="env=push"):
        run_audit(given, world / "conf")


def test_there_must_be_good_and_bad():
    with pytest.raises(UserError, match="no failed episode"):
        measure(Honest(), episodes(2, sources=("expert",)))
    with pytest.raises(UserError, match="no successful episode"):
        measure(Honest(), episodes(2, sources=("expert:near_miss", "random")))
    plain = Honest()
    plain.kind = "reward"
    with pytest.raises(UserError, match="'reward'"):
        measure(plain, episodes(1))


# --- the card


class Lenient(Honest):
    """Takes nine tenths for all."""

    def __init__(self) -> None:
        super().__init__(gain=1.0 / 0.9)


def test_the_worst_flaw_is_named_in_words():
    card = measure(Lenient(), episodes(4), threshold=0.95)
    one = "100% of near_miss episodes (4 of 4)"
    assert card.weakness == f"it accepts {one}, 100% of undoes episodes (4 of 4)"
    rows = {row["source"]: row for row in card.sources}
    assert rows["expert:near_miss"]["accepted_at_end"] == 1.0
    assert rows["expert:stops_short"]["accepted_ever"] == 0.0
    assert rows["expert:undoes"]["accepted_ever"] == 1.0
    assert rows["expert:undoes"]["accepted_at_end"] == 0.0
    assert [*rows][0] == "expert" and [*rows][-1] == "random"


def test_what_was_undone_may_have_been_called_a_success_while_it_was():
    data = episodes(1, sources=("expert:undoes",)).episodes[0]
    clip = Clip(data, np.where(data.progress > 0.85, 1.0, 0.0), np.zeros(len(data), np.int8))
    assert accepted(clip, 0.95)  # it never was one
    data.success = data.progress > 0.85
    assert not accepted(clip, 0.95)
    clip.value[-1] = 1.0
    assert accepted(clip, 0.95)


def test_figures_of_an_honest_judge_and_a_clock():
    honest, clock = (measure(m, episodes(3), threshold=0.95).metrics for m in (Honest(), Clock()))
    assert honest["voc_f1"] > 0.99 and honest["vroc"] > 0.99 and honest["mae"] < 1e-6
    assert clock["voc"] > 0.99 and clock["voc_f1"] == 0.0
    assert honest["auroc"] == 1.0 and clock["auroc"] <= 0.6
    assert honest["opd"]["mc100"] == 1.0 and honest["opd"]["cra"] == 0.0
    assert sum(honest["hop_pairs"]) > 0
    assert all(
        right == 1.0 for right, n in zip(honest["hop_accuracy"], honest["hop_pairs"], strict=True)
        if n
    )  # fmt: skip


def test_values_of_any_range_are_brought_to_the_unit():
    class Percent(Honest):
        value_range = (-100.0, 100.0)

        def read(self, carry, state, traj, t):
            carry, value, status = super().read(carry, state, traj, t)
            return carry, 200 * value - 100, status

        def _ours(self, instructions, count):
            return np.ones(count, np.float32)

    card = measure(Percent(), episodes(2), threshold=90.0)
    assert card.threshold == pytest.approx(0.95)
    assert card.metrics["mae"] == pytest.approx(0.0, abs=1e-6)


def test_who_is_asked_at_the_end_alone_is_audited_on_every_frame():
    often, once = (measure(Honest(), episodes(2), every=every) for every in (1, 10**6))
    assert once.gate == "passed" and once.metrics["voc"] == often.metrics["voc"]
    held = measure(Honest(), episodes(2), every=10).metrics["voc"]
    assert 0.5 < held < often.metrics["voc"]


def test_what_is_not_finite_is_null_and_counts_as_nothing_achieved():
    assert finite({"a": [math.nan, 1.0], "b": (math.inf,)}) == {"a": [None, 1.0], "b": [None]}

    class Broken(Honest):
        def read(self, carry, state, traj, t):
            carry, value, status = super().read(carry, state, traj, t)
            return carry, np.where(value > 0.5, np.nan, value), status

    card = measure(Broken(), episodes(2), threshold=0.95)
    assert card.gate == "failed" and card.metrics["opd"]["mc75"] == 0.0


def test_real_recordings_without_an_expert_are_audited_too():
    data = episodes(3)
    for episode in data.episodes:
        episode.source = "recorded"
        episode.progress = np.full_like(episode.progress, np.nan)
    card = measure(Honest(), data, threshold=0.95)
    assert card.metrics["auroc"] == 1.0 and "mae" not in card.metrics
    (row,) = card.sources
    assert math.isnan(row["rmse"])
