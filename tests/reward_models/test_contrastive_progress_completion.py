"""Three heads as one value: the formula by hand, and what contrast and anchor are for."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from embodied.reward_models.contrastive_progress_completion import (
    BINS,
    ContrastiveProgressCompletion,
    answers,
)
from embodied.reward_models.stages import time_shares

from embodied.dataset import Dataset, Episode
from embodied.errors import UserError
from embodied.judgement import judge
from embodied.progress_metrics import voc
from embodied.types import ABSTAINED
from tests.reward_models.episodes import (
    INSTRUCTION,
    OTHER,
    PROPRIO,
    SPACE,
    demonstrations,
    flawed,
)

STEPS = 300


def model(**settings: Any) -> ContrastiveProgressCompletion:
    given = {"observation_space": SPACE, "proprio_size": PROPRIO, "members": 1, **settings}
    return ContrastiveProgressCompletion(**given)


def others(images: bool = False) -> list[Dataset]:
    return [demonstrations(4, seed=9, images=images, instruction=OTHER)]


@cache
def fitted(*heads: str) -> ContrastiveProgressCompletion:
    """A model of all heads, of which `heads` are asked."""
    told = model(**({"heads": heads} if heads else {}))
    told.fit(demonstrations(15), others(), steps=STEPS)
    return told


def values(told: ContrastiveProgressCompletion, episodes: list[Episode]) -> list[np.ndarray]:
    """The values of the frames that are asked about, ten apart and the last."""
    out = []
    for judged in judge(told, episodes, every=10):
        asked = np.unique([*range(0, len(judged.value), 10), len(judged.value) - 1])
        out.append(judged.value[asked])
    return out


def held_out() -> list[Episode]:
    return demonstrations(8, seed=5).episodes


def test_time_counts_up_to_the_first_success() -> None:
    episode = demonstrations(1).episodes[0].at(np.zeros(6, int))
    episode = replace(episode, success=np.array([0, 0, 0, 0, 1, 0], bool))
    shares = time_shares(Dataset(demonstrations(1).info, [episode]))
    np.testing.assert_allclose(shares, [0.0, 0.25, 0.5, 0.75, 1.0, 1.0])


def test_expected_answers_by_hand() -> None:
    logits = {
        "contrastive": torch.log(torch.tensor([[0.1, 0.3, 0.6]])),  # c = 0.5: (c + 1) / 2
        "progress": torch.full((1, BINS), -1e9),
        "completion": torch.tensor([[0.0]]),
    }
    logits["progress"][0, 3] = logits["progress"][0, 4] = 0.0  # 0.3 or 0.4
    told = answers(logits)
    assert told["contrastive"].item() == pytest.approx(0.75)
    assert told["progress"].item() == pytest.approx(0.35)
    assert told["completion"].item() == pytest.approx(0.5)


def read(told: ContrastiveProgressCompletion, logits: dict[str, torch.Tensor]) -> float:
    """The value of one state whose heads say `logits`, whoever asks."""
    told.net.forward = lambda *_: logits  # type: ignore[method-assign]
    any_ = torch.ones(1, 2, 65)
    return told.read(any_, torch.zeros(1, 64), {"first": any_[:, 0]}, False)[0].item()


def said(contrast: float, progress: float, completion: float) -> dict[str, torch.Tensor]:
    """Logits `(1 member, 1 state, classes)` that surely answer this."""
    signs, bins = torch.full((1, 1, 3), -1e9), torch.full((1, 1, BINS), -1e9)
    signs[..., int(contrast) + 1] = 0.0
    bins[..., round(10 * progress)] = 0.0
    done = torch.full((1, 1, 1), 1e3 * (2 * completion - 1))
    return {"contrastive": signs, "progress": bins, "completion": done}


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        ((0, 0.0, 0), 1 / 6),  # the start
        ((1, 0.5, 0), 1 / 2),  # under way
        ((-1, 0.5, 0), 1 / 6),  # on the way back
        ((1, 1.0, 0), 2 / 3),  # all that can be had without completion
        ((1, 1.0, 1), 1.0),  # just done
        ((0, 1.0, 1), 5 / 6),  # done and at rest
    ],
)
def test_three_heads_count_a_third_each(answer: tuple[float, ...], value: float) -> None:
    assert read(model(), said(*answer)) == pytest.approx(value)


def test_chosen_heads_count_alone() -> None:
    for heads, value in ((["progress"], 0.4), (["completion", "contrastive"], 0.5)):
        assert read(model(heads=heads), said(1, 0.4, 0)) == pytest.approx(value)


def test_the_least_of_the_members_counts() -> None:
    one, other = said(1, 0.8, 1), said(0, 0.2, 0)
    both = {head: torch.cat([one[head], other[head]]) for head in one}
    assert read(model(members=2), both) == pytest.approx((0.5 + 0.2) / 3)


def test_it_follows_progress_forward_and_back() -> None:
    told = fitted()
    assert np.mean([voc(value) for value in values(told, held_out())]) > 0.8
    backward = values(told, [e.at(slice(None, None, -1)) for e in held_out()])
    assert np.mean([voc(value) for value in backward]) < -0.8
    assert np.mean([value[-1] for value in values(told, held_out())]) > 0.65
    undone = values(told, flawed("undoes", 6).episodes)
    assert np.mean([value.max() - value[-1] for value in undone]) > 0.15


def test_it_tells_no_time() -> None:
    frozen = values(fitted(), [e.at(np.zeros(80, int)) for e in held_out()])
    for value in frozen:
        assert value.max() <= value[0] + 0.05


def test_another_instruction_earns_nothing() -> None:
    other = [replace(episode, instruction=OTHER) for episode in held_out()]
    assert max(value.max() for value in values(fitted(), other)) < 0.3


def test_contrast_alone_tells_forward_from_back() -> None:
    """On the way there and on the way back the same states are seen: only contrast differs."""
    told = fitted("contrastive")
    forward = [e.at(slice(0, int(e.success.argmax()))) for e in held_out()]
    there, back = (
        np.mean([value[1:].mean() for value in values(told, episodes)])
        for episodes in (forward, [e.at(slice(None, None, -1)) for e in forward])
    )
    assert there > 0.8 and back < 0.2


def far(count: int, seed: int) -> Dataset:
    """Walks of one metre from a start anywhere: only the way from the start tells progress."""
    rng = np.random.default_rng(seed)
    data = demonstrations(count, seed)
    for episode in data.episodes:
        share = np.minimum(np.arange(len(episode)) / max(1, int(episode.success.argmax())), 1.0)
        episode.state = (rng.uniform(-3, 3) + share[:, None]).astype(np.float32)
    return data


def test_without_its_anchor_progress_stays_flat(monkeypatch) -> None:
    """No clip begins where it should end: here a state by itself could not tell that it does."""
    module = "embodied.reward_models.contrastive_progress_completion"
    monkeypatch.setattr(f"{module}.REWOUND", 0.0)
    space = gym.spaces.Dict({"state": gym.spaces.Box(-9, 9, (1,), np.float32)})
    rise = {}
    for anchor in (True, False):
        told = model(
            observation_space=space, heads=["progress"], anchor=anchor, noise=0.01, mixed=0.0
        )
        told.fit(far(40, 0), steps=500)
        rise[anchor] = np.mean([v[-1] - v[0] for v in values(told, far(12, 1).episodes)])
    assert rise[True] > 0.7
    assert rise[False] < 0.5 * rise[True]


def test_from_pixels_it_learns_and_abstains_from_what_shows_nothing() -> None:
    told = model(input="pixels")
    told.fit(demonstrations(10, images=True), others(images=True), steps=150)
    shown = demonstrations(4, seed=5, images=True).episodes
    assert np.mean([voc(value) for value in values(told, shown)]) > 0.6
    black = [replace(e, images={"front": 0 * e.images["front"]}) for e in shown]
    for verdict in judge(told, black):
        assert (verdict.status[1:] == ABSTAINED).mean() > 0.9


def test_a_saved_model_says_the_same(tmp_path) -> None:
    fitted().save(tmp_path / "m")
    again = model(seed=3, path=str(tmp_path / "m"))
    for a, b in zip(values(again, held_out()), values(fitted(), held_out()), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("heads", "message"),
    [
        (["progres"], "unknown head 'progres': did you mean progress"),
        ([], "give one or more of contrastive, progress, completion"),
        (["progress", "progress"], "give one or more"),
    ],
)
def test_heads_that_there_are_not(heads: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        model(heads=heads)


def test_bad_demonstrations_are_refused() -> None:
    data = demonstrations(3)
    data.episodes[2].success[:] = False
    with pytest.raises(UserError, match="episode 2 never succeeds"):
        model().fit(data)
    data.episodes[2].success[:] = True
    with pytest.raises(UserError, match="episode 2 is done from its first frame"):
        model().fit(data)


def test_an_untrained_model_refuses_to_judge() -> None:
    with pytest.raises(UserError, match="is untrained: `embodied fit reward_model=contrastive_pr"):
        judge(model(instructions=(INSTRUCTION,)), held_out())
