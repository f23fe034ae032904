"""A reward as a list of operations: what is left of reward code that somebody else wrote.

Code is run once, in a sandbox, on `embodied.tracing` arrays, which note what is done to them. The
list is plain JSON, is checked here, and is replayed on NumPy or torch: no line of foreign Python
runs where policies are trained.

    {"inputs": {"cube_pos": [3], "dt": []},
     "nodes": [["subtract", [{"input": "cube_pos"}, 0.5], {}],
               ["sum", [{"node": 0}], {"axis": -1}], ...],
     "terms": {"reach": 4, "lift": 7}}

Every value has the worlds as its first axis, `(N, ...)`, which no operation may touch: what a world
is paid does not depend on the others. An argument is an input, an earlier node, a number, or a list
of numbers (a vector along the last axis).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from embodied.errors import UserError, unknown

MOST_NODES, MOST_NUMBERS, MOST_TERMS = 2000, 64, 32
"""Operations of a graph, numbers of a vector in it, terms of a reward."""
MOST_ROOM, MOST_SIZE, MOST_INPUTS = 20_000, 1024, 256
"""Numbers that it works out for a world, all operations together; of any one; and inputs."""
UFUNCS = {
    "add": 2, "subtract": 2, "multiply": 2, "divide": 2, "power": 2, "minimum": 2, "maximum": 2,
    "arctan2": 2, "hypot": 2, "less": 2, "less_equal": 2, "greater": 2, "greater_equal": 2,
    "equal": 2, "not_equal": 2, "logical_and": 2, "logical_or": 2, "logical_xor": 2,
    "logical_not": 1, "negative": 1, "absolute": 1, "sign": 1, "square": 1, "sqrt": 1, "exp": 1,
    "expm1": 1, "log": 1, "log1p": 1, "sin": 1, "cos": 1, "tan": 1, "arcsin": 1, "arccos": 1,
    "arctan": 1, "sinh": 1, "cosh": 1, "tanh": 1, "floor": 1, "ceil": 1,
}  # fmt: skip
"""Operations on each number alone, and how many arguments they take; named as in NumPy."""
REDUCTIONS = ("sum", "mean", "prod", "max", "min", "any", "all")
SHAPED = ("where", "stack", "concatenate", "getitem", "as_float")
OPERATIONS = (*UFUNCS, *REDUCTIONS, *SHAPED)
TORCH_NAMES = {"absolute": "abs", "power": "pow", "max": "amax", "min": "amin", "equal": "eq",
               "not_equal": "ne"}  # fmt: skip
Value = Any


class RewardGraph:
    """Named terms, each `(N,)`, from inputs `(N, *shape)`.

    Raises `UserError` for a graph that is malformed, uses what is not allowed, or whose terms are
    not one number a world.
    """

    def __init__(self, graph: Mapping[str, Any]) -> None:
        self.inputs, self.nodes, self.terms = _parts(graph)
        self._numpy = [replayed(node, np) for node in self.nodes]
        self._torch: dict[Any, list[Callable]] = {}
        # What is alike for both does not depend on how many there are: (N, 1) with (N,) is (N, N).
        if self._try(2, np) != self._try(3, np):
            raise UserError("reward graph: an operation does not keep the worlds apart")
        import torch  # not above: the sandbox, where graphs are made, does without it

        self._try(2, torch)

    @property
    def fingerprint(self) -> str:
        """Equal for equal graphs."""
        text = json.dumps([self.inputs, self.nodes, self.terms], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def __call__(self, inputs: Mapping[str, Value]) -> dict[str, Value]:
        """The terms of inputs that are all NumPy arrays or all tensors of one device."""
        first = next(iter(inputs.values()))
        steps = self._numpy if isinstance(first, np.ndarray) else self._steps(first.device)
        values: list[Value] = []
        with np.errstate(all="ignore"):  # who is paid NaN is for the caller to see
            for step in steps:
                values.append(step(inputs, values))
        return {name: values[node] for name, node in self.terms.items()}

    def to_json(self) -> dict[str, Any]:
        return {"inputs": self.inputs, "nodes": self.nodes, "terms": self.terms}

    def _steps(self, device: Any) -> list[Callable]:
        import torch

        if device not in self._torch:
            self._torch[device] = [replayed(node, torch, device) for node in self.nodes]
        return self._torch[device]

    def _try(self, worlds: int, xp: Any) -> list[tuple[int, ...]]:
        """The shapes of all values, without the worlds' axis; raises `UserError`."""
        kind = xp.float32
        zeros = {k: xp.zeros((worlds, *shape), dtype=kind) for k, shape in self.inputs.items()}
        steps = self._numpy if xp is np else self._steps(xp.device("cpu"))
        values: list[Value] = []
        room = 0
        for number, (step, (name, _, _)) in enumerate(zip(steps, self.nodes, strict=True)):
            try:
                with np.errstate(all="ignore"):
                    value = step(zeros, values)
            except (ValueError, TypeError, IndexError, KeyError, RuntimeError) as error:
                raise UserError(f"reward graph: {name} ({number}): {_line(error)}") from error
            if tuple(np.shape(value)[:1]) != (worlds,):
                raise UserError(f"reward graph: {name} ({number}) does not keep the worlds apart")
            size = math.prod(value.shape[1:])
            room += size
            if size > MOST_SIZE or room > MOST_ROOM:
                raise UserError(f"reward graph: {name} ({number}) is too large, or all of it")
            values.append(value)
        for name, node in self.terms.items():
            if values[node].shape != (worlds,):
                shape = ", ".join(["N", *map(str, values[node].shape[1:])])
                raise UserError(f"reward term {name!r} is ({shape}), not one number a world (N,)")
            if values[node].dtype == xp.bool:
                raise UserError(f"reward term {name!r} is true or false, not a number")
        return [tuple(value.shape[1:]) for value in values]


def _parts(graph: Mapping[str, Any]) -> tuple[dict[str, list[int]], list[list], dict[str, int]]:
    """Inputs, nodes and terms, each of the right type and within its limits."""
    if not isinstance(graph, Mapping) or set(graph) != {"inputs", "nodes", "terms"}:
        raise UserError("reward graph: give inputs, nodes and terms, and nothing else")
    inputs, nodes, terms = graph["inputs"], graph["nodes"], graph["terms"]
    good = isinstance(inputs, dict) and len(inputs) <= MOST_INPUTS
    if not good or not all(_is_shape(shape) for shape in inputs.values()):
        raise UserError("reward graph: inputs are names with shapes, as {'cube_pos': [3]}")
    if not isinstance(nodes, list) or len(nodes) > MOST_NODES:
        raise UserError(f"reward graph: nodes are a list of at most {MOST_NODES}")
    for number, node in enumerate(nodes):
        if not isinstance(node, list) or [type(part) for part in node] != [str, list, dict]:
            raise UserError(f"reward graph: node {number} is not [operation, arguments, settings]")
        name, arguments, settings = node
        check_node(number, name, arguments, settings, inputs)
    good = isinstance(terms, dict) and 1 <= len(terms) <= MOST_TERMS and all(map(is_term, terms))
    if not good or not all(_is_index(node, len(nodes)) for node in terms.values()):
        raise UserError(
            f"reward graph: terms are names with the number of a node, at most {MOST_TERMS}"
        )
    return dict(inputs), [list(node) for node in nodes], dict(terms)


def check_node(number: int, name: str, arguments: list, settings: dict, inputs: dict) -> None:
    """Raise `UserError` unless this can be operation `number` of a graph."""
    where = f"reward graph: {name[:40]} ({number})"
    if name not in OPERATIONS:
        raise unknown("operation in a reward graph", name[:40], OPERATIONS)
    several = name in ("stack", "concatenate")
    count = UFUNCS.get(name, 3 if name == "where" else 1)
    if (len(arguments) != count and not several) or not 1 <= len(arguments) <= MOST_NUMBERS:
        raise UserError(f"{where} takes {count} arguments, not {len(arguments)}")
    wanted = {"getitem": {"index"}} | dict.fromkeys(REDUCTIONS, {"axis"})
    if set(settings) != wanted.get(name, set()):
        raise UserError(f"{where}: settings {sorted(settings)}")
    if "axis" in settings and not (type(settings["axis"]) is int and -4 <= settings["axis"] <= -1):
        raise UserError(f"{where}: an axis is counted from the last one, as -1")
    if "index" in settings and not _is_getitem(settings["index"]):
        raise UserError(f"{where}: an index leaves the worlds as they are")
    for argument in arguments:
        if isinstance(argument, dict):
            (kind, which), *rest = [*argument.items(), ("", None)][:2]
            known = _is_index(which, number) if kind == "node" else str(which) in inputs
            known = known and isinstance(which, (int, str))
            if kind not in ("node", "input") or len(argument) != 1 or not known:
                raise UserError(f"{where}: no such argument {str(argument)[:60]}")
        elif not (_is_number(argument) or _is_vector(argument)):
            raise UserError(f"{where}: no such argument {str(argument)[:60]}")


def is_term(name: Any) -> bool:
    """Whether it can be the name of a term: a short word of plain letters, digits and _."""
    return isinstance(name, str) and len(name) <= 40 and name.isascii() and name.isidentifier()


def _is_shape(shape: Any) -> bool:
    if not isinstance(shape, list) or len(shape) > 3 or not all(_is_index(n, 4097) for n in shape):
        return False
    return math.prod(shape) <= MOST_SIZE


def _is_index(value: Any, below: int) -> bool:
    return type(value) is int and 0 <= value < below


def _is_number(value: Any) -> bool:
    return type(value) in (int, float, bool) and -1e30 < value < 1e30


def _is_vector(value: Any) -> bool:
    return (
        isinstance(value, list) and 1 <= len(value) <= MOST_NUMBERS and all(map(_is_number, value))
    )


def _is_getitem(index: Any) -> bool:
    """What follows the worlds' axis: whole numbers, [start, stop, step] and None for a new one."""
    if not isinstance(index, list) or not 1 <= len(index) <= 4:
        return False
    for part in index:
        sliced = isinstance(part, list) and len(part) == 3
        if sliced and all(n is None or (type(n) is int and abs(n) < 4096) for n in part):
            continue
        if part is not None and not (type(part) is int and abs(part) < 4096):
            return False
    return True


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:120]


# --- replay


def replayed(node: Sequence[Any], xp: Any, device: Any = None) -> Callable:
    """One operation as a function of inputs and of the values so far."""
    name, arguments, settings = node
    gets = [_getter(argument, xp, device) for argument in arguments]
    operation = _operation(name, settings, xp)
    if len(gets) == 1:
        (one,) = gets
        return lambda inputs, values: operation(one(inputs, values))
    if len(gets) == 2:
        left, right = gets
        return lambda inputs, values: operation(left(inputs, values), right(inputs, values))
    return lambda inputs, values: operation(*(get(inputs, values) for get in gets))


def _getter(argument: Any, xp: Any, device: Any) -> Callable:
    if isinstance(argument, dict):
        ((kind, which),) = argument.items()
        if kind == "input":
            return lambda inputs, values: inputs[which]
        return lambda inputs, values: values[which]
    logical = np.asarray(argument).dtype.kind == "b"
    constant: Value = np.asarray(argument, np.bool_ if logical else np.float32)
    if xp is not np:
        constant = xp.as_tensor(constant, device=device)
    return lambda inputs, values: constant


def _operation(name: str, settings: Mapping[str, Any], xp: Any) -> Callable:
    if name == "getitem":
        parts = (slice(*part) if isinstance(part, list) else part for part in settings["index"])
        index = (slice(None), *parts)
        return lambda x: x[index]
    if name in REDUCTIONS:
        return _reduction(name, settings["axis"], xp)
    if name == "as_float":
        return (lambda x: x.float()) if xp is not np else (lambda x: x.astype(np.float32))
    if name == "where":
        return lambda true, x, y: xp.where(true if true.dtype == xp.bool else true != 0, x, y)
    if name == "stack":
        return lambda *x: xp.stack(x, -1)
    if name == "concatenate":
        return lambda *x: xp.concatenate(x, -1)
    return getattr(xp, TORCH_NAMES.get(name, name) if xp is not np else name)


def _reduction(name: str, axis: int, xp: Any) -> Callable:
    function = getattr(xp, TORCH_NAMES.get(name, name) if xp is not np else name)

    def reduce(x: Value) -> Value:
        if x.ndim <= -axis:
            raise ValueError(f"axis {axis} of {x.ndim - 1} beside the worlds'")
        if name == "mean" and xp is not np and x.dtype == xp.bool:
            x = x.float()
        return function(x, axis)

    return reduce
