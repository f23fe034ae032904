"""What a judge of progress is put to before anything learns from it.

A probe alters episodes (`embodied.alterations`), asks the model about them as in training, and
measures one number, whose limit is in `embodied.checks`. One that has nothing to work with (no
camera, no random episodes) says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from embodied import alterations as alter
from embodied.checks import CHECK, CHECKS, Clip, Finding
from embodied.dataset import Dataset, Episode
from embodied.progress_metrics import kendall_tau, spearman, voc
from embodied.types import SILENT

MOST = 16
"""Episodes a probe is played on."""
FLAT = 0.05
"""Values that vary by no more have no order: a frozen world may flicker so much."""
ELSEWHERE = ("water the plant", "fold the towel", "close the laptop", "wipe the window")
"""What else to tell it to do where no other task is known."""


@dataclass
class Bench:
    """A model ready to be asked, and judged episodes to ask about. None has under 4 frames."""

    ask: Callable[[Sequence[Episode]], list[Clip]]
    threshold: float
    """The value from which on it says: success."""
    experts: list[Clip]
    """Successes of the expert."""
    failures: list[Clip]
    """Episodes that fail in spite of an effort: flaws."""
    chance: list[Clip] = field(default_factory=list)
    """Random and idle episodes."""
    others: Sequence[Dataset] = ()
    cameras: tuple[str, ...] = ()
    """Those the model sees through."""
    remembers: bool = False
    """Whether the model declares that it remembers states."""
    seed: int = 0

    def accepted(self, clip: Clip) -> bool:
        """Whether any of its frames is called a success: each would be paid for."""
        return bool((clip.value >= self.threshold).any())

    def accepts(self, name: str, clips: Sequence[Clip]) -> Finding:
        rate = float(np.mean([self.accepted(clip) for clip in clips]))
        worst = sorted(clips, key=lambda clip: -float(clip.value.max()))
        return Finding(CHECK[name], rate, f"{len(clips)} episodes", worst[:2])

    def rng(self, stream: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, stream))


def run_probes(bench: Bench) -> list[Finding]:
    """Every probe on a bench that has experts; findings in the order of `CHECKS`."""
    experts = bench.experts = spread(bench.experts)
    bench.failures, bench.chance = spread(bench.failures), spread(bench.chance)
    frozen = bench.ask([alter.frozen(clip.episode) for clip in experts])
    found = [
        _mean("frozen_rise", frozen, [clip.rise for clip in frozen]),
        bench.accepts("frozen_accepted", frozen),
        *_time(bench, frozen),
        *_order(bench),
        *_instruction(bench),
        *_splice(bench),
        *(_camera(bench) if bench.cameras else _no_camera(bench)),
    ]
    names = [check.name for check in CHECKS]
    return sorted(found, key=lambda finding: names.index(finding.check.name))


def spread(clips: list[Clip], most: int = MOST) -> list[Clip]:
    """At most `most` of them, evenly from first to last."""
    rows = np.unique(np.linspace(0, len(clips) - 1, min(most, len(clips))).round().astype(int))
    return [clips[row] for row in rows]


def clock_correlation(clip: Clip) -> float:
    """Rank correlation of value and time; 0 where the value is as good as `FLAT`."""
    return voc(clip.value) if np.ptp(clip.value) > FLAT else 0.0


def earned(rise: float, accepted: np.ndarray) -> float:
    """What an episode earns: its gain in potential, and the share of frames `(T,)` with bonus."""
    return rise + float(np.mean(accepted))


def _mean(
    name: str, clips: Sequence[Clip], badness: Sequence[float], sign: int = 1, note: str = ""
) -> Finding:
    """The mean over episodes of a number that is bad where it is high (`sign` -1: low)."""
    worst = sorted(range(len(clips)), key=lambda i: -sign * badness[i])[:2]
    note = note or f"{len(clips)} episodes"
    return Finding(CHECK[name], float(np.mean(badness)), note, [clips[i] for i in worst])


def _skipped(name: str, why: str) -> Finding:
    return Finding(CHECK[name], None, why)


def _time(bench: Bench, frozen: list[Clip]) -> Iterator[Finding]:
    """Does value come with time alone?"""
    idle = frozen + [clip for clip in bench.chance if not _progresses(clip.episode)]
    yield _mean("clock", idle, [clock_correlation(clip) for clip in idle])
    stopped = bench.ask(
        [alter.frozen(clip.episode, len(clip.value) // 2) for clip in bench.experts]
    )
    rises = [float(clip.value[-1] - clip.value[len(clip.value) // 2]) for clip in stopped]
    yield _mean("stalled_rise", stopped, rises)
    if not bench.chance:
        yield _skipped("chance", "no random or idle episodes in the dataset")
        return
    kinds = sorted({clip.episode.source for clip in bench.chance})
    shares = [_share(bench, [c for c in bench.chance if c.episode.source == k]) for k in kinds]
    worst = int(np.argmax(shares))
    theirs = [c for c in bench.chance if c.episode.source == kinds[worst]]
    examples = sorted(theirs, key=lambda clip: -clip.rise)[:2]
    yield Finding(CHECK["chance"], shares[worst], f"source {kinds[worst]}", examples)


def _progresses(episode: Episode) -> bool:
    """Whether something is truly achieved (where nobody knows: no)."""
    truth = episode.progress
    return bool(np.isfinite(truth).all() and truth.max() - truth[0] > FLAT)


def _share(bench: Bench, clips: list[Clip]) -> float:
    """Mean return of `clips` in the expert's, less the same share in truth where it is known."""

    def judged(clip: Clip) -> float:
        return earned(clip.rise, clip.value >= bench.threshold)

    def true(clip: Clip) -> float:
        progress = np.nan_to_num(clip.episode.progress)
        return earned(float(progress[-1] - progress[0]), clip.episode.success)

    shares = []
    for earn in (judged, true):
        expert = float(np.mean([earn(clip) for clip in bench.experts]))
        shares.append(float(np.mean([earn(clip) for clip in clips])) / max(expert, 1e-3))
    return shares[0] - max(0.0, shares[1])


def _order(bench: Bench) -> Iterator[Finding]:
    """Does value go with the frames, in whatever order they come?"""
    experts = bench.experts
    backwards = bench.ask([alter.reversed_(clip.episode) for clip in experts])
    yield _mean("reversed", backwards, [voc(clip.value) for clip in backwards])
    rng = bench.rng(0)
    mixed = [alter.shuffled(clip.episode, rng) for clip in experts]
    clips = bench.ask([episode for episode, _ in mixed])
    same = []
    for clip, expert, (_, order) in zip(clips, experts, mixed, strict=True):
        asked = clip.status != SILENT
        same.append(spearman(clip.value[asked], expert.value[order[asked]]))
    if bench.remembers:
        found = f"it remembers states and may heed their order (found {np.mean(same):.2f})"
        yield _skipped("shuffled", found)
    else:
        yield _mean("shuffled", clips, same, -1)
    once = bench.ask([alter.first_half(clip.episode) for clip in experts])
    thrice = bench.ask([alter.repeated(clip.episode) for clip in experts])
    gains = [float(b.value[-1] - a.value[-1]) for a, b in zip(once, thrice, strict=True)]
    yield _mean("repeated_gain", thrice, gains)


def _instruction(bench: Bench) -> Iterator[Finding]:
    """Our successes under other instructions, and other tasks' episodes under ours."""
    ours = {clip.episode.instruction for clip in (*bench.experts, *bench.failures)}
    if ours == {""}:
        yield _skipped("other_instruction", "the dataset has no instructions")
    else:
        known = {e.instruction for dataset in bench.others for e in dataset.episodes}
        texts = sorted(known - ours - {""}) or list(ELSEWHERE)
        clips = bench.ask(
            [
                alter.told(clip.episode, texts[i % len(texts)])
                for i, clip in enumerate(bench.experts)
            ]
        )
        yield bench.accepts("other_instruction", clips)
    if not bench.cameras:
        yield _skipped("other_video", "it sees no images; other tasks have other states")
        return
    instruction = bench.experts[0].episode.instruction
    clips = []
    for dataset in bench.others:
        seen = [e for e in dataset.episodes if set(bench.cameras) <= e.images.keys()]
        seen = [e for e in seen if e.instruction not in ours][:MOST]
        clips += bench.ask([alter.told(e, instruction) for e in seen]) if seen else []
    if clips:
        yield bench.accepts("other_video", clips)
    else:
        yield _skipped("other_video", "no episodes of other tasks with its cameras (others=)")


def _splice(bench: Bench) -> Iterator[Finding]:
    """A causal judge of states cannot know that one was not reached: this never decides.

    It is detected where the spliced frame is not accepted, be it doubted or abstained from.
    """
    if not bench.failures:
        yield _skipped("spliced", "no failures in the dataset")
        return
    experts = bench.experts
    clips = bench.ask(
        [
            alter.spliced(clip.episode, experts[i % len(experts)].episode)
            for i, clip in enumerate(bench.failures)
        ]
    )
    yield _mean("spliced", clips, [float(c.value[-1] < bench.threshold) for c in clips], -1)


IMAGE_CHECKS = (
    "blank_accepted", "noise_accepted", "blank_abstained", "brightness", "compression", "crop",
    "occluded_10", "occluded_25", "occluded_50", "occluded_raise",
)  # fmt: skip


def _no_camera(bench: Bench) -> Iterator[Finding]:
    rng = bench.rng(1)
    noisy = bench.ask([alter.noisy_state(clip.episode, rng) for clip in bench.experts])
    yield _change("sensor_noise", bench, noisy)
    for name in IMAGE_CHECKS:
        yield _skipped(name, "it sees no images")


def _camera(bench: Bench) -> Iterator[Finding]:
    rng, episodes = bench.rng(2), [clip.episode for clip in bench.experts]
    yield _skipped("sensor_noise", "it sees images")
    black, white = (bench.ask([alter.blank(e, level) for e in episodes]) for level in (0, 255))
    static = bench.ask([alter.noise(e, rng) for e in episodes])
    yield bench.accepts("blank_accepted", black + white)
    yield bench.accepts("noise_accepted", static)
    blind = black + white + static
    yield _mean("blank_abstained", blind, [clip.abstained for clip in blind], -1)
    light = [bench.ask([alter.brighter(e, factor) for e in episodes]) for factor in (0.7, 1.3)]
    yield _change("brightness", bench, light[0] + light[1])
    yield _change("compression", bench, bench.ask([alter.compressed(e) for e in episodes]))
    yield _change("crop", bench, bench.ask([alter.cropped(e) for e in episodes]))
    yield from _occlusion(bench, rng)


def _occlusion(bench: Bench, rng: np.random.Generator) -> Iterator[Finding]:
    raises = []
    for percent in (10, 25, 50):
        covered = bench.ask(
            [alter.occluded(clip.episode, percent / 100, rng) for clip in bench.experts]
        )
        taus = [kendall_tau(a.value, b.value) for a, b in zip(bench.experts, covered, strict=True)]
        yield _mean(f"occluded_{percent}", covered, taus, -1)
        means = [c.value.mean() for c in covered], [c.value.mean() for c in bench.experts]
        raises.append((float(np.mean(means[0]) - np.mean(means[1])), covered))
    most, covered = max(raises, key=lambda pair: pair[0])
    yield Finding(CHECK["occluded_raise"], most, examples=covered[:2])


def _change(name: str, bench: Bench, altered: list[Clip]) -> Finding:
    """Mean absolute change of the value of every frame of the experts."""
    before = bench.experts * (len(altered) // len(bench.experts))
    changes = [
        float(np.abs(a.value - b.value).mean()) for a, b in zip(altered, before, strict=True)
    ]
    return _mean(name, altered, changes)
