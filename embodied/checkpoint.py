"""Checkpoints that survive a crash at any moment: a directory of safetensors and JSON.

    checkpoints/step_000000012345/
        state.safetensors    every array of the state
        state.json           the rest of it (`state_tree.py` has the format)
        config.json          the resolved configuration
        manifest.json        format, step, serial, size and sha256 of each file and of itself

A save writes and fsyncs the files in a temporary sibling, the manifest last, fsyncs that
directory, renames it, and fsyncs the parent; only then is it acknowledged (the function returns)
and only then do older checkpoints go. A name in use is never written to: a second save of a step
becomes `step_000000012345.1` and the first is deleted afterwards. To delete is to rename to a
temporary name, fsync the parent, then unlink. `serial` counts saves: the newest checkpoint is the
one saved last, also after a run was rewound to an earlier step.

There is one writer per directory and any number of readers. Every effect on the disk is a call of
`os.*` in this module, so that a test can record, drop or fail each of them.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from embodied.errors import UserError
from embodied.state_tree import join, split

FORMAT = 1
FILES = ("state.safetensors", "state.json", "config.json")  # a manifest may name no other
PUBLISHED = re.compile(r"step_\d{12,}(\.\d+)?")
TEMPORARY = re.compile(r"\.tmp_step_\d{12,}(\.\d+)*")
MANIFEST_BYTES = 64 * 1024


@dataclass(frozen=True)
class Checkpoint:
    """What was saved. Arrays are NumPy; `skipped` has a line for each invalid one passed over."""

    state: Any
    step: int
    config: Any
    path: Path
    skipped: list[str] = field(default_factory=list)


def save_checkpoint(
    directory: Path, state: Any, *, step: int, config: dict | None = None, keep: int = 2
) -> Path:
    """Save `state` as `directory/step_NNNNNNNNNNNN`; return its path once it is durable.

    `state` is any nesting of dict, list and tuple over arrays (NumPy or torch, any shape), str,
    int, float, bool and None; all of it comes back bit for bit, arrays as NumPy. The newest `keep`
    valid steps stay. Raises `UserError` where the disk is full or refuses, leaving the earlier
    checkpoints as they were; `TypeError` for a state of another type, before anything is written.
    """
    if keep < 1 or step < 0:
        raise ValueError(f"keep must be at least 1 and step at least 0, not {keep} and {step}")
    arrays: dict[str, np.ndarray] = {}
    texts = json.dumps(split(state, arrays)), json.dumps(split(config, arrays, "config"), indent=1)
    contents = [safetensors.numpy.save(arrays), *(text.encode() for text in texts)]
    files = dict(zip(FILES, contents, strict=True))
    try:
        directory = _ensure_durable(Path(directory))
        _remove_temporaries(directory)
        path = _publish(directory, step, files)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        size = f"{sum(map(len, files.values())) / 1e6:.1f} MB"
        reason = f"disk full, it needs {size}: free some space" if full else error.strerror or error
        raise UserError(
            f"cannot save step {step} in {directory}: {reason} (earlier checkpoints are untouched)"
        ) from error
    with suppress(OSError):  # the save is durable; what could not be deleted goes next time
        _prune(directory, keep)
    return path


def load_checkpoint(path: Path) -> Checkpoint:
    """Load a checkpoint, or the newest valid one of a directory of them; hashes are verified.

    Raises `UserError` that names the file which is missing, corrupt or foreign.
    """
    path = Path(path)
    if PUBLISHED.fullmatch(path.name) or (path / "manifest.json").exists():
        return _load(path, [])
    seen: list[str] | None = None
    skipped: list[str] = []
    while (names := _names(path)) != seen:  # a writer may have replaced them: look again
        seen = names
        readable, skipped = _survey(path)
        for _, _, candidate in readable:
            try:
                return _load(candidate, skipped)
            except UserError as error:
                skipped.append(str(error))
    if skipped:
        raise UserError(f"no valid checkpoint in {path}: {'; '.join(skipped[:3])}")
    raise UserError(f"{path} is no checkpoint (no manifest.json) and holds none (no step_*)")


def checkpoint_name(step: int) -> str:
    """The folder, within a run's, of the checkpoint of a step."""
    return f"step_{step:012d}"


# --- writing ---------------------------------------------------------------------------------


def _publish(directory: Path, step: int, files: dict[str, bytes]) -> Path:
    path = _unused(directory, checkpoint_name(step))
    temporary = _unused(directory, f".tmp_{path.name}")
    manifest = {
        "format": FORMAT,
        "step": step,
        "serial": 1 + max((serial for serial, _, _ in _survey(directory)[0]), default=0),
        "files": {n: {"size": len(d), "sha256": _sha256(d)} for n, d in files.items()},
    }
    try:
        os.mkdir(temporary)
        for name, data in files.items():
            _write_durably(temporary / name, data)
        _write_durably(temporary / "manifest.json", _sealed(manifest))
        _fsync_directory(temporary)
        os.rename(temporary, path)
    except BaseException:
        with suppress(OSError):
            _remove(temporary)
        raise
    _fsync_directory(directory)
    return path


def _write_durably(path: Path, data: bytes) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        rest = memoryview(data)
        while rest:  # a write may be short; Python itself retries EINTR
            rest = rest[os.write(file, rest) :]
        os.fsync(file)  # the descriptor that wrote sees every error; one that failed is not retried
    finally:
        os.close(file)


def _fsync_directory(path: Path) -> None:
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems cannot, and need not
            raise
    finally:
        os.close(directory)


def _ensure_durable(directory: Path) -> Path:
    """Make `directory` and see to it that no crash can lose it or anything above it."""
    directory = directory.resolve()
    for path in reversed((directory, *directory.parents)):
        if not path.is_dir():
            os.mkdir(path)
    for path in directory.parents:  # also those made before this call: by a run killed meanwhile
        with suppress(PermissionError):
            _fsync_directory(path)
    return directory


def _prune(directory: Path, keep: int) -> None:
    kept: set[int] = set()
    for _, step, path in _survey(directory)[0]:
        if step in kept or len(kept) == keep:
            os.rename(path, _unused(directory, f".tmp_{path.name}"))
        else:
            with suppress(UserError):
                _verify(path)
                kept.add(step)
    _remove_temporaries(directory)


def _remove_temporaries(directory: Path) -> None:
    names = list(filter(TEMPORARY.fullmatch, os.listdir(directory)))
    if names:  # a rename that is undone after the unlinking would leave half a checkpoint
        _fsync_directory(directory)
    for name in names:
        with suppress(OSError):
            _remove(directory / name)


def _remove(path: Path) -> None:
    if path.is_symlink():  # never follow one out of the directory
        os.unlink(path)
        return
    for name in os.listdir(path):
        os.unlink(path / name)
    os.rmdir(path)


def _unused(directory: Path, name: str) -> Path:
    taken = set(os.listdir(directory))
    candidates = (f"{name}.{i}" if i else name for i in range(len(taken) + 1))
    return directory / next(candidate for candidate in candidates if candidate not in taken)


# --- reading: every byte may be hostile ------------------------------------------------------


@contextmanager
def _blaming(path: Path) -> Iterator[None]:
    """Turn whatever parsing `path` raises into one line about that file."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError,
            safetensors.SafetensorError) as error:  # fmt: skip
        raise UserError(f"{path}: corrupt or foreign ({str(error)[:80]!r})") from error


def _read(path: Path, most: int) -> bytes:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK  # no link out, no waiting for a pipe
    with open(path, "rb", opener=lambda name, _: os.open(name, flags)) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode) or status.st_size > most:
            raise ValueError(f"not a regular file of at most {most} bytes")
        return file.read()


def _read_manifest(path: Path) -> dict:
    with _blaming(path / "manifest.json"):
        data = _read(path / "manifest.json", MANIFEST_BYTES)
        manifest = json.loads(data)
        del manifest["sha256"]
        if _sealed(manifest) != data:
            raise ValueError("its own sha256 differs")
        if manifest["format"] != FORMAT:
            raise ValueError(f"format {manifest['format']}, this version reads {FORMAT}")
        if set(manifest["files"]) != set(FILES):
            raise ValueError(f"it must list {', '.join(FILES)} and nothing else")
        counts = [file["size"] for file in manifest["files"].values()]
        if not all(type(n) is int and 0 <= n < 2**62
                   for n in (manifest["step"], manifest["serial"], *counts)):  # fmt: skip
            raise ValueError("step, serial and sizes must be natural numbers")
        return manifest


def _names(directory: Path) -> list[str]:
    with _blaming(directory):
        return sorted(os.listdir(directory))


def _survey(directory: Path) -> tuple[list[tuple[int, int, Path]], list[str]]:
    """(serial, step, path) of each checkpoint, newest first; and why the others are unreadable."""
    readable, unreadable = [], []
    for name in sorted(filter(PUBLISHED.fullmatch, os.listdir(directory))):
        try:
            manifest = _read_manifest(directory / name)
            readable.append((manifest["serial"], manifest["step"], directory / name))
        except UserError as error:
            unreadable.append(str(error))
    return sorted(readable, reverse=True), unreadable


def _verify(path: Path) -> tuple[dict, dict[str, bytes]]:
    """The manifest and the files' contents, each as the manifest says."""
    manifest = _read_manifest(path)
    contents = {}
    for name, file in manifest["files"].items():
        with _blaming(path / name):
            contents[name] = _read(path / name, file["size"])
            if len(contents[name]) != file["size"] or _sha256(contents[name]) != file["sha256"]:
                raise ValueError("size or sha256 differs from the manifest's")
    return manifest, contents


def _load(path: Path, skipped: list[str]) -> Checkpoint:
    manifest, contents = _verify(path)
    with _blaming(path / "state.safetensors"):
        arrays = safetensors.numpy.load(contents["state.safetensors"])
    with _blaming(path / "state.json"):
        state = join(json.loads(contents["state.json"]), arrays)
    with _blaming(path / "config.json"):
        config = join(json.loads(contents["config.json"]), arrays)
    return Checkpoint(state, manifest["step"], config, path, skipped)


def _sealed(manifest: dict) -> bytes:
    """The manifest as JSON, its own sha256 last: a flipped bit in it shows like any other."""
    body = json.dumps(manifest, indent=1)
    return json.dumps({**manifest, "sha256": _sha256(body.encode())}, indent=1).encode()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
