"""Information gain: how much likelier a turn has made the true answer, to the policy itself."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from embodied.causal_lm import IGNORED, CausalLM, padded
from embodied.errors import UserError
from embodied.nets import torch_threads
from embodied.reward_model import Needs
from embodied.types import SCORED, Array, Carry, Moment, Score, Trajectory

from .episodes import histories
from .learner import AT_ONCE

GOLD = "gold"


class InformationGain:
    """A turn is paid b_t - b_{t-1} (IGPO, Wang et al. 2025, arXiv 2510.14967).

        b_t = exp(mean_j log pi(answer_j | all seen up to what the world said to turn t, answer_<j))

    is the belief in the true answer of the policy as it is now; b_0 is that after the first text.
    The answer is put where the next reply would begin, after the words `lead` ("The answer is"), or
    as the reply itself where `lead` is empty. Its own tokens alone are counted, neither the lead
    nor the end of a reply. Give the `lead` in which the policy is used to answer: else its belief
    is in the form as much as in the answer.

    `answer` names the privileged readout that tells it ("gold" stands for "world.gold"), as text or
    as JSON, of which a list is joined by commas. It is what is told at the episode's first turn;
    where that is empty, nothing is paid.

    The turn that ends an episode is paid nothing: there the outcome speaks, which is another
    model's. With `last` it is paid its gain too. Where we differ: the group-wise normalisation, the
    discount and the clipping are the agent's business.
    """

    kind = "reward"
    scope = "episode"
    causal = True
    value_range = (-1.0, 1.0)

    def __init__(
        self,
        language: Callable[[], CausalLM],
        answer: str = "world.answer",
        lead: str = "The answer is",
        last: bool = False,
    ) -> None:
        self.readout = f"world.{GOLD}" if answer == GOLD else answer
        if not self.readout.startswith("world."):
            raise UserError(
                f"reward_model.information_gain.answer={answer!r}: give what a world tells, as "
                "world.answer, or gold"
            )
        names = frozenset({self.readout})
        self.needs = Needs(readouts=names, privileged=names)
        self.language, self.lead, self.last = language, lead, last

    def begin(self, carry: Carry, mask: Array, moment: Moment) -> tuple[Carry, Array]:
        return carry, np.zeros(mask.shape, np.float32)

    def score(self, carry: Carry, traj: Trajectory) -> tuple[Carry, Score]:
        lm, following = self.language(), traj.next_obs["text"]
        asked: list[tuple[np.ndarray, str]] = []
        paid: list[tuple[int, np.ndarray]] = []
        for n in range(traj.shape[1]):
            turns = np.flatnonzero(traj.valid[:, n])
            answer = plain(traj.readouts[self.readout][turns[0], n]) if len(turns) else ""
            if not answer:
                continue
            seen = histories(traj, n, lm, following[turns[-1], n])
            if not self.last and (traj.terminated | traj.truncated)[turns[-1], n]:
                turns, seen = turns[:-1], seen[:-1]
            asked += [(history, answer) for history in seen]
            paid.append((n, turns))
        with torch_threads(1):
            belief = self.beliefs(lm, asked)
        value, after = np.zeros(traj.shape, np.float32), np.full(traj.shape, np.nan, np.float32)
        for n, turns in paid:
            mine, belief = np.split(belief, [len(turns) + 1])
            value[turns, n], after[turns, n] = np.diff(mine), mine[1:]
        return carry, Score(value, np.full(traj.shape, SCORED, np.int8), {"belief": after})

    def beliefs(self, lm: CausalLM, asked: Sequence[tuple[np.ndarray, str]]) -> np.ndarray:
        """How likely an answer is after a history, `(n,)`, for `n` of such pairs."""
        out = np.zeros(len(asked), np.float32)
        for k in range(0, len(asked), AT_ONCE):
            rows, targets = [], []
            for history, answer in asked[k : k + AT_ONCE]:
                before, tokens = self._words(lm, answer)
                room = max(1, lm.context - len(before) - len(tokens))
                ids = np.concatenate([history[-room:], before, tokens])[-lm.context :]
                rows.append(ids)
                told = np.arange(len(ids)) >= len(ids) - len(tokens)
                targets.append(np.where(told, ids, IGNORED))
            wanted = padded(targets, IGNORED, lm.device)
            with torch.no_grad():
                each = lm.logprobs(padded(rows, lm.pad, lm.device), wanted)[0]
            mean = each.sum(1) / (wanted != IGNORED).sum(1)
            out[k : k + AT_ONCE] = mean.exp().cpu().numpy()
        return out

    def _words(self, lm: CausalLM, answer: str) -> tuple[np.ndarray, np.ndarray]:
        """Tokens of the lead and of the answer."""
        stop = len(lm.chat.stop)
        if not self.lead:
            return lm.chat.stop[:0], lm.chat.reply(answer)[:-stop]
        return lm.chat.reply(self.lead)[:-stop], lm.chat.encode(f" {answer}")

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        pass


def plain(told: str) -> str:
    """What a readout tells as text that can be said: a list's parts are joined by commas."""
    try:
        value = json.loads(told)
    except ValueError:
        return str(told).strip()
    parts = value if isinstance(value, list) else [value]
    return ", ".join(one if isinstance(one, str) else json.dumps(one) for one in parts if one != "")
