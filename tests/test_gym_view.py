"""The Gymnasium views against Gymnasium's own `SyncVectorEnv`, in every autoreset mode."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers.vector import DictInfoToList, RecordEpisodeStatistics

from embodied.errors import UserError
from embodied.gym_view import GymView, SingleEnv
from embodied.registration import make_stepper, make_vector
from embodied.types import ACTION_FAULT, PHYSICS_FAULT

N, LIMIT, STEPS = 4, 25, 120
both = pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP])


def hoppers(mode: AutoresetMode | str, **settings: Any) -> GymView:
    """Hoppers that fall at differing times, or run into their time limit."""
    settings = {"num_envs": N, "max_steps": LIMIT, "seed": 0, "sim": {"threads": 1}, **settings}
    return make_vector("hopper", autoreset_mode=mode, **settings)


def gymnasiums_own(mode: AutoresetMode) -> SyncVectorEnv:
    def make() -> SingleEnv:
        return SingleEnv(make_stepper("hopper", 1, max_steps=LIMIT))

    return SyncVectorEnv([make] * N, autoreset_mode=mode)


def actions() -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, (STEPS, N, 3)).astype(np.float32)


@both
def test_equals_gymnasiums_sync_vector_env(mode: AutoresetMode) -> None:
    ours, theirs = hoppers(mode), gymnasiums_own(mode)
    assert ours.observation_space == theirs.observation_space
    assert ours.action_space == theirs.action_space
    np.testing.assert_array_equal(ours.reset(seed=7)[0], theirs.reset(seed=7)[0])
    endings = []
    for action in actions():
        *given, info = ours.step(action)
        *wanted, their_info = theirs.step(action)
        for value, want in zip(given, wanted, strict=True):
            np.testing.assert_array_equal(value, want)
            assert value.dtype == want.dtype
        assert their_info.keys() - {"is_success", "_is_success"} <= info.keys()
        assert_infos_equal(info, their_info)
        endings.append(given[2] | given[3])
    together = np.sum(endings, axis=1)
    assert {0, 1} < set(together.tolist())  # worlds did end, also apart from each other


def assert_infos_equal(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    for key in (key for key in ours if not key.startswith("_")):
        value, mask = ours[key], ours[f"_{key}"]
        np.testing.assert_array_equal(mask, theirs.get(f"_{key}", False))
        if isinstance(value, dict):
            assert_infos_equal(value, theirs.get(key, {}))
        elif mask.any():
            np.testing.assert_array_equal(value[mask], np.stack(theirs[key][mask]))


def test_final_obs_is_dense_and_true() -> None:
    view, plain = hoppers("SameStep"), make_stepper("hopper", N, 0, max_steps=LIMIT)
    view.reset(seed=7)
    plain.reset(seed=7)
    ended = 0
    for action in actions():
        obs, *_, info = view.step(action)
        step = plain.step(action)
        successor = step.obs["state"].copy()
        if step.done.any():
            ended += 1
            np.testing.assert_array_equal(info["final_obs"], successor)
            assert info["final_obs"].dtype == view.observation_space.dtype
            plain.reset(step.done)
            assert (obs[step.done] != successor[step.done]).any(axis=1).all()
            np.testing.assert_array_equal(obs[~step.done], successor[~step.done])
        else:
            assert "final_obs" not in info
            np.testing.assert_array_equal(obs, successor)
    assert ended > 3


def test_disabled_resets_only_when_told() -> None:
    view, same = hoppers("Disabled"), hoppers("SameStep")
    view.reset(seed=7)
    same.reset(seed=7)
    for action in actions():
        obs, reward, terminated, truncated, _ = view.step(action)
        want, want_reward, *_, info = same.step(action)
        np.testing.assert_array_equal(reward, want_reward)
        done = terminated | truncated
        if done.any():
            np.testing.assert_array_equal(obs, info["final_obs"])
            with pytest.raises(gym.error.ResetNeeded, match="reset_mask"):
                view.step(action)
            obs, _ = view.reset(options={"reset_mask": done})
        np.testing.assert_array_equal(obs, want)


@pytest.mark.parametrize(
    ("mask", "error"),
    [
        ([True] * N, TypeError),
        (np.ones(N, int), TypeError),
        (np.ones(N + 1, bool), ValueError),
        (np.zeros(N, bool), ValueError),
    ],
)
def test_a_wrong_reset_mask_is_refused(mask: Any, error: type[Exception]) -> None:
    view = hoppers("Disabled")
    view.reset()
    with pytest.raises(error, match="reset_mask"):
        view.reset(options={"reset_mask": mask})


def test_seeds_are_one_a_world() -> None:
    view = hoppers("NextStep")
    first, _ = view.reset(seed=5)
    np.testing.assert_array_equal(view.reset(seed=[5, 6, 7, 8])[0], first)
    np.testing.assert_array_equal(view.reset(seed=[8, 7, 6, 5])[0], first[::-1])
    single = SingleEnv(make_stepper("hopper"))
    np.testing.assert_array_equal(single.reset(seed=7)[0], first[2])
    assert len(np.unique(view.reset()[0], axis=0)) == N  # another episode of each, none seen before
    assert not (view.reset(seed=5)[0] != first).any()
    with pytest.raises(ValueError, match="one a world"):
        view.reset(seed=[1, 2])


def test_some_worlds_can_be_reseeded_alone() -> None:
    view = hoppers("Disabled")
    first, _ = view.reset(seed=5)
    after, *_ = view.step(actions()[0])
    mask = np.array([True, False, False, True])
    obs, _ = view.reset(seed=5, options={"reset_mask": mask})
    np.testing.assert_array_equal(obs, np.where(mask[:, None], first, after))


@both
def test_what_is_handed_out_is_never_touched_again(mode: AutoresetMode) -> None:
    view = hoppers(mode)
    kept = [view.reset(seed=1)[0]]
    copies = [kept[0].copy()]
    for action in actions()[:60]:
        obs, *_, info = view.step(action)
        for value in (obs, info["reward_terms"]["forward"], info.get("final_obs")):
            if value is not None:
                kept.append(value)
                copies.append(value.copy())
    for value, copy in zip(kept, copies, strict=True):
        np.testing.assert_array_equal(value, copy)
    obs[:] = np.nan  # and writing to it changes nothing inside
    assert np.isfinite(view.step(actions()[0])[0]).all()


def test_a_nan_action_ends_its_world_with_a_fault() -> None:
    view = hoppers("NextStep")
    before, _ = view.reset(seed=1)
    action = np.zeros((N, 3), np.float32)
    action[1] = np.nan
    obs, reward, terminated, truncated, info = view.step(action)
    assert info["fault"].tolist() == [0, ACTION_FAULT, 0, 0]
    assert truncated.tolist() == [False, True, False, False] and not terminated.any()
    assert reward[1] == 0.0
    np.testing.assert_array_equal(obs[1], before[1])
    _, reward, _, truncated, info = view.step(action)  # NaN again, in the step that restarts it
    assert not truncated.any() and info["_fault"].tolist() == [True, False, True, True]


def test_a_world_left_unreset_goes_on_showing_its_last_observation() -> None:
    view = hoppers("Disabled")
    before, _ = view.reset(seed=1)
    view.env.sim.qpos[1] = np.nan  # type: ignore[attr-defined]  # its physics breaks
    action = np.zeros((N, 3), np.float32)
    action[0] = np.nan
    shown, *_, info = view.step(action)
    assert info["fault"].tolist() == [ACTION_FAULT, PHYSICS_FAULT, 0, 0]
    np.testing.assert_array_equal(shown[1], before[1])
    obs, _ = view.reset(options={"reset_mask": np.array([True, False, False, False])})
    np.testing.assert_array_equal(obs[1:], shown[1:])


def test_a_full_reset_leaves_nothing_to_restart() -> None:
    view = hoppers("NextStep")
    view.reset(seed=1)
    assert view.step(np.full((N, 3), np.nan))[3].all()
    view.reset(seed=1)
    assert view.step(np.zeros((N, 3)))[1].all()  # a reward: it was a step


def test_gymnasiums_wrappers_understand_the_infos() -> None:
    view = DictInfoToList(RecordEpisodeStatistics(hoppers("SameStep")))
    view.reset(seed=0)
    episodes = []
    for action in actions():
        *_, rows = view.step(action)
        episodes += [row["episode"] for row in rows if "episode" in row]
        for row in rows:
            inner = row.get("final_info", row)
            assert set(inner["reward_terms"]) == {"forward", "control", "survive"}
    assert episodes and all(0 < episode["l"] <= LIMIT for episode in episodes)


def test_dicts_stay_dicts_when_not_flattened() -> None:
    view = hoppers("SameStep", flatten=False)
    assert isinstance(view.single_observation_space, gym.spaces.Dict)
    obs, _ = view.reset(seed=0)
    assert obs in view.observation_space
    for action in actions()[:60]:
        obs, *_, info = view.step(action)
        if "final_obs" in info:
            assert info["final_obs"]["state"].shape == (N, 11)
    assert obs in view.observation_space


class Painter:
    """A stepper that only renders."""

    name, num_worlds, max_steps, action_spec, exact_resume = "painter", 2, 5, None, True
    instructions = ()
    observation_space = gym.spaces.Dict({"state": gym.spaces.Box(-1, 1, (1,))})
    action_space = gym.spaces.Box(-1, 1, (1,))
    asked: tuple[Any, ...] = ()

    def render(self, camera: str | None, ids: Any, height: int, width: int) -> np.ndarray:
        self.asked = (camera, ids.tolist(), height, width)
        return np.zeros((len(ids), height, width, 3), np.uint8)


def test_render_gives_an_image_a_world() -> None:
    painter: Any = Painter()
    view = GymView(painter, render_mode="rgb_array", camera="front", height=4, width=6)
    images = view.render()
    assert images is not None and [image.shape for image in images] == [(4, 6, 3)] * 2
    assert painter.asked == ("front", [0, 1], 4, 6)


def test_bad_settings_are_said_in_one_line() -> None:
    painter: Any = Painter()
    with pytest.raises(UserError, match="autoreset_mode='same': one of NextStep, SameStep"):
        GymView(painter, "same")
    with pytest.raises(UserError, match="render_mode='human'"):
        GymView(painter, render_mode="human")
    with pytest.raises(UserError, match="use GymView"):
        SingleEnv(painter)
    view = hoppers("NextStep")
    with pytest.raises(gym.error.ResetNeeded):
        view.step(np.zeros((N, 3)))
    view.reset()
    with pytest.raises(ValueError, match=r"shape \(4, 2\), expected \(4, 3\)"):
        view.step(np.zeros((N, 2)))
