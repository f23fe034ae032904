"""The recorder: all that was sent is in the bag or counted, whoever dies and whatever is full."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embodied.deploy.bag import read_bag
from embodied.deploy.cdr import encode
from embodied.deploy.messages import (
    CompressedImage,
    Flag,
    Floats,
    Image,
    JointState,
    JointTrajectory,
    Message,
    Text,
    TrajectoryPoint,
    Twist,
)
from embodied.deploy.recorder import END, EVENT, Recorder
from embodied.deploy.recorder_sender import UNDER_WAY, Sender, pack, unpack
from embodied.errors import UserError

NAMES = ("shoulder", "elbow")
ALL: dict[str, Message] = {
    "/joint_states": JointState(5, NAMES, (0.1, math.pi), (1e-300, -0.0), ()),
    "/camera": Image(6, 300, 400, "rgb8", bytes(range(256)) * 1406 + bytes(64)),
    "/jpeg": CompressedImage(7, "jpeg", b"\xff\xd8\xff"),
    "/commands": Floats((1.0, math.inf, -2.5)),
    "/trajectory": JointTrajectory(
        8, NAMES, (TrajectoryPoint((0.0, 1.0), (), 0), TrajectoryPoint((2.0, 3.0), (4.0, 5.0), 9))
    ),
    "/velocity": Twist((1.0, 2.0, 3.0), (4.0, 5.0, 6.0)),
    "/stop": Flag(True),
    "/said": Text("grüß dich, \N{ROBOT FACE}"),
}
STATE = JointState(1, NAMES, (0.5, 0.25))


def in_a_bag(folder: Path) -> list[tuple[str, Message, int]]:
    """What is in a bag, without the event that ends it."""
    return [row for row in read_bag(folder) if not _ends(row[0], row[1])]


def last_event(folder: Path) -> dict[str, Any]:
    *_, (_, message, _) = read_bag(folder).messages(EVENT)
    assert isinstance(message, Text)
    event = json.loads(message.data)
    assert event["kind"] == END
    return event


def _ends(topic: str, message: Message) -> bool:
    return topic == EVENT and isinstance(message, Text) and json.loads(message.data)["kind"] == END


def until(condition: Callable[[], bool]) -> None:
    """Wait for what must come; a test that waits in vain fails."""
    for _ in range(3000):
        if condition():
            return
        time.sleep(0.01)
    pytest.fail("it did not come")


@pytest.fixture(scope="module", params=["mcap", "sqlite3"])
def flown(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A record of every kind of message."""
    folder = tmp_path_factory.mktemp("records") / "bag"
    with Recorder(folder, request.param) as recorder:
        for time_ns, (topic, message) in enumerate(ALL.items(), 100):
            assert recorder.record(topic, message, time_ns)
    assert recorder.lost == 0
    return folder


def test_every_kind_comes_back_as_it_was(flown: Path) -> None:
    expected = [(topic, message, 100 + i) for i, (topic, message) in enumerate(ALL.items())]
    assert in_a_bag(flown) == expected
    assert last_event(flown)["lost"] == 0


def test_rosbags_reads_it(flown: Path) -> None:
    from rosbags.highlevel import AnyReader

    with AnyReader([flown]) as reader:  # with the definitions that are in the bag
        found = {
            connection.topic: (time_ns, bytes(data), reader.deserialize(data, connection.msgtype))
            for connection, time_ns, data in reader.messages()
        }
    for time_ns, (topic, message) in enumerate(ALL.items(), 100):
        assert found[topic][:2] == (time_ns, encode(message))
    state = found["/joint_states"][2]
    assert (state.name, state.position.tolist()) == (list(NAMES), [0.1, math.pi])


def test_the_mcap_package_reads_it(flown: Path) -> None:
    from mcap.reader import make_reader

    if not (flown / "bag.mcap").exists():
        assert (flown / "bag.db3").exists()
        return
    with (flown / "bag.mcap").open("rb") as file:
        rows = list(make_reader(file, validate_crcs=True).iter_messages())
    found = {channel.topic: (schema, message) for schema, channel, message in rows}
    for topic, message in ALL.items():
        schema, record = found[topic]
        assert (schema.encoding, record.data) == ("ros2msg", encode(message))
        assert schema.name == message.ros.replace("/", "/msg/")
    assert b"string[] name" in found["/joint_states"][0].data


@given(
    st.lists(st.floats(allow_nan=False), max_size=9), st.integers(0, 2**62), st.integers(0, 10**6)
)
def test_a_packet_is_its_message(numbers: list[float], stamp_ns: int, lost: int) -> None:
    names = tuple(f"joint {i}" for i in range(len(numbers)))
    for message in (JointState(stamp_ns, names, tuple(numbers)), Floats(tuple(numbers))):
        assert unpack(pack(lost, "/a", message, stamp_ns)) == (lost, "/a", message, stamp_ns)


def test_numpy_numbers_are_numbers(tmp_path: Path) -> None:
    row: Any = np.float32([0.5, 0.25])
    with Recorder(tmp_path / "bag") as recorder:
        assert recorder.record("/a", JointState(1, NAMES, row, tuple(row)), 1)
    assert in_a_bag(tmp_path / "bag") == [("/a", JointState(1, NAMES, (0.5, 0.25), (0.5, 0.25)), 1)]


def test_what_is_no_message_is_counted_and_never_raised(tmp_path: Path) -> None:
    odd: Any = [object(), JointState(1, NAMES, (object(), 1.0)), Text("\ud800")]  # type: ignore[arg-type]
    with Recorder(tmp_path / "bag") as recorder:
        assert not any(recorder.record("/odd", message) for message in odd)
        assert recorder.lost == 3
        recorder.record("/late", STATE, -1)  # these the writer refuses
        recorder.record("/late", JointState(-1, NAMES, (0.5, 0.25)), 1)
        recorder.record("/good", STATE, 1)
    assert in_a_bag(tmp_path / "bag") == [("/good", STATE, 1)]
    assert recorder.lost == last_event(tmp_path / "bag")["lost"] == 5


CALLER = """
import sys, time
from embodied.deploy.messages import Floats
from embodied.deploy.recorder import Recorder
if __name__ == "__main__":
    recorder = Recorder(sys.argv[1], sys.argv[2])
    for i in range(1000):
        assert recorder.record("/a", Floats((float(i),)), i)
    print("recorded", flush=True)
    time.sleep(60)
"""


def kill_the_caller(code: str, folder: Path, storage: str = "mcap") -> None:
    """Run a caller until it has recorded, kill it, and wait for the bag."""
    command = [sys.executable, "-c", code, str(folder), storage]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as caller:
        assert caller.stdout is not None and caller.stdout.readline() == "recorded\n"
        caller.kill()
    until(lambda: (folder / "metadata.yaml").exists())


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_the_bag_is_finished_when_the_caller_is_killed(tmp_path: Path, storage: str) -> None:
    kill_the_caller(CALLER, tmp_path / "bag", storage)
    found = in_a_bag(tmp_path / "bag")
    assert [row[1] for row in found] == [Floats((float(i),)) for i in range(1000)]
    assert last_event(tmp_path / "bag")["what"] == (
        "1000 messages, 0 lost; whoever recorded is gone"
    )


GUARD = """
import sys
from embodied.deploy.messages import Flag
from embodied.deploy.recorder_sender import Sender
sender = Sender(int(sys.argv[1]))
sys.stdin.read()  # to its end: whoever started this is gone
for i in range(1000, 1100):
    assert sender.record("/guard", Flag(True), i)
"""
STARTS_A_GUARD = f"""
    import subprocess
    sender = recorder.sender()
    command = [sys.executable, "-c", {GUARD!r}, str(sender.fileno())]
    subprocess.Popen(command, pass_fds=[sender.fileno()], stdin=subprocess.PIPE)
"""


def test_a_guard_is_recorded_until_it_ends_too(tmp_path: Path) -> None:
    """The process that made the recorder dies; another still has something to say."""
    kill_the_caller(CALLER.replace("    for i", f"{STARTS_A_GUARD}    for i"), tmp_path / "bag")
    found = in_a_bag(tmp_path / "bag")
    assert found[1000:] == [("/guard", Flag(True), i) for i in range(1000, 1100)]


def flushed(folder: Path) -> int:
    """Messages of a bag that is still being written."""
    try:
        return len(list(read_bag(folder)))
    except UserError:
        return 0


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_a_writer_that_is_killed_leaves_what_it_wrote(
    tmp_path: Path, storage: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with Recorder(tmp_path / "bag", storage) as recorder:
        for i in range(10):
            recorder.record("/a", STATE, i)
        until(lambda: flushed(tmp_path / "bag") == 10)
        recorder._process.kill()
        recorder._process.wait()
        assert not any(recorder.record("/a", STATE, i) for i in range(5))
        assert not recorder.record("/camera", ALL["/camera"])
        other = recorder.sender()
        assert not other.record("/a", STATE)
        other.close()
    assert recorder.lost == 6
    assert "the recorder died, 6 messages are lost since" in capfd.readouterr().err
    bag = read_bag(tmp_path / "bag")
    assert list(bag) == [("/a", STATE, i) for i in range(10)]
    assert bag.truncated == (storage == "mcap")


def test_a_writer_that_is_stopped_makes_nobody_wait(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    image = Image(1, 1000, 2000, "mono8", bytes(2_000_000))
    with Recorder(tmp_path / "bag") as recorder:
        camera = recorder.sender()
        recorder.record("/first", STATE, 0)
        os.kill(recorder._process.pid, signal.SIGSTOP)
        sent = sum(recorder.record("/a", STATE, i) for i in range(30_000))
        seen = sum(camera.record("/camera", image, i) for i in range(60))
        assert 100 < sent < 30_000  # as much as fits, then nothing
        assert recorder.lost == 30_000 - sent
        assert seen == UNDER_WAY // len(pack(0, "/camera", image, 1)) < 60
        os.kill(recorder._process.pid, signal.SIGCONT)
        until(lambda: recorder.record("/last", STATE, 30_000))
        until(lambda: camera.record("/camera", image, 30_001))
        lost = recorder.lost + camera.lost
    camera.close()
    counts = read_bag(tmp_path / "bag").counts
    assert counts == {"/first": 1, "/a": sent, "/camera": seen + 1, "/last": 1, EVENT: 1}
    assert recorder.lost == last_event(tmp_path / "bag")["lost"] == lost
    assert f"{lost} lost" in capfd.readouterr().err


def test_a_full_disk_is_said_once_and_what_fits_stays(tmp_path: Path) -> None:
    code = """
        import resource, sys, time
        from embodied.deploy.messages import Image
        from embodied.deploy.recorder import Recorder
        resource.setrlimit(resource.RLIMIT_FSIZE, (5_000_000, 5_000_000))
        if __name__ == "__main__":
            with Recorder(sys.argv[1]) as recorder:
                for i in range(10):
                    assert recorder.record("/camera", Image(1, 1000, 1000, "mono8", bytes(10**6)))
                    time.sleep(0.05)
            print(recorder.lost)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "bag")], capture_output=True,
        text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("File too large: nothing more is recorded") == 1
    bag = read_bag(tmp_path / "bag")
    assert bag.truncated
    kept = len(list(bag.messages("/camera")))
    assert 0 < kept < 5
    assert int(done.stdout) >= 10 - kept  # the message that would end it is lost too


def record_some(sender: Sender, count: int) -> None:
    for i in range(count):
        sender.record("/camera", ALL["/camera"], i)


def test_other_processes_record_too(tmp_path: Path) -> None:
    with Recorder(tmp_path / "bag") as recorder:
        process = multiprocessing.get_context("spawn").Process(
            target=record_some, args=(recorder.sender(), 3)
        )
        process.start()
        process.join()
        sender = recorder.sender()
        code = (
            "import sys\nfrom embodied.deploy.messages import Flag\n"
            "from embodied.deploy.recorder_sender import Sender\n"
            "assert Sender(int(sys.argv[1])).record('/stop', Flag(False), 7)"
        )
        fd = sender.fileno()
        subprocess.run([sys.executable, "-c", code, str(fd)], pass_fds=[fd], check=True)
        sender.close()
        recorder.record("/a", STATE, 8)
    expected = [("/camera", ALL["/camera"], i) for i in range(3)]
    assert in_a_bag(tmp_path / "bag") == [*expected, ("/stop", Flag(False), 7), ("/a", STATE, 8)]


def test_signals_that_end_a_session_do_not_end_the_record(tmp_path: Path) -> None:
    with Recorder(tmp_path / "bag") as recorder:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(recorder._process.pid, number)
        assert recorder.record("/a", STATE, 1)
    assert in_a_bag(tmp_path / "bag") == [("/a", STATE, 1)]


def test_nothing_is_written_over(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot record into .*exists already"):
        Recorder(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot record into .*file"):
        Recorder(tmp_path / "file" / "bag")
    with pytest.raises(UserError, match="unknown storage of a record 'mcp': did you mean mcap"):
        Recorder(tmp_path / "bag", "mcp")


def test_closing_twice_is_closing(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "bag")
    recorder.close()
    recorder.close()
    assert not recorder.record("/a", STATE)
    assert in_a_bag(tmp_path / "bag") == []


def test_a_library_that_is_missing_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("embodied.deploy.recorder.find_spec", lambda name: None)
    with pytest.raises(UserError, match="needs rosbags: pip install 'embodied-rl\\[ros\\]'"):
        Recorder(tmp_path / "bag")
    assert not (tmp_path / "bag").exists()
