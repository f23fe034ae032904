"""What the learned models share: what they see, when, and what they remember of it."""

from __future__ import annotations

import math

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import nn

from embodied.dataset import Dataset, DatasetInfo, Episode
from embodied.encoder import Encoder, Vision, augment
from embodied.errors import UserError
from embodied.frame_judge import FrameJudge
from embodied.frame_table import FrameTable
from embodied.judgement import as_trajectory, judge
from embodied.language import embed
from embodied.places import MARGIN_PX
from embodied.reward_model import Channel, due, start
from embodied.rewards import Rewards, verdict_on
from embodied.types import ABSTAINED, ActionSpec
from tests.toys import chunks, episode_step

SPACE = gym.spaces.Dict({"state": gym.spaces.Box(-9, 9, (2,), np.float32)})
SPEC = ActionSpec(("x",), ("m",), np.float32([-1]), np.float32([1]), "joint_delta", 10.0)


class Window(FrameJudge):
    """Tells the numbers of the states in its window: 3 2 1 is 321; a camera counts for itself."""

    value_range = (0.0, 9999.0)

    def __init__(self, **settings) -> None:
        super().__init__(SPACE, **settings)
        self.net = nn.Module()
        self.fitted = True

    def _encode(self, vector, images):
        seen = [torch.from_numpy(image[:, 0, 0, :1].astype(np.float32)) for image in images]
        return torch.cat([torch.from_numpy(vector[:, :1]), *seen], -1)

    def read(self, window, text, memory, first):
        digits = window[..., -1] % 10
        value = (digits * 10.0 ** torch.arange(window.shape[1])).sum(-1)
        return value, self.scored(value), memory


def episode(length: int, offset: int = 0, camera: bool = False, text: str = "go") -> Episode:
    count = np.arange(offset, offset + length, dtype=np.float32)
    images = {}
    if camera:
        images["front"] = np.broadcast_to(
            (count % 10).astype(np.uint8)[:, None, None, None], (length, 8, 8, 3)
        ).copy()
    return Episode(
        instruction=text,
        source="expert",
        seed=0,
        state=np.stack([count, -count], axis=1),
        action=np.zeros((length, 1), np.float32),
        reward=np.zeros(length, np.float32),
        success=np.zeros(length, bool),
        stage=np.zeros(length, np.int64),
        progress=np.full(length, np.nan, np.float32),
        images=images,
    )


def dataset(*episodes: Episode) -> Dataset:
    return Dataset(DatasetInfo("toy", 10.0, SPEC, 1, cameras=("front",)), list(episodes))


def test_a_window_holds_the_states_at_multiples_of_the_stride() -> None:
    model = Window(window=3, stride=2)
    value = judge(model, [episode(8)])[0].value
    # state 0: 0 0 0; 1: 0 0 1; 2: 0 0 2; 3: 0 2 3; 4: 0 2 4; 5: 2 4 5; 6: 2 4 6; 7: 4 6 7
    assert value.tolist() == [0, 100, 200, 320, 420, 542, 642, 764]


@pytest.mark.parametrize(("window", "stride"), [(1, 1), (2, 1), (3, 2), (4, 5)])
def test_training_windows_are_those_that_are_remembered(window: int, stride: int) -> None:
    table = FrameTable.of(dataset(episode(9), episode(13)), 2)
    rows = table.windows(torch.arange(len(table)), window, stride)
    digits = table.vector[rows, 0] % 10
    fitted = (digits * 10.0 ** torch.arange(window)).sum(-1).numpy()
    asked = judge(Window(window=window, stride=stride), [episode(9), episode(13)])
    assert fitted.tolist() == np.concatenate([one.value for one in asked]).tolist()


@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("length", [1, 3, 7])
def test_chunks_and_neighbours_change_nothing(length: int, every: int) -> None:
    episodes = [episode(12, 0, True), episode(7, 3, True), episode(12, 5, True)]
    model = Window(window=2, stride=2, input="pixels")
    traj = as_trajectory(episodes, model.cameras)

    def values(cut: int) -> np.ndarray:
        channel = Channel("m", model, threshold=0.0, every=every)
        rewards = Rewards({"m": channel}, 3, 0.9)
        rewards.begin(start(traj, 0))
        steps = chunks_of(episode_step(traj), cut)
        out = []
        for part, step in zip(chunks(traj, cut), steps, strict=True):
            done = part.terminated | part.truncated
            out.append(verdict_on(channel, part, due(every, step, done), 0.9).after)
        return np.concatenate(out)

    assert (values(length) == values(11)).all()
    alone = judge(model, [episodes[1]], every)[0].value
    together = judge(model, episodes, every)[1].value
    assert (alone == together).all()


def chunks_of(rows: np.ndarray, length: int) -> list[np.ndarray]:
    return [rows[t : t + length] for t in range(0, len(rows), length)]


def test_between_two_queries_the_last_value_holds_and_the_last_frame_is_judged() -> None:
    value = judge(Window(), [episode(9)], every=3)[0].value
    assert value.tolist() == [0, 0, 0, 3, 3, 3, 6, 6, 8]


def test_a_value_is_no_higher_than_the_colours_in_view_allow() -> None:
    plain, green = episode(6, 4, True), episode(6, 4, True)
    green.images["front"][3:, :4, :4] = (0, 200, 0)
    model = Window(input="pixels", window=1)
    table = model.table(dataset(plain))
    model.learn_colours(table, torch.arange(2), torch.tensor([0.0, 1.0]))
    told = [judge(model, [one])[0].value for one in (plain, green)]
    assert (told[0][:3] == told[1][:3]).all() and (told[1][3:] < 1.0).all()
    assert told[0][4:].tolist() == [8.0, 9.0]
    again = Window(input="pixels", window=1)
    again.load_state_dict(model.state_dict())
    assert (judge(again, [green])[0].value == told[1]).all()


def test_a_value_is_no_higher_than_the_places_of_colours_allow() -> None:
    def clip(goal: int, end: int) -> Episode:
        """A red thing that is brought from afar to `end`, over or past a green one at `goal`."""
        one = episode(3, 5, True)
        shown = np.full((3, 64, 64, 3), 207, np.uint8)  # which it tells as 7
        shown[:, goal : goal + 4, goal : goal + 4] = (0, 200, 0)
        for t, (row, column) in enumerate([(goal + 20, goal - 10), (goal - 10, goal), (end, end)]):
            shown[t, row : row + 4, column : column + 4] = (200, 0, 0)
        one.images["front"] = shown
        return one

    model, again = Window(input="pixels", window=1), Window(input="pixels", window=1)
    model.value_range = again.value_range = (0.0, 7.0)
    table = model.table(dataset(*(clip(goal, goal) for goal in range(20, 36))))
    before = [told.value[-1] for told in judge(model, [clip(30, 30), clip(30, 33)])]
    model.learn_colours(table, torch.arange(len(table)), (table.index == 2).float())
    model.hues.forget()
    again.load_state_dict(model.state_dict())
    assert not again.net.training
    after = [told.value[-1] for told in judge(again, [clip(30, 30), clip(30, 33)])]
    assert before == [7.0, 7.0]
    assert after == pytest.approx([7.0, 7.0 * 0.8 * math.exp(-0.05 * (3 + 3 - MARGIN_PX))])


def test_a_state_that_cannot_be_judged_has_the_lowest_value() -> None:
    class Shy(Window):
        def read(self, window, text, memory, first):
            value, status, memory = super().read(window, text, memory, first)
            return value + 5, torch.where(value == 2, ABSTAINED, status).to(torch.int8), memory

    told = judge(Shy(), [episode(4)])[0]
    assert told.value.tolist() == [5, 6, 0, 8]
    assert told.status[2] == ABSTAINED


def test_it_is_refused_what_it_cannot_do() -> None:
    with pytest.raises(UserError, match="input='sound'"):
        Window(input="sound")
    with pytest.raises(UserError, match="give a divisor"):
        Channel("m", Window(window=2, stride=3), threshold=0.0, every=2)
    with pytest.raises(UserError, match="camera 'front'"):
        judge(Window(input="pixels"), [episode(4)])
    untrained = Window()
    untrained.fitted = False
    with pytest.raises(UserError, match="untrained"):
        judge(untrained, [episode(4)])


def test_a_table_says_which_episode_is_wrong() -> None:
    with pytest.raises(UserError, match="no episodes"):
        FrameTable.of(dataset(), 2)
    with pytest.raises(UserError, match="episode 1 has 2 frames, the model needs 3"):
        FrameTable.of(dataset(episode(5), episode(2)), 2, shortest=3)
    with pytest.raises(UserError, match="another env"):
        FrameTable.of(dataset(episode(5)), 3)
    broken = episode(5)
    broken.state[2, 1] = np.nan
    with pytest.raises(UserError, match="episode 1 has a state that is not finite"):
        FrameTable.of(dataset(episode(5), broken), 2)
    with pytest.raises(UserError, match="camera 'front'"):
        FrameTable.of(dataset(episode(5)), 2, ("front",))


def test_texts_differ_as_texts_do() -> None:
    red, again, blue = embed(["lift the red cube", "lift the red cube", "lift the blue cube"])
    assert (red == again).all()
    assert float(red @ red) == pytest.approx(1.0)
    assert 0.2 < float(red @ blue) < 0.95


def test_vision_tells_where_a_thing_is() -> None:
    """Two pictures with equal pixels in other places have other features."""
    torch.manual_seed(0)
    images = torch.zeros((2, 64, 64, 3), dtype=torch.uint8)
    images[0, 8:16, 8:16, 0] = images[1, 40:48, 40:48, 0] = 255
    features = Vision()(images)
    assert (features[0] - features[1]).abs().max() > 1e-3
    assert Encoder(3, cameras=2)(torch.zeros(2, 3), [images, images]).shape == (2, 64)


def test_augmented_images_differ_and_keep_their_kind() -> None:
    images = torch.randint(0, 256, (16, 32, 32, 3), dtype=torch.uint8)
    noise = torch.Generator().manual_seed(0)
    out = augment(images, noise)
    assert out.shape == images.shape and out.dtype == torch.uint8
    changed = (out != images).flatten(1).float().mean(1)
    assert (changed > 0.3).all()
    assert not (augment(images, noise) == out).all()
