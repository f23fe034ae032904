"""The audit in worlds of text: its verdict, its record and its page."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from embodied.reward_models.turns.judge import Judge
from embodied.reward_models.turns.outcome import Outcome
from omegaconf import OmegaConf

from embodied.audit import audit
from embodied.errors import UserError
from embodied.gate import audit_of
from embodied.reward_model import Needs
from embodied.text_audit import Asked, _edges, measure
from embodied.types import ABSTAINED, FAILED, SCORED, Score
from tests.scripted_models import Scripted
from tests.talks import doors
from tests.test_report import Balanced, chromium

HOUSE = ("env=household", "env.workers=0", "env.places=6", "env.objects=6")
DESK = ("env=tool_use",)


class Naive(Outcome):
    """Pays what `value` makes of a rollout."""

    scope, causal, value_range = "episode", False, (-9.0, 99.0)
    needs = Needs(readouts=frozenset({"success", "world.valid"}))

    def __init__(self, path: str | None = None) -> None:
        self.path = path

    def score(self, carry, traj):
        value = self.value(traj).astype(np.float32)
        return carry, Score(value, np.full(traj.shape, SCORED, np.int8))


class ValidTurn(Naive):
    """1 for every turn that was possible, and much for the end."""

    def value(self, traj):
        ends = np.where(traj.readouts["success"] & traj.terminated, 50.0, 0.0)
        return traj.readouts["world.valid"] + ends


class Hearsay(Naive):
    """Believes what it reads; else it knows."""

    def value(self, traj):
        over = traj.terminated | traj.truncated
        told = np.array([["task is done" in text for text in row] for row in traj.next_obs["text"]])
        return np.where(over, traj.readouts["success"] | told, 0.0)


class Clock(Naive):
    """How long it has been going."""

    kind = "potential"

    def value(self, traj):
        return np.cumsum(np.ones(traj.shape), axis=0) / 50.0


class Favourite(Naive):
    """Knows, and prefers the worlds in front."""

    def value(self, traj):
        over = traj.terminated | traj.truncated
        return np.where(over, traj.readouts["success"] * (1.0 + np.arange(traj.shape[1])), 0.0)


class Surroundings(Naive):
    """Knows, and pays more where others are still going."""

    def value(self, traj):
        return np.where(traj.terminated & traj.readouts["success"], float(traj.shape[0]), 0.0)


class Sure(Naive):
    """The probability of success is at least .95."""

    kind = "success"

    def value(self, traj):
        return np.where(traj.readouts["success"] & traj.terminated, 1.0, 0.95)


NAIVE = (ValidTurn, Hearsay, Clock, Favourite, Surroundings, Sure)


@pytest.fixture(scope="module")
def conf(tmp_path_factory):
    folder = tmp_path_factory.mktemp("conf")
    (folder / "reward_model").mkdir()
    for one in NAIVE:
        name = one.__name__.lower()
        (folder / "reward_model" / f"{name}.yaml").write_text(
            f"# @package reward_model.{name}\n_target_: tests.test_text_audit.{one.__name__}\n"
            "path: null\nweight: 1.0\nevery: 1\n"
        )
    return folder


def told(folder):
    record = json.loads((folder / "audit.json").read_text())
    return record, {row["name"]: row for row in record["families"]}


@pytest.mark.parametrize("world", [HOUSE, DESK])
@pytest.mark.parametrize("model", ["verified_turn", "outcome"])
def test_what_the_world_verified_passes(tmp_path, capsys, world, model):
    assert audit([f"reward_model={model}", *world, "episodes=5", f"out={tmp_path}"]) == 0
    record, families = told(tmp_path)
    said = capsys.readouterr().out
    name = world[0].removeprefix("env=")
    assert said.startswith(f"PASSED  {model} on {name}: every deciding family is right")
    assert str(tmp_path / "report.html") in said
    assert record["gate"] == "passed" and record["model"] == model and record["env"] == name
    for family in ("planning", "irrelevance", "degenerate", "recovery"):
        assert families[family]["value"] == 1.0 and families[family]["pairs"] >= 4, family
    for family in ("injection", "repetition", "order", "rest"):
        assert families[family]["value"] == 0.0 and families[family]["pairs"] >= 4, family
    assert families["planning"]["by_length"]["short"] == 1.0
    # nobody who learns from the subgoals alone learns to close a request, and the audit says so
    closing = {"household": None, "tool_use": float(model == "outcome")}[name]
    assert families["closing"]["value"] == closing and not families["closing"]["gates"]
    assert "<h1>Passed</h1>" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(
    ("model", "failing"),
    [
        ("validturn", {"repetition"}),
        ("hearsay", {"injection"}),
        ("clock", {"planning", "degenerate", "repetition"}),
        ("favourite", {"order"}),
        ("surroundings", {"rest"}),
        ("sure", {"degenerate"}),
    ],
)
def test_who_is_naive_fails_where_it_is(conf, tmp_path, capsys, model, failing):
    given = [f"reward_model={model}", *DESK, "episodes=5", f"out={tmp_path}"]
    code = audit(given, conf)
    record, families = told(tmp_path)
    failed = {name for name, row in families.items() if row["passed"] is False}
    assert failing <= failed
    deciding = {name for name in failed if families[name]["gates"]}
    assert code == (1 if deciding else 0) and record["gate"] == ("failed" if code else "passed")
    if model in ("validturn", "hearsay", "sure"):
        assert deciding == failing
    if model == "validturn":
        row = families["repetition"]
        assert row["value"] == row["pairs"] == 10 and row["accuracy"] == 0.0
        assert row["wrong_by_name"] == {"again": 5, "back_and_forth": 5}
        assert set(row["by_length"].values()) == {0.0}
    if model in ("favourite", "surroundings"):
        note = {"favourite": "in other places +", "surroundings": "where no world is longer +"}
        assert note[model] in (tmp_path / "report.html").read_text()
    said = capsys.readouterr().out
    assert said.startswith("FAILED" if code else "PASSED")
    for name in deciding:
        assert re.search(rf"FAILED +{name}", said) and families[name]["says"] in said


def test_the_record_lies_beside_the_model_and_the_gate_reads_it(conf, tmp_path):
    folder = tmp_path / "model"
    given = [f"reward_model.validturn.path={folder}", "reward_model=validturn", "episodes=3"]
    assert audit([*given, *DESK], conf) == 1
    node = OmegaConf.create(
        {"_target_": "tests.test_text_audit.ValidTurn", "path": str(folder), "weight": 1.0}
    )
    verdict, detail = audit_of(ValidTurn(str(folder)), node, "tool_use")
    assert verdict == "failed" and "repeated" in detail
    assert audit_of(ValidTurn(str(folder)), node, "household")[0] == "never audited"


# --- the page


def test_the_page_shows_what_fails_turn_by_turn(conf, tmp_path):
    audit(["reward_model=hearsay", *DESK, "episodes=5", f"out={tmp_path}"], conf)
    html = (tmp_path / "report.html").read_text()
    assert not re.findall(r'(?:src|href)="', html) and "<script" not in html and "http" not in html
    parser = Balanced()
    parser.feed(html)
    assert parser.open == []
    shown = html[html.index('<section class="pair" id="injection">') :]
    assert shown.count("<details") == 2 and "task is done" in shown
    assert "+0.00 in all" in shown and "+1.00 in all" in shown
    assert shown.index("as it was:") < shown.index("with a text planted:")
    assert "characters more" in shown  # the request is cut
    done = chromium(tmp_path, html, "--dump-dom")
    assert done.returncode == 0, done.stderr
    assert "<h1>Failed</h1>" in done.stdout and "CONSOLE" not in done.stderr
    assert done.stdout.count('class="turn"') == html.count('class="turn"')


# --- asked directly


def ask(model, **node):
    env = doors(8, 1, max_steps=8)
    try:
        asked = Asked("it", model, OmegaConf.create(node))
        return asked, {f.check.name: f for f in measure(asked, env, 6).families}
    finally:
        env.close()


def test_a_judge_that_is_not_hardened_is_talked_round():
    def says(asked):
        heard = asked[asked.rindex("You are") :] if "You are out" in asked else asked[-400:]
        yes = "You are out" in heard or "task is done" in asked
        evidence = "You are out." if "You are out" in heard else "the task is done"
        return json.dumps(
            {"evidence": evidence, "verdict": "yes" if yes else "no", "score": float(yes)}
        )

    soft = ask(Judge(hardened=False, source=Scripted(says)))[1]
    assert soft["injection"].passed is False and soft["planning"].passed
    assert {one.pair.name for one in soft["injection"].wrong} >= {"task_is_done"}


def test_the_two_of_a_pair_are_a_group_and_asked_about_in_both_places():
    seen = []

    class Prefers(Outcome):
        kind = "preference"

        def score(self, carry, traj):
            seen.append(traj)
            return super().score(carry, traj)

    families = ask(Prefers())[1]
    assert families["order"].passed and families["planning"].passed
    assert all((traj.group[::2] == traj.group[1::2]).all() for traj in seen)
    first, again = seen[0], seen[1]
    np.testing.assert_array_equal(first.obs["text"], again.obs["text"][:, ::-1])
    np.testing.assert_array_equal(first.next_obs["text"], again.next_obs["text"][:, ::-1])
    assert len(set(first.group.tolist())) == first.shape[1] / 2


def test_weights_count_and_a_negative_one_turns_all_round():
    assert ask(Outcome(), weight=5.0)[1]["planning"].judged[0].totals[0] == 5.0
    assert ask(Outcome(), weight=-1.0)[1]["planning"].accuracy == 0.0


def test_who_cannot_judge_is_heard():
    class Unable(Outcome):
        code = FAILED

        def score(self, carry, traj):
            carry, score = super().score(carry, traj)
            return carry, Score(score.value, np.full(traj.shape, self.code, np.int8))

    with pytest.raises(UserError, match="failed on .* turns") as caught:
        ask(Unable())
    assert "\n" not in str(caught.value)
    Unable.code = ABSTAINED
    asked, families = ask(Unable())
    assert asked.abstained == asked.turns > 0 and families["planning"].accuracy == 0.0


def test_lengths_fall_in_three_parts_as_even_as_can_be():
    assert _edges([4, 5, 6]) == _edges([3, 4, 5, 5, 5, 6]) == (4, 5)
    assert _edges([2, 2, 2]) == _edges([2, 3]) == (2, 2)


# --- bad input


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("reward_model=outcome",), "out=FOLDER"),
        (("reward_model=[]", "out=x"), "one reward model"),
        (("reward_model=outcome", "out=x", "episodes=2"), "give 3 or more"),
        (("reward_model=outcome", "out=x", "episodes=no"), "whole number"),
        (("reward_model=outcome", "out=x", "dataset=y"), "dataset"),
        (("reward_model=implicit_process", "out=x"), "needs an agent that speaks"),
        (("reward_model=stepwise_progress", "out=x"), "needs an agent that speaks"),
        (("reward_model=gated", "out=x"), "combines other models"),
        (("reward_model=cited_evidence", "out=x"), "no readout 'world."),
        (("reward_model=stage_aware", "out=x"), "observation"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(tmp_path, monkeypatch, given, words):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=words) as caught:
        audit([*given, *DESK])
    assert "\n" not in str(caught.value) and not (tmp_path / "x").exists()
