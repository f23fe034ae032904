"""Reward code on disk: what a person reads, and what is replayed where policies are trained.

    FOLDER/reward.py      the code, which only a sandbox runs
    FOLDER/reward.json    its graph, what it reads, for which env, where it came from, a hash

Both were written together: code that was changed since is refused, for its graph is of before.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from embodied.errors import UserError
from embodied.gate import write_whole
from embodied.reward_model import Needs
from embodied.types import Trajectory

CODE, RECORD = "reward.py", "reward.json"
FORMAT = 1


@dataclass(frozen=True)
class RewardFile:
    """Reward code with all that is needed to use it.

    `inputs` are shapes without the worlds' axis of the readouts that it may read, by name, and of
    "action"; those in `unreal` no real robot has. `dt` is a step in seconds. `graph` is None where
    the code cannot be traced: only a sandbox runs it then. `provenance` is whatever is known of how
    it came about: prompt, replies, scores, and `origin`, "model" or "authored".
    """

    source: str
    env: str
    dt: float
    inputs: Mapping[str, Sequence[int]]
    unreal: tuple[str, ...] = ()
    graph: Mapping[str, Any] | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        """Equal for equal code with an equal graph, for one env."""
        what = [self.source, self.env, self.dt, dict(self.inputs), self.graph]
        text = json.dumps(what, sort_keys=True, default=list)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def needs(self) -> Needs:
        """The readouts that the code reads, as a reward model asks for them."""
        names = {f"world.{name}" for name in self.inputs if name != "action"}
        unreal = {f"world.{name}" for name in self.unreal}
        return Needs(readouts=frozenset(names), privileged=frozenset(unreal))

    def rows(self, traj: Trajectory) -> dict[str, np.ndarray]:
        """What the code is given of every step of a rollout, `(T N, ...)` float32 by name.

        Raises `UserError` for readouts of another shape than the code was written for.
        """
        out = {}
        for name, inner in self.inputs.items():
            told = traj.action_executed if name == "action" else traj.readouts[f"world.{name}"]
            value, shape = np.asarray(told), tuple(inner)
            if value.shape[2:] != shape:
                raise UserError(
                    f"reward code of env={self.env}: {name} is {shape} there and "
                    f"{value.shape[2:]} here: write it for this env and robot"
                )
            out[name] = value.reshape(-1, *shape).astype(np.float32, copy=False)
        return out

    def save(self, folder: Path | str) -> Path:
        """Write it to a folder. Raises `UserError` where that cannot be."""
        folder = Path(folder)
        record = {
            "format": FORMAT,
            "env": self.env,
            "dt": self.dt,
            "inputs": {name: list(shape) for name, shape in self.inputs.items()},
            "unreal": list(self.unreal),
            "graph": self.graph,
            "fingerprint": self.fingerprint,
            "provenance": self.provenance,
        }
        write_whole(folder / CODE, self.source)
        write_whole(folder / RECORD, _written(record))
        return folder


def _written(record: dict[str, Any]) -> str:
    """JSON with an operation of the graph on every line."""
    graph = record.pop("graph")
    rest = json.dumps(record, indent=1, sort_keys=True)
    if graph is None:
        told = "null"
    else:
        nodes = ",\n  ".join(json.dumps(node) for node in graph["nodes"])
        others = {k: json.dumps(graph[k]) for k in ("inputs", "terms")}
        told = f'{{"inputs": {others["inputs"]},\n "nodes": [\n  {nodes}],\n '
        told += f'"terms": {others["terms"]}}}'
    return f'{rest[:-2]},\n "graph": {told}\n}}\n'


def read_reward(folder: Path | str) -> RewardFile:
    """The reward in a folder. Raises `UserError` for one that is missing, damaged or changed."""
    folder = Path(folder)
    try:
        source = (folder / CODE).read_text(encoding="utf-8")
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        missing = Path(error.filename).name
        raise UserError(f"{folder} holds no reward: there is no {missing} in it") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{folder}: its reward cannot be read: {error}") from error
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise UserError(f"{folder / RECORD} is not of this version: write the reward anew")
    try:
        told = RewardFile(
            source,
            str(record["env"]),
            float(record["dt"]),
            {str(name): [int(n) for n in shape] for name, shape in record["inputs"].items()},
            tuple(map(str, record["unreal"])),
            record["graph"],
            dict(record["provenance"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{folder / RECORD} is damaged: write the reward anew") from error
    if told.fingerprint != record.get("fingerprint"):
        raise UserError(
            f"{folder / CODE} was changed since it was checked: check it again with "
            f"`embodied write-reward env={told.env} reply_file={folder / CODE}`"
        )
    return told
