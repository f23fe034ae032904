"""The worlds as Stable-Baselines3 sees them, against its own `DummyVecEnv` of single worlds."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3 import A2C
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecCheckNan

from embodied.gym_view import SingleEnv
from embodied.registration import make_stepper
from embodied.sb3_view import SB3View
from embodied.types import ACTION_FAULT

N, LIMIT = 4, 25


def hoppers(num_envs: int = N) -> SB3View:
    return SB3View(make_stepper("hopper", num_envs, 0, sim={"threads": 1}, max_steps=LIMIT))


def actions(steps: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, (steps, N, 3)).astype(np.float32)


def test_equals_sb3s_own_dummy_vec_env() -> None:
    def make() -> gym.Env:
        return Monitor(SingleEnv(make_stepper("hopper", max_steps=LIMIT)))

    ours, theirs = VecCheckNan(hoppers(), raise_exception=True), DummyVecEnv([make] * N)
    assert ours.observation_space == theirs.observation_space
    assert ours.action_space == theirs.action_space
    ours.seed(3)
    theirs.seed(3)
    np.testing.assert_array_equal(ours.reset(), theirs.reset())
    endings: dict[bool, int] = {True: 0, False: 0}
    for action in actions(120):
        *given, infos = ours.step(action)
        *wanted, their_infos = theirs.step(action)
        for value, want in zip(given, wanted, strict=True):
            np.testing.assert_array_equal(value, want)
            assert value.dtype == want.dtype
        for done, info, want in zip(given[2], infos, their_infos, strict=True):
            if not done:
                assert info == {}
                continue
            endings[info["TimeLimit.truncated"]] += 1
            for key in ("TimeLimit.truncated", "is_success", "fault"):
                assert info[key] == want[key]
            assert info["episode"]["r"] == pytest.approx(want["episode"]["r"], abs=1e-5)
            assert info["episode"]["l"] == want["episode"]["l"]
            np.testing.assert_array_equal(
                info["terminal_observation"], want["terminal_observation"]
            )
    assert min(endings.values()) > 2  # by the time limit and by falling


def test_what_is_handed_out_is_never_touched_again() -> None:
    view = hoppers()
    kept: list[Any] = [view.reset()]
    for action in actions(60):
        obs, *_, infos = view.step(action)
        kept += [obs, *(info["terminal_observation"] for info in infos if info)]
    copies = [value.copy() for value in kept]
    view.step(actions(1)[0])
    view.reset()
    for value, copy in zip(kept, copies, strict=True):
        np.testing.assert_array_equal(value, copy)


def test_a_fault_shows_in_its_info() -> None:
    view = hoppers()
    view.reset()
    action = np.zeros((N, 3), np.float32)
    action[2] = np.nan
    _, reward, done, infos = view.step(action)
    assert done.tolist() == [False, False, True, False] and reward[2] == 0.0
    assert infos[2]["fault"] == ACTION_FAULT and infos[2]["TimeLimit.truncated"]
    assert view.faults.tolist() == [0, 0, ACTION_FAULT, 0]
    view.step(np.zeros((N, 3), np.float32))
    assert not view.faults.any()


def test_attributes_are_the_batchs() -> None:
    view = hoppers()
    assert view.get_attr("max_steps") == [LIMIT] * N
    assert view.get_attr("name", [0, 2]) == ["hopper"] * 2
    assert view.has_attr("name") and not view.has_attr("nonsense")
    view.set_attr("max_steps", 7)
    assert view.env.max_steps == 7
    with pytest.raises(AttributeError, match="set all at once"):
        view.set_attr("max_steps", 3, [1])
    with pytest.raises(AttributeError, match="no methods of their own"):
        view.env_method("step")


def test_sb3_learns_and_evaluates_on_it() -> None:
    view = hoppers()
    model = A2C("MlpPolicy", view, n_steps=5, seed=0, device="cpu").learn(400)
    mean, _ = evaluate_policy(model, view, n_eval_episodes=4)  # warns without a Monitor
    assert np.isfinite(mean) and model.num_timesteps == 400
    assert model.ep_info_buffer


def test_keys_restrict_what_is_seen() -> None:
    view = SB3View(make_stepper("hopper", 2), keys=("state",))
    assert isinstance(view.observation_space, gym.spaces.Box)
    assert view.reset().shape == (2, 11)
