"""Reading a record: a rosbag2 bag, in MCAP or SQLite, of ours or of other tools.

Nothing in a bag is run, no definition in it is used, and no length that it states is believed:
what is not as it should be raises `UserError`. Reading takes at most twice `CHUNK_BYTES` of memory,
and 32 bytes a message.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from embodied.deploy.bag_chunk import Broken
from embodied.deploy.bag_mcap import McapFile
from embodied.deploy.bag_sqlite import SqliteFile
from embodied.deploy.cdr import decode
from embodied.deploy.messages import KINDS, Malformed, Message
from embodied.errors import UserError

READERS: dict[str, type[McapFile | SqliteFile]] = {".mcap": McapFile, ".db3": SqliteFile}
MOST_MESSAGES = 20_000_000


@dataclass(frozen=True)
class _Source:
    """One topic in one file; `kind` is None where it is of a type that is not read."""

    file: McapFile | SqliteFile
    topic: str
    ros: str
    kind: type[Message] | None


class Bag:
    """The messages of a bag by time, those of one time in the order in which they were recorded."""

    def __init__(self, path: Path, files: list[Path]) -> None:
        self.path = path
        self._sources: list[_Source] = []
        times, places, sources = array("q"), array("q"), array("i")
        known: dict[tuple[Path, int], int] = {}
        readers = [READERS[file.suffix](file) for file in files]
        for reader in readers:
            with _blamed(reader.path):
                for time, channel, place in reader.rows():
                    source = known.get((reader.path, channel))
                    if source is None:
                        source = known[reader.path, channel] = len(self._sources)
                        self._sources.append(_source(reader, channel))
                    times.append(time)
                    places.append(place)
                    sources.append(source)
                    if len(times) > MOST_MESSAGES:
                        raise Broken(f"has over {MOST_MESSAGES:,} messages")
        self._times, self._places = np.frombuffer(times, "q"), np.frombuffer(places, "q")
        self._of = np.frombuffer(sources, "i")
        self._order = np.argsort(self._times, kind="stable")
        self.truncated = any(reader.truncated for reader in readers)
        """Whether the end is missing: the recorder was killed, or a copy was cut off."""
        self.rejected = 0
        """Messages, of those asked for so far, that could not be read and were left out."""
        self.topics = {one.topic: one.kind for one in self._sources if one.kind is not None}
        """What can be read, with its kind."""
        self.others = {one.topic: one.ros for one in self._sources if one.kind is None}
        """What cannot be, with its type ("": not in CDR)."""
        self.counts: dict[str, int] = {}
        for one, count in zip(self._sources, np.bincount(self._of), strict=False):
            self.counts[one.topic] = self.counts.get(one.topic, 0) + int(count)

    def __iter__(self) -> Iterator[tuple[str, Message, int]]:
        return self.messages(*self.topics)

    def messages(self, *topics: str) -> Iterator[tuple[str, Message, int]]:
        """(topic, message, time in ns) of these topics, by time. Raises `UserError`."""
        kept = np.array([one.topic in topics for one in self._sources], bool)
        rows = self._order[kept[self._of[self._order]]] if len(kept) else self._order
        file, read = None, None
        with _blamed(self.path), ExitStack() as opened:
            for row in rows.tolist():
                source = self._sources[self._of[row]]
                if source.kind is None:
                    continue
                if read is None or source.file is not file:
                    opened.close()
                    file, read = source.file, opened.enter_context(source.file.reading())
                try:
                    message = decode(source.kind, read(int(self._places[row])))
                except Malformed:
                    self.rejected += 1
                    continue
                yield source.topic, message, int(self._times[row])


def read_bag(path: Path | str) -> Bag:
    """The bag at `path`: its folder, or one of its files. Raises `UserError`."""
    path = Path(path)
    if not path.exists():
        raise UserError(f"no bag at {path}")
    files = [path]
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix in READERS)
    if not files or files[0].suffix not in READERS:
        raise UserError(f"{path} is no bag: give a folder with .mcap or .db3 files, or one of them")
    return Bag(path, files)


def _source(file: McapFile | SqliteFile, channel: int) -> _Source:
    topic, ros = file.channels[channel]
    return _Source(file, topic, ros, KINDS.get(ros.replace("/msg/", "/")))


@contextmanager
def _blamed(path: Path) -> Iterator[None]:
    """Whatever is wrong with a file, told with its name."""
    try:
        yield
    except Broken as error:
        what = "".join(c if c.isprintable() else " " for c in str(error))
        raise UserError(f"{path} {' '.join(what.split())[:300]}") from error
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from error
