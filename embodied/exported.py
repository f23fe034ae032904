"""A policy as it leaves the house: a folder with a graph, and with what its numbers mean.

    FOLDER/policy.onnx    observations by name, (N, ...) float32 each, to the greedy `action`
                          (N, A), in physical units and within its limits; it normalises inside
    FOLDER/policy.json    format, onnx (its sha256, size, opset), inputs, output, action_spec,
                          normaliser, robot (joints, fingers), control (how an action becomes
                          commands), env, rate_hz, checkpoint, parity, versions

`embodied.export` writes one. It is read with NumPy and onnxruntime alone, without torch and
without a simulator. Numbers that are infinite (the limits of an action without) are null.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from embodied.errors import UserError
from embodied.types import ActionSpec, Array, Obs

FORMAT = 1
GRAPH, RECORD = "policy.onnx", "policy.json"
OUTPUT = "action"
MOST_BYTES = 1_000_000
"""Of a record."""


class Session:
    """A graph that runs on one thread of the CPU, so that its actions are the same every time.

    Raises `UserError` where onnxruntime is missing or cannot run it.
    """

    def __init__(self, graph: bytes, inputs: Mapping[str, tuple[int, ...]], outputs: int) -> None:
        try:
            import onnxruntime  # type: ignore[import-untyped, unused-ignore]
        except ImportError:
            raise UserError(
                "an exported policy needs onnxruntime: pip install 'embodied-rl[onnx]'"
            ) from None
        self.version = str(onnxruntime.__version__)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(
                graph, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # it has exceptions of its own, of no common kind
            text = " ".join(str(error).split())[:160]
            raise UserError(f"onnxruntime cannot run {GRAPH}: {text}") from error
        self.inputs, self._outputs = dict(inputs), outputs
        taken = {one.name: tuple(one.shape[1:]) for one in self._session.get_inputs()}
        given = [one.name for one in self._session.get_outputs()]
        if taken != self.inputs or given != [OUTPUT]:
            raise UserError(f"{GRAPH} takes {taken} and gives {given}: not what {RECORD} says")

    def __call__(self, obs: Obs) -> Array:
        """Actions `(N, A)` float32 of observations `(N, ...)`, of which others are left out.

        Raises `ValueError` for one of another shape.
        """
        fed = {}
        for name, shape in self.inputs.items():
            value = np.ascontiguousarray(obs[name], np.float32)
            if value.shape[1:] != shape:
                raise ValueError(f"{name} has shape {value.shape}, expected (N, *{shape})")
            fed[name] = value
        action = self._session.run([OUTPUT], fed)[0]
        if action.shape[1:] != (self._outputs,):
            raise ValueError(f"{GRAPH} gave actions {action.shape}, expected (N, {self._outputs})")
        return action


@dataclass(frozen=True)
class Exported:
    """An exported policy as read: its graph, and what it takes and gives."""

    folder: Path
    graph: bytes
    inputs: dict[str, tuple[int, ...]]
    action_spec: ActionSpec
    record: dict[str, Any]

    @property
    def name(self) -> str:
        """The folder's name with the hash of the graph."""
        return f"{self.folder.resolve().name}@{self.record['onnx']['sha256'][:12]}"

    def session(self) -> Session:
        return Session(self.graph, self.inputs, self.action_spec.size)


def is_exported(folder: Path | str) -> bool:
    """Whether a folder holds an exported policy, sound or not."""
    return (Path(folder) / RECORD).is_file()


def read_exported(folder: Path | str) -> Exported:
    """The policy in a folder. Raises `UserError` where it is missing, damaged or was changed."""
    folder = Path(folder)
    try:
        if (folder / RECORD).stat().st_size > MOST_BYTES:
            raise UserError(f"{folder / RECORD} is no exported policy: it is too large")
        record = json.loads((folder / RECORD).read_bytes())
        graph = (folder / GRAPH).read_bytes()
    except FileNotFoundError as error:
        missing = Path(error.filename).name
        raise UserError(
            f"{folder} holds no exported policy: there is no {missing} in it"
        ) from error
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{folder / RECORD} is damaged: export the policy anew") from error
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise UserError(f"{folder / RECORD} is not of this version: export the policy anew")
    try:
        digest = str(record["onnx"]["sha256"])
        inputs = {str(row["name"]): tuple(map(int, row["shape"])) for row in record["inputs"]}
        spec = _action_spec(record["action_spec"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{folder / RECORD} is damaged: export the policy anew") from error
    if hashlib.sha256(graph).hexdigest() != digest:
        raise UserError(f"{folder / GRAPH} was changed since it was exported: export it anew")
    return Exported(folder, graph, inputs, spec, record)


def finite(value: Any) -> Any:
    """JSON values with null for every number that is not finite, which JSON cannot say."""
    if isinstance(value, Mapping):
        return {str(key): finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _action_spec(row: Mapping[str, Any]) -> ActionSpec:
    low = [-math.inf if x is None else float(x) for x in row["low"]]
    high = [math.inf if x is None else float(x) for x in row["high"]]
    spec = ActionSpec.from_dict({**row, "low": low, "high": high})
    sizes = {len(part) for part in (spec.names, spec.units, low, high)}
    if sizes != {spec.size} or not 0.0 < float(spec.rate_hz) < math.inf:
        raise ValueError("an action has as many units and limits as names")
    return spec
