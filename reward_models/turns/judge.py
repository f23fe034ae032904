"""A language model that judges: whether it was done, whether a turn helped, who did better."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from embodied.degenerate import is_degenerate
from embodied.endpoint import Reply, ask_for
from embodied.errors import UserError, check_range, unknown
from embodied.judge_prompt import (
    YES,
    Choice,
    Verdict,
    choice_prompt,
    read_choice,
    read_verdict,
    shows,
    verdict_prompt,
)
from embodied.model_source import Asked, model_source, unheard
from embodied.reward_model import Needs
from embodied.text_episodes import TextEpisode, text_episodes
from embodied.types import (
    ABSTAINED,
    FAILED,
    SCORED,
    SILENT,
    Array,
    Carry,
    Moment,
    Score,
    Trajectory,
)

WARM = 1.0
"""The temperature at which several votes are drawn."""
KINDS = {"episodes": "success", "turns": "reward", "pairs": "preference"}
Told = tuple[int, float]
"""A status and a value."""


class Judge:
    """Asks a language model about episodes of text that have ended, by `mode`:

    episodes   whether the task was done; the last turn's value is the probability that it was
    turns      of every turn, whether it was a step forward, and how likely
    pairs      which of two episodes of a group is better, for every pair and in both orders, by
               principles that are derived for the task, grounded and compared (WebArbiter, arXiv
               2601.21872); the last turn's value is the share of an episode's
               comparisons that it won. Where the orders disagree nobody has won, and one of whose
               comparisons none was decided is abstained on

    With `hardened` the judge is kept from what fools judges (*One Token to Fool*, arXiv 2507.08794,
    and injections): a degenerate last reply is a no and loses without a question; texts are quoted
    data; a yes has to quote a sentence of the last observation that shows it, the better of two one
    of its own observations; and it needs `votes` answers that agree. Without it, texts are put as
    they are: for measuring what it is worth.

    A reply that cannot be used abstains, a server that cannot be reached fails. Where we differ:
    WebArbiter trains its judge, on rationales and then on verdicts, and *One Token* on openings
    labelled no; here any model is asked, and rules come before it.
    """

    scope = "episode"
    causal = False
    needs = Needs()
    value_range = (0.0, 1.0)

    def __init__(
        self,
        mode: str = "episodes",
        hardened: bool = True,
        votes: int = 1,
        url: str | None = None,
        model: str | None = None,
        local: str | None = None,
        revision: str = "",
        key_env: str = "",
        deadline_s: float = 120.0,
        cache: str | None = None,
        ledger: str | None = None,
        budget: float | None = None,
        price_in: float = 0.0,
        price_out: float = 0.0,
        source: Asked | None = None,
    ) -> None:
        where = "reward_model.judge"
        if mode not in KINDS:
            raise unknown(f"{where}.mode", mode, KINDS)
        check_range(where, 1, votes=votes)
        if votes > 1 and (mode == "pairs" or not hardened):
            raise UserError(f"{where}.votes={votes}: only a hardened yes is voted on")
        self.mode, self.hardened, self.votes, self.kind = mode, hardened, votes, KINDS[mode]
        self.source = model_source(
            where, source, url, model, local, revision, key_env, deadline_s, cache, ledger, budget,
            price_in, price_out,
        )  # fmt: skip

    def begin(self, carry: Carry, mask: Array, moment: Moment) -> tuple[Carry, Array]:
        return carry, np.zeros(mask.shape, np.float32)

    def score(self, carry: Carry, traj: Trajectory) -> tuple[Carry, Score]:
        due = traj.valid if traj.due is None else traj.due & traj.valid
        episodes = [e for e in text_episodes(traj) if due[e.last, e.world]]
        if self.mode == "turns":
            whole = [(e, k) for e in episodes for k in range(len(e.said))]
            episodes = [e.upto(k + 1) for e, k in whole if due[e.first + k, e.world]]
        if self.mode == "pairs":
            if traj.group is None:
                raise UserError("reward_model.judge.mode=pairs: the env's worlds have no groups")
            told = self.compared(episodes, [int(traj.group[e.world]) for e in episodes])
        else:
            told = self.judged(episodes)
        value = np.zeros(traj.shape, np.float32)
        status = np.full(traj.shape, SILENT, np.int8)
        for episode, (how, worth) in zip(episodes, told, strict=True):
            status[episode.last, episode.world] = how
            value[episode.last, episode.world] = worth
        return carry, Score(value, status)

    def judged(self, episodes: Sequence[TextEpisode]) -> list[Told]:
        """Status and probability for each: that its task was done, or (`mode` turns) that its last
        turn was a step forward. Of several votes the lowest counts."""
        out: list[Told] = [(SCORED, 0.0 if self._empty(e) else 1.0) for e in episodes]
        forward, warm = self.mode == "turns", WARM if self.votes > 1 else 0.0
        for vote in range(self.votes):
            asked = [k for k, (how, worth) in enumerate(out) if how == SCORED and worth >= YES]
            prompts = [
                verdict_prompt(episodes[k], forward, self.hardened, warm, vote) for k in asked
            ]
            for k, (verdict, reply) in zip(asked, self._ask(prompts, read_verdict), strict=True):
                how, worth = self._heard(episodes[k], verdict, reply)
                out[k] = how, min(worth, out[k][1])
        return out

    def _heard(self, episode: TextEpisode, verdict: Verdict | None, reply: Reply) -> Told:
        if verdict is None:
            return unheard(reply), 0.0
        proven = not self.hardened or shows(verdict.evidence, episode.seen[-1:])
        return SCORED, verdict.score if proven or verdict.score < YES else 0.0

    def _empty(self, episode: TextEpisode) -> bool:
        return self.hardened and is_degenerate(episode.said[-1])

    def _ask(self, prompts: Sequence[Any], read: Any) -> list[tuple[Any, Reply]]:
        return ask_for(self.source, prompts, read) if prompts else []

    def compared(self, episodes: Sequence[TextEpisode], groups: Sequence[int]) -> list[Told]:
        """Status and share of won comparisons for each, against all others of its group."""
        pairs = [(i, j) for i, j in combinations(range(len(episodes)), 2) if groups[i] == groups[j]]
        open_ = [p for p in pairs if not any(self._empty(episodes[k]) for k in p)]
        ways = [way for i, j in open_ for way in ((i, j), (j, i))]
        prompts = [choice_prompt(episodes[i], episodes[j], self.hardened) for i, j in ways]
        heard = dict(zip(ways, self._ask(prompts, read_choice), strict=True))
        won, of, decided, failed = np.zeros((4, len(episodes)))
        for i, j in pairs:
            if (i, j) in heard:
                winners = [self._winner(episodes, way, *heard[way]) for way in ((i, j), (j, i))]
            else:  # what says nothing loses
                empty = [self._empty(episodes[k]) for k in (i, j)]
                winners = [(ABSTAINED, -1) if all(empty) else (SCORED, j if empty[0] else i)] * 2
            if any(how == FAILED for how, _ in winners):
                failed[[i, j]] += 1
                continue
            of[[i, j]] += 1
            if winners[0] == winners[1] and winners[0][0] == SCORED:
                decided[[i, j]] += 1
                won[winners[0][1]] += 1
        return [
            (SCORED, won[k] / of[k]) if decided[k] else (FAILED if failed[k] else ABSTAINED, 0.0)
            for k in range(len(episodes))
        ]

    def _winner(
        self,
        episodes: Sequence[TextEpisode],
        way: tuple[int, int],
        choice: Choice | None,
        reply: Reply,
    ) -> tuple[int, int]:
        """The number of the episode that was chosen, with a status."""
        if choice is None:
            return unheard(reply), -1
        best = way[0] if choice.first else way[1]
        if self.hardened and not shows(choice.evidence, episodes[best].seen[1:]):
            return ABSTAINED, -1
        return SCORED, best

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        pass
