"""A policy's greedy action as an ONNX graph, written down layer by layer.

Not by torch's own exporters: one of them is deprecated, the other wants one more package, and both
leave a graph that depends on the version of torch. Policies here are a few layers of few kinds. So
equal weights give equal bytes, of an operator set that old runtimes know, with the normaliser and
the limits readable by name; a layer of another kind is refused, in one line.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from embodied.errors import UserError
from embodied.exported import OUTPUT
from embodied.nets import RunningNorm
from embodied.types import ActionSpec

OPSET, IR = 17, 8  # of 2022: every onnxruntime since 1.13 runs it


class Affine(nn.Module):
    """`centre + scale * x`: from units of their limits to physical ones."""

    centre: Tensor
    scale: Tensor

    def __init__(self, centre: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.register_buffer("centre", centre)
        self.register_buffer("scale", scale)

    def forward(self, x: Tensor) -> Tensor:
        return self.centre + self.scale * x


class ExactNorm(nn.Module):
    """Normalises `(..., D)` as `RunningNorm` does, by statistics of double precision."""

    mean: Tensor
    var: Tensor

    def __init__(self, mean: np.ndarray, var: np.ndarray, epsilon: float, limit: float) -> None:
        super().__init__()
        self.epsilon, self.limit = epsilon, limit
        self.register_buffer("mean", torch.from_numpy(np.array(mean, np.float64)))
        self.register_buffer("var", torch.from_numpy(np.array(var, np.float64)))

    def forward(self, x: Tensor) -> Tensor:
        unit = (x.double() - self.mean) / torch.sqrt(self.var + self.epsilon)
        return unit.clamp(-self.limit, self.limit).float()


class _Graph:
    """Nodes and constants in the order in which they come up."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}

    def put(self, op: str, *inputs: str, named: str = "", **settings: Any) -> str:
        """Add a node; the name of what it gives."""
        import onnx

        name = named or f"/{op.lower()}_{len(self.nodes)}"
        self.nodes.append(onnx.helper.make_node(op, inputs, [name], name=name, **settings))
        return name

    def constant(self, name: str, value: Any) -> str:
        import onnx

        array = value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
        self.constants[name] = onnx.numpy_helper.from_array(np.ascontiguousarray(array), name)
        return name


def build(layers: nn.Sequential, inputs: Mapping[str, tuple[int, ...]], spec: ActionSpec) -> bytes:
    """The graph of `layers` on the flat vector of `inputs`, its actions clamped to their limits
    as worlds clamp them.

    Raises `UserError` for a layer that it cannot write, and where onnx is missing.
    """
    try:
        import onnx
    except ImportError:
        raise UserError("to export a policy takes onnx: pip install 'embodied-rl[onnx]'") from None
    if OUTPUT in inputs:
        raise UserError(f"an observation named {OUTPUT!r} cannot be exported: that is the output")
    graph, kind = _Graph(), onnx.TensorProto.FLOAT
    parts = []
    for name, shape in inputs.items():
        flat = graph.constant(f"/{name}/flat", np.array([-1, math.prod(shape)], np.int64))
        parts.append(graph.put("Reshape", name, flat))
    x = parts[0] if len(parts) == 1 else graph.put("Concat", *parts, axis=-1)
    for number, layer in enumerate(layers):
        if type(layer) not in LAYERS:
            known = ", ".join(one.__name__ for one in LAYERS)
            raise UserError(f"cannot export a layer {type(layer).__name__}: it knows {known}")
        x = LAYERS[type(layer)](graph, x, layer, f"/layer{number}")
    low = graph.constant("/action/low", np.asarray(spec.low, np.float32))
    high = graph.constant("/action/high", np.asarray(spec.high, np.float32))
    graph.put("Min", graph.put("Max", x, low), high, named=OUTPUT)

    def value(name: str, shape: tuple[int, ...]) -> Any:
        return onnx.helper.make_tensor_value_info(name, kind, ["N", *shape])

    told = onnx.helper.make_graph(
        graph.nodes,
        "policy",
        [value(name, shape) for name, shape in inputs.items()],
        [value(OUTPUT, (spec.size,))],
        list(graph.constants.values()),
    )
    opsets = [onnx.helper.make_opsetid("", OPSET)]
    model = onnx.helper.make_model(told, opset_imports=opsets, ir_version=IR)
    model.producer_name = "embodied"
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString(deterministic=True)


def _linear(graph: _Graph, x: str, layer: Any, name: str) -> str:
    inputs = [x, graph.constant(f"{name}/weight", layer.weight)]
    if layer.bias is not None:
        inputs.append(graph.constant(f"{name}/bias", layer.bias))
    return graph.put("Gemm", *inputs, transB=1)


def _running_norm(graph: _Graph, x: str, layer: Any, name: str) -> str:
    x = graph.put("Sub", x, graph.constant("/normaliser/mean", layer.mean))
    per_spread = graph.constant("/normaliser/per_spread", torch.rsqrt(layer.var + 1e-8))
    return _clip(graph, graph.put("Mul", x, per_spread), np.float32(layer.limit))


def _exact_norm(graph: _Graph, x: str, layer: Any, name: str) -> str:
    import onnx

    x = graph.put("Cast", x, to=onnx.TensorProto.DOUBLE)
    x = graph.put("Sub", x, graph.constant("/normaliser/mean", layer.mean))
    spread = graph.constant("/normaliser/spread", torch.sqrt(layer.var + layer.epsilon))
    x = _clip(graph, graph.put("Div", x, spread), np.float64(layer.limit))
    return graph.put("Cast", x, to=onnx.TensorProto.FLOAT)


def _clip(graph: _Graph, x: str, limit: Any) -> str:
    low, high = graph.constant("/normaliser/low", -limit), graph.constant("/normaliser/high", limit)
    return graph.put("Clip", x, low, high)


def _affine(graph: _Graph, x: str, layer: Any, name: str) -> str:
    x = graph.put("Mul", x, graph.constant(f"{name}/scale", layer.scale))
    return graph.put("Add", x, graph.constant(f"{name}/centre", layer.centre))


LAYERS: dict[type[nn.Module], Callable[[_Graph, str, Any, str], str]] = {
    nn.Linear: _linear,
    nn.Tanh: lambda graph, x, layer, name: graph.put("Tanh", x),
    nn.ReLU: lambda graph, x, layer, name: graph.put("Relu", x),
    nn.ELU: lambda graph, x, layer, name: graph.put("Elu", x, alpha=layer.alpha),
    nn.SiLU: lambda graph, x, layer, name: graph.put("Mul", x, graph.put("Sigmoid", x)),
    RunningNorm: _running_norm,
    ExactNorm: _exact_norm,
    Affine: _affine,
}
"""How each kind of layer is written; a normaliser comes once, and first."""
