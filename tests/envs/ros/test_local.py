"""Sockets in a folder: what a peer of ill will, or a slow or dead one, can do."""

from __future__ import annotations

import os
import socket
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from embodied.envs.ros.local import SMALL, Local, _prefix
from embodied.envs.ros.local_packet import encode

from embodied.deploy.messages import MOST_BYTES, Floats, Image, Message, Text
from embodied.errors import UserError
from tests.envs.ros.links import wait_until
from tests.envs.ros.noise import mangled


@pytest.fixture
def folder() -> Iterator[Path]:
    with TemporaryDirectory(prefix="bus_") as name:
        yield Path(name)


def connection(folder: Path, topic: str) -> socket.socket:
    """To whoever subscribed to `topic`, as a stranger makes it."""
    (name,) = [name for name in os.listdir(folder) if name.startswith(_prefix(topic))]
    stranger = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    stranger.connect(str(folder / name))
    return stranger


def test_strangers_are_counted_and_do_no_harm(folder: Path) -> None:
    end = Local(str(folder))
    end.subscribe("/a", Text)
    good = encode(Text("good"))
    texts: list[Message] = []
    sent = 0

    def read() -> bool:
        texts.extend(came.message for came in end.take())
        return end.rejected + len(texts) == sent

    with connection(folder, "/a") as stranger:
        for noise in mangled(good, 600):
            if noise:
                stranger.send(noise)
                sent += 1
            if sent % 20 == 0:
                wait_until(read)
        pipe = os.pipe()
        huge = os.memfd_create("huge")
        os.truncate(huge, 2**40)
        for fds in ([pipe[0]], [pipe[1]] * 3, [huge]):
            socket.send_fds(stranger, [b"\0"], fds)
        stranger.send(b"x" * (SMALL + 50))
        stranger.send(good)
        sent += 5
        for fd in (*pipe, huge):
            os.close(fd)
        wait_until(read)
    assert texts[-1] == Text("good")
    assert end.rejected > 400 and end.lost == 0
    wait_until(lambda: not end.connected)
    end.close()


def test_an_image_takes_memory_twice_at_most(folder: Path) -> None:
    image = Image(1, 4000, 2600, "rgb8", bytes(4000 * 2600 * 3))
    assert len(image.data) > MOST_BYTES * 0.97
    near, far = Local(str(folder)), Local(str(folder))
    near.subscribe("/a", Image)
    far.advertise("/a", Image)
    taken: list[Message] = []
    tracemalloc.start()
    try:
        assert far.publish("/a", image)
        wait_until(lambda: taken.extend(came.message for came in near.take()) or taken)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert taken == [image]
    assert peak < 3.2 * MOST_BYTES  # both ends are in this process
    near.close()
    far.close()


def test_a_reader_that_never_reads_is_not_waited_for(folder: Path) -> None:
    end = Local(str(folder))
    end.advertise("/a", Floats)
    end.advertise("/camera", Image)
    readers = []
    for topic in ("/a", "/camera"):
        reader = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        reader.bind(str(folder / f"{_prefix(topic)}slow"))
        reader.listen()
        readers.append(reader)
    wait_until(lambda: end.connected)
    image = Image(1, 480, 640, "rgb8", bytes(480 * 640 * 3))
    went = [end.publish("/a", Floats((1.0,) * 100)) for _ in range(2000)]
    assert went[0] and not went[-1]
    went = [end.publish("/camera", image) for _ in range(100)]
    assert went[0] and 0 < sum(went) < 20  # few wait, as each may be large
    for reader in readers:
        reader.close()
    end.close()


def test_a_subscription_hears_what_is_published_right_after(folder: Path) -> None:
    far = Local(str(folder))
    far.advertise("/a", Text)
    for n in range(20):
        near = Local(str(folder))
        near.subscribe("/a", Text)
        far.publish("/a", Text(str(n)))
        taken: list[Message] = []
        wait_until(lambda: taken.extend(came.message for came in near.take()) or taken)  # noqa: B023
        assert taken == [Text(str(n))]
        near.close()
    far.close()


def test_no_file_remains_of_an_end_that_was_closed(folder: Path) -> None:
    near, far = Local(str(folder)), Local(str(folder))
    near.subscribe("/a", Text)
    far.advertise("/a", Text)
    wait_until(lambda: near.connected and far.connected)
    near.close()
    assert far.publish("/a", Text("to nobody")) and not far.connected
    assert os.listdir(folder) == []
    far.close()


def test_the_socket_of_a_process_that_was_killed_is_swept_away(folder: Path) -> None:
    dead = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    dead.bind(str(folder / f"{_prefix('/a')}dead"))
    dead.listen()
    dead.close()
    end = Local(str(folder))
    end.advertise("/a", Text)
    assert not end.connected and os.listdir(folder) == []
    end.close()


@pytest.mark.parametrize("mode", [0o755, 0o770])
def test_a_folder_that_others_can_enter_is_refused(folder: Path, mode: int) -> None:
    (folder / "open").mkdir()
    (folder / "open").chmod(mode)
    with pytest.raises(UserError, match="yours alone"):
        Local(str(folder / "open"))


def test_a_folder_that_cannot_hold_sockets_is_refused(folder: Path) -> None:
    with pytest.raises(UserError, match="at most"):
        Local(str(folder / ("long" * 30)))
    (folder / "file").write_text("")
    with pytest.raises(UserError, match="folder="):
        Local(str(folder / "file" / "below"))
    with pytest.raises(UserError, match="folder="):
        Local(str(folder / "file"))
    (folder / "link").symlink_to(folder)
    with pytest.raises(UserError, match="yours alone"):
        Local(str(folder / "link"))


def test_the_folder_of_its_own_is_this_users(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    end = Local()
    end.subscribe("/a", Text)
    (made,) = folder.iterdir()
    assert made.stat().st_mode & 0o777 == 0o700 and len(list(made.iterdir())) == 1
    end.close()
