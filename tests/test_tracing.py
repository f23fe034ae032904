"""Code that is traced and replayed pays what it pays when it is run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from embodied.reward_graph import RewardGraph
from embodied.tracing import Trace, TraceError

SHAPES = {"tool": [3], "cube": [3], "grip": [], "dt": []}


def traced(code: Callable[..., dict[str, Any]]) -> RewardGraph:
    trace = Trace(SHAPES)
    return RewardGraph(trace.graph(code(**trace.inputs())))


def read(worlds: int = 9, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {k: rng.uniform(-1, 1, (worlds, *s)).astype(np.float32) for k, s in SHAPES.items()}


def plain(tool: Any, cube: Any, grip: Any, dt: Any) -> dict[str, Any]:
    away = np.linalg.norm(tool - cube, axis=-1)
    near = 1.0 - np.tanh(5.0 * away)
    closed = np.clip(grip, 0.0, 1.0)
    up = cube[:, 2] > 0.1
    return {
        "near": near,
        "grasp": np.where((away < 0.5) & up, closed, -0.1 * closed),
        "lift": np.maximum(cube[..., 2], 0.0) ** 2 / (1.0 + dt**2),
        "straight": -np.abs(tool - cube).max(axis=-1),
    }


def shapes(tool: Any, cube: Any, grip: Any, dt: Any) -> dict[str, Any]:
    both = np.concatenate([tool, cube], axis=-1)
    pair = np.stack([grip, dt], axis=-1)
    spread = both - both.mean(axis=1, keepdims=True)
    side = np.sum(spread[:, 1:5:2] * pair[:, ::1], axis=-1)
    return {
        "side": side,
        "weighed": (both * np.array([1, 2, 3, 4, 5, 6.0])).sum(-1),
        "outer": (tool[:, :, None] * cube[:, None, :]).sum(axis=-1).max(axis=-1),
        "any": ((tool > 0.5).any(axis=-1)).astype(float),
        "same": grip,
        "like": np.ones_like(grip) * 2.0 + np.zeros_like(np.log(-np.abs(dt) - 1.0)),
        "full": np.full_like(grip, fill_value=3.0) + (tool > 0.0).mean(axis=-1),
    }


@pytest.mark.parametrize("code", [plain, shapes])
def test_it_is_what_the_code_pays(code: Callable[..., dict[str, Any]]) -> None:
    graph, inputs = traced(code), read()
    expected = code(**inputs)
    told = graph(inputs)
    on_torch = graph({k: torch.from_numpy(v) for k, v in inputs.items()})
    assert [*told] == [*expected]
    for name, value in expected.items():
        np.testing.assert_allclose(told[name], value, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(on_torch[name].numpy(), value, rtol=1e-5, atol=1e-6)


Expression = Callable[[dict[str, Any]], Any]
LEAVES: list[Expression] = [
    lambda r: r["tool"][:, 0],
    lambda r: r["cube"][..., 2],
    lambda r: r["grip"],
    lambda r: r["dt"],
    lambda r: 0.5,
]
ONE = [np.tanh, np.sin, np.square, np.abs, np.exp]
TWO = [np.add, np.subtract, np.multiply, np.minimum, np.maximum]


@st.composite
def expressions(draw: Any, depth: int = 4) -> Expression:
    """Something that is one number a world."""
    if depth == 0 or draw(st.integers(0, 5)) == 0:
        return draw(st.sampled_from(LEAVES))
    x, y, z = (draw(expressions(depth - 1)) for _ in range(3))
    kind, one, two = draw(st.integers(0, 3)), draw(st.sampled_from(ONE)), draw(st.sampled_from(TWO))
    scale = draw(st.floats(-2.0, 2.0))
    if kind == 0:
        return lambda r: two(x(r), y(r))
    if kind == 1:
        return lambda r: one(np.clip(x(r), -3.0, 3.0))
    if kind == 2:
        return lambda r: np.where(x(r) < r["grip"], y(r), z(r))
    return lambda r: np.linalg.norm(r["tool"] * scale - r["cube"], axis=-1)


@given(expressions(), st.integers(0, 99))
@settings(max_examples=150, deadline=None)
def test_any_expression_is_replayed(expression: Expression, seed: int) -> None:
    def code(**readouts: Any) -> dict[str, Any]:
        return {"t": expression(readouts) + 0.0 * readouts["grip"]}

    inputs = read(5, seed)
    graph = traced(code)
    expected = code(**inputs)["t"]
    np.testing.assert_allclose(graph(inputs)["t"], expected, rtol=2e-5, atol=2e-5)
    on_torch = graph({k: torch.from_numpy(v) for k, v in inputs.items()})["t"]
    np.testing.assert_allclose(on_torch.numpy(), expected, rtol=2e-5, atol=2e-5)
    order = np.random.default_rng(seed).permutation(5)  # nobody is paid for what others do
    mixed = graph({k: v[order] for k, v in inputs.items()})["t"]
    np.testing.assert_array_equal(mixed, graph(inputs)["t"][order])


REFUSED: list[tuple[Any, str]] = [
    (lambda tool, cube, grip, dt: 1.0 if grip > 0 else 0.0, "use np.where"),
    (lambda tool, cube, grip, dt: max(grip, 0.0), "use np.where"),
    (lambda tool, cube, grip, dt: grip and dt, "use np.where"),
    (lambda tool, cube, grip, dt: float(grip), "no float"),
    (lambda tool, cube, grip, dt: tool[0], "write x.:, 0."),
    (lambda tool, cube, grip, dt: tool[0, :], "write x.:, 0."),
    (lambda tool, cube, grip, dt: tool[grip > 0], "the first axis is the worlds"),
    (lambda tool, cube, grip, dt: np.sum(tool), "say axis=-1"),
    (lambda tool, cube, grip, dt: np.mean(grip), "say axis=-1"),
    (lambda tool, cube, grip, dt: grip.max(), "say axis=-1"),
    (lambda tool, cube, grip, dt: np.sum(tool, axis=0), "say axis=-1"),
    (lambda tool, cube, grip, dt: grip - grip.mean(axis=0), "say axis=-1"),
    (lambda tool, cube, grip, dt: np.add.reduce(grip), "over the worlds"),
    (lambda tool, cube, grip, dt: np.cumsum(grip), "np.cumsum cannot be part"),
    (lambda tool, cube, grip, dt: np.sort(grip), "np.sort cannot be part"),
    (lambda tool, cube, grip, dt: tool @ cube, "np.sum"),
    (lambda tool, cube, grip, dt: tool.T, "do not transpose"),
    (lambda tool, cube, grip, dt: tool.shape[0], "not known"),
    (lambda tool, cube, grip, dt: len(tool), "no loop over worlds"),
    (lambda tool, cube, grip, dt: [x for x in tool], "no loop over worlds"),
    (lambda tool, cube, grip, dt: np.asarray(tool), "plain array"),
    (lambda tool, cube, grip, dt: np.array([grip, dt]), "plain array"),
    (lambda tool, cube, grip, dt: grip * np.ones((4, 4)), "a number or a vector"),
    (lambda tool, cube, grip, dt: grip * np.inf, "not finite"),
    (lambda tool, cube, grip, dt: grip * "a", "a number or a vector"),
    (lambda tool, cube, grip, dt: np.linalg.norm(tool, ord=1, axis=-1), "Euclidean"),
    (lambda tool, cube, grip, dt: tool.tofile("x"), "there is no .tofile"),
    (lambda tool, cube, grip, dt: tool.dtype, "there is no .dtype"),
    (lambda tool, cube, grip, dt: grip.astype(str), "only float or bool"),
    (lambda tool, cube, grip, dt: np.add(grip, dt, out=grip), "without out="),
    (lambda tool, cube, grip, dt: np.random.normal(grip), "plain array"),
    (lambda tool, cube, grip, dt: 1.0, "does not follow from any readout"),
]


@pytest.mark.parametrize(("code", "message"), REFUSED, ids=map(str, range(len(REFUSED))))
def test_what_cannot_be_traced_says_what_could_be(code: Any, message: str) -> None:
    trace = Trace(SHAPES)
    with pytest.raises((TraceError, TypeError), match=message):
        trace.graph({"t": code(**trace.inputs())})


def test_arrays_are_not_changed() -> None:
    inputs = Trace(SHAPES).inputs()
    with pytest.raises(TraceError, match="are not changed"):
        inputs["tool"][:, 0] = 1.0


def test_an_endless_loop_ends() -> None:
    inputs = Trace(SHAPES).inputs()
    x = inputs["grip"]
    with pytest.raises(TraceError, match="more than 2000"):
        while True:
            x = x + 1.0
