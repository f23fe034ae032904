"""ScienceWorld (Wang et al. 2022, arXiv 2203.07540): a house in which school science is done.

The package's own Java does the work; we talk to it without its Python wrapper, which would start
a machine for every world. Its commands "help" and "objects", which list what can be said, mean
nothing here. Where it asks which of several things is meant, the answer is a number.
"""

from __future__ import annotations

import re
from typing import Any

from embodied.errors import UserError, unknown
from embodied.text_world import Turn

from .java import borrow, java_path, sendable

UNKNOWN = "No known action matches that input."
REFUSALS = re.compile(
    r"No known action|Unknown action|<?ERROR|I'm not sure|It'?s not clear|You can't|You must"
    r"|Something can't|Connections must|There is only one thing|The door doesn't appear"
    r"|That (can't|is already|container is empty|object (already|does))"
    r"|[^\n]{,80} (is already|(is|are) not|isn't open|aren't able|does not contain any liquids"
    r"|can't be poured|is empty, so)[^\n]*$"
)
"""How the world says that nothing was done."""
SUBGOAL = re.compile(r"^\d+\t(true|false)\t", re.MULTILINE)
SCRAMBLE = 0x5DEECE66D
"""What java.util.Random mixes into a seed."""


class Science:
    """One of 30 experiments, by name ("boil"), number in the paper ("1-1") or place in the list.

    The task is the variation, from the first again after the last; the package trains on
    the first half of them. `simplifications` are the package's, with commas, or "easy". The world
    pays what its score from 0 to 1 gains. Where the task has failed its score would be -1: that
    is told as score 0 and terminated. Subgoals are the task's own, those in sequence and the
    optional ones; when the task is done, optional ones that were not needed count as reached.
    That the world asks back counts as understood.

    The gold path is the package's, cut where the task is done. It looks around, opens what is open
    and waits, so it can be longer than `max_turns`; a few variations it does not solve.

    Raises `UserError` for experiments and simplifications that do not exist.
    """

    max_turns = 100  # as in the paper
    tells = ()

    def __init__(
        self, experiment: str | int = "find-living-thing", simplifications: str = ""
    ) -> None:
        try:
            from scienceworld.constants import ID2TASK, JAR_PATH
        except ImportError:
            raise UserError("scienceworld: pip install 'embodied-rl[text]'") from None
        names = list(ID2TASK.values())
        numbered = {str(number): name for number, name in enumerate(names)}
        self.experiment = {**numbered, **ID2TASK}.get(str(experiment), str(experiment))
        if self.experiment not in names:
            raise unknown("experiment", self.experiment, names)
        java_path()
        self.simplifications, self._jar = simplifications, JAR_PATH
        self._java: Any = None  # the machine, while it is borrowed
        self._server: Any = None
        self._agent: Any = None
        self._statics: _Statics
        self._mine = (0, 0)  # what the statics are for this world
        self._variation = 0
        self._gold: list[str] = []
        self._score = 0.0
        self._reached = 0

    def reset(self, seed: int) -> Turn:
        if self._java is None:
            # simplifications are static too, and some depend on the task
            self._java = borrow(self._jar, f"{self.experiment} {self.simplifications}")
            self._server = self._java.jvm.scienceworld.runtime.pythonapi.PythonInterface()
            self._statics = _Statics(self._java.jvm)
        self._variation = seed % self._server.getTaskMaxVariations(self.experiment)
        self._agent, self._gold = self._load(self._server, False), []
        self._mine = self._statics.read()
        self._score, self._reached = 0.0, 0
        text = f"{self._agent.getTaskDescription()}\n{self._agent.freeActionLook()}"
        reached, subgoals = self._progress()
        return Turn(_plain(text), reached=reached, subgoals=subgoals)

    def step(self, action: str) -> Turn:
        self._statics.write(self._mine)
        said = self._agent.step(sendable(action))
        text, score, done = said._1() or UNKNOWN, said._2(), said._3()
        self._mine = self._statics.read()
        if done and score < 0:
            raise RuntimeError(f"{self.experiment} broke at {action[:80]!r}: {text[:200]}")
        failed = score < 0
        gain, self._score = (0.0, 0.0) if failed else (score - self._score, score)
        reached, subgoals = self._progress()
        if done:
            reached = subgoals
        valid = not REFUSALS.match(text)
        return Turn(_plain(text), done or failed, done, valid, gain, reached, subgoals)

    def gold(self) -> list[str]:
        if not self._gold:
            server = self._java.jvm.scienceworld.runtime.pythonapi.PythonInterface()
            agent = self._load(server, True)
            path = list(server.getGoldActionSequence())
            ends = (number for number, action in enumerate(path, 1) if agent.step(action)._3())
            end = next(ends, None)
            if end is None:
                raise RuntimeError(f"the package cannot do {self.experiment}, {self._variation}")
            self._gold = path[:end]
        return list(self._gold)

    def close(self) -> None:
        if self._java is not None:
            self._java.leave()
        self._java = self._server = self._agent = None

    def _load(self, server: Any, gold: bool) -> Any:
        """The running variation at its start."""
        wrong = server.load(self.experiment, self._variation, self.simplifications, gold)
        agent = server.agentInterface().get()
        if wrong or agent.isInErrorState():
            raise UserError(f"env: {wrong or agent.getErrorStateMessage()}")
        return agent

    def _progress(self) -> tuple[int, int]:
        states = SUBGOAL.findall(self._agent.getGoalProgressStr())
        self._reached = max(self._reached, states.count("true"))
        return self._reached, len(states)


class _Statics:
    """What the package keeps once for all worlds of a machine: chance, and the next object's name.

    Each world sets them to its own before it steps, so that it does not depend on the others.
    """

    def __init__(self, jvm: Any) -> None:
        named = getattr(jvm.java.lang, "Class").forName  # noqa: B009
        self._random = named("scala.util.Random$").getField("MODULE$").get(None).self()
        self._state = named("java.util.Random").getDeclaredField("seed")
        self._state.setAccessible(True)
        self._names = jvm.util.UniqueIdentifier
        self._name = getattr(self._names, "count_$eq")

    def read(self) -> tuple[int, int]:
        return int(self._state.get(self._random)), int(self._names.count())

    def write(self, values: tuple[int, int]) -> None:
        self._random.setSeed(values[0] ^ SCRAMBLE)
        self._name(values[1])


def _plain(text: str) -> str:
    lines = (" ".join(line.split()) for line in text.splitlines())
    return "\n".join(line for line in lines if line)
