"""Recorded episodes: what a frame holds, when an episode ends, and that worlds do not matter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from embodied.dataset import Dataset, Episode
from embodied.env import TaskEnv
from embodied.errors import UserError
from embodied.record import record
from embodied.types import Array, Carry, Obs
from tests import toys

SOURCES = ("expert", "expert:idle", "varied", "noisy", "noisy:0.7", "random", "mine")


class FilmedSim(toys.PointSim):
    """Shows a world as one shade, which says where its point is."""

    def render(self, camera: str, ids: np.ndarray, height: int, width: int) -> np.ndarray:
        shade = shade_of(self.qpos[ids]) + (camera == "side")
        return np.repeat(shade, height * width * 3).reshape(len(ids), height, width, 3)


class Filmed(toys.Reach):
    """`Reach`, filmed, with stages, progress and instructions."""

    cameras, stages = ("top", "side"), ("far", "near", "there")
    instructions = ("go there", "reach it", "come to the goal")
    proprio_size = 2

    def memory(self, sim: Any) -> Carry:
        return {"stage": np.zeros(sim.num_worlds, np.int64)}

    def reward(self, sim: Any, action: Array, before: dict, memory: Carry) -> tuple[dict, Carry]:
        terms, memory = super().reward(sim, action, before, memory)
        near = 1 + (self._distance(sim) < 0.1)
        return terms, {"stage": np.where(self._distance(sim) < 0.4, near, 0)}

    def stage(self, memory: Carry) -> Array:
        return memory["stage"]

    def progress(self, sim: Any, memory: Carry) -> Array:
        return 1.0 / (1.0 + self._distance(sim))


def shade_of(position: np.ndarray) -> np.ndarray:
    return np.clip(100 + 50 * position[..., 0], 0, 250).astype(np.uint8)


def film(num_worlds: int = 3, ends: bool = False, **settings: Any) -> TaskEnv:
    task = Filmed(ends=ends)
    return TaskEnv(task, FilmedSim(task.model(), num_worlds), **settings)


def played(
    sources: list[str], num_worlds: int = 3, env: TaskEnv | None = None, **more: Any
) -> Dataset:
    env = env or film(num_worlds)
    policies = {"mine": toys.Wander(env), "breaks": Breaks(env)}
    return record(env, sources, range(50, 50 + len(sources)), policies=policies, **more)


class Breaks(toys.Wander):
    """Steers by no number at its third step."""

    def act(self, carry: Carry, obs: Obs, greedy: bool = False) -> tuple[Carry, Array]:
        after, action = super().act(carry, obs, greedy)
        return after, np.where(carry["count"][:, None] == 2, np.nan, action)


def same(a: Episode, b: Episode) -> None:
    one, other = vars(a), vars(b)
    for name in one:
        if isinstance(one[name], Mapping):
            assert one[name].keys() == other[name].keys()
            for key in one[name]:
                np.testing.assert_array_equal(one[name][key], other[name][key])
        else:
            np.testing.assert_array_equal(one[name], other[name])


@pytest.mark.parametrize("source", SOURCES)
def test_a_frame_is_the_state_before_its_action(source: str) -> None:
    episode = played([source], cameras=("top", "side"), image_size=16).episodes[0]
    here, goal = episode.state[:, :2], episode.state[:, 2:]
    distance = np.linalg.norm(here - goal, axis=1)
    taken = 10.0 * np.diff(here, axis=0)
    if source.partition(":")[0] not in ("varied", "noisy"):  # which keep what they meant to do
        np.testing.assert_allclose(taken, episode.action[:-1], atol=1e-5)
    assert (np.abs(episode.action) <= 1.0).all()
    effort = 0.01 * (taken**2).sum(axis=1)
    np.testing.assert_allclose(episode.reward[:-1], -distance[1:] - effort, atol=1e-6)
    np.testing.assert_array_equal(episode.success, distance < 0.1)
    np.testing.assert_allclose(episode.progress, 1 / (1 + distance), atol=1e-6)
    assert (episode.stage[1:] == np.where(distance < 0.4, 1 + (distance < 0.1), 0)[1:]).all()
    assert episode.images["top"].shape == (len(episode), 16, 16, 3)
    shown = episode.images["top"][:, 3, 5, 1].astype(int)
    assert np.abs(shown - shade_of(here)).max() <= 1
    assert (episode.images["side"] - episode.images["top"] == 1).all()


def test_what_all_episodes_share() -> None:
    found = played(["expert"], cameras=("side",), image_size=16)
    info = found.info
    assert (info.env, info.rate_hz, info.proprio_size) == ("reach_point", 10.0, 2)
    assert (info.stages, info.cameras) == (("far", "near", "there"), ("side",))
    assert list(found.episodes[0].images) == ["side"]
    plain = record(toys.reach(2), ["expert"], [0])
    assert plain.info.proprio_size == 4 and plain.info.cameras == ()
    assert (plain.episodes[0].stage == -1).all() and np.isnan(plain.episodes[0].progress).all()
    assert plain.episodes[0].instruction == ""


def test_an_episode_depends_on_its_seed_and_source_alone() -> None:
    sources = [name for name in SOURCES for _ in range(3)]
    alone = played(sources, 1, cameras=("top",), image_size=16)
    for worlds in (4, 25):
        together = played(sources, worlds, cameras=("top",), image_size=16)
        assert [one.source for one in together.episodes] == sources
        for a, b in zip(alone.episodes, together.episodes, strict=True):
            same(a, b)
    first = played(["random"] * 2).episodes
    assert not np.array_equal(first[0].action, first[1].action)


@pytest.mark.parametrize("after", [0, 3, 8])
def test_an_episode_goes_on_for_a_while_after_its_success(after: int) -> None:
    found = played(["expert"] * 8 + ["expert:idle"], after_success=after)
    for episode in found.episodes[:8]:
        first = int(np.flatnonzero(episode.success)[0])
        assert len(episode) == min(first + after + 1, 15)
    assert len({len(episode) for episode in found.episodes}) > 2
    assert len(found.episodes[8]) == 15 and not found.episodes[8].succeeded


def test_the_state_that_ends_an_episode_is_shown() -> None:
    found = played(["expert"] * 4, env=film(2, ends=True), cameras=("top",), image_size=16)
    for episode in found.episodes:
        assert episode.success.tolist() == [False] * (len(episode) - 1) + [True]
        assert (episode.action[-1] == 0).all() and episode.reward[-1] == 0
        assert (episode.action[-2] != 0).any() and episode.stage[-1] == 2
        shown = int(episode.images["top"][-1, 0, 0, 0])
        assert abs(shown - int(shade_of(episode.state[-1]))) <= 1


def test_faulted_episodes_are_left_out() -> None:
    found = played(["expert", "breaks", "mine", "breaks", "expert"])
    assert [episode.source for episode in found.episodes] == ["expert", "mine", "expert"]
    assert [episode.seed for episode in found.episodes] == [50, 52, 54]
    assert all(np.isfinite(episode.action).all() for episode in found.episodes)


def test_varied_experts_succeed_at_differing_speeds() -> None:
    env = film(10, max_steps=60)
    seeds = range(30)
    steady = record(env, ["expert"] * 30, seeds)
    varied = record(env, ["varied"] * 30, seeds)
    assert all(episode.succeeded for episode in varied.episodes)
    ratio = [len(v) / len(s) for v, s in zip(varied.episodes, steady.episodes, strict=True)]
    assert min(ratio) < 1.1 and max(ratio) > 1.5


def test_noise_takes_its_share_of_an_experts_steps_but_not_of_what_it_meant() -> None:
    expert, calm, wild, chance = (
        played([source] * 4).episodes for source in ("expert", "noisy:0", "noisy:1", "random")
    )
    for a, b, c, d in zip(expert, calm, wild, chance, strict=True):
        np.testing.assert_array_equal(a.action, b.action)
        np.testing.assert_array_equal(c.state, d.state)
        away = c.state[:, 2:] - c.state[:, :2]
        towards = (c.action * away).sum(axis=1)
        assert (towards[:-1] > 0.0).all() and (c.action != d.action).any()


def test_an_expert_with_a_flaw_can_be_disturbed_as_well() -> None:
    idle, chance = (played([source] * 4).episodes for source in ("noisy:1:idle", "random"))
    for a, b in zip(idle, chance, strict=True):
        assert not a.action.any()
        np.testing.assert_array_equal(a.state, b.state)


def test_instructions_are_drawn_by_seed() -> None:
    texts = [episode.instruction for episode in played(["expert"] * 20).episodes]
    assert set(texts) == set(Filmed.instructions)
    assert texts == [episode.instruction for episode in played(["random"] * 20).episodes]


@pytest.mark.parametrize(
    ("sources", "more", "line"),
    [
        (["exprt"], {}, "unknown source 'exprt': give expert, expert:FLAW"),
        (["expert:lazy"], {}, "unknown flaw .*: .*idle"),
        (["noisy:0.2:lazy"], {}, "unknown flaw .*: .*idle"),
        (["noisy:2"], {}, "noisy:2: give the share"),
        (["noisy:x"], {}, "noisy:x: give the share"),
        (["expert"], {"cameras": ("tpo",)}, "unknown camera .* 'tpo': did you mean top"),
        (["expert"], {"cameras": ("top",), "image_size": 33}, "image_size=33: give an even"),
    ],
)
def test_what_cannot_be_recorded(sources: list[str], more: dict, line: str) -> None:
    with pytest.raises(UserError, match=line):
        played(sources, **more)
