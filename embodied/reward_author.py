"""Who writes rewards: a language model, a recording of one, a file, or chance.

Every reply says where it comes from: `model`, `authored` by a person, or `chance`. Nothing pretends
to be a model; what was authored proves the machinery, and says nothing of what a model could do.
"""

from __future__ import annotations

import json
import re
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from embodied.abstraction import Abstraction
from embodied.endpoint import Endpoint, Prompt, Reply
from embodied.errors import UserError

if TYPE_CHECKING:
    from embodied.local_model import LocalModel

Messages = tuple[tuple[str, str], ...]
ROUNDS = "rounds.jsonl"
TEMPERATURE, MOST_TOKENS = 1.0, 4096
"""Of what a model is asked: candidates are to differ."""


class Author(Protocol):
    """`write` answers one question of a round `samples` times; fewer where it has no more.

    `listens` says whether it heeds what it is asked: only then is it worth asking it to repair.
    """

    listens: bool

    def write(self, messages: Messages, round: int, samples: int) -> list[Reply]: ...


class ModelAuthor:
    """A language model, behind a server or in this process."""

    listens = True

    def __init__(self, endpoint: Endpoint | LocalModel) -> None:
        self.endpoint = endpoint

    def write(self, messages: Messages, round: int, samples: int) -> list[Reply]:
        numbers = range(round * samples, (round + 1) * samples)
        prompts = [Prompt(messages, TEMPERATURE, MOST_TOKENS, sample=k) for k in numbers]
        return self.endpoint.ask(prompts)


class RecordedAuthor:
    """The replies of a recording, whatever is asked.

    In which order those of a round come is drawn by `seed`, so that nothing can be read from it.
    Raises `UserError` for a file that is no recording (see `read_recording`).
    """

    listens = False

    def __init__(self, path: Path | str, seed: int = 0) -> None:
        self.rounds: dict[int, list[Reply]] = {}
        for number, reply, _ in read_recording(path):
            self.rounds.setdefault(number, []).append(reply)
        self._order = np.random.default_rng(seed)

    def write(self, messages: Messages, round: int, samples: int) -> list[Reply]:
        replies = self.rounds.get(round, [])
        return [replies[k] for k in self._order.permutation(len(replies))]


HEADING = re.compile(r"^# round (\d+), (model|authored|chance)(?:: *(.*))?$", re.MULTILINE)


def read_recording(path: Path | str) -> list[tuple[int, Reply, str]]:
    """Rounds, replies and remarks of a recording: the `rounds.jsonl` of a search (or its folder),
    or Markdown in which every reply follows a heading `# round 0, authored: a remark`.

    Raises `UserError`.
    """
    path = Path(path)
    path = path / ROUNDS if path.is_dir() else path
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".md":
            parts = HEADING.split(text)[1:]
            rows = [[*parts[k : k + 4]] for k in range(0, len(parts), 4)]
            found = [(int(n), Reply(said.strip("\n"), origin=who), remark or "")
                     for n, who, remark, said in rows]  # fmt: skip
        else:
            found = [_row(json.loads(line)) for line in text.splitlines()]
    except OSError as error:
        raise UserError(f"replay={path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"replay={path}: give a {ROUNDS}, with round, reply and origin in every line"
        ) from error
    if not found:
        raise UserError(f"replay={path}: it holds no replies")
    return found


def _row(row: dict[str, Any]) -> tuple[int, Reply, str]:
    reply = Reply(str(row["reply"]), origin=row["origin"])
    if reply.origin not in ("model", "authored", "chance"):
        raise ValueError
    return int(row["round"]), reply, str(row.get("refused", ""))


class FileAuthor:
    """One reply, pasted into a file from wherever a person had a model, or wrote it by hand."""

    listens = False

    def __init__(self, path: Path | str, origin: str = "authored") -> None:
        if origin not in ("model", "authored"):
            raise UserError(f"origin={origin}: give model or authored")
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"reply_file={path}: {error}") from error
        self.reply = Reply(text, origin=origin)

    def write(self, messages: Messages, round: int, samples: int) -> list[Reply]:
        return [self.reply] if round == 0 else []


class BlindAuthor:
    """Chance: one to four random terms over what may be read, without a thought for the task.

    What needs no model at all, and what any model has to beat.
    """

    listens = False
    SCALES = (0.03, 0.1, 0.3, 1.0, 3.0)
    WEIGHTS = (0.5, 1.0, 2.0, 4.0)

    def __init__(self, about: Abstraction, seed: int = 0) -> None:
        self.about, self.seed = about, seed

    def write(self, messages: Messages, round: int, samples: int) -> list[Reply]:
        rngs = (np.random.default_rng([self.seed, round, k]) for k in range(samples))
        return [Reply(self.code(rng), origin="chance") for rng in rngs]

    def code(self, rng: np.random.Generator) -> str:
        """A random reward."""
        lines = []
        for k in range(int(rng.integers(1, 5))):
            factors = [self._factor(rng) for _ in range(1 + int(rng.random() < 0.3))]
            product = " * ".join(factors)
            lines.append(f'        "term_{k}": {rng.choice(self.WEIGHTS):g} * {product},')
        body = "\n".join(lines)
        return f"def reward(world, action, dt):\n    return {{\n{body}\n    }}\n"

    def _factor(self, rng: np.random.Generator) -> str:
        """One readout, squashed: how near two points are, or how large a number is."""
        shapes = self.about.shapes
        points = [n for n, s in shapes.items() if n.endswith("position") and len(s) == 1]
        pairs = [(a, b) for a, b in combinations(points, 2) if shapes[a] == shapes[b]]
        scale = rng.choice(self.SCALES)
        if pairs and rng.random() < 0.5:
            a, b = pairs[int(rng.integers(len(pairs)))]
            gap = f"np.linalg.norm(world.{a} - world.{b}, axis=-1)"
            return f"(1.0 - np.tanh({gap} / {scale:g}))"
        name = list(shapes)[int(rng.integers(len(shapes)))]
        part = f"[:, {int(rng.integers(shapes[name][0]))}]" if shapes[name] else ""
        sign = "-" if rng.random() < 0.5 else ""
        return f"np.tanh({sign}world.{name}{part} / {scale:g})"


def spoken(reply: Reply) -> str:
    """The text of a reply, or what came of it."""
    return reply.text if reply.text is not None else f"({reply.fault})"
