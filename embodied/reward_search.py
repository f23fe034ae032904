"""From a sentence to a reward: ask, check, train, reflect, ask again.

Three ways over one loop. `eureka` (Ma et al. 2023, arXiv 2310.12931): several candidates a round,
and the best of them, with how its terms and true success went in training, begins the next.
`text2reward` (Xie et al. 2023, arXiv 2309.11489): one, and a person says what is wrong with it.
`auto_mc` (Li et al. 2023, arXiv 2312.09238): a critic reads every candidate before it is trained
on, and an analyst says why the policy fails. `lare` (Qu et al. 2024, arXiv 2412.11120): what is
asked for are factors, of which a network makes a reward (`reward_model=lare`); else as `eureka`.

Where we differ: a candidate is checked before anything is trained (`embodied.reward_check`), what
is refused is told so once; what is best is the best of all rounds, not of the last.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from embodied.abstraction import Abstraction
from embodied.reward_author import ROUNDS, Author, Messages, spoken
from embodied.reward_check import Checked, Checker
from embodied.reward_folder import RewardFile
from embodied.reward_prompt import (
    ANALYST,
    CRITIC,
    fenced,
    first_messages,
    reflection,
    refusal_message,
)
from embodied.reward_trial import Trial

MODES = ("eureka", "text2reward", "auto_mc", "lare")


@dataclass(frozen=True)
class Candidate:
    """A reply, what the checks found, and what training on it came to, if it came to that."""

    round: int
    messages: Messages
    reply: str
    origin: str
    checked: Checked
    trial: Trial | None = None

    @property
    def score(self) -> tuple[float, float]:
        """By what the best is chosen: true success; where there is none, what the reward says of
        others' successes and failures."""
        order = self.checked.order
        return (-1.0 if self.trial is None else self.trial.success, order if order == order else 0)


class Search:
    """Runs rounds and keeps what is best. `train_on(folder, number)` makes a `Trial`.

    All that was said and measured goes to `out/rounds.jsonl` as it comes, the best to
    `out/reward`. `listen(candidate)` is what a person says of a candidate, "" where nothing.
    """

    def __init__(
        self,
        about: Abstraction,
        instruction: str,
        checker: Checker,
        author: Author,
        train_on: Callable[[Path, int], Trial],
        out: Path,
        mode: str = "eureka",
        rounds: int = 3,
        samples: int = 4,
        listen: Callable[[Candidate], str] = lambda candidate: "",
        say: Callable[[str], None] = print,
    ) -> None:
        self.about, self.instruction, self.checker = about, instruction, checker
        self.author, self.train_on, self.out = author, train_on, out
        self.mode, self.rounds = mode, rounds
        self.samples = 1 if mode == "text2reward" else samples
        self.listen, self.say = listen, say
        self.best: Candidate | None = None
        self.tried: dict[str, Trial] = {}
        self.counts = {"replies": 0, "refused": 0, "trained": 0}

    def run(self) -> Candidate | None:
        """All rounds; the best candidate, or None where none could be trained on."""
        messages = self._first()
        for number in range(self.rounds):
            found = self._round(number, messages)
            if not found:
                break
            trained = [one for one in found if one.trial is not None]
            top = max([*trained, *([self.best] if self.best else [])], key=_rank, default=None)
            if top is not None and top is not self.best:
                self.best = top
                self._save(top)
            if number + 1 == self.rounds or (following := self._next(found)) is None:
                break
            messages = following
        return self.best

    def _first(self) -> Messages:
        return first_messages(self.about, self.instruction, factors=self.mode == "lare")

    def _round(self, number: int, messages: Messages) -> list[Candidate]:
        """Ask, check, put right once, have it read, train."""
        found = []
        for reply in self.author.write(messages, number, self.samples):
            self.counts["replies"] += 1
            one = self._checked(number, messages, spoken(reply), reply.origin)
            if one.checked.refused and self.author.listens and reply.text is not None:
                said = refusal_message(one.checked.refused, one.checked.why)
                self._note(one)
                one = self._again(one, said)
            if self.mode == "auto_mc" and self.author.listens and not one.checked.refused:
                better = self._again(one, CRITIC.format(code=fenced(one.checked.source)))
                one = one if better.checked.refused else better
            found.append(self._trained(one))
            self._note(found[-1])
        return found

    def _checked(self, number: int, messages: Messages, text: str, origin: str) -> Candidate:
        return Candidate(number, messages, text, origin, self.checker.check(text))

    def _again(self, one: Candidate, said: str) -> Candidate:
        """What its author makes of it after hearing `said`."""
        asked = (*one.messages, ("assistant", one.reply), ("user", said))
        (reply,) = self.author.write(asked, one.round, 1)
        return self._checked(one.round, asked, spoken(reply), reply.origin)

    def _trained(self, one: Candidate) -> Candidate:
        """With its trial; code that does what another did is not trained on twice."""
        if one.checked.refused:
            self.counts["refused"] += 1
            self.say(f"round {one.round}: refused ({one.checked.refused}): {one.checked.why[:140]}")
            return one
        file = self._file(one)
        known = file.fingerprint if file.graph is None else json.dumps(file.graph, sort_keys=True)
        if known not in self.tried:
            self.counts["trained"] += 1
            folder = file.save(self.out / "candidates" / f"{self.counts['trained']:03d}")
            self.tried[known] = self.train_on(folder, self.counts["trained"])
        trial = self.tried[known]
        told = f"{trial.success:.0%} of {trial.episodes} episodes succeed"
        self.say(f"round {one.round}: {told if trial.episodes else 'passed its checks'}")
        return replace(one, trial=trial)

    def _next(self, found: list[Candidate]) -> Messages | None:
        """The next question: of the best so far, or of a refusal where nothing was trained."""
        base = self._first()
        if self.best is None:
            last = found[-1]
            said = refusal_message(last.checked.refused, last.checked.why)
            return (*base, ("assistant", last.reply), ("user", said))
        of = found[-1] if self.mode == "text2reward" and found[-1].trial else self.best
        assert of.trial is not None
        said = ""
        if self.mode == "text2reward":
            said = self.listen(of)
            if not said and self.author.listens:
                return None
        elif self.mode == "auto_mc" and self.author.listens:
            said = self._analysis(of)
        asked = reflection(
            of.trial.curve, of.trial.terms, of.checked.notes, of.trial.failures, said
        )
        code = fenced(of.checked.source)
        return (*base, ("assistant", code), ("user", asked))

    def _analysis(self, of: Candidate) -> str:
        """Why it fails, in an analyst's words."""
        assert of.trial is not None
        won = round(of.trial.success * of.trial.episodes)
        told = ANALYST.format(episodes=of.trial.episodes, won=won, failures=of.trial.failures)
        code = fenced(of.checked.source)
        asked = (*self._first(), ("assistant", code), ("user", told))
        (reply,) = self.author.write(asked, of.round, 1)
        return reply.text or ""

    def _file(self, one: Candidate, **more: Any) -> RewardFile:
        said = {
            "origin": one.origin,
            "task": self.instruction,
            "mode": self.mode,
            "round": one.round,
            "messages": [list(part) for part in one.messages],
            "reply": one.reply,
            **more,
        }
        return one.checked.file(self.about, said)

    def _save(self, one: Candidate) -> None:
        """The best so far, with all that is known of it."""
        assert one.trial is not None
        scores = {
            "success": one.trial.success,
            "episodes": one.trial.episodes,
            "order": one.checked.order if one.checked.order == one.checked.order else None,
            "returns": dict(one.checked.returns),
        }
        self._file(one, scores=scores, searched=dict(self.counts)).save(self.out / "reward")

    def _note(self, one: Candidate) -> None:
        """A line of `rounds.jsonl`."""
        row = {
            "round": one.round,
            "origin": one.origin,
            "reply": one.reply,
            "messages": [list(part) for part in one.messages],
            "refused": one.checked.refused,
            "why": one.checked.why,
            "order": one.checked.order if one.checked.order == one.checked.order else None,
            "trial": None if one.trial is None else asdict(one.trial),
        }
        self.out.mkdir(parents=True, exist_ok=True)
        with (self.out / ROUNDS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def _rank(one: Candidate) -> tuple[float, float]:
    return one.score
