"""Layers as an ONNX graph: every kind by itself, what is written, and what is refused."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from embodied.errors import UserError
from embodied.exported import Session
from embodied.nets import ACTIVATIONS, RunningNorm
from embodied.onnx_graph import LAYERS, Affine, ExactNorm, build
from embodied.types import ActionSpec

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

FREE = ActionSpec(
    ("a", "b", "c"), ("",) * 3, np.full(3, -np.inf), np.full(3, np.inf), "control", 10.0
)
X = torch.tensor([[-30.0, 0.5, 2.0], [1e-3, -0.7, 40.0], [0.0, 0.0, 0.0]])


def run(layer: nn.Module, x: Tensor = X, spec: ActionSpec = FREE) -> Tensor:
    graph = build(nn.Sequential(layer), {"x": (3,)}, spec)
    return torch.from_numpy(Session(graph, {"x": (3,)}, 3)({"x": x.numpy()}))


def learned() -> RunningNorm:
    norm = RunningNorm(3, limit=2.0)
    norm.update(torch.tensor([[1.0, 2.0, 3.0], [3.0, 2.0, -5.0]]))
    return norm


EXACT = ExactNorm(np.array([1e4, 0.0, 1.0]), np.array([1e-6, 4.0, 0.0]), 1e-8, 10.0)
KINDS = {
    "linear": nn.Linear(3, 3),
    "linear without bias": nn.Linear(3, 3, bias=False),
    **{name: kind() for name, kind in ACTIVATIONS.items()},
    "elu of another alpha": nn.ELU(0.3),
    "running norm": learned(),
    "exact norm": EXACT,
    "affine": Affine(torch.tensor([1.0, 0.0, -2.0]), torch.tensor([0.5, 2.0, 1.0])),
}


def test_every_kind_is_tried() -> None:
    assert {type(layer) for layer in KINDS.values()} == set(LAYERS)


@pytest.mark.parametrize("name", KINDS)
def test_a_layer_gives_what_it_gives_in_torch(name: str) -> None:
    with torch.inference_mode():
        torch.testing.assert_close(run(KINDS[name]), KINDS[name](X), atol=1e-6, rtol=1e-6)


def test_a_norm_by_hand() -> None:
    # mean 2, 2, -1; variance 1, 0, 16: (x - mean) / sqrt(var), cut off at 2
    x = torch.tensor([[2.5, 2.0, 3.0], [2.0, 2.0, 99.0]])
    wanted = torch.tensor([[0.5, 0.0, 1.0], [0.0, 0.0, 2.0]])
    torch.testing.assert_close(run(learned(), x), wanted)


def test_exact_statistics_stay_exact() -> None:
    x = torch.tensor([[1e4 + 2**-9, 0.0, 1.0]])  # in float32 there are 10 numbers to a spread
    wanted = (float(x[0, 0]) - 1e4) / np.sqrt(1e-6 + 1e-8)
    assert run(EXACT, x)[0, 0].item() == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize("name", KINDS)
def test_what_is_no_number_stays_none(name: str) -> None:
    x = torch.full((2, 3), torch.nan)
    assert torch.isnan(run(KINDS[name], x)).all()
    assert torch.isnan(run(KINDS[name], x, limited())).all()


def limited() -> ActionSpec:
    low, high = np.float32([-1.0, 0.0, -np.inf]), np.float32([1.0, 0.25, 3.0])
    return ActionSpec(("a", "b", "c"), ("",) * 3, low, high, "control", 10.0)


def test_actions_are_clamped_each_to_its_own_limits() -> None:
    identity = Affine(torch.zeros(3), torch.ones(3))
    wanted = [[-1.0, 0.25, 2.0], [np.float32(1e-3), 0.0, 3.0], [0.0, 0.0, 0.0]]
    assert run(identity, spec=limited()).tolist() == wanted


def test_inputs_are_put_in_their_order() -> None:
    inputs = {"b": (2, 1), "a": ()}
    graph = build(nn.Sequential(Affine(torch.zeros(3), torch.ones(3))), inputs, FREE)
    obs = {"a": np.float32([3, 6]), "b": np.float32([[[1], [2]], [[4], [5]]])}
    assert Session(graph, inputs, 3)(obs).tolist() == [[1, 2, 3], [4, 5, 6]]


def test_what_is_written_can_be_read_by_name() -> None:
    layers = nn.Sequential(learned(), nn.Linear(3, 3))
    model = onnx.load_from_string(build(layers, {"x": (3,)}, limited()))
    assert [(one.domain, one.version) for one in model.opset_import] == [("", 17)]
    constants = {one.name: onnx.numpy_helper.to_array(one) for one in model.graph.initializer}
    assert constants["/normaliser/mean"].tolist() == [2.0, 2.0, -1.0]
    assert constants["/action/high"].tolist() == [1.0, 0.25, 3.0]
    assert [node.op_type for node in model.graph.node] == [
        "Reshape", "Sub", "Mul", "Clip", "Gemm", "Max", "Min",
    ]  # fmt: skip


def test_what_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="cannot export a layer Dropout: it knows Linear, Tanh"):
        run(nn.Dropout())
    with pytest.raises(UserError, match="an observation named 'action' cannot be exported"):
        build(nn.Sequential(nn.Tanh()), {"action": (3,)}, FREE)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UserError, match=r"pip install 'embodied-rl\[onnx\]'"):
        run(nn.Tanh())
