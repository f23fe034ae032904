"""What a reward model is asked, as messages: a moment, and a trajectory of what the model needs.

Images and last observations that a part of a trajectory does not refer to stay at home, and so do
readouts that the model has not declared. Texts of worlds that are told the same travel once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from embodied.packets import BadPacket, take
from embodied.reward_model import Needs
from embodied.types import Array, Frames, Moment, Obs, Trajectory

ROWS = {
    "terminated": "b", "truncated": "b", "is_first": "b", "valid": "b", "step_id": "i",
    "final_index": "i",
}  # fmt: skip
"""Arrays `(T, N)` that every trajectory has, and their kinds."""
NUMBERS = "biuf"


def pack_moment(moment: Moment, needs: Needs, blind: bool) -> dict[str, Any]:
    """A moment as `unpack_moment` reads it."""
    return {
        "obs": {} if blind else _hosted(moment.obs),
        "images": {camera: moment.images[camera] for camera in needs.cameras},
        "instructions": _pack_texts(moment.instructions),
    }


def pack(traj: Trajectory, needs: Needs, blind: bool) -> dict[str, Any]:
    """A trajectory as `unpack` reads it."""
    final_index, kept = _compact([np.asarray(traj.final_index)])
    seen = () if blind else traj.obs
    return {
        **{name: np.asarray(getattr(traj, name)) for name in ROWS},
        "final_index": final_index[0],
        "obs": {key: _host(traj.obs[key]) for key in seen},
        "last_obs": {key: _host(traj.last_obs[key]) for key in seen},
        "final_obs": {key: _host(traj.final_obs[key])[kept] for key in seen},
        "action": _host(traj.action),
        "action_executed": _host(traj.action_executed),
        "due": None if traj.due is None else np.asarray(traj.due),
        "group": None if traj.group is None else np.asarray(traj.group),
        "instructions": _pack_texts(traj.instructions),
        "readouts": {k: _host(v) for k, v in traj.readouts.items() if k in needs.readouts},
        "frames": {camera: _pack_frames(traj.frames[camera]) for camera in needs.cameras},
    }


def parts(traj: Trajectory, needs: Needs, blind: bool, most: int) -> Iterator[dict[str, Any]]:
    """The trajectory, packed, in parts of `most` bytes, or of one step where that is more."""
    whole = pack(traj, needs, blind)
    steps = traj.shape[0]
    if steps <= 1 or size(whole) <= most:
        yield whole
        return
    del whole
    for start, stop in ((0, steps // 2), (steps // 2, steps)):
        yield from parts(traj.slice(start, stop), needs, blind, most)


def size(value: Any) -> int:
    """About how many bytes a message takes."""
    if isinstance(value, Mapping):
        return sum(32 + size(part) for part in value.values())
    if isinstance(value, list):
        return sum(size(part) for part in value)
    return value.nbytes + 64 if isinstance(value, np.ndarray) else 16 + 4 * len(str(value))


def unpack_moment(message: Mapping[str, Any], worlds: int, shown: int, needs: Needs) -> Moment:
    """The moment of so many worlds, of which so many are shown. Raises `BadPacket`."""
    images = _map(message, "images")
    if set(images) != set(needs.cameras):
        raise BadPacket(f"images: {sorted(needs.cameras)} are wanted")
    return Moment(
        _arrays(message, "obs", (worlds,)),
        {camera: _writable(take(images, camera, (shown, None, None, 3), "u")) for camera in images},
        _unpack_texts(message, worlds),
    )


def unpack(message: Mapping[str, Any], needs: Needs) -> Trajectory:
    """The trajectory in a message, all of it consistent. Raises `BadPacket`."""
    terminated = take(message, "terminated", (None, None), "b")
    lead = steps, worlds = terminated.shape
    rows: dict[str, Any] = {
        name: _writable(take(message, name, lead, kind)) for name, kind in ROWS.items()
    }
    obs, last_obs = _arrays(message, "obs", lead), _arrays(message, "last_obs", (worlds,))
    final_obs = _arrays(message, "final_obs", (None,))
    if not obs.keys() == last_obs.keys() == final_obs.keys():
        raise BadPacket("obs, last_obs and final_obs: of the same keys")
    counts = {len(value) for value in final_obs.values()} or {int(rows["final_index"].size)}
    if not steps or not worlds or len(counts) > 1:
        raise BadPacket("final_obs: of differing length, or no steps at all")
    _check_index("final_index", rows["final_index"], counts.pop())
    readouts = _arrays(message, "readouts", lead)
    if not needs.readouts <= readouts.keys():
        raise BadPacket(f"readouts: {sorted(needs.readouts)} are wanted")
    frames = _map(message, "frames")
    if set(frames) != set(needs.cameras):
        raise BadPacket(f"frames: {sorted(needs.cameras)} are wanted")
    due, group = message.get("due"), message.get("group")
    return Trajectory(
        obs=obs,
        last_obs=last_obs,
        final_obs=final_obs,
        action=_any(message, "action", lead),
        action_executed=_any(message, "action_executed", lead),
        reward=np.zeros(lead, np.float32),
        reward_terms={},
        due=None if due is None else _writable(take(message, "due", lead, "b")),
        group=None if group is None else _writable(take(message, "group", (worlds,), "i")),
        instructions=_unpack_texts(message, worlds),
        readouts=readouts,
        frames={camera: _unpack_frames(_map(frames, camera), lead) for camera in frames},
        **rows,
    )


def _host(value: Array) -> np.ndarray:
    """NumPy's, wherever it was."""
    return np.asarray(value.cpu() if hasattr(value, "cpu") else value)


def _hosted(values: Obs) -> Obs:
    return {key: _host(value) for key, value in values.items()}


def _writable(value: np.ndarray) -> np.ndarray:
    """A copy: what comes out of a packet can only be read, and torch wants more."""
    return np.array(value)


def _compact(indices: list[np.ndarray]) -> tuple[list[np.ndarray], np.ndarray]:
    """Indices into only those rows that some of them name, and the rows; -1 stays."""
    named = np.unique(np.concatenate([index.ravel() for index in indices]))
    named = named[named >= 0]
    return [
        np.where(index >= 0, np.searchsorted(named, index), -1).astype(np.int64)
        for index in indices
    ], named


def _pack_frames(frames: Frames) -> dict[str, np.ndarray]:
    (index, first), kept = _compact([np.asarray(frames.index), np.asarray(frames.first)])
    return {"image": frames.image[kept], "index": index, "first": first}


def _unpack_frames(row: Mapping[str, Any], lead: tuple[int, ...]) -> Frames:
    image = take(row, "image", (None, None, None, 3), "u")
    index, first = (_writable(take(row, name, lead, "i")) for name in ("index", "first"))
    for name, value in (("index", index), ("first", first)):
        _check_index(name, value, len(image))
    return Frames(_writable(image), index, first)


def _check_index(name: str, index: np.ndarray, count: int) -> None:
    if index.size and (index.min() < -1 or index.max() >= count):
        raise BadPacket(f"{name}: from -1 to {count - 1}")


def _pack_texts(texts: Sequence[str]) -> dict[str, Any]:
    known = {text: n for n, text in enumerate(dict.fromkeys(texts))}
    return {"texts": list(known), "index": np.array([known[text] for text in texts], np.int64)}


def _unpack_texts(message: Mapping[str, Any], worlds: int) -> tuple[str, ...]:
    row = _map(message, "instructions")
    texts, index = row.get("texts"), take(row, "index", (None,), "i")
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise BadPacket("instructions: texts are wanted")
    _check_index("instructions", index, len(texts))
    if len(index) not in (0, worlds) or (index < 0).any():
        raise BadPacket("instructions: one for every world, or none")
    return tuple(texts[i] for i in index)


def _map(message: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = message.get(key)
    if not isinstance(value, dict):
        raise BadPacket(f"{key}: a map is wanted")
    return value


def _any(message: Mapping[str, Any], key: str, lead: tuple[int | None, ...]) -> np.ndarray:
    """An array of numbers whose first axes are `lead`."""
    value = message.get(key)
    axes = value.ndim if isinstance(value, np.ndarray) else len(lead)
    rest = (None,) * (axes - len(lead))
    return _writable(take(message, key, (*lead, *rest), NUMBERS))


def _arrays(message: Mapping[str, Any], key: str, lead: tuple[int | None, ...]) -> Obs:
    row = _map(message, key)
    return {name: _any(row, name, lead) for name in row}
