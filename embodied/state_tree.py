"""A program's state as JSON plus named arrays, bit for bit; nothing is pickled.

What JSON cannot say is an object with one key that starts with "$": `{"$array": name}`,
`{"$text": nested}` (an array of texts), `{"$int": hex}`, `{"$float": "inf"}`, `{"$tuple": items}`,
`{"$dict": pairs}`.
"""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np

DTYPES = {f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)} | {
    "bool", "float16", "float32", "float64", "complex64",
}  # fmt: skip


def split(state: Any, arrays: dict[str, np.ndarray], path: str = "") -> Any:
    """`state` as JSON, its arrays (NumPy or torch, any shape) moved to `arrays`.

    An array is named by its path, as in "agent.critic.0.weight" (only `[A-Za-z0-9_.-]`). Raises
    `TypeError` for what is not a dict, list, tuple, array, str, int, float, bool or None.
    """
    if state is None or isinstance(state, bool | str):
        return state
    if isinstance(state, np.ndarray) and isinstance(state.dtype, np.dtypes.StringDType):
        return {"$text": state.tolist()}
    if isinstance(state, np.ndarray | np.generic) or hasattr(state, "detach"):
        return {"$array": _put(state, path, arrays)}
    if isinstance(state, int):  # other readers of JSON round above 2**53, Python's has a limit too
        return state if abs(state) <= 2**53 else {"$int": hex(state)}
    if isinstance(state, float):
        return state if math.isfinite(state) else {"$float": str(state)}
    if isinstance(state, list | tuple):
        items = [split(item, arrays, f"{path}.{i}".lstrip(".")) for i, item in enumerate(state)]
        return items if isinstance(state, list) else {"$tuple": items}
    if isinstance(state, dict):
        items = [[k, split(item, arrays, f"{path}.{k}".lstrip("."))] for k, item in state.items()]
        if all(isinstance(key, str) and not key.startswith("$") for key in state):
            return dict(items)
        return {"$dict": [[split(key, arrays, path), item] for key, item in items]}
    raise TypeError(f"cannot save {path or 'state'}: a {type(state).__name__}")


def join(tree: Any, arrays: dict[str, np.ndarray]) -> Any:
    """The state that `split` took apart. Raises `ValueError`, `TypeError` or `LookupError`."""
    if isinstance(tree, list):
        return [join(item, arrays) for item in tree]
    if not isinstance(tree, dict):
        return tree
    match next(iter(tree.items()), None):
        case ("$array", name):
            return arrays[name]
        case ("$text", nested):
            return np.array(nested, dtype=np.dtypes.StringDType())
        case ("$int", digits):
            return int(digits, 16)
        case ("$float", text):
            return float(text)
        case ("$tuple", items):
            return tuple(join(item, arrays) for item in items)
        case ("$dict", pairs):
            return {join(key, arrays): join(item, arrays) for key, item in pairs}
        case (str(tag), _) if tag.startswith("$"):
            raise ValueError(f"unknown tag {tag}")
    return {key: join(item, arrays) for key, item in tree.items()}


def _put(value: Any, path: str, arrays: dict[str, np.ndarray]) -> str:
    array = value.detach().cpu().numpy() if hasattr(value, "detach") else value
    if array.dtype.name not in DTYPES:
        raise TypeError(f"cannot save {path or 'state'}: an array of {array.dtype}")
    name = re.sub(r"[^A-Za-z0-9_.-]", "_", path)
    while name in arrays or name in ("", "__metadata__"):
        name += "_"
    arrays[name] = np.asarray(array, dtype=array.dtype.newbyteorder("="), order="C")
    return name
