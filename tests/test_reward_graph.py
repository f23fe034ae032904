"""A graph pays what it says, and is refused where it could do more than that."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch

from embodied.errors import UserError
from embodied.reward_graph import (
    MOST_NODES,
    OPERATIONS,
    REDUCTIONS,
    UFUNCS,
    RewardGraph,
    replayed,
)

REACH = {
    "inputs": {"tool": [3], "cube": [3], "grip": []},
    "nodes": [
        ["subtract", [{"input": "tool"}, {"input": "cube"}], {}],
        ["square", [{"node": 0}], {}],
        ["sum", [{"node": 1}], {"axis": -1}],
        ["sqrt", [{"node": 2}], {}],
        ["multiply", [{"node": 3}, -2.0], {}],
        ["exp", [{"node": 4}], {}],
        ["where", [{"node": 6}, {"node": 5}, 0.0], {}],
    ],
    "terms": {"reach": 5},
}
REACH["nodes"].insert(6, ["greater", [{"input": "grip"}, 0.5], {}])  # type: ignore[attr-defined]
REACH["terms"] = {"reach": 5, "grasp": 7}
READ = {
    "tool": np.array([[0, 0, 0], [1, 2, 2]], np.float32),
    "cube": np.array([[0, 0, 0], [1, 0, 2]], np.float32),
    "grip": np.array([0.2, 0.9], np.float32),
}


def test_by_hand_on_numpy_and_torch() -> None:
    graph = RewardGraph(json.loads(json.dumps(REACH)))
    far = np.exp(-4.0)  # 2 away
    told = graph(READ)
    np.testing.assert_allclose(told["reach"], [1.0, far], rtol=1e-6)
    np.testing.assert_allclose(told["grasp"], [0.0, far], rtol=1e-6)
    tensors = {name: torch.from_numpy(value) for name, value in READ.items()}
    for name, value in graph(tensors).items():
        assert isinstance(value, torch.Tensor) and value.dtype == torch.float32
        np.testing.assert_allclose(value.numpy(), told[name], rtol=1e-6)


def test_a_world_is_paid_alike_whoever_else_there_is() -> None:
    graph, rng = RewardGraph(REACH), np.random.default_rng(0)
    many = {k: rng.normal(size=(50, *v.shape[1:])).astype(np.float32) for k, v in READ.items()}
    order = rng.permutation(50)
    whole, mixed = graph(many), graph({k: v[order] for k, v in many.items()})
    alone = graph({k: v[7:8] for k, v in many.items()})
    for name in whole:
        np.testing.assert_array_equal(whole[name][order], mixed[name])
        np.testing.assert_array_equal(whole[name][7:8], alone[name])


def test_equal_graphs_have_one_fingerprint() -> None:
    assert RewardGraph(REACH).fingerprint == RewardGraph(RewardGraph(REACH).to_json()).fingerprint
    other = json.loads(json.dumps(REACH))
    other["nodes"][4][1][1] = -2.5
    assert RewardGraph(other).fingerprint != RewardGraph(REACH).fingerprint


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_is_the_same_on_torch(name: str) -> None:
    settings: dict[str, Any] = {"axis": -1} if name in REDUCTIONS else {}
    if name == "getitem":
        settings = {"index": [[None, None, 2], None]}
    count = {"where": 3, "stack": 2, "concatenate": 2}.get(name, UFUNCS.get(name, 1))
    arguments = [{"input": key} for key in "abc"[:count]]
    rng = np.random.default_rng(1)
    read = {key: rng.uniform(0.1, 0.9, (4, 3)).astype(np.float32) for key in "abc"}
    ours = replayed([name, arguments, settings], np)(read, [])
    tensors = {key: torch.from_numpy(value) for key, value in read.items()}
    theirs = replayed([name, arguments, settings], torch)(tensors, []).numpy()
    assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
    np.testing.assert_allclose(ours, theirs, rtol=2e-6, atol=1e-7)


def changed(**parts: Any) -> dict[str, Any]:
    return {**json.loads(json.dumps(REACH)), **parts}


def one(*node: Any, inputs: Any = None) -> dict[str, Any]:
    return {"inputs": inputs or {"x": [3], "y": []}, "nodes": [[*node]], "terms": {"t": 0}}


X, Y = {"input": "x"}, {"input": "y"}


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        ([], "give inputs, nodes and terms"),
        (changed(more=1), "and nothing else"),
        (changed(inputs={"tool": 3}), "inputs are names with shapes"),
        (changed(inputs={"tool": [-1]}), "inputs are names with shapes"),
        (changed(nodes=[["add", [1.0, 2.0], {}]] * (MOST_NODES + 1)), "at most 2000"),
        (changed(nodes=[["add", [1.0, 2.0]]]), "is not .operation, arguments, settings"),
        (changed(terms={}), "terms are names"),
        (changed(terms={"reach": 99}), "terms are names"),
        (changed(terms={"reach": True}), "terms are names"),
        (one("system", [X], {}), "unknown operation"),
        (one("__class__", [X], {}), "unknown operation"),
        (one("tofile", [X], {}), "unknown operation"),
        (one("add", [X], {}), "takes 2 arguments, not 1"),
        (one("exp", [X], {"out": 1}), "settings"),
        (one("sum", [X], {"axis": 0}), "an axis is counted from the last"),
        (one("sum", [X], {"axis": -2}), "axis -2 of 1 beside the worlds"),
        (one("sum", [Y], {"axis": -1}), "axis -1 of 0 beside the worlds"),
        (one("sum", [X], {"axis": True}), "an axis is counted from the last"),
        (one("getitem", [X], {"index": []}), "leaves the worlds as they are"),
        (one("getitem", [X], {"index": ["__import__"]}), "leaves the worlds as they are"),
        (one("getitem", [X], {"index": [7]}), "out of bounds"),
        (one("exp", [{"node": 0}], {}), "no such argument"),
        (one("exp", [{"input": "z"}], {}), "no such argument"),
        (one("exp", [{"node": 0, "input": "x"}], {}), "no such argument"),
        (one("exp", ["x"], {}), "no such argument"),
        (one("exp", [float("nan")], {}), "no such argument"),
        (one("exp", [[1.0] * 65], {}), "no such argument"),
        (one("exp", [2.0], {}), "does not keep the worlds apart"),
        (one("add", [Y, [1.0, 2.0]], {}), r"add \(0\)"),
        (one("add", [Y, [1.0, 2.0, 3.0]], {}), r"add \(0\)"),
        (one("exp", [10**400], {}), "no such argument"),
        (one("exp", [{"input": ["x"]}], {}), "no such argument"),
        (changed(inputs={"tool": [4096, 4096, 4096]}), "inputs are names with shapes"),
        (changed(inputs={f"x{k}": [] for k in range(300)}), "inputs are names with shapes"),
        (changed(terms={"\x1b[2J": 1}), "terms are names"),
        (changed(terms={f"t{k}": 1 for k in range(33)}), "terms are names"),
        (
            {  # each small enough, all of it not
                "inputs": {"x": [1000]},
                "nodes": [["exp", [X], {}]] * 30 + [["sum", [X], {"axis": -1}]],
                "terms": {"t": 30},
            },
            "is too large, or all of it",
        ),
        (
            {
                "inputs": {"x": [100]},
                "nodes": [
                    ["getitem", [X], {"index": [[None, None, None], None]}],
                    ["getitem", [X], {"index": [None, [None, None, None]]}],
                    ["multiply", [{"node": 0}, {"node": 1}], {}],
                ],
                "terms": {"t": 2},
            },
            r"multiply \(2\) is too large",
        ),
        (one("exp", [X], {}), r"'t' is \(N, 3\), not one number a world"),
        (one("less", [Y, 2.0], {}), "is true or false, not a number"),
        (one("sign", [True], {}), r"sign \(0\)"),
        (
            {
                "inputs": {"y": []},
                "nodes": [
                    ["getitem", [Y], {"index": [None]}],
                    ["multiply", [{"node": 0}, Y], {}],  # every world with every other
                    ["sum", [{"node": 1}], {"axis": -1}],
                ],
                "terms": {"t": 2},
            },
            "does not keep the worlds apart",
        ),
    ],
)
def test_graphs_that_are_refused(graph: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        RewardGraph(graph)
