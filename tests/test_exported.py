"""An exported policy is read back, and refused where it is missing, damaged or changed."""

from __future__ import annotations

import json
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from embodied.errors import UserError
from embodied.exported import GRAPH, MOST_BYTES, RECORD, Session, is_exported, read_exported
from embodied.onnx_graph import build
from embodied.types import ActionSpec

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

SPEC = ActionSpec(
    ("a", "b"), ("rad", "m"), np.float32([-1, -np.inf]), np.float32([2, np.inf]), "position", 20.0
)
INPUTS = {"near": (2,), "far": ()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A policy that adds the numbers up, by hand."""
    layer = nn.Linear(3, 2, bias=False)
    layer.weight = nn.Parameter(torch.tensor([[1.0, 1.0, 1.0], [0.0, 0.0, 2.0]]))
    graph = build(nn.Sequential(layer), INPUTS, SPEC)
    record = {
        "format": 1,
        "onnx": {"sha256": sha256(graph).hexdigest()},
        "inputs": [{"name": name, "shape": list(shape)} for name, shape in INPUTS.items()],
        "action_spec": {**SPEC.to_dict(), "low": [-1.0, None], "high": [2.0, None]},
    }
    path = tmp_path / "policy"
    path.mkdir()
    (path / GRAPH).write_bytes(graph)
    (path / RECORD).write_text(json.dumps(record))
    return path


def amend(folder: Path, **changes: Any) -> None:
    record = json.loads((folder / RECORD).read_text())
    (folder / RECORD).write_text(json.dumps(record | changes))


def test_it_is_read_and_run(folder: Path) -> None:
    assert (
        is_exported(folder) and not is_exported(folder / "none") and not is_exported(folder.parent)
    )
    exported = read_exported(str(folder))
    assert exported.inputs == INPUTS
    assert exported.name == f"policy@{exported.record['onnx']['sha256'][:12]}"
    spec = exported.action_spec
    assert (spec.names, spec.units, spec.kind, spec.rate_hz) == (
        ("a", "b"), ("rad", "m"), "position", 20.0,
    )  # fmt: skip
    assert spec.low.tolist() == [-1.0, -np.inf] and spec.high.tolist() == [2.0, np.inf]
    near, far = np.array([[0.25, 0.5], [3.0, 4.0]]), np.array([1.0, -100.0])
    action = exported.session()({"near": near, "far": far, "image": near})
    assert action.dtype == np.float32
    assert action.tolist() == [[1.75, 2.0], [-1.0, -200.0]]  # the first is clamped


def test_observations_of_another_shape(folder: Path) -> None:
    session = read_exported(folder).session()
    with pytest.raises(ValueError, match=r"near has shape \(1, 3\), expected"):
        session({"near": np.zeros((1, 3)), "far": np.zeros(1)})
    with pytest.raises(KeyError, match="far"):
        session({"near": np.zeros((1, 2))})


def test_one_flipped_bit_in_the_graph_is_refused(folder: Path) -> None:
    graph = bytearray((folder / GRAPH).read_bytes())
    graph[len(graph) // 2] ^= 1
    (folder / GRAPH).write_bytes(graph)
    with pytest.raises(UserError, match="policy.onnx was changed since it was exported"):
        read_exported(folder)


@pytest.mark.parametrize("name", [GRAPH, RECORD])
def test_a_file_is_missing(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(UserError, match=f"holds no exported policy: there is no {name} in it"):
        read_exported(folder)


SPEC_ROW = SPEC.to_dict() | {"low": [-1.0, None], "high": [2.0, None]}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2}, "not of this version"),
        ({"onnx": None}, "damaged"),
        ({"onnx": {"sha256": "0" * 64}}, "was changed"),
        ({"inputs": [{"name": "near"}]}, "damaged"),
        ({"inputs": [3]}, "damaged"),
        ({"action_spec": {**SPEC_ROW, "low": [0.0]}}, "damaged"),
        ({"action_spec": {**SPEC_ROW, "low": ["x", 0.0]}}, "damaged"),
        ({"action_spec": {**SPEC_ROW, "rate_hz": 0}}, "damaged"),
        ({"action_spec": {**SPEC_ROW, "rate_hz": None}}, "damaged"),
        ({"action_spec": []}, "damaged"),
    ],
)
def test_a_record_that_makes_no_sense(folder: Path, changes: dict[str, Any], message: str) -> None:
    amend(folder, **changes)
    with pytest.raises(UserError, match=message):
        read_exported(folder)


@pytest.mark.parametrize("text", ["", "[", "[]", "\x00", "[" * 100_000, '"x"'])
def test_a_record_that_is_none(folder: Path, text: str) -> None:
    (folder / RECORD).write_text(text)
    with pytest.raises(UserError, match="policy.json is (damaged|not of this version)"):
        read_exported(folder)


def test_a_record_that_is_too_large(folder: Path) -> None:
    (folder / RECORD).write_text(" " * (MOST_BYTES + 1))
    with pytest.raises(UserError, match="too large"):
        read_exported(folder)


def test_bytes_that_are_no_graph() -> None:
    with pytest.raises(UserError, match="onnxruntime cannot run policy.onnx"):
        Session(b"not a graph", INPUTS, 2)


def test_a_graph_of_another_size_of_action(folder: Path) -> None:
    graph = (folder / GRAPH).read_bytes()
    with pytest.raises(ValueError, match=r"gave actions \(1, 2\), expected \(N, 3\)"):
        Session(graph, INPUTS, 3)({"near": np.zeros((1, 2)), "far": np.zeros(1)})


def test_without_onnxruntime_one_line_names_the_extra(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r"pip install 'embodied-rl\[onnx\]'"):
        read_exported(folder).session()
