"""A trajectory's true successors, and slices that are trajectories of their own."""

import numpy as np
import pytest

from embodied.types import ActionSpec, Frames, Step, Trajectory
from tests.toys import rollout


def counted() -> Trajectory:
    """Three steps of two worlds; world 1 is truncated after its first step, world 0 goes on.

    Successors of world n after step t are `10 * n + t + 1`; a new episode begins at -1.
    """
    successor = np.array([[1, 11], [2, 12], [3, 13]])[..., None]
    start = np.array([[0, 10], [-1, -1], [-1, -1]])[..., None]
    no, yes = np.zeros((3, 2), bool), np.zeros((3, 2), bool)
    yes[0, 1] = True
    return rollout(successor, start, terminated=no, truncated=yes, success=yes)


def test_next_obs_is_the_true_successor_also_where_an_episode_ended() -> None:
    traj = counted()
    assert traj.obs["state"][..., 0].tolist() == [[0, 10], [1, -1], [2, 12]]
    # obs[1, 1] is -1, the next episode's start; what followed step (0, 1) was 11
    assert traj.next_obs["state"][..., 0].tolist() == [[1, 11], [2, 12], [3, 13]]
    assert traj.shape == (3, 2)


def test_next_obs_changes_nothing() -> None:
    traj = counted()
    traj.next_obs["state"][:] = 99
    assert traj.next_obs["state"].max() == 13
    assert traj.obs["state"].max() == 12


def test_next_obs_of_a_trajectory_without_ends() -> None:
    still = np.zeros((2, 1), bool)
    traj = rollout(np.array([[[1]], [[2]]]), np.zeros((2, 1, 1)), still, still)
    assert traj.final_obs["state"].shape == (0, 1)
    assert traj.next_obs["state"].ravel().tolist() == [1, 2]


@pytest.mark.parametrize("border", [1, 2])
def test_slices_hold_the_same_steps(border: int) -> None:
    whole = counted()
    whole.group = np.array([7, 7])
    rows = np.arange(6).reshape(3, 2)
    whole.frames = {"front": Frames(np.zeros((2, 1, 1, 3), np.uint8), rows, rows)}
    parts = [whole.slice(0, border), whole.slice(border, 3)]
    for name in ("obs", "next_obs"):
        joined = np.concatenate([getattr(part, name)["state"] for part in parts])
        assert (joined == getattr(whole, name)["state"]).all()
    for name in ("step_id", "truncated", "is_first", "valid", "action", "reward"):
        joined = np.concatenate([getattr(part, name) for part in parts])
        assert (joined == getattr(whole, name)).all()
    readouts = np.concatenate([part.readouts["success"] for part in parts])
    assert (readouts == whole.readouts["success"]).all()
    frames = np.concatenate([part.frames["front"].index for part in parts])
    assert (frames == whole.frames["front"].index).all()
    assert all((part.group == whole.group).all() for part in parts)


def test_a_slice_shares_memory() -> None:
    whole = counted()
    whole.slice(1, 3).valid[:] = False
    assert whole.valid.tolist() == [[True, True], [False, False], [False, False]]


def test_a_step_is_done_either_way() -> None:
    ends = np.array([[True, False], [False, True], [False, False]]).T
    zeros = np.zeros(3)
    step = Step({}, zeros, {}, ends[0], ends[1], zeros, zeros, zeros)
    assert step.done.tolist() == [True, True, False]


def test_an_action_spec_survives_its_dict() -> None:
    low, high = np.array([-1.0, -0.1], np.float32), np.array([1.0, np.inf], np.float32)
    spec = ActionSpec(("hip", "knee"), ("Nm", "rad"), low, high, "torque", 20.0)
    again = ActionSpec.from_dict(spec.to_dict())
    assert spec.size == 2
    assert (again.names, again.units, again.kind) == (spec.names, spec.units, spec.kind)
    assert again.rate_hz == 20.0
    assert (again.low == low).all() and (again.high == high).all()
    assert again.low.dtype == np.float32
