"""Demonstrations as tensors, and what they are refused for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from embodied.dataset import Dataset
from embodied.errors import UserError
from embodied.frame_table import FrameTable
from tests.reward_models.episodes import demonstrations


def test_frames_come_one_after_another() -> None:
    dataset = demonstrations(3)
    table = FrameTable.of(dataset, 2)
    assert len(table) == sum(map(len, dataset.episodes)) and table.vector.shape[1] == 2
    for number, episode in enumerate(dataset.episodes):
        rows = (table.episode == number).nonzero().squeeze(1)
        assert rows[0] == table.start[number] and len(rows) == table.length[number]
        np.testing.assert_array_equal(table.vector[rows], episode.state[:, :2])
        np.testing.assert_array_equal(table.index[rows], np.arange(len(episode)))


def test_what_cannot_be_learned_from() -> None:
    dataset = demonstrations(2)
    first, second = dataset.episodes
    broken = second.state.copy()
    broken[1, 0] = np.nan
    for episodes, size, cameras, line in (
        ([], 2, (), "the dataset is empty"),
        ([first, second.at(np.arange(3))], 2, (), "episode 1 has 3 frames, the model needs 4"),
        ([first], 1000, (), "states of .* numbers, the model takes 1000"),
        ([first, replace(second, state=broken)], 2, (), "episode 1 has a state that is not finite"),
        ([first], 2, ("side",), "sees camera 'side'; the dataset has"),
    ):
        with pytest.raises(UserError, match=line):
            FrameTable.of(Dataset(dataset.info, episodes), size, cameras, 4)
