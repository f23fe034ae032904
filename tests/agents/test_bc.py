"""Behaviour cloning: the weights by hand, what equal weights mean, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from embodied.agents.bc import BC, aligned_weights, gains, normalised

from embodied.dataset import Dataset, DatasetInfo, Episode
from embodied.env import TaskEnv
from embodied.errors import UserError
from embodied.evaluate import run_episodes
from tests.toys import reach, through_disk

SMALL = {"steps": 300, "hidden": (32,), "chunk": 3}
Action = Callable[[TaskEnv, np.random.Generator], np.ndarray]


def expert(env: TaskEnv, rng: np.random.Generator) -> np.ndarray:
    return env.expert()


def away(env: TaskEnv, rng: np.random.Generator) -> np.ndarray:
    return -env.expert()


def played(act: Action, source: str, count: int, seed: int = 0) -> list[Episode]:
    """Episodes of 16 frames of points that steer as `act` says; "near" scores their progress."""
    env, rng = reach(count, seed=seed), np.random.default_rng(seed)
    states, actions, success = [], [], []
    obs = env.reset()
    for _ in range(16):
        action = np.asarray(act(env, rng), np.float32)
        states.append(np.asarray(obs["state"], np.float32))
        actions.append(action)
        success.append(env.task.success(env.sim, {}))
        obs = env.step(action).obs
    state, action, done = (np.stack(part, axis=1) for part in (states, actions, success))
    distance = np.linalg.norm(state[..., :2] - state[..., 2:], axis=-1).astype(np.float32)
    none = np.zeros(16, np.float32)
    return [
        Episode("reach the goal", source, seed + i, state[i], action[i], none, done[i],
                np.full(16, -1), none, scores={"near": 1.0 - distance[i]})
        for i in range(count)
    ]  # fmt: skip


def dataset(episodes: list[Episode]) -> Dataset:
    spec = reach(1).action_spec
    return Dataset(DatasetInfo("reach_point", 10.0, spec, 2), episodes)


def agent(**settings: Any) -> BC:
    env = reach(1)
    return BC(env.observation_space, env.action_spec, **{**SMALL, **settings})


def weights_of(bc: BC) -> dict[str, np.ndarray]:
    return {name: value.numpy().copy() for name, value in bc.policy.state_dict().items()}


def error(bc: BC, seed: int = 99) -> float:
    """Mean squared distance from the expert's actions on states of its own."""
    held_out = played(expert, "expert", 20, seed)
    state = np.concatenate([e.state for e in held_out])
    wanted = np.concatenate([e.action for e in held_out])
    return float(((bc.policy.act({}, {"state": state}, greedy=True)[1] - wanted) ** 2).mean())


def test_gains_look_a_chunk_ahead_and_no_further_than_the_end() -> None:
    progress = np.array([0.0, 0.1, 0.4, 0.3, 1.0])
    np.testing.assert_allclose(gains(progress, 2), [0.4, 0.2, 0.6, 0.7, 0.0])
    np.testing.assert_allclose(gains(progress, 9), [1.0, 0.9, 0.6, 0.7, 0.0])


def test_the_weights_by_hand() -> None:
    gain = np.array([0.2, 0.005, 0.0, -0.1, 0.095])
    # mean 0.04, deviation 0.1 (0.16, -0.035, -0.04, -0.14, 0.055: squares sum 0.0513, / 5, root)
    mean, std = 0.04, float(np.sqrt((0.0256 + 0.001225 + 0.0016 + 0.0196 + 0.003025) / 5))
    low, width = mean - 2 * std, 4 * std + 1e-6
    soft = [(0.005 - low) / width, (0.0 - low) / width]
    np.testing.assert_allclose(aligned_weights(gain, 0.01), [1.0, *soft, 0.0, 1.0], rtol=1e-9)


def test_the_mean_gain_is_not_taken_below_zero() -> None:
    gain = np.array([-0.5, -0.3, 0.0, 0.005])
    std = float(gain.std())
    # with mu = 0 a gain of nothing is the middle of mu -+ 2 s: one half, however bad the others
    soft = (gain[2:] + 2 * std) / (4 * std + 1e-6)
    np.testing.assert_allclose(aligned_weights(gain, 0.01), [0.0, 0.0, *soft], rtol=1e-9)
    assert soft[0] == pytest.approx(0.5, abs=1e-5)


@pytest.mark.parametrize("scale", [0.1, 1.0, 7.0])
def test_normalised_weights_sum_to_the_batch(scale: float) -> None:
    weight = scale * torch.rand(64)
    assert normalised(weight).sum().item() == pytest.approx(64, rel=1e-5)
    assert not normalised(torch.zeros(4)).any()


def test_equal_weights_are_plain_cloning_exactly() -> None:
    episodes = played(expert, "expert", 6)
    steady = [np.linspace(0, 1, 16, dtype=np.float32) for _ in episodes]  # all gain above kappa
    plain, aligned = agent(), agent()
    plain.fit(dataset(episodes))
    figures = aligned.fit(dataset(episodes), steady)
    assert figures["mean_weight"] == 1.0
    for name, value in weights_of(plain).items():
        np.testing.assert_array_equal(value, weights_of(aligned)[name])


def test_frames_without_weight_teach_nothing() -> None:
    """Only what gains counts: the frames of those that went away leave no trace."""
    good, bad = played(expert, "expert", 6), played(away, "expert:away", 6, seed=50)
    up, down = np.linspace(0, 1, 16), np.linspace(1, 0, 16)
    other = [replace(episode, action=np.clip(9 * episode.action, -1, 1)) for episode in bad]
    fits = []
    for wrong in (bad, other):
        bc = agent()
        figures = bc.fit(dataset(good + wrong), [up] * 6 + [down] * 6)
        fits.append(weights_of(bc)["mean.0.weight"])
    assert figures["mean_weight"] == 0.5
    np.testing.assert_array_equal(*fits)


def test_aligned_it_learns_better_from_mixed_data() -> None:
    mixed = dataset(played(expert, "expert", 10) + played(away, "expert:away", 10, seed=50))
    plain, aligned = agent(steps=600), agent(steps=600)
    plain.fit(mixed)
    figures = aligned.fit(mixed, [episode.scores["near"] for episode in mixed.episodes])
    assert error(aligned) < 0.5 * error(plain)
    assert 0.3 < figures["mean_weight"] < 0.8


def test_it_reaches_the_goal_as_the_expert_does() -> None:
    bc = agent(steps=800, hidden=(64, 64))
    rows: list[Any] = []
    figures = bc.fit(dataset(played(expert, "expert", 30)), report=rows.append)
    assert figures["loss_after"] < 0.1 * figures["loss_before"]
    assert rows[-1]["steps"] == 800 and rows[-1]["agent/loss"] < rows[0]["agent/loss"]
    results = list(run_episodes(reach(10, seed=500), bc.policy, range(500, 520)))
    assert sum(row["success"] for row in results) >= 18


def test_its_deviation_is_what_the_mean_leaves_over() -> None:
    """Actions without a reason: the best mean is 0, and their own deviation is left."""

    def noise(env: TaskEnv, rng: np.random.Generator) -> np.ndarray:
        return np.clip(0.3 * rng.standard_normal((40, 2)), -1, 1)

    bc = agent(steps=100)
    bc.fit(dataset(played(noise, "random", 40)))
    np.testing.assert_allclose(bc.policy.log_std.detach().exp(), 0.3, atol=0.04)


def test_actions_are_taken_within_their_limits_and_the_last_is_left_out() -> None:
    episodes = played(expert, "expert", 4)
    loud = [replace(e, action=e.action.copy()) for e in episodes]
    for episode in loud:
        episode.action[episode.action == 1.0] = 50.0  # a command that the env clamps
        episode.action[-1] = -7.0
    one, other = agent(), agent()
    one.fit(dataset(episodes))
    other.fit(dataset(loud))
    np.testing.assert_array_equal(
        weights_of(one)["mean.0.weight"], weights_of(other)["mean.0.weight"]
    )


def test_a_fit_is_repeatable_and_comes_back_from_disk(tmp_path) -> None:
    one, other = agent(), agent()
    for bc in (one, other):
        bc.fit(dataset(played(expert, "expert", 4)))
    again = agent(seed=3)
    again.load_state_dict(through_disk(one.state_dict(), tmp_path))
    for bc in (other, again):
        for name, value in weights_of(one).items():
            np.testing.assert_array_equal(value, weights_of(bc)[name])


def spoilt(name: str) -> Dataset:
    data = dataset(played(expert, "expert", 2))
    first = data.episodes[0]
    if name == "nan":
        first.action[3, 1] = np.nan
    elif name == "width":
        first.state = first.state[:, :3]
    elif name == "names":
        spec = replace(data.info.action_spec, names=("left", "right"))
        data = Dataset(replace(data.info, action_spec=spec), data.episodes)
    elif name == "empty":
        data = data.take([])
    return data


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nan", "episode 0: its action is not finite"),
        ("width", "episode 0 has states of 3 numbers, the env of 4: it is of another env"),
        ("names", r"the dataset has actions \('left', 'right'\), the env"),
        ("empty", "no actions to learn from"),
    ],
)
def test_bad_data_is_refused(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        agent().fit(spoilt(name))


@pytest.mark.parametrize(
    ("progress", "message"),
    [
        (np.zeros(9), "another number of frames"),
        (np.full(16, np.nan), "not finite: score the dataset anew"),
        (np.linspace(1, 0, 16), "no frame makes progress"),
    ],
)
def test_bad_progress_is_refused(progress: np.ndarray, message: str) -> None:
    data = dataset(played(expert, "expert", 2))
    with pytest.raises(UserError, match=message):
        agent().fit(data, [progress, progress])


def test_training_in_an_env_is_refused() -> None:
    with pytest.raises(UserError, match="learns from demonstrations: embodied imitate"):
        _ = agent().gamma
