"""Asking a reward model about recorded episodes, by the same contract as in training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from embodied.dataset import Dataset, Episode
from embodied.errors import UserError
from embodied.reward_model import RewardModel, due, start
from embodied.types import ABSTAINED, SCORED, Frames, Trajectory

BATCH = 32


@dataclass
class Judgement:
    """What a model says of every frame of an episode."""

    value: np.ndarray  # (T,) float32, the last one held where nothing was due
    status: np.ndarray  # (T,) int8, see `embodied.types`


def judge(
    model: RewardModel, episodes: Sequence[Episode], every: int = 1, cameras: Sequence[str] = ()
) -> list[Judgement]:
    """The model's values of every frame of `episodes`, in order, asked every `every` frames.

    A frame where it abstains has the lowest value of its range, as in training. Raises
    `UserError` where the model needs what a dataset does not hold.
    """
    needs = model.needs
    if missing := needs.readouts - {"reward", "success"}:
        raise UserError(f"the reward model needs readouts that no dataset holds: {sorted(missing)}")
    out: list[Judgement] = []
    for part in _batches(episodes):
        for camera in needs.cameras:
            if any(camera not in episode.images for episode in part):
                raise UserError(f"the reward model sees camera {camera!r}, the episodes do not")
        out += _judge(model, part, every)
    return out


def judge_dataset(model: RewardModel, dataset: Dataset, every: int = 1) -> list[Judgement]:
    """`judge` on all episodes of a dataset."""
    dataset.need_cameras(model.needs.cameras)
    return judge(model, dataset.episodes, every)


def _batches(episodes: Sequence[Episode]) -> Iterator[list[Episode]]:
    for k in range(0, len(episodes), BATCH):
        yield list(episodes[k : k + BATCH])


def _judge(model: RewardModel, episodes: list[Episode], every: int) -> list[Judgement]:
    traj = as_trajectory(episodes, model.needs.cameras)
    step = np.arange(traj.shape[0])[:, None]
    assert traj.due is not None
    traj.due &= due(every, step, traj.truncated)
    carry, first = model.begin({}, traj.is_first[0], start(traj, 0))
    _, score = model.score(carry, traj)
    lowest = model.value_range[0]
    told = np.where(score.status == ABSTAINED, lowest, score.value)
    status = np.where(traj.due, score.status, np.int8(1))
    out = []
    for i, episode in enumerate(episodes):
        count = len(episode)
        value = np.empty(count, np.float32)
        codes = np.full(count, SCORED, np.int8)
        value[0] = last = first[i]
        for t in range(count - 1):
            codes[t + 1] = status[t, i]
            if status[t, i] in (SCORED, ABSTAINED):
                last = told[t, i]
            value[t + 1] = last
        out.append(Judgement(value, codes))
    return out


def as_trajectory(episodes: Sequence[Episode], cameras: Sequence[str] = ()) -> Trajectory:
    """Episodes side by side, `(T - 1, N)` steps between the frames of the longest.

    Shorter ones stand still at their last frame; `due` says where an episode is really going on.
    """
    lengths = np.array([len(episode) for episode in episodes])
    steps, count = max(1, int(lengths.max()) - 1), len(episodes)
    frame = np.minimum(np.arange(steps + 1)[:, None], lengths - 1)  # (T, N)
    column = np.arange(count)

    def stack(name: str) -> np.ndarray:
        rows = [getattr(e, name)[frame[:, i]] for i, e in enumerate(episodes)]
        return np.stack(rows, axis=1)

    state, action = stack("state"), stack("action")[:-1]
    going = np.arange(1, steps + 1)[:, None] < lengths
    last = np.arange(1, steps + 1)[:, None] == lengths - 1
    first = np.zeros((steps, count), bool)
    first[0] = True
    offset = np.cumsum(lengths) - lengths
    rows = offset + frame  # (T, N) into all frames, episode after episode
    shown = {
        camera: Frames(
            np.concatenate([episode.images[camera] for episode in episodes]),
            np.where(going, rows[1:], -1),
            np.where(first, offset[column], -1),
        )
        for camera in cameras
    }
    none = np.full((steps, count), -1, np.int64)
    return Trajectory(
        obs={"state": state[:-1]},
        last_obs={"state": state[-1]},
        action=action,
        action_executed=action,
        reward=stack("reward")[:-1],
        reward_terms={},
        terminated=np.zeros_like(last),
        truncated=last,
        is_first=first,
        valid=going,
        step_id=np.arange(steps * count).reshape(steps, count),
        final_index=none,
        final_obs={"state": state[0, :0]},
        due=going,
        instructions=tuple(episode.instruction for episode in episodes),
        readouts={"reward": stack("reward")[:-1], "success": stack("success")[1:]},
        frames=shown,
    )
