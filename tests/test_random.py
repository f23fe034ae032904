"""Counter-based draws: the same on every backend, in any batch, and as random as they must be."""

import array_api_strict
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from embodied.random import Draw, world_seeds

BACKENDS = {"torch": torch.asarray, "strict": array_api_strict.asarray}
backends = pytest.mark.parametrize("asarray", BACKENDS.values(), ids=BACKENDS)


def draw_of(seeds, episodes=None) -> Draw:
    seeds = np.asarray(seeds, np.int64)
    return Draw(seeds, np.zeros_like(seeds) if episodes is None else np.asarray(episodes, np.int64))


SEEDS = [0, 1, 2, 255, 2**31, 2**32 - 1, 2**32, 2**40 + 7, 2**63 - 1, -1, -(2**63)]


@backends
def test_every_backend_draws_the_same(asarray) -> None:
    numpy = draw_of(SEEDS, range(len(SEEDS)))
    other = Draw(asarray(numpy.seed), asarray(numpy.episode))
    steps = np.arange(len(SEEDS), dtype=np.int64) * 1000
    for mine, theirs in ((numpy, other), (numpy.at(steps), other.at(asarray(steps)))):
        for shape in ((), (5,), (3, 4)):
            for name in ("bits", "uniform", "integers"):
                value = np.asarray(getattr(theirs, name)("stream", shape))
                assert np.array_equal(getattr(mine, name)("stream", shape), value), name
            assert value.shape == (len(SEEDS), *shape) and value.dtype == np.int64
            np.testing.assert_allclose(
                mine.normal("stream", shape), np.asarray(theirs.normal("stream", shape)), atol=1e-12
            )
    assert len(other) == len(SEEDS)


def test_the_numbers_never_change() -> None:
    """Checkpoints and published results rely on these."""
    draw = draw_of([0, 7], [0, 3])
    assert draw.bits("qpos", (2,)).tolist() == [[3303351070, 3885724199], [3458075282, 2388468572]]
    assert draw.at(np.array([0, 9])).bits("noise").tolist() == [4125025545, 4272213381]


@given(
    st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=20),
    st.integers(0, 2**31),
    st.integers(0, 10**6),
)
def test_a_world_does_not_depend_on_the_batch(seeds: list[int], episode: int, step: int) -> None:
    episodes = [episode + i for i in range(len(seeds))]
    steps = np.full(len(seeds), step)
    together = draw_of(seeds, episodes).at(steps).normal("x", (3,))
    for i in reversed(range(len(seeds))):
        alone = draw_of(seeds[i : i + 1], episodes[i : i + 1]).at(steps[:1]).normal("x", (3,))
        assert np.array_equal(alone[0], together[i])


def test_a_longer_draw_begins_with_the_shorter() -> None:
    draw = draw_of(range(10))
    assert np.array_equal(draw.uniform("x", (3,)), draw.uniform("x", (7,))[:, :3])
    assert np.array_equal(draw.uniform("x", (6,)), draw.uniform("x", (2, 3)).reshape(10, 6))


def correlation(first: np.ndarray, second: np.ndarray) -> float:
    return abs(np.corrcoef(first.ravel(), second.ravel())[0, 1])


def test_seeds_episodes_steps_streams_and_places_are_unrelated() -> None:
    n = 100_000
    seeds, zeros = np.arange(n), np.zeros(n, np.int64)
    first = draw_of(seeds).uniform("x", (4,))
    others = {
        "seed": draw_of(seeds + n).uniform("x", (4,)),
        "high bits of the seed": draw_of(seeds + 2**32).uniform("x", (4,)),
        "episode": draw_of(seeds, zeros + 1).uniform("x", (4,)),
        "step": draw_of(seeds).at(zeros).uniform("x", (4,)),
        "next step": draw_of(seeds).at(zeros + 1).uniform("x", (4,)),
        "high bits, at a step": draw_of(seeds + 2**32).at(zeros).uniform("x", (4,)),
        "stream": draw_of(seeds).uniform("y", (4,)),
        "neighbouring seeds": np.roll(first, 1, axis=0),
        "neighbouring places": np.roll(first, 1, axis=1),
    }
    values = {"first": first, **others}
    for i, (name, value) in enumerate(values.items()):
        for earlier in list(values.values())[:i]:
            assert correlation(value, earlier) < 0.01, name
    bits = ((draw_of(seeds).bits("x")[:, None] >> np.arange(32)) & 1).astype(float)
    assert np.abs(bits.mean(axis=0) - 0.5).max() < 0.01
    assert np.abs(np.corrcoef(bits.T) - np.eye(32)).max() < 0.02


@pytest.mark.parametrize("vary", ["seed", "episode", "step", "place"])
def test_a_million_draws_repeat_no_more_than_chance(vary: str) -> None:
    """Of n 32-bit numbers n^2 / 2^33 pairs are equal by chance: 116 of a million."""
    n = 1_000_000
    counter, zeros = np.arange(n), np.zeros(n, np.int64)
    if vary == "seed":
        bits = draw_of(counter).bits("x")
    elif vary == "episode":
        bits = draw_of(zeros + 3, counter).bits("x")
    elif vary == "step":
        bits = draw_of(zeros + 3).at(counter).bits("x")
    else:
        bits = draw_of([3]).bits("x", (n,))[0]
    equal = n - np.unique(bits).size
    assert equal < 170
    value = bits / 2**32
    assert value.mean() == pytest.approx(0.5, abs=0.002)
    assert value.std() == pytest.approx(np.sqrt(1 / 12), abs=0.002)
    counts = np.bincount((bits >> 24), minlength=256)
    assert ((counts - n / 256) ** 2 / (n / 256)).sum() < 255 + 6 * np.sqrt(2 * 255)
    lags = [correlation(value[lag:], value[:-lag]) for lag in (1, 2, 3, 64, 256, 1000)]
    assert max(lags) < 0.005


def test_worlds_of_a_run_never_share_a_step() -> None:
    """256 worlds for a thousand steps: no two (world, step) draw the same four numbers."""
    seeds = np.repeat(np.arange(256), 1000)
    draw = draw_of(seeds).at(np.tile(np.arange(1000), 256))
    assert np.unique(draw.bits("noise", (4,)), axis=0).shape[0] == 256_000


def test_uniform_stays_strictly_inside() -> None:
    value = draw_of(range(100_000)).uniform("x", (10,), -2.0, 3.0)
    assert value.dtype == np.float64
    assert -2.0 < value.min() < -1.9999 and 2.9999 < value.max() < 3.0
    assert value.mean() == pytest.approx(0.5, abs=0.01)


def test_the_ends_of_uniform_are_open(monkeypatch: pytest.MonkeyPatch) -> None:
    for bits in (0, 2**32 - 1):
        monkeypatch.setattr(Draw, "bits", lambda *_, bits=bits: np.array([bits]))
        assert 0.0 < draw_of([0]).uniform("x")[0] < 1.0
        assert np.isfinite(draw_of([0]).normal("x")[0])


def test_normal_moments() -> None:
    value = draw_of(range(100_000)).normal("x", (10,), 2.0) / 2.0
    assert value.mean() == pytest.approx(0.0, abs=0.005)
    assert value.std() == pytest.approx(1.0, abs=0.005)
    assert (value**3).mean() == pytest.approx(0.0, abs=0.02)
    assert (value**4).mean() == pytest.approx(3.0, abs=0.05)
    assert (np.abs(value) > 3).mean() == pytest.approx(0.0027, rel=0.1)
    assert correlation(value[:, 0], value[:, 1]) < 0.02


@pytest.mark.parametrize("high", [1, 2, 3, 10, 1000])
def test_integers_are_even(high: int) -> None:
    value = draw_of(range(20_000)).integers("x", (5,), high)
    counts = np.bincount(value.ravel(), minlength=high)
    assert counts.size == high
    expected = 100_000 / high
    assert ((counts - expected) ** 2 / expected).sum() < high + 6 * np.sqrt(2 * high)


def test_world_seeds_are_gymnasiums() -> None:
    assert world_seeds(10, 3).tolist() == [10, 11, 12]
    assert world_seeds(10, 2, first=5).tolist() == [15, 16]
    assert world_seeds(0, 2).dtype == np.int64
