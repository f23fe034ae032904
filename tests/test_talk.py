"""Talks at a terminal and as a page: every turn with what it was paid."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from embodied.reward_models.env import EnvReward
from embodied.reward_models.turns.outcome import Outcome
from rich.console import Console

from embodied.cli import main
from embodied.reward_model import Channel
from embodied.rewards import Rewards
from embodied.talk import Talk, show, talks, write_page
from embodied.talk_page import render
from embodied.text_policies import Gold, Human
from embodied.types import Carry, Score, Trajectory
from tests.talks import doors
from tests.test_report import chromium

WORLD = ["env=sokoban", "env.width=5", "env.height=5", "env.boxes=1"]


def told(num_worlds: int = 2) -> list[Talk]:
    env = doors(num_worlds, 1)
    channels = {
        "env": Channel("env", EnvReward(), weight=2.0),
        "outcome": Channel("outcome", Outcome()),
    }
    return talks(env, Gold(env), Rewards(channels, num_worlds, 1.0))


def test_a_talk_has_every_turn_with_what_it_was_paid() -> None:
    talk = told()[0]
    assert talk.success and len(talk.turns) == 2 and talk.last.endswith("You are out.")
    assert [turn.paid for turn in talk.turns] == [
        {"env": 1.0, "outcome": 0.0}, {"env": 1.0, "outcome": 1.0},
    ]  # fmt: skip
    assert [turn.progress for turn in talk.turns] == [0.5, 1.0]
    assert talk.turns[0].said == f"say {talk.turns[0].seen.split()[-1].strip('.')}"
    assert talk.total == 3.0


def test_the_terminal_shows_markup_as_it_is() -> None:
    talk = told(1)[0]
    talk.turns[0].said, talk.turns[0].valid = "[bold]say[/]", False
    out = io.StringIO()
    show(doors(1, 1), [talk], Console(file=out, width=100))
    text = out.getvalue()
    assert "> [bold]say[/]" in text and "not understood" in text and "outcome +1.00" in text
    assert "success, 2 turns, +3.00 in all" in text


def test_beliefs_and_progress_stand_beside_a_turn() -> None:
    env, seen = doors(1, 1), []

    class Believes(Outcome):
        def score(self, carry: Carry, traj: Trajectory) -> tuple[Carry, Score]:
            seen.append(traj.shape)
            belief = np.linspace(0.25, 0.5, traj.shape[0], dtype=np.float32)[:, None]
            carry, score = super().score(carry, traj)
            return carry, Score(score.value, score.status, {"belief": belief})

    rewards = Rewards({"gain": Channel("gain", Believes())}, 1, 1.0)
    talk = talks(env, Gold(env), rewards)[0]
    assert seen == [(2, 1)]
    assert [turn.told for turn in talk.turns] == [{"gain/belief": 0.25}, {"gain/belief": 0.5}]
    out = io.StringIO()
    show(env, [talk], Console(file=out, width=100))
    assert "belief 0.25" in out.getvalue() and "belief 0.50" in out.getvalue()
    assert '>belief</span><span class="bar"><i class="share" style="left:0;width:25%">' in render(
        "doors", "expert", [talk]
    )


def test_the_page_holds_what_was_said_and_runs_nothing_of_it(tmp_path: Path) -> None:
    one, other = told()
    other.success, other.turns[0].said = False, "<script>alert(1)</script>"
    html = render("doors", "expert", [one, other])
    assert "1 of 2" in html and "<script" not in html and "&lt;script&gt;" in html
    assert html.count('class="turn"') == 6 and "http" not in html
    write_page(tmp_path / "talks.html", "doors", "expert", [one, other])
    shown = chromium(tmp_path, html, "--dump-dom")
    assert "You are out." in shown.stdout


def test_a_person_talks_until_the_input_ends(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    lines = iter(["up"] * 3)

    def typed(prompt: str) -> str:
        try:
            return next(lines)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr("builtins.input", typed)
    assert main(["play", "human", *WORLD]) == 2
    out = capsys.readouterr()
    assert out.err.strip().endswith("nothing more is said: the talk ends here")
    assert out.out.count("#####") > 4


def test_play_shows_experts_and_writes_a_page(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    page = tmp_path / "page.html"
    assert main(["play", "expert", *WORLD, "episodes=2", f"out={page}"]) == 0
    assert capsys.readouterr().out.count("success, ") == 2 and "2 of 2" in page.read_text()
    assert main(["play", "expert", *WORLD, "episodes=1", f"out={tmp_path}/no/page.html"]) == 2


def test_gold_actions_begin_again_with_each_episode() -> None:
    env = doors(2, 1)
    policy, obs = Gold(env), env.reset()
    carry = policy.carry(2)
    for _ in range(2):
        carry, said = policy.act(carry, obs)
        step = env.step(said)
    assert step.success.all()
    obs = env.reset(np.array([True, False]))
    carry["turn"][0] = 0
    _, said = policy.act(carry, obs)
    assert said[0] == env.gold()[0][0] and said[1] == ""
    assert Human().carry(2)["world"].tolist() == [0, 1]
