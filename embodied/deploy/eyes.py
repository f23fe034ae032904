"""Where objects are, as cameras see them: a marker tracker in a process of its own.

`Eyes` starts it and reads what it finds; `python -m embodied.deploy.eyes` is that process. It
listens to images on a transport of its own and sends nothing, so neither decoding nor tracking ever
keeps the guard waiting.
"""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from embodied.build import make
from embodied.deploy.mailbox import Mailbox
from embodied.deploy.messages import CompressedImage, Image, Malformed
from embodied.deploy.process import closed, end, lifeline, start
from embodied.deploy.transport import Received
from embodied.errors import UserError

SEEN = ("stamp_ns", "received_ns", "count", "error_px")
"""Numbers of an object's slot before its pose (7,)."""
IMAGES = ("received_ns", "images", "unreadable", "unfit", "jumps")
"""Numbers of the slot "images": when the newest that could be read came, how many came, and how
many could not be read or showed what cannot be."""
SIZES = "sizes"
"""The slot that says how large cubes are now: a version, then half an edge (m) of each object."""
POLL_S = 0.002
LIFE_S = 0.2
"""How often the process looks whether anybody still wants it."""


class Unseen(UserError):
    """An object is not seen by the camera."""


def slots(objects: Mapping[str, Any]) -> dict[str, int]:
    """Sizes of the slots, one for each object."""
    own = {SIZES: 1 + len(objects), "images": len(IMAGES)}
    return {**own, **{f"at/{name}": len(SEEN) + 7 for name in objects}}


class Eyes:
    """A tracker of what `settings`, a robot map's `tracker`, describe, over `transport`.

    Raises `UserError` where the settings are wrong.
    """

    def __init__(
        self, settings: Mapping[str, Any], transport: Mapping[str, Any], recorder: int | None = None
    ) -> None:
        self.names = tuple(settings["objects"])
        self.mailbox = Mailbox(slots(settings["objects"]))
        self._version = 0
        theirs, self._life = lifeline()
        files = [theirs, self.mailbox.file, *([] if recorder is None else [recorder])]
        given = {"tracker": settings, "transport": transport, "files": files}
        self.process = start("eyes", given, files)
        os.close(theirs)

    def sightings(self) -> dict[str, tuple[int, np.ndarray]]:
        """The objects that were seen: when the newest image of each was taken, by its own clock in
        ns, and the pose `(7,)` there."""
        rows = {name: self.mailbox.read(f"at/{name}") for name in self.names}
        seen = {name: row[1] for name, row in rows.items() if row is not None}
        return {name: (int(row[0]), row[len(SEEN) :]) for name, row in seen.items()}

    def counts(self) -> dict[str, int]:
        """How often each object was seen."""
        rows = {name: self.mailbox.read(f"at/{name}") for name in self.names}
        return {name: 0 if row is None else int(row[1][2]) for name, row in rows.items()}

    def define(self, half_m: Mapping[str, float]) -> None:
        """Say how large the cubes are now, as an operator would, and that they were put anew."""
        self._version += 1
        sizes = [half_m.get(name, 0.0) for name in self.names]
        self.mailbox.write(SIZES, np.array([self._version, *sizes]))

    def wait(self, timeout_s: float) -> None:
        """Wait until every object was seen in an image taken from now on.

        Raises `Unseen` after `timeout_s`, `UserError` where the tracker has ended.
        """
        begin_ns, until = time.time_ns(), time.monotonic() + timeout_s
        while True:
            if self.process.poll() is not None:
                raise UserError("the tracker has ended: see above")
            rows = {name: self.mailbox.read(f"at/{name}") for name in self.names}
            unseen = [n for n, row in rows.items() if row is None or row[1][0] < begin_ns]
            if not unseen:
                return
            if time.monotonic() > until:
                raise Unseen(f"the camera does not see {', '.join(unseen)}")
            time.sleep(POLL_S)

    def age_s(self) -> float:
        """How long ago the newest image came; infinite before the first."""
        read = self.mailbox.read("images")
        return math.inf if read is None else 1e-9 * (time.monotonic_ns() - read[1][0])

    def faults(self) -> dict[str, int]:
        """How many images could not be read, and sightings were left out as "unfit" or "jumps"."""
        read = self.mailbox.read("images")
        row = np.zeros(len(IMAGES)) if read is None else read[1]
        return {name: int(n) for name, n in list(zip(IMAGES, row, strict=True))[2:]}

    def close(self) -> None:
        os.close(self._life)
        end(self.process)
        self.mailbox.close()


def main() -> int:
    """Track until the process that asked for it ends."""
    import cv2

    from embodied.deploy.marker_layout import cube_markers
    from embodied.deploy.markers import MarkerTracker
    from embodied.deploy.pixels import pixels

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)  # more are hardly faster, and take a core from the guard
    given = json.loads(sys.stdin.buffer.readline())
    settings = given["tracker"]
    life, mailbox = given["files"][0], Mailbox(slots(settings["objects"]), given["files"][1])
    plain = {key: value for key, value in settings.items() if key not in ("topic", "kind")}
    try:
        tracker = MarkerTracker.from_config(plain)
        transport = make(given["transport"])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    record = _recorder(given["files"][2:])
    kind = Image if settings.get("kind") == "image" else CompressedImage
    transport.subscribe(settings["topic"], kind)
    names, version = tuple(settings["objects"]), 0
    images = heard_ns = 0
    counts, looked = dict.fromkeys(names, 0), 0.0
    while True:
        if time.monotonic() > looked + LIFE_S:
            looked = time.monotonic()
            if closed(life):
                break
        sizes = mailbox.read(SIZES)
        if sizes is not None and sizes[1][0] != version:
            version = int(sizes[1][0])
            tracker.forget()
            for name, half in zip(names, sizes[1][1:], strict=True):
                cube = settings["objects"][name].get("cube")
                if cube and half > 0.0:
                    side = cube["side_m"] * half / cube["half_m"]
                    tracker.define(name, cube_markers(cube["ids"], half, side))
        taken = transport.take()
        if not taken:
            time.sleep(POLL_S)
            continue
        newest = taken[-1]  # what is older is out of date
        record(newest)
        images += 1
        try:
            image = pixels(newest.message)
        except Malformed:
            tracker.counts["unreadable"] += 1
        else:
            heard_ns, stamp_ns = newest.received_ns, newest.message.stamp_ns
            for name, seen in tracker.track(image, stamp_ns).items():
                if seen.age_s == 0.0:
                    counts[name] += 1
                    head = (stamp_ns, heard_ns, counts[name], seen.error_px)
                    mailbox.write(f"at/{name}", np.array([*head, *seen.pose]))
        wrong = [tracker.counts[name] for name in IMAGES[2:]]
        mailbox.write("images", np.array([heard_ns, images, *wrong], float))
    transport.close()
    return 0


def _recorder(files: list[int]) -> Callable[[Received], None]:
    """What keeps the images that were looked at, where there is a recorder."""
    if not files:
        return lambda received: None
    from embodied.deploy.recorder_sender import Sender

    sender, offset_ns = Sender(files[0]), time.time_ns() - time.monotonic_ns()

    def record(received: Received) -> None:
        sender.record(received.topic, received.message, received.received_ns + offset_ns)

    return record


if __name__ == "__main__":
    sys.exit(main())
