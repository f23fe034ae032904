"""An episode's scores, attributed to its utterances by a language model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from embodied.degenerate import is_degenerate
from embodied.endpoint import Prompt, ask_for
from embodied.errors import UserError, check_range, unknown
from embodied.judge_prompt import cut, question, strict, turns_of
from embodied.model_source import Asked, model_source, unheard
from embodied.reward_model import Needs
from embodied.text_episodes import TextEpisode, text_episodes
from embodied.types import SCORED, SILENT, Array, Carry, Moment, Score, Trajectory

SCALES = {"goal": (0.0, 10.0), "relationship": (-5.0, 5.0), "knowledge": (0.0, 10.0)}
"""Of an episode's score in a dimension, as the paper asks for it; its larger end counts as 1."""
MOST = 3.0
"""Of an attribution."""
ASKED = """\
You attribute how an agent's conversation with a world ended to what the agent said in it. "task" is
what the world said first. The dimensions are: "goal": how far what was asked for was reached;
"relationship": how whoever was talked to was treated; "knowledge": what the agent found out."""
FORM = """\
Answer with one JSON object and nothing else: {{"scores": {{{scores}}}, "attributions": [for each of
the {turns} turns shown, in order, {{{dims}: 0 to 3}}]}}. An attribution of 0 means that what the
agent said had no part in how the conversation ended in that dimension, 3 that it decided it."""
Told = tuple[dict[str, float], list[dict[str, float]]]


class Utterance:
    """Rewards of utterances by attribution (Sotopia-RL, Yu et al. 2025, arXiv 2508.03905):

        r_t = sum_d weight_d * attribution_d,t / 3 * score_d

    A model is asked once about an ended episode: how much every utterance had to do with how it
    ended, from 0 to 3, in each of three dimensions, and how it ended in those (goal 0 to 10,
    relationship -5 to 5, knowledge 0 to 10; divided by 10, 5 and 10). `readouts` names, by
    dimension, what the world itself says of that at an episode's last turn, from 0 to 1 (or -1 to
    1), which then counts in place of the model's word. Dimensions without weight are not asked
    about.

    Where we differ: the paper trains a reward model on attributions, and the policy on single turns
    with it; here they are asked for in every rollout. Texts are quoted data, and what says nothing
    (`embodied.degenerate`) is attributed nothing. Turns too long ago to be shown are paid nothing.
    A reply that cannot be used abstains on all turns, a server that cannot be reached fails.
    """

    kind = "reward"
    scope = "episode"
    causal = False

    def __init__(
        self,
        weights: Mapping[str, float] | None = None,
        readouts: Mapping[str, str | None] | None = None,
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
        where = "reward_model.utterance"
        given = dict.fromkeys(SCALES, 1.0) if weights is None else dict(weights)
        read = {name: readout for name, readout in (readouts or {}).items() if readout}
        for name in (*given, *read):
            if name not in SCALES:
                raise unknown(f"{where} dimension", name, SCALES)
        check_range(f"{where}.weights", 0, **given)
        self.weights = {name: given[name] for name in SCALES if given.get(name)}
        if not self.weights:
            raise UserError(f"{where}.weights: give one of {', '.join(SCALES)} a weight")
        self.readouts = {k: v for k, v in read.items() if k in self.weights}
        names = frozenset(self.readouts.values())
        self.needs = Needs(readouts=names, privileged=names)
        low = sum(w for name, w in self.weights.items() if SCALES[name][0] < 0)
        self.value_range = (-low, sum(self.weights.values()))
        self.source = model_source(
            where, source, url, model, local, revision, key_env, deadline_s, cache, ledger, budget,
            price_in, price_out,
        )  # fmt: skip

    def begin(self, carry: Carry, mask: Array, moment: Moment) -> tuple[Carry, Array]:
        return carry, np.zeros(mask.shape, np.float32)

    def score(self, carry: Carry, traj: Trajectory) -> tuple[Carry, Score]:
        due = traj.valid if traj.due is None else traj.due & traj.valid
        episodes = [e for e in text_episodes(traj) if due[e.last, e.world]]
        value = np.zeros(traj.shape, np.float32)
        status = np.full(traj.shape, SILENT, np.int8)
        parts = {name: np.zeros(traj.shape, np.float32) for name in self.weights}
        for episode, (told, how) in zip(episodes, self._told(episodes), strict=True):
            n, rows = episode.world, slice(episode.first, episode.last + 1)
            status[rows, n] = how
            if told is None:
                continue
            scores, attributed = told
            for name, readout in self.readouts.items():
                scores[name] = float(traj.readouts[readout][episode.last, n])
            for name, weight in self.weights.items():
                paid = weight * scores[name] * self._shares(episode, attributed, name)
                parts[name][rows, n] = paid
                value[rows, n] += paid
        low, high = self.value_range
        return carry, Score(np.clip(value, low, high), status, parts)

    def _shares(
        self, episode: TextEpisode, attributed: Sequence[Mapping[str, float]], name: str
    ) -> np.ndarray:
        """Attributions in one dimension, `(T,)`, from 0 to 1; of turns not shown they are 0."""
        shares = np.zeros(len(episode.said), np.float32)
        shares[len(shares) - len(attributed) :] = [row[name] / MOST for row in attributed]
        return np.where([is_degenerate(said) for said in episode.said], 0.0, shares)

    def _told(self, episodes: Sequence[TextEpisode]) -> list[tuple[Told | None, int]]:
        """What the model says of every episode, and its status."""
        turns = [turns_of(e) for e in episodes]
        prompts = [self._prompt(e, shown) for e, shown in zip(episodes, turns, strict=True)]
        read = _Reader(self.weights, [name for name in self.weights if name not in self.readouts])
        told = ask_for(self.source, prompts, read) if prompts else []
        out: list[tuple[Told | None, int]] = []
        for (row, reply), shown in zip(told, turns, strict=True):
            row = row if row is not None and len(row[1]) == len(shown) else None
            out.append((row, unheard(reply) if row is None else SCORED))
        return out

    def _prompt(self, episode: TextEpisode, shown: list[dict[str, Any]]) -> Prompt:
        asked = [name for name in self.weights if name not in self.readouts]
        scores = ", ".join(f'"{n}": {SCALES[n][0]:g} to {SCALES[n][1]:g}' for n in asked)
        dims = ", ".join(f'"{name}"' for name in self.weights)
        form = FORM.format(scores=scores, turns=len(shown), dims=dims)
        record = {"task": cut(episode.seen[0]), "turns": shown}
        tokens = 256 + 64 * len(shown)
        return question(record, ASKED, form, _schema(asked, self.weights), max_tokens=tokens)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        pass


class _Reader:
    """Reads scores in the dimensions `asked`, and attributions in all of `dims`."""

    def __init__(self, dims: Mapping[str, float], asked: Sequence[str]) -> None:
        self.dims, self.asked = tuple(dims), tuple(asked)

    def __call__(self, text: str) -> Told:
        """Raises `ValueError`."""
        row = strict(text)
        scores, attributed = row.get("scores", {}), row.get("attributions")
        if not isinstance(scores, dict) or not isinstance(attributed, list):
            raise ValueError('give "scores", an object, and "attributions", a list')
        ends = {name: _number(scores, name, *SCALES[name]) / SCALES[name][1] for name in self.asked}
        each = [{name: _number(turn, name, 0.0, MOST) for name in self.dims} for turn in attributed]
        return ends, each


def _number(row: Any, name: str, low: float, high: float) -> float:
    value = row.get(name) if isinstance(row, dict) else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise ValueError(f'"{name}" is to be a number from {low:g} to {high:g}')
    return float(value)


def _schema(asked: Sequence[str], dims: Mapping[str, float]) -> dict[str, Any]:
    def numbers(names: Sequence[str]) -> dict[str, Any]:
        return {
            "type": "object", "properties": {name: {"type": "number"} for name in names},
            "required": list(names), "additionalProperties": False,
        }  # fmt: skip

    turns = {"type": "array", "items": numbers(tuple(dims))}
    return {
        "type": "object", "properties": {"scores": numbers(asked), "attributions": turns},
        "required": ["scores", "attributions"], "additionalProperties": False,
    }  # fmt: skip
