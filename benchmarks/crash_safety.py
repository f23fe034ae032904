"""Are checkpoints safe from a crash at any moment? Ours, and a naive writer to show the test bites.

*Kill*: a child process saves in a loop and reports each save that returned (was acknowledged);
`kill -9` hits it at a random moment; the parent then loads.

*Replay*: the system calls of several saves are recorded; for every prefix of the record, every
disk that a power cut may leave (`power_cut.py` has the model) is built and loaded. Then the same
with a kill first and a power cut while the next process saves.

`unloadable` counts the crashes after which nothing loads although a save was acknowledged, or what
loads is wrong, or something broken is left under a checkpoint's name; `lost` those after which
something older than the last acknowledged save loads.
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from unittest import mock

import numpy as np
import safetensors.numpy

from benchmarks import harness
from benchmarks.power_cut import Disk, Event, RecordedOs, record_all, write_tree
from embodied import checkpoint
from embodied.errors import UserError

STEPS = (1, 2, 3, 3, 4, 5)  # saved while recording: one twice, and old ones get deleted
FULL = {"kills": 200, "limit": 400, "every": 4}
WITHIN = Path("run", "checkpoints")  # neither exists when the record starts


@dataclass(frozen=True)
class Writer:
    save: Callable[[Path, int, int], None]  # (directory, step, size of its array)
    load: Callable[[Path], int]  # the step; `UserError` for none, `AssertionError` for a wrong one
    module: ModuleType  # whose `os` does it


def content(step: int, size: int) -> np.ndarray:
    """An array `(size,)` int64 that only this step has."""
    return np.arange(size, dtype=np.int64) * 7919 + step


def save_ours(directory: Path, step: int, size: int) -> None:
    state = {"step": step, "weights": content(step, size), "rng": 3**80 + step}
    checkpoint.save_checkpoint(directory, state, step=step, config={"size": size})


def load_ours(directory: Path) -> int:
    loaded = checkpoint.load_checkpoint(directory)
    step, size = loaded.step, loaded.config["size"]
    assert np.array_equal(loaded.state.pop("weights"), content(step, size)), "another's arrays"
    assert loaded.state == {"step": step, "rng": 3**80 + step}, "another's state"
    assert not loaded.skipped, f"a crash left something broken under its name: {loaded.skipped}"
    return step


def save_naive(directory: Path, step: int, size: int) -> None:
    """What trainers do: overwrite the one file, in the pieces of a buffered writer, no fsync."""
    data = safetensors.numpy.save({"step": np.array(step), "weights": content(step, size)})
    for path in (directory.parent, directory):
        if not path.is_dir():
            os.mkdir(path)
    file = os.open(directory / "latest", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    while data:
        data = data[os.write(file, data[: 64 * 1024]) :]
    os.close(file)


def load_naive(directory: Path) -> int:
    try:
        arrays = safetensors.numpy.load((directory / "latest").read_bytes())
    except (OSError, safetensors.SafetensorError) as error:
        raise UserError(str(error)) from error
    step = int(arrays["step"])
    assert np.array_equal(arrays["weights"], content(step, arrays["weights"].size)), "garbage"
    return step


OURS = Writer(save_ours, load_ours, checkpoint)
NAIVE = Writer(save_naive, load_naive, sys.modules[__name__])


@dataclass
class Tally:
    crashes: int = 0
    unloadable: int = 0
    lost: int = 0
    moments: Counter[str] = field(default_factory=Counter)

    def judge(self, writer: Writer, directory: Path, acknowledged: int) -> int:
        """Load after a crash; the step that loaded, 0 for none."""
        self.crashes += 1
        try:
            step = writer.load(directory)
        except UserError:
            self.unloadable += acknowledged > 0
            return 0
        except AssertionError:
            self.unloadable += 1
            return 0
        self.lost += step < acknowledged
        return step


# --- kill -9 ---------------------------------------------------------------------------------


def kill_while_saving(writer: Writer, kills: int, size: int) -> Tally:
    """Kill a saving child `kills` times, at moments spread evenly over three saves."""
    tally, rng = Tally(), random.Random(0)
    with tempfile.TemporaryDirectory() as root:
        directory = Path(root) / WITHIN
        start = time.perf_counter()
        for step in range(1, 6):
            writer.save(directory, step, size)
        save_s = (time.perf_counter() - start) / 5
        last = 5
        for _ in range(kills):
            delay_s = rng.uniform(0, 3 * save_s)
            last = max(last, kill_one(writer, directory, last + 1, size, delay_s))
            tally.moments[interrupted(directory)] += 1
            loaded = tally.judge(writer, directory, last)
            if not loaded:  # repair, so that the next kill is judged by itself
                writer.save(directory, last, size)
            last = max(last, loaded)
    return tally


def kill_one(writer: Writer, directory: Path, step: int, size: int, delay_s: float) -> int:
    """The last step that a child acknowledged before it was killed, 0 for none."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writing, struct.pack("q", 0))
            for saved in itertools.count(step):
                writer.save(directory, saved, size)
                os.write(writing, struct.pack("q", saved))
        finally:
            os._exit(1)
    os.close(writing)
    with open(reading, "rb", buffering=0) as pipe:
        reports = pipe.read(8)  # it is ready
        time.sleep(delay_s)
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            raise RuntimeError("the saving child failed by itself")
        reports += pipe.read()
    return struct.unpack("q", reports[-8:])[0]


def interrupted(directory: Path) -> str:
    """What a kill cut short, by the temporary directory it left."""
    left = [name for path in directory.glob(".tmp_*") for name in ("", *os.listdir(path))]
    for name in ("manifest.json", "config.json", "state.json", "state.safetensors"):
        if name in left:
            return f"in or after {name}"
    return "in an empty temporary directory" if left else "no temporary directory"


# --- replay ----------------------------------------------------------------------------------


def record(
    writer: Writer, root: Path, steps: tuple[int, ...] = STEPS, wanted: Callable = record_all
) -> list[Event]:
    """The events of saving `steps` under `root`, with ("ack", step) after each that returned."""
    recorder = RecordedOs(root.resolve(), wanted)
    with mock.patch.object(writer.module, "os", recorder):
        for step in steps:
            writer.save(root.resolve() / WITHIN, step, 20)
            recorder.events.append(("ack", step))
    return recorder.events


def replay(writer: Writer, events: list[Event], tally: Tally, limit: int, start: int = 0) -> None:
    """Judge every disk that a power cut may leave after any prefix of at least `start` events."""
    rng, disk, acknowledged, seen = random.Random(0), Disk(), 0, set()
    for i, event in enumerate(events, 1):
        if event[0] == "ack":
            acknowledged = event[1]
        else:
            disk.apply(event)
        if i < start:
            continue
        for tree in disk.after_power_cut(limit, rng):
            key = (repr(tree), acknowledged)
            if key not in seen:
                seen.add(key)
                with tempfile.TemporaryDirectory() as root:
                    write_tree(tree, Path(root))
                    tally.judge(writer, Path(root) / WITHIN, acknowledged)


def replay_after_kill(writer: Writer, events: list[Event], tally: Tally, limit: int, every: int):
    """Kill after each `every`-th event, save in a new process, and cut the power during that."""
    disk = Disk()
    for i, event in enumerate(events, 1):
        if event[0] != "ack":
            disk.apply(event)
        if i % every == 0:
            with tempfile.TemporaryDirectory() as root:
                write_tree(disk.present(), Path(root))
                more = record(writer, Path(root), (max(STEPS) + 1,))
            replay(writer, events[:i] + more, tally, limit, start=i + 1)


def crash(writer: Writer, kills: int, limit: int, every: int) -> tuple[Tally, Tally]:
    """The tallies of the kills and of the replays."""
    replayed = Tally()
    with tempfile.TemporaryDirectory() as root:
        events = record(writer, Path(root))
    replay(writer, events, replayed, limit)
    replay_after_kill(writer, events, replayed, limit // 4, every)
    return kill_while_saving(writer, kills, size=500_000), replayed


def main() -> None:
    args = harness.parse_args("Crash safety of checkpoints: kill -9, and power cuts replayed.")
    effort = {"kills": 20, "limit": 40, "every": 20} if args.quick else FULL
    figures, detail = {}, {"effort": effort}
    for writer, prefix in ((OURS, ""), (NAIVE, "naive_")):
        killed, replayed = crash(writer, **effort)
        for count in ("unloadable", "lost"):
            figures[f"{prefix}{count}"] = getattr(killed, count) + getattr(replayed, count)
        detail |= {f"{prefix}killed": vars(killed), f"{prefix}replayed": vars(replayed)}
        if writer is OURS:
            figures |= {"kills": killed.crashes, "power_cuts": replayed.crashes}
    harness.write_result("crash_safety", figures, detail, args.quick, args.out)


if __name__ == "__main__":
    main()
