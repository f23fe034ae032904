"""Arrays that note what NumPy code does to them: how reward code becomes a graph.

Meant for the inside of a sandbox: it runs foreign code. What comes out is the JSON of
`embodied.reward_graph`, which checks it anew and trusts none of this.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from embodied.reward_graph import (
    MOST_NODES,
    MOST_NUMBERS,
    REDUCTIONS,
    UFUNCS,
    check_node,
    replayed,
)

SAME = {"abs": "absolute", "fabs": "absolute", "true_divide": "divide", "pow": "power",
        "float_power": "power", "atan2": "arctan2",
        "bitwise_and": "logical_and", "bitwise_or": "logical_or", "bitwise_xor": "logical_xor",
        "invert": "logical_not", "bitwise_invert": "logical_not", "acos": "arccos",
        "asin": "arcsin", "atan": "arctan"}  # fmt: skip
"""Other names of the same operations."""
REDUCED = {"add": "sum", "multiply": "prod", "maximum": "max", "minimum": "min"}
"""What `np.add.reduce` and its like are, as `np.sum` calls them."""


class TraceError(Exception):
    """What the code does cannot be part of a graph; the text tells its author what could be."""


class Trace:
    """The list of operations so far."""

    def __init__(self, inputs: Mapping[str, Sequence[int]]) -> None:
        self.shapes = {name: list(shape) for name, shape in inputs.items()}
        self.nodes: list[list[Any]] = []

    def inputs(self) -> dict[str, Traced]:
        """An array of each input, `(N, *shape)`, where N is not known."""
        return {
            name: Traced(self, {"input": name}, np.zeros((2, *shape), np.float32))
            for name, shape in self.shapes.items()
        }

    def add(self, name: str, arguments: Sequence[Any], settings: Mapping[str, Any]) -> Traced:
        """Note an operation, and what it would give for two worlds at rest."""
        if len(self.nodes) == MOST_NODES:
            raise TraceError(f"more than {MOST_NODES} operations")
        told = [a.source if isinstance(a, Traced) else _constant(a) for a in arguments]
        check_node(len(self.nodes), name, told, dict(settings), self.shapes)
        samples = [a.sample if isinstance(a, Traced) else None for a in arguments]
        stand_in = [
            {"input": str(k)} if s is not None else t
            for k, (s, t) in enumerate(zip(samples, told, strict=True))
        ]
        step = replayed([name, stand_in, settings], np)
        with np.errstate(all="ignore"):
            sample = step({str(k): s for k, s in enumerate(samples) if s is not None}, [])
        if sample.shape[:1] != (2,):
            raise TraceError(f"{name}: the worlds, the first axis, are to stay apart")
        self.nodes.append([name, told, dict(settings)])
        return Traced(self, {"node": len(self.nodes) - 1}, sample)

    def graph(self, terms: Mapping[str, Any]) -> dict[str, Any]:
        """The graph of named terms; a term that is a number is paid to every world alike."""
        out = {}
        for name, term in terms.items():
            if not isinstance(term, Traced):
                raise TraceError(f"term {name!r} does not follow from any readout")
            if "node" not in term.source:
                term = term + 0.0
            out[str(name)] = term.source["node"]
        return {"inputs": self.shapes, "nodes": self.nodes, "terms": out}


class Traced(np.lib.mixins.NDArrayOperatorsMixin):
    """An array `(N, ...)` of which only the shape and what made it are known."""

    __array_priority__ = 1000

    def __init__(self, trace: Trace, source: dict[str, Any], sample: np.ndarray) -> None:
        self.trace, self.source, self.sample = trace, source, sample

    @property
    def ndim(self) -> int:
        return self.sample.ndim

    @property
    def shape(self) -> tuple[Any, ...]:
        raise TraceError("the number of worlds is not known: write for any, with axis=-1")

    @property
    def T(self) -> Traced:
        raise TraceError("the worlds are the first axis: do not transpose")

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **settings: Any) -> Any:
        name = SAME.get(ufunc.__name__, ufunc.__name__)
        if method == "reduce" and name in REDUCED:
            return _reduced(REDUCED[name])(inputs[0], settings.get("axis", 0))
        if method != "__call__" or name not in UFUNCS:
            raise TraceError(f"np.{ufunc.__name__} cannot be part of a reward ({_known()})")
        if settings:
            raise TraceError(f"np.{ufunc.__name__}: without {', '.join(settings)}=")
        return self.trace.add(name, inputs, {})

    def __array_function__(self, function: Any, types: Any, given: Any, named: Any) -> Any:
        own = FUNCTIONS.get(function)
        if own is None:
            name = getattr(function, "__name__", "?")
            raise TraceError(f"np.{name} cannot be part of a reward ({_known()})")
        return own(*given, **named)

    def __getitem__(self, index: Any) -> Traced:
        return self.trace.add("getitem", [self], {"index": _index(index, self.ndim)})

    def __setitem__(self, index: Any, value: Any) -> None:
        raise TraceError("arrays are not changed: use np.where")

    def __bool__(self) -> bool:
        raise TraceError("no `if`, `and`, `or` on what differs by world: use np.where, & and |")

    def __float__(self) -> float:
        raise TraceError("every world has a number of its own: no float() or int() of it")

    __int__ = __index__ = __float__

    def __iter__(self) -> Any:
        raise TraceError("no loop over worlds: x[:, 0] or x[..., 0] is a part of every world's x")

    __len__ = __iter__

    def __array__(self, *given: Any, **named: Any) -> Any:
        raise TraceError("it cannot be turned into a plain array: use np functions on it")

    def __matmul__(self, other: Any) -> Traced:
        raise TraceError("write a product of vectors as np.sum(a * b, axis=-1)")

    __rmatmul__ = __matmul__

    def astype(self, dtype: Any, **named: Any) -> Traced:
        if np.dtype(dtype).kind == "f":
            return self.trace.add("as_float", [self], {})
        if np.dtype(dtype).kind == "b":
            return self != 0.0
        raise TraceError(f"astype({dtype}): only float or bool")

    def clip(self, low: Any = None, high: Any = None, **named: Any) -> Traced:
        return _clip(self, low, high)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name in REDUCTIONS:
            function = _reduced(name)
            return lambda axis=None, **named: function(self, axis, **named)
        raise TraceError(f"there is no .{name} of a readout ({_known()})")


def _known() -> str:
    return f"there are {', '.join(sorted({*UFUNCS, *REDUCTIONS} | _names()))}"


def _names() -> set[str]:
    return {function.__name__ for function in FUNCTIONS}


def _constant(value: Any) -> Any:
    """A number or a vector as the graph has it."""
    array = np.asarray(value)
    if array.dtype.kind not in "bif" or array.ndim > 1 or array.size > MOST_NUMBERS:
        raise TraceError(f"a constant is a number or a vector of up to {MOST_NUMBERS}")
    if not np.isfinite(array).all():
        raise TraceError("a constant that is not finite")
    return array.tolist()


def _index(index: Any, ndim: int) -> list[Any]:
    """An index as the graph has it, without the worlds' axis, which it must leave alone."""
    parts = [*index] if isinstance(index, tuple) else [index]
    if sum(part is Ellipsis for part in parts) > 1:
        raise TraceError("one ... at most in an index")
    if not any(part is Ellipsis for part in parts):
        parts.append(Ellipsis)
    at = next(k for k, part in enumerate(parts) if part is Ellipsis)
    taken = sum(part is not None for part in parts) - 1
    parts[at : at + 1] = [slice(None)] * (ndim - taken)
    if not isinstance(parts[0], slice) or parts[0] != slice(None):
        raise TraceError("the first axis is the worlds: write x[:, 0] or x[..., 0]")
    told: list[Any] = []
    for part in parts[1:]:
        if isinstance(part, slice):
            told.append([part.start, part.stop, part.step])
        elif part is None or type(part) is int:
            told.append(part)
        else:
            raise TraceError("an index is of whole numbers and slices")
    return told or [[None, None, None]] if ndim > 1 else _alone(told)


def _alone(told: list[Any]) -> list[Any]:
    if not told:
        raise TraceError("x[:] of one number a world is x")
    return told


def _reduced(name: str) -> Callable[..., Any]:
    def reduce(x: Any, axis: Any = None, **named: Any) -> Traced:
        if not isinstance(x, Traced):
            raise TraceError(f"np.{name} of a list: use np.stack, or add them up")
        if named.pop("keepdims", False):
            return reduce(x, axis, **named)[..., None]
        if named:
            raise TraceError(f"np.{name}: without {', '.join(named)}=")
        if type(axis) is not int or axis == 0 or not -x.ndim < axis < x.ndim:
            raise TraceError(f"np.{name} over the worlds: say axis=-1, which are the parts of each")
        return x.trace.add(name, [x], {"axis": axis if axis < 0 else axis - x.ndim})

    return reduce


def _norm(x: Any, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Traced:
    if ord not in (None, 2):
        raise TraceError("np.linalg.norm: the Euclidean one alone")
    return np.sqrt(_reduced("sum")(x * x, axis, keepdims=keepdims))


def _clip(x: Any, a_min: Any = None, a_max: Any = None, **named: Any) -> Any:
    low, high = named.pop("min", a_min), named.pop("max", a_max)
    if named:
        raise TraceError(f"np.clip: without {', '.join(named)}=")
    x = x if low is None else np.maximum(x, low)
    return x if high is None else np.minimum(x, high)


def _where(condition: Any, x: Any = None, y: Any = None) -> Traced:
    if x is None or y is None:
        raise TraceError("np.where(condition, one, other)")
    return _trace_of(condition, x, y).add("where", [condition, x, y], {})


def _joined(name: str) -> Callable[..., Any]:
    def join(parts: Sequence[Any], axis: int = 0) -> Traced:
        trace = _trace_of(*parts)
        known = next(part for part in parts if isinstance(part, Traced))
        parts = [part if isinstance(part, Traced) else _zeros(known) + part for part in parts]
        deepest = known.ndim if name == "stack" else known.ndim - 1
        if axis not in (-1, deepest):
            raise TraceError(f"np.{name}: axis=-1, beside the worlds")
        return trace.add(name, parts, {})

    return join


def _zeros(x: Traced) -> Traced:
    """Zeros of its shape, also where it is not finite."""
    return x.trace.add("as_float", [x.trace.add("logical_and", [x, False], {})], {})


def _full(x: Traced, fill_value: Any) -> Traced:
    return _zeros(x) + fill_value


def _trace_of(*values: Any) -> Trace:
    return next(value.trace for value in values if isinstance(value, Traced))


FUNCTIONS: dict[Any, Callable[..., Any]] = {
    **{getattr(np, name): _reduced(name) for name in REDUCTIONS},
    np.amax: _reduced("max"),
    np.amin: _reduced("min"),
    np.linalg.norm: _norm,
    np.clip: _clip,
    np.where: _where,
    np.stack: _joined("stack"),
    np.concatenate: _joined("concatenate"),
    np.zeros_like: _zeros,
    np.ones_like: lambda x: _full(x, 1.0),
    np.full_like: _full,
}
