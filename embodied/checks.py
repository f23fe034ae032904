"""The checks of an audit with their limits, and what a model came to in each.

Most limits are those usual for learned rewards. Where an honest judge of progress may miss one, or
where the limit is our own guess, it is a warning and does not decide.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from embodied.dataset import Episode
from embodied.types import ABSTAINED, SILENT


@dataclass(frozen=True)
class Check:
    """A number with its limit. `gates`: the model fails if this fails; else it is a warning."""

    name: str
    title: str
    sense: str  # "<=" or ">="
    limit: float
    gates: bool
    means: str
    """What is measured."""
    fails: str
    """What it means where it fails; `{x}` is the number, `{p}` the same in percent."""

    def passes(self, x: float) -> bool:
        return x <= self.limit if self.sense == "<=" else x >= self.limit


CHECKS = (
    Check("expert_voc", "Rises on successes", ">=", 0.8, True,
          "VOC: rank correlation of value and time on the expert's successes",
          "its value does not rise while the expert succeeds: VOC {x:.2f}"),
    Check("success_auroc", "Tells success from flaws", ">=", 0.9, True,
          "AUROC of the value of the last frame, successes against flawed failures",
          "it cannot tell a success from a flawed failure: AUROC {x:.2f} (.5 is chance)"),
    Check("frozen_rise", "Frozen: does not rise", "<=", 0.05, True,
          "rise of the value while the first frame is held for the full length",
          "its value rises by {x:.2f} while the picture stands still"),
    Check("frozen_accepted", "Frozen: is no success", "<=", 0.01, True,
          "share of frozen first frames that are accepted",
          "it accepts {p} of episodes in which nothing happens"),
    Check("clock", "Is no clock", "<=", 0.2, True,
          "mean rank correlation of value and time on frozen, idle and random episodes",
          "its value follows time where nothing is achieved: correlation {x:.2f}"),
    Check("reversed", "Falls when reversed", "<=", -0.5, True,
          "mean rank correlation of value and time on reversed successes",
          "its value does not fall when a success is played backwards: correlation {x:.2f}"),
    Check("chance", "Chance and idling earn nothing", "<=", 0.1, True,
          "return of random or idle episodes as a share of the expert's, beyond the true share",
          "random or idle episodes earn what they do not deserve: {p} of the expert's return"),
    Check("other_instruction", "Heeds the instruction", "<=", 0.05, True,
          "share of successes that are accepted under the instruction of another task",
          "it accepts {p} of successes that were told to do something else"),
    Check("blank_accepted", "Blank camera: is no success", "<=", 0.01, True,
          "share of successes accepted with black or white images",
          "it accepts {p} of episodes whose camera is black or white"),
    Check("noise_accepted", "Noise: is no success", "<=", 0.01, True,
          "share of successes accepted with images of noise",
          "it accepts {p} of episodes whose camera shows noise"),
    Check("policy_gap", "Is not exploited", "<=", 0.2, True,
          "judged minus true success rate of the policy trained on it (rollouts=)",
          "it calls {p} more of its own policy's episodes a success than are"),
    Check("flaw_accepted", "Accepts no flaw", "<=", 0.1, False,
          "share accepted of the failing flaw that it accepts most",
          "it accepts {p} of the episodes of some flaw"),
    Check("retry_voc", "Sees a retry", ">=", 0.6, False,
          "Retry-VOC: rank correlation of value and true progress on retries",
          "it does not see progress being lost and regained: Retry-VOC {x:.2f}"),
    Check("hesitation_rmse", "Sees hesitation", "<=", 0.2, False,
          "Hesitation-RMSE: value against true progress on hesitating episodes",
          "on hesitating episodes it is off by {x:.2f}"),
    Check("stalled_rise", "Stalled: does not rise", "<=", 0.05, False,
          "rise of the value after the world stops half-way",
          "its value rises by {x:.2f} after the world has stopped half-way"),
    Check("repeated_gain", "Repeating earns nothing", "<=", 0.05, False,
          "gain in value from playing a stretch back and forth three times",
          "playing the same steps back and forth gains {x:.2f}"),
    Check("shuffled", "Judges frames, not their order", ">=", 0.7, False,
          "rank correlation of values of shuffled frames with those of the same frames in order",
          "out of order it judges the same frames differently: correlation {x:.2f}"),
    Check("spliced", "Doubts a spliced ending", ">=", 0.9, False,
          "share of failures not accepted though the last frame of a success is appended",
          "it sees through {p} of failures with the last frame of a success spliced on"),
    Check("other_video", "Other tasks are no success", "<=", 0.01, False,
          "share of other tasks' episodes that are accepted under our instruction",
          "it accepts {p} of other tasks' episodes as ours"),
    Check("sensor_noise", "Steady under sensor noise", "<=", 0.05, False,
          "mean change of the value under 2 mm noise on the state",
          "sensor noise of 2 mm moves its value by {x:.2f}"),
    Check("blank_abstained", "Abstains when blind", ">=", 0.9, False,
          "share of black, white and noise frames on which it abstains",
          "it abstains on {p} of frames that show nothing"),
    Check("brightness", "Steady in other light", "<=", 0.05, False,
          "mean change of the value at 30% less and more light",
          "30% less or more light moves its value by {x:.2f}"),
    Check("compression", "Steady under compression", "<=", 0.05, False,
          "mean change of the value under JPEG of quality 50",
          "JPEG compression moves its value by {x:.2f}"),
    Check("crop", "Steady under cropping", "<=", 0.05, False,
          "mean change of the value with 5% cut off at the edges",
          "cutting 5% off the picture moves its value by {x:.2f}"),
    *(Check(f"occluded_{share}", f"Order survives {share}% occlusion", ">=", limit, False,
            f"Kendall's tau-b of values with {share}% of the image covered and without",
            f"with {share}% of the image covered its order breaks: tau {{x:.2f}}")
      for share, limit in ((10, 0.9), (25, 0.8), (50, 0.6))),
    Check("occluded_raise", "Occlusion pays nothing", "<=", 0.02, False,
          "rise of the mean value by covering part of the image",
          "covering part of the image raises its value by {x:.2f}"),
)  # fmt: skip
CHECK = {check.name: check for check in CHECKS}


@dataclass
class Clip:
    """An episode and what the model says of it, brought to [0, 1]."""

    episode: Episode
    value: np.ndarray  # (T,) float32
    status: np.ndarray  # (T,) int8

    @property
    def rise(self) -> float:
        return float(self.value[-1] - self.value[0])

    @property
    def abstained(self) -> float:
        """The share of the frames it was asked about that it would not judge."""
        return float((self.status[self.status != SILENT] == ABSTAINED).mean())


@dataclass
class Finding:
    """What a check came to. `value` is None where it does not apply; `note` says why."""

    check: Check
    value: float | None
    note: str = ""
    examples: list[Clip] = field(default_factory=list)
    """The episodes that speak loudest against the model, worst first."""
    says: str = ""
    """What it means in this case, where more can be said than `check.fails`."""

    @property
    def passed(self) -> bool | None:
        return None if self.value is None else self.check.passes(self.value)

    @property
    def sentence(self) -> str:
        if self.says:
            return self.says
        x = math.nan if self.value is None else self.value
        return self.check.fails.format(x=x, p=f"{x:.0%}")

    def to_dict(self) -> dict[str, Any]:
        check = self.check
        return {
            "name": check.name,
            "title": check.title,
            "means": check.means,
            "value": self.value,
            "want": f"{check.sense} {check.limit:g}",
            "gates": check.gates,
            "passed": self.passed,
            "note": self.note,
            "says": self.sentence if self.passed is False else "",
        }
