"""How near the world is to its goal, as objects with attributes: a potential of turns."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from embodied.errors import UserError, unknown
from embodied.model_source import Asked, model_source
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

from .state_extractors import Asking, Extractor, Rules, State, Told, read_state
from .state_similarity import nearness

EXTRACTORS = ("rules", "model", "world")
MATCHINGS = ("max", "one_to_one")
REDUCTIONS = ("mean", "min")


class FactoredState:
    """Potential of a state {object: {attribute: value}} against a goal (StateFactory, arXiv
    2603.09400):

        phi = mean_g max_s [ cos(id_g, id_s) * mean_a cos(value_g,a , value_s at the nearest key) ]

    The state is told turn by turn from the one before and the newest text, and the goal once from
    an episode's first text: by `extractor` "rules", sentences as text games write them, without a
    model; by "model", a language model; or by "world", the readout `state`, as JSON (and the goal
    by the readout `goal`, or by rules). An agent's own words are not looked at.

    Where we differ: texts are compared by hashed words (`embodied.language`), not by a model of
    sentences; a cosine below 0 counts as 0; "mug 2" is a mug where the goal names no number.
    `matching` "one_to_one" lets an object serve one of the goal only, and `reduce` "min" lets no
    goal object make up for another, which the paper's maximum and mean allow.

    A goal that names nothing, and a state that could not be told, abstain; the state before is
    kept. With extractor "world" an episode starts at 0: a readout is known after a step only.
    """

    kind = "potential"
    scope = "episode"
    causal = True
    value_range = (0.0, 1.0)

    def __init__(
        self,
        extractor: str = "rules",
        matching: str = "max",
        reduce: str = "mean",
        state: str | None = None,
        goal: str | None = None,
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
        where = "reward_model.factored_state"
        for name, value, known in (
            ("extractor", extractor, EXTRACTORS),
            ("matching", matching, MATCHINGS),
            ("reduce", reduce, REDUCTIONS),
        ):
            if value not in known:
                raise unknown(f"{where}.{name}", value, known)
        if (extractor == "world") != (state is not None) or (goal is not None and state is None):
            raise UserError(f"{where}.state: a readout, with extractor=world and only there")
        self.matching, self.reduce, self.state, self.goal = matching, reduce, state, goal
        names = frozenset(name for name in (state, goal) if name is not None)
        self.needs = Needs(readouts=names, privileged=names)
        self.extract: Extractor = Rules()
        if extractor == "model":
            self.extract = Asking(
                model_source(
                    where, source, url, model, local, revision, key_env, deadline_s, cache, ledger,
                    budget, price_in, price_out,
                )
            )  # fmt: skip

    def begin(self, carry: Carry, mask: Array, moment: Moment) -> tuple[Carry, Array]:
        first = np.zeros(mask.shape, np.float32)
        if self.state is None:
            worlds = np.flatnonzero(mask)
            texts = [str(moment.obs["text"][n]) for n in worlds]
            goals = self.extract.goals(texts)
            states = self.extract.updates([{} for _ in texts], texts)
            for n, goal, state in zip(worlds, goals, states, strict=True):
                first[n] = self._potential(goal, state)[1]
        return carry, first

    def score(self, carry: Carry, traj: Trajectory) -> tuple[Carry, Score]:
        due = traj.valid if traj.due is None else traj.due & traj.valid
        value = np.zeros(traj.shape, np.float32)
        status = np.full(traj.shape, SILENT, np.int8)
        episodes = text_episodes(traj, unfinished=True)
        firsts = [e.seen[0] for e in episodes]
        if self.state is not None:
            for episode, goal in zip(episodes, self._goals(traj, episodes), strict=True):
                for t in range(episode.first, episode.last + 1):
                    told = _read(traj.readouts[self.state][t, episode.world])
                    status[t, episode.world], value[t, episode.world] = self._potential(goal, told)
        else:
            goals = self.extract.goals(firsts)
            states = [s or {} for s, _ in self.extract.updates([{} for _ in firsts], firsts)]
            waiting = [list[str]() for _ in episodes]
            for k in range(max((len(e.said) for e in episodes), default=0)):
                asked = []
                for i, episode in enumerate(episodes):
                    if k < len(episode.said):
                        waiting[i].append(episode.seen[k + 1])
                        asked += [i] if due[episode.first + k, episode.world] else []
                texts = ["\n".join(waiting[i]) for i in asked]
                news = self.extract.updates([states[i] for i in asked], texts)
                for i, told in zip(asked, news, strict=True):
                    row = episodes[i].first + k, episodes[i].world
                    status[row], value[row] = self._potential(goals[i], told)
                    if told[0] is not None:
                        states[i], waiting[i] = told[0], []
        status[~due], value[~due] = SILENT, 0.0
        return carry, Score(value, status)

    def _goals(self, traj: Trajectory, episodes: list[TextEpisode]) -> list[Told]:
        if self.goal is None:
            return self.extract.goals([e.seen[0] for e in episodes])
        return [_read(traj.readouts[self.goal][e.first, e.world]) for e in episodes]

    def _potential(self, goal: Told, state: Told) -> tuple[int, float]:
        for told, how in (goal, state):
            if told is None:
                return how, 0.0
        wanted: State = goal[0] or {}
        if not wanted:
            return ABSTAINED, 0.0
        return SCORED, nearness(wanted, state[0] or {}, self.matching, self.reduce)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        pass


def _read(text: Any) -> Told:
    """What a world tells of its state."""
    try:
        return read_state(json.loads(str(text))), SCORED
    except ValueError:
        return None, FAILED
