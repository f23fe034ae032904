"""Record what a program does to a directory, and build the disks a power cut may leave of it.

The model is the weakest that POSIX allows. What was fsynced is there. A file with writes since its
fsync is as it was then, or before it was truncated, or empty, half, garbage or whole. Each change
of a directory (an entry made, renamed or removed) since the fsync of that directory happened or
not, independently of all others; a rename within one directory happens as a whole.
"""

from __future__ import annotations

import itertools
import math
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Event = tuple[Any, ...]  # (kind, path, ...), the path relative to the directory watched
Tree = dict[str, Any]  # name -> content of a file, or the Tree of a directory
FATES = ("synced", "older", "empty", "half", "garbage", "whole")


def record_all(event: Event) -> bool:
    return True


class RecordedOs:
    """Stands in for a module's `os`: does what is asked, in short writes, and records the effects.

    `wanted(event)` is False for a call that the record shall lack, as if it had not been made.
    """

    def __init__(self, root: Path, wanted: Callable[[Event], bool] = record_all):
        self.root, self.wanted = root, wanted
        self.events: list[Event] = []
        self.open_files: dict[int, Any] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def note(self, kind: str, path: Any, *more: Any) -> None:
        event = (kind, os.path.relpath(path, self.root), *more)
        if not event[1].startswith("..") and self.wanted(event):
            self.events.append(event)

    def open(self, path: Any, flags: int, mode: int = 0o777) -> int:
        existed = os.path.lexists(path)
        file = os.open(path, flags, mode)
        self.open_files[file] = path
        if not existed or flags & os.O_TRUNC:
            self.note("truncate" if existed else "create", path)
        return file

    def write(self, file: int, data: Any) -> int:
        count = os.write(file, memoryview(data)[:256])
        self.note("write", self.open_files[file], bytes(data[:count]))
        return count

    def fsync(self, file: int) -> None:
        os.fsync(file)
        self.note("fsync", self.open_files[file])

    def close(self, file: int) -> None:
        del self.open_files[file]
        os.close(file)

    def mkdir(self, path: Any) -> None:
        os.mkdir(path)
        self.note("mkdir", path)

    def rename(self, source: Any, target: Any) -> None:
        os.rename(source, target)
        self.note("rename", source, os.path.relpath(target, self.root))

    def unlink(self, path: Any) -> None:
        os.unlink(path)
        self.note("remove", path)

    def rmdir(self, path: Any) -> None:
        os.rmdir(path)
        self.note("remove", path)


class File:
    def __init__(self) -> None:
        self.synced = self.older = self.now = b""

    def write(self, data: bytes) -> None:
        self.now += data

    def truncate(self) -> None:
        self.older, self.now = self.now, b""

    def fsync(self) -> None:
        self.synced = self.now

    def content(self, fate: str) -> bytes:
        half = len(self.now) // 2
        return {
            "synced": self.synced,
            "older": self.older,
            "empty": b"",
            "half": self.now[:half],
            "garbage": self.now[:half] + random.Random(half).randbytes(len(self.now) - half),
            "whole": self.now,
        }[fate]


class Folder:
    def __init__(self) -> None:
        self.synced: dict[str, File | Folder] = {}
        self.now: dict[str, File | Folder] = {}
        self.pending: list[dict[str, File | Folder | None]] = []  # entry by name, None: removed

    def change(self, change: dict[str, File | Folder | None]) -> None:
        self.pending.append(change)
        self.now = _changed(self.now, [change])

    def fsync(self) -> None:
        self.synced, self.pending = self.now, []

    def reachable(self) -> Iterator[File | Folder]:
        """Whatever may be in here after a power cut, and itself."""
        yield self
        nodes = itertools.chain(self.synced.values(), *(c.values() for c in self.pending))
        for node in dict.fromkeys(node for node in nodes if node):
            if isinstance(node, Folder):
                yield from node.reachable()
            else:
                yield node


class Disk:
    """Apply events one by one; ask at any time what is there, and what a power cut may leave."""

    def __init__(self) -> None:
        self.root = Folder()

    def apply(self, event: Event) -> None:
        kind, path, *more = event
        *folders, name = Path(path).parts or ("",)
        folder = self.root
        for part in folders:
            folder = folder.now[part]  # type: ignore[assignment]
        if kind in ("create", "mkdir"):
            folder.change({name: File() if kind == "create" else Folder()})
        elif kind == "rename":
            target = Path(more[0])
            assert target.parent == Path(path).parent, "the model has renames within a directory"
            folder.change({name: None, target.name: folder.now[name]})
        elif kind == "remove":
            folder.change({name: None})
        else:
            node = folder.now[name] if name else self.root
            getattr(node, kind)(*more)  # fsync, write, truncate

    def present(self) -> Tree:
        """What a program sees now: what is left where only the process is killed."""
        return _tree(self.root, lambda folder: folder.now, lambda file: file.now)

    def after_power_cut(self, limit: int, rng: random.Random) -> Iterator[Tree]:
        """Every disk that may be left; of more than `limit` none, all and `limit` random ones."""
        nodes = list(dict.fromkeys(self.root.reachable()))
        folders = [node for node in nodes if isinstance(node, Folder) and node.pending]
        files = [node for node in nodes if isinstance(node, File) and node.synced != node.now]
        axes: list[tuple] = [(False, True) for folder in folders for _ in folder.pending]
        axes += [FATES for _ in files]
        if math.prod(map(len, axes)) <= limit:
            choices: Iterator[tuple] = itertools.product(*axes)
        else:
            some = (tuple(map(rng.choice, axes)) for _ in range(limit))
            ends = [tuple(axis[0] for axis in axes), tuple(axis[-1] for axis in axes)]
            choices = itertools.chain(ends, some)
        for choice in choices:
            chosen = iter(choice)
            entries = {f: _changed(f.synced, [c for c in f.pending if next(chosen)])
                       for f in folders}  # fmt: skip
            contents = {file: file.content(next(chosen)) for file in files}
            yield _tree(
                self.root,
                lambda folder, entries=entries: entries.get(folder, folder.synced),
                lambda file, contents=contents: contents.get(file, file.synced),
            )


def write_tree(tree: Tree, path: Path) -> None:
    """Make `tree` a real directory."""
    path.mkdir(exist_ok=True)
    for name, content in tree.items():
        if isinstance(content, bytes):
            (path / name).write_bytes(content)
        else:
            write_tree(content, path / name)


def _changed(entries: dict, changes: list[dict]) -> dict:
    for change in changes:
        entries = {**entries, **change}
    return {name: node for name, node in entries.items() if node}


def _tree(folder: Folder, entries: Callable, content: Callable) -> Tree:
    return {
        name: _tree(node, entries, content) if isinstance(node, Folder) else content(node)
        for name, node in sorted(entries(folder).items())
    }
