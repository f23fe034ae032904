"""The success classifier: what it learns, how it is saved, and what it refuses."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from embodied.reward_models.success import SuccessClassifier

from embodied.errors import UserError
from embodied.reward_model import Channel, Rewards
from embodied.types import SCORED, Moment, Trajectory
from tests.toys import chunks, rollout


def space(size: int = 2) -> gym.spaces.Dict:
    return gym.spaces.Dict({"state": gym.spaces.Box(-9, 9, (size,), np.float32)})


def labelled(share: float = 0.5, steps: int = 40, worlds: int = 50, seed: int = 0) -> Trajectory:
    """Successors at random; those with x > 0 are done, a `share` of all. Episodes of any length."""
    rng = np.random.default_rng(seed)
    successor, start = rng.uniform(-2, 2, (2, steps, worlds, 2))
    done = rng.random((steps, worlds)) < share
    successor[..., 0] = np.where(done, 1, -1) * rng.uniform(0.3, 2, done.shape)
    terminated, truncated = rng.random((2, steps, worlds)) < 0.1
    return rollout(successor, start, terminated, truncated & ~terminated, success=done)


def fitted(epochs: int = 60) -> SuccessClassifier:
    model = SuccessClassifier(space(), hidden=(16,))
    model.fit(labelled(), epochs=epochs, batch=200)
    return model


def accuracies(model: SuccessClassifier, traj: Trajectory) -> tuple[float, float]:
    """The share told rightly of the steps that are done, and of those that are not."""
    told = model.score({}, traj)[1].value > 0.5
    done = traj.readouts["success"]
    return float(told[done].mean()), float(1 - told[~done].mean())


@pytest.mark.parametrize("share", [0.5, 1 / 51])
def test_it_tells_both_classes_also_where_one_is_rare(share: float) -> None:
    model = SuccessClassifier(space(), hidden=(16,))
    figures = model.fit(labelled(share), epochs=60, batch=200)
    assert min(accuracies(model, labelled(0.5, seed=1))) > 0.95
    assert figures["loss_after"] < 0.3 * figures["loss_before"]
    assert min(figures["accuracy_done"], figures["accuracy_not_done"]) > 0.9


def test_its_scores_are_probabilities_of_the_successors() -> None:
    model, traj = fitted(), labelled(seed=1)
    carry, score = model.score({}, traj)
    assert carry == {}
    assert score.value.shape == score.status.shape == traj.shape
    assert (score.status == SCORED).all()
    assert 0 <= score.value.min() < 0.1 and 0.9 < score.value.max() <= 1
    # what it says of a step is what it says of that step's successor as a first observation
    first = model.begin({}, np.ones(50, bool), Moment({"state": traj.next_obs["state"][7]}))[1]
    assert (first == score.value[7]).all()


def test_chunks_are_scored_as_the_whole_is() -> None:
    model, traj = fitted(epochs=2), labelled(seed=1)
    whole = model.score({}, traj)[1].value
    for length in (1, 7, 39):
        parts = [model.score({}, part)[1].value for part in chunks(traj, length)]
        assert (np.concatenate(parts) == whole).all()


def test_a_saved_model_scores_the_same(tmp_path) -> None:
    model, traj = fitted(epochs=2), labelled(seed=1)
    model.save(tmp_path / "model")
    again = SuccessClassifier(space(), path=str(tmp_path / "model"), hidden=(16,), seed=5)
    assert (again.score({}, traj)[1].value == model.score({}, traj)[1].value).all()


def test_a_fit_is_repeatable_and_leaves_the_global_randomness_alone() -> None:
    import torch

    state = torch.get_rng_state()
    one, other = (fitted(epochs=2).score({}, labelled())[1].value for _ in range(2))
    assert (one == other).all()
    assert torch.equal(torch.get_rng_state(), state)


def test_steps_that_are_not_valid_are_not_learned_from() -> None:
    traj = labelled()
    lies = np.zeros(traj.shape, bool)
    lies[::2] = True
    traj.readouts["success"] = np.where(lies, ~traj.readouts["success"], traj.readouts["success"])
    traj.valid[lies] = False
    model = SuccessClassifier(space(), hidden=(16,))
    model.fit(traj, epochs=60, batch=200)
    assert min(accuracies(model, labelled(seed=1))) > 0.95


def test_every_kind_of_demonstration_is_held_out() -> None:
    """Worlds play roles in turn (the expert, a flaw, chance, ...): each must be tested on."""
    traj = labelled(worlds=200)
    traj.readouts["success"][:] = False
    traj.readouts["success"][:, ::5] = True  # every fifth world does nothing but succeed
    figures = SuccessClassifier(space(), hidden=(16,)).fit(traj, epochs=1)
    assert {"accuracy_done", "accuracy_not_done"} <= figures.keys()


@pytest.mark.parametrize(("share", "label"), [(0.0, 0), (1.0, 1)])
def test_one_class_alone_teaches_nothing(share: float, label: int) -> None:
    with pytest.raises(UserError, match=f"success labels are all {label}: collect both"):
        SuccessClassifier(space()).fit(labelled(share))


def test_untrained_it_refuses_to_score() -> None:
    rewards = Rewards({"s": Channel("s", SuccessClassifier(space()), threshold=0.5)}, 50, 0.9)
    with pytest.raises(UserError, match="success is untrained: `embodied fit reward_model=succ"):
        rewards.begin(Moment({"state": np.zeros((50, 2), np.float32)}))


def test_a_model_of_other_observations(tmp_path) -> None:
    fitted(epochs=1).save(tmp_path / "model")
    message = r"does not fit: 0\.mean is \(2,\) there, \(3,\) here \(another observation"
    with pytest.raises(UserError, match=message):
        SuccessClassifier(space(3), path=str(tmp_path / "model"), hidden=(16,))


def test_a_path_without_a_model(tmp_path) -> None:
    from embodied.checkpoint import save_checkpoint

    with pytest.raises(UserError, match="no checkpoint"):
        SuccessClassifier(space(), path=str(tmp_path))
    save_checkpoint(tmp_path / "other", {"agent": {}}, step=0)
    with pytest.raises(UserError, match="this checkpoint is not a success classifier"):
        SuccessClassifier(space(), path=str(tmp_path / "other"))
