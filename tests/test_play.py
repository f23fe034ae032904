"""Playing: what is in the video, and that nothing is left when there cannot be one."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from embodied import play as module
from embodied.actor import find_actor
from embodied.build import make_env
from embodied.config import compose_config
from embodied.env import Stepper
from embodied.errors import UserError
from embodied.play import play, record
from embodied.types import Carry, Obs

SMALL = ["size=64x64", "env.max_steps=12"]


def worlds(num_envs: int, *overrides: str) -> Stepper:
    return make_env(compose_config(list(overrides)), num_envs=num_envs)


def film(path: Path) -> tuple[int, int, int, Fraction | None]:
    """Frames, height, width, rate."""
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        count = sum(1 for _ in file.decode(stream))
        return count, stream.height, stream.width, stream.average_rate


def test_a_video_at_the_control_rate(tmp_path: Path) -> None:
    env = worlds(2, "env=pick_cube", "env.max_steps=12")
    path = record(find_actor("expert").policy(env), env, tmp_path / "a.mp4", 2, size=(64, 96))
    # the start, 12 steps, and 0.8 s at 20 Hz on the last picture; a header above two worlds
    assert film(path) == (1 + 12 + 16, 64 + 40, 192, 20)


def test_speed_changes_the_rate(tmp_path: Path) -> None:
    env = worlds(1, "env=pick_cube", "env.max_steps=12")
    path = record(find_actor("random").policy(env), env, tmp_path / "a.mp4", 1, size=(64, 64),
                  speed=0.5)  # fmt: skip
    assert film(path) == (1 + 12 + 8, 104, 64, 10)


def test_no_more_frames_than_a_screen_shows(tmp_path: Path) -> None:
    env = worlds(1, "env=hopper", "env.max_steps=12")  # 125 Hz: every third step
    path = record(find_actor("random").policy(env), env, tmp_path / "a.mp4", 1, size=(64, 64))
    assert film(path) == (1 + 4 + 33, 104, 64, Fraction(125, 3))


def test_episodes_take_turns_where_worlds_are_few(tmp_path: Path) -> None:
    env = worlds(2, "env=pick_cube", "env.max_steps=5")
    path = record(find_actor("random").policy(env), env, tmp_path / "a.mp4", 3, size=(64, 64))
    assert film(path)[:3] == (2 * (1 + 5 + 16), 104, 128)


def test_an_episode_is_cut_where_it_takes_too_long(tmp_path: Path) -> None:
    env = worlds(1, "env=pick_cube")
    path = record(find_actor("random").policy(env), env, tmp_path / "a.mp4", 1, size=(64, 64),
                  seconds=0.25)  # fmt: skip
    assert film(path)[0] == 1 + 5 + 16


class Dies:
    """Is fine for some steps."""

    action_spec: Any = None

    def __init__(self, env: Stepper) -> None:
        self.worlds, self.left = env.num_worlds, 4

    def carry(self, num_worlds: int) -> Carry:
        return {}

    def act(self, carry: Carry, obs: Obs, greedy: bool = False) -> tuple[Carry, np.ndarray]:
        self.left -= 1
        if self.left == 0:
            raise ZeroDivisionError
        return carry, np.zeros((self.worlds, 3), np.float32)


def test_a_failure_half_way_leaves_nothing(tmp_path: Path) -> None:
    env = worlds(1, "env=hopper")
    with pytest.raises(ZeroDivisionError):
        record(Dies(env), env, tmp_path / "a.mp4", size=(64, 64))
    assert list(tmp_path.iterdir()) == []


def told(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], dict[str, float], str | None]]:
    """What is drawn on cells from now on: lines, terms, verdict."""
    seen: list[tuple[list[str], dict[str, float], str | None]] = []

    def note(picture: np.ndarray, lines: Any, terms: Any, verdict: str | None) -> None:
        seen.append((list(lines), dict(terms), verdict))

    monkeypatch.setattr(module, "draw_cell", note)
    return seen


def test_cells_say_how_it_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = told(monkeypatch)
    env = worlds(1, "env=pick_cube")
    record(find_actor("expert").policy(env), env, tmp_path / "a.mp4", 1, seed=70, size=(64, 64))
    assert seen[0] == (["step 0", "return 0.0", "seed 70"], {}, None)
    assert seen[-1][0][0] == "step 150"
    assert seen[-1][2] == "success"
    verdicts = [verdict for _, _, verdict in seen]
    assert verdicts.index("success") < 149  # shown as soon as it is so
    assert {"reach", "goal", "action_rate"} <= seen[5][1].keys()
    assert all(abs(share) <= 1.0 for _, terms, _ in seen for share in terms.values())
    assert max(seen[-1][1].values()) > 0.9
    assert min(terms["action_rate"] for _, terms, _ in seen[1:]) < 0.0  # a cost


def test_a_failure_and_a_fault_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = told(monkeypatch)
    env = worlds(1, "env=pick_cube", "env.max_steps=3")
    record(find_actor("random").policy(env), env, tmp_path / "a.mp4", 1, size=(64, 64))
    assert seen[-1][2] == "failed"
    env = worlds(1, "env=hopper", "env.max_steps=3")
    record(find_actor("random").policy(env), env, tmp_path / "a.mp4", 1, size=(64, 64))
    assert seen[-1][2] == "ended"  # there is no success to miss

    class Nan(Dies):
        def act(self, carry: Carry, obs: Obs, greedy: bool = False) -> tuple[Carry, np.ndarray]:
            return carry, np.full((1, 3), np.nan, np.float32)

    record(Nan(env), env, tmp_path / "a.mp4", 1, size=(64, 64))
    assert seen[-1][2] == "action is not finite"


def test_a_finished_world_keeps_its_last_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = told(monkeypatch)
    env = worlds(2, "env=hopper")
    record(find_actor("random").policy(env), env, tmp_path / "a.mp4", 2, size=(64, 64))
    ends = {lines[2]: lines[0] for lines, _, verdict in seen if verdict}
    assert len(set(ends.values())) == 2  # they fell at different steps
    for name, end in ends.items():
        assert [lines[0] for lines, _, _ in seen if lines[2] == name][-1] == end


def test_play_writes_where_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    play("random", ["env=pick_cube", "episodes=3", "num_envs=2", "camera=wrist", *SMALL])
    assert capsys.readouterr().out == "video.mp4\n"
    assert film(tmp_path / "video.mp4")[1:3] == (104, 128)
    play("expert:drops", ["env=pick_cube", "episodes=1", "out=d.mp4", *SMALL])
    assert film(tmp_path / "d.mp4")[1:3] == (104, 64)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["camera=sky"], "unknown camera 'sky': known: front"),
        (["size=640"], "HEIGHTxWIDTH"),
        (["size=65x64"], "even numbers"),
        (["size=64x9999999"], "even numbers"),
        (["speed=0"], "speed=0"),
        (["speed=nan"], "speed=nan"),
        (["episodes=two"], "episodes=two"),
        (["viewer=true"], "needs a display"),
        (["out=nowhere/a.mp4"], "no folder"),
    ],
)
def test_bad_input_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    settings = ["env=pick_cube", "episodes=1", "env.max_steps=2"]
    with pytest.raises(UserError, match=message):
        play("random", [*settings, *arguments])
    assert list(tmp_path.iterdir()) == []
