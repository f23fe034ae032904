"""Reading bags: in order, as far as they go, and whatever is in them nothing but `UserError`."""

from __future__ import annotations

import os
import random
import sqlite3
import struct
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import pytest
from mcap.writer import CompressionType, Writer

from embodied.deploy.bag import Bag, read_bag
from embodied.deploy.bag_chunk import CHUNK_BYTES
from embodied.deploy.cdr import encode, typestore
from embodied.deploy.messages import Floats, Image, JointState, Message
from embodied.deploy.ros_fields import ros2_name
from embodied.errors import UserError

Row = tuple[str, Message, int]
ROWS: list[Row] = [
    (f"/{name}", JointState(i, ("a", "b"), (0.5 * i, -1.0)), 10 * i + k)
    for i in range(40)
    for k, name in enumerate(("left", "right"))
]
MUTATIONS = 250


def mcap(path: Path, rows: list[Row], **settings: Any) -> Path:
    """A bag as other tools write it."""
    with path.open("wb") as file:
        writer = Writer(file, **settings)
        writer.start("ros2", "a test")
        channels: dict[str, int] = {}
        for i, (topic, message, time_ns) in enumerate(rows):
            if topic not in channels:
                name = ros2_name(type(message))
                words, _ = typestore().generate_msgdef(name, ros_version=2)
                schema = writer.register_schema(name, "ros2msg", words.encode())
                channels[topic] = writer.register_channel(topic, "cdr", schema)
            writer.add_message(channels[topic], time_ns, encode(message), time_ns, i)
        writer.finish()
    return path


def sqlite(folder: Path, rows: list[Row]) -> Path:
    """A bag as rosbags writes it."""
    from rosbags.rosbag2 import StoragePlugin
    from rosbags.rosbag2 import Writer as BagWriter

    with BagWriter(folder, version=9, storage_plugin=StoragePlugin.SQLITE3) as writer:
        known: dict[str, Any] = {}
        for topic, message, time_ns in rows:
            if topic not in known:
                name = ros2_name(type(message))
                known[topic] = writer.add_connection(topic, name, typestore=typestore())
            writer.write(known[topic], time_ns, encode(message))
    return folder / f"{folder.name}.db3"


@pytest.mark.parametrize("compression", list(CompressionType))
@pytest.mark.parametrize("chunk_size", [500, 10**6])
def test_a_bag_of_another_tool(
    tmp_path: Path, compression: CompressionType, chunk_size: int
) -> None:
    path = mcap(tmp_path / "a.mcap", ROWS, compression=compression, chunk_size=chunk_size)
    bag = read_bag(path)
    assert list(bag) == ROWS
    assert list(bag.messages("/left")) == ROWS[::2]
    assert bag.topics == {"/left": JointState, "/right": JointState}
    assert (bag.counts, bag.truncated, bag.rejected) == ({"/left": 40, "/right": 40}, False, 0)


def test_a_bag_without_chunks(tmp_path: Path) -> None:
    assert list(read_bag(mcap(tmp_path / "a.mcap", ROWS, use_chunking=False))) == ROWS


def test_messages_come_by_time_and_those_of_one_time_as_they_lie(tmp_path: Path) -> None:
    rows = [(topic, message, time_ns // 40) for topic, message, time_ns in ROWS]
    shuffled = random.Random(0).sample(rows, len(rows))
    for size in (300, 10**6):
        bag = read_bag(mcap(tmp_path / f"{size}.mcap", shuffled, chunk_size=size))
        assert list(bag) == sorted(shuffled, key=lambda row: row[2])


def test_a_bag_in_several_files(tmp_path: Path) -> None:
    folder = tmp_path / "bag"
    folder.mkdir()
    mcap(folder / "bag_0.mcap", ROWS[:30])
    mcap(folder / "bag_1.mcap", ROWS[30:])
    assert list(read_bag(folder)) == ROWS


def test_types_that_are_not_read_are_named(tmp_path: Path) -> None:
    path = mcap(tmp_path / "a.mcap", ROWS, compression=CompressionType.NONE)
    data = path.read_bytes().replace(b"sensor_msgs/msg/JointState", b"sensor_msgs/msg/JointStatX")
    path.write_bytes(without_checksums(data))
    bag = read_bag(path)
    assert list(bag) == [] and bag.topics == {}
    assert bag.others["/left"] == "sensor_msgs/msg/JointStatX"


def test_what_is_no_message_is_counted(tmp_path: Path) -> None:
    path = sqlite(tmp_path / "bag", ROWS)
    with sqlite3.connect(path) as file:
        file.execute("UPDATE messages SET data = ? WHERE id = 3", [b"no"])
    file.close()
    bag = read_bag(path)
    assert list(bag) == ROWS[:2] + ROWS[3:]
    assert bag.rejected == 1


def without_checksums(data: bytes) -> bytes:
    """An MCAP file that was not compressed, with the checksums of its chunks gone."""
    out, at = bytearray(data), 8
    while at < len(data) - 8:
        kind, length = struct.unpack_from("<BQ", data, at)
        if kind == 6:
            out[at + 9 + 24 : at + 9 + 28] = bytes(4)
        at += 9 + length
    return bytes(out)


@pytest.mark.parametrize("compression", list(CompressionType))
def test_what_is_cut_off_is_read_as_far_as_it_goes(
    tmp_path: Path, compression: CompressionType
) -> None:
    whole = mcap(tmp_path / "a.mcap", ROWS, compression=compression, chunk_size=1500).read_bytes()
    data_end = whole.rindex(b"\x0f\x04" + bytes(7))  # what follows is only an index
    longest = -1
    for size in range(8, data_end + 1, 29):
        path = tmp_path / "b.mcap"
        path.write_bytes(whole[:size])
        bag = read_bag(path)
        found = list(bag)
        assert bag.truncated and found == ROWS[: len(found)]
        assert len(found) >= longest
        longest = len(found)
    assert longest > len(ROWS) - 10


def test_a_chunk_that_is_not_compressed_is_read_to_where_it_is_cut(tmp_path: Path) -> None:
    path = mcap(tmp_path / "a.mcap", ROWS, compression=CompressionType.NONE)
    path.write_bytes(path.read_bytes()[:5000])
    assert 10 < len(list(read_bag(path))) < len(ROWS)


def survives(path: Path) -> None:
    """Read all there is in a file, or be told what is wrong with it, by name."""
    try:
        for _ in read_bag(path):
            pass
    except UserError as error:
        assert str(path) in str(error) and "\n" not in str(error)


def mutated(data: bytes, chance: random.Random) -> bytes:
    """Some bytes are others, some are gone, some are there twice."""
    out = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 5, 20))):
        at, size = chance.randrange(len(out)), chance.choice((1, 2, 4, 8, 100))
        match chance.randrange(5):
            case 0:
                out[at] ^= 1 << chance.randrange(8)
            case 1:
                out[at : at + size] = chance.randbytes(size)
            case 2:
                out[at : at + size] = b"\xff" * size
            case 3:
                del out[at : at + size]
            case 4:
                out[at:at] = out[at : at + size]
        if not out:
            return b""
    return bytes(out)


@pytest.mark.parametrize("compression", list(CompressionType))
def test_hostile_mcap(tmp_path: Path, compression: CompressionType) -> None:
    data = mcap(tmp_path / "a.mcap", ROWS, compression=compression, chunk_size=2000).read_bytes()
    data = data if compression != CompressionType.NONE else without_checksums(data)
    chance, path = random.Random(1), tmp_path / "b.mcap"
    tracemalloc.start()
    try:
        for _ in range(MUTATIONS):
            path.write_bytes(mutated(data, chance))
            survives(path)
        assert tracemalloc.get_traced_memory()[1] < 2 * CHUNK_BYTES
    finally:
        tracemalloc.stop()


def test_hostile_sqlite(tmp_path: Path) -> None:
    data = sqlite(tmp_path / "bag", ROWS).read_bytes()
    chance, path = random.Random(2), tmp_path / "b.db3"
    tracemalloc.start()
    try:
        for _ in range(MUTATIONS):
            path.write_bytes(mutated(data, chance))
            survives(path)
        assert tracemalloc.get_traced_memory()[1] < 2 * CHUNK_BYTES
    finally:
        tracemalloc.stop()


def chunk(size: int, packed: bytes, name: bytes = b"", checksum: int = 0) -> bytes:
    """A file that holds one chunk, which says that it has `size` bytes."""
    body = struct.pack("<QQQII", 0, 0, size, checksum, len(name)) + name
    body += struct.pack("<Q", len(packed)) + packed
    magic = b"\x89MCAP0\r\n"
    return magic + b"\x06" + struct.pack("<Q", len(body)) + body + magic


def packed(name: bytes, data: bytes) -> bytes:
    if name == b"lz4":
        from lz4.frame import compress

        return compress(data)
    import zstandard

    return zstandard.compress(data)


@pytest.mark.parametrize("name", [b"zstd", b"lz4"])
def test_a_chunk_that_unpacks_to_more_than_it_says(tmp_path: Path, name: bytes) -> None:
    path = tmp_path / "bomb.mcap"
    bomb = packed(name, bytes(300_000_000))
    tracemalloc.start()
    try:
        for said in (1000, CHUNK_BYTES):
            path.write_bytes(chunk(said, bomb, name))
            with pytest.raises(UserError, match="longer than it says"):
                read_bag(path)
        assert tracemalloc.get_traced_memory()[1] < 2 * CHUNK_BYTES
        tracemalloc.reset_peak()
        path.write_bytes(chunk(300_000_000, bomb, name))
        with pytest.raises(UserError, match="a record of 300,000,000 bytes, over 64,000,000"):
            read_bag(path)
        path.write_bytes(chunk(2**63, bomb, name))
        with pytest.raises(UserError, match="over 64,000,000"):
            read_bag(path)
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


def test_chunks_that_are_wrong_say_how(tmp_path: Path) -> None:
    wrong = {
        "shorter than it says": chunk(10, b"123"),
        "longer than it says": chunk(2, b"123"),
        "cannot be unpacked": chunk(3, b"123", b"zstd"),
        "neither zstd nor lz4": chunk(3, b"123", b"rar"),
        "its checksum is another": chunk(3, b"123", checksum=zlib.crc32(b"124")),
        "ends inside a record": chunk(3, b"123"),
    }
    for what, data in wrong.items():
        path = tmp_path / "a.mcap"
        path.write_bytes(data)
        with pytest.raises(UserError, match=what):
            read_bag(path)


def test_lengths_are_not_believed(tmp_path: Path) -> None:
    path, magic = tmp_path / "a.mcap", b"\x89MCAP0\r\n"
    for kind in (3, 4, 5, 6):
        path.write_bytes(magic + struct.pack("<BQ", kind, 2**62) + b"x" * 50 + magic)
        with pytest.raises(UserError, match="more than are left"):
            read_bag(path)
    with path.open("wb") as file:  # a file of one record that is really as long, with nothing in it
        file.write(magic + struct.pack("<BQ", 5, 10**9))
        file.truncate(10**9 + 17)
        file.seek(10**9 + 17)
        file.write(magic)
    with pytest.raises(UserError, match="a record of 1,000,000,000 bytes"):
        read_bag(path)


@pytest.mark.parametrize("what", [
    "CREATE VIEW messages AS WITH RECURSIVE r(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM r) "
    "SELECT id, 1 AS topic_id, 1 AS timestamp, x'00' AS data FROM r",
    "CREATE VIRTUAL TABLE messages USING fts5(id, topic_id, timestamp, data)",
    "CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id, timestamp)",
])  # fmt: skip
def test_a_table_that_is_none(tmp_path: Path, what: str) -> None:
    path = sqlite(tmp_path / "bag", ROWS)
    with sqlite3.connect(path) as file:
        file.execute("DROP TABLE messages")
        file.execute(what)
    file.close()
    with pytest.raises(UserError, match="is no bag"):
        read_bag(path)


def test_nothing_in_a_table_is_run(tmp_path: Path) -> None:
    path = sqlite(tmp_path / "bag", ROWS)
    with sqlite3.connect(path) as file:
        file.execute("DROP TABLE messages")
        file.execute(
            "CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id, timestamp, "
            "data AS (zeroblob(1000000000)))"
        )
        file.execute("INSERT INTO messages VALUES(1, 1, 1)")
    file.close()
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match=f"{path}|{tmp_path}"):
            list(read_bag(path))
    finally:
        tracemalloc.stop()


def test_numbers_of_a_table_are_numbers(tmp_path: Path) -> None:
    for column, value in (("timestamp", "soon"), ("topic_id", 99), ("timestamp", -1)):
        path = sqlite(tmp_path / f"{column}{value}", ROWS)
        with sqlite3.connect(path) as file:
            file.execute(f"UPDATE messages SET {column} = ? WHERE id = 3", [value])  # noqa: S608
        file.close()
        with pytest.raises(UserError, match=str(path)):
            read_bag(path)


def test_the_largest_image_is_read(tmp_path: Path) -> None:
    image = Image(1, 4000, 8000, "mono8", bytes(32_000_000))
    path = mcap(tmp_path / "a.mcap", [("/a", image, 1), ("/b", Floats((1.0,)), 2)])
    assert list(read_bag(path)) == [("/a", image, 1), ("/b", Floats((1.0,)), 2)]


@pytest.mark.parametrize("name", ["none", "a.txt", "a.bag", "empty"])
def test_no_bag(tmp_path: Path, name: str) -> None:
    if name == "empty":
        (tmp_path / name).mkdir()
    elif name != "none":
        (tmp_path / name).write_text("nothing")
    with pytest.raises(UserError, match=f"no bag.*{name}|{name} is no bag"):
        read_bag(tmp_path / name)


def test_a_file_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.mcap").mkdir()
    with pytest.raises(UserError, match="a.mcap"):
        read_bag(tmp_path)


def test_an_empty_bag(tmp_path: Path) -> None:
    bag = read_bag(mcap(tmp_path / "a.mcap", []))
    assert isinstance(bag, Bag)
    assert (list(bag), bag.counts, list(bag.messages("/a"))) == ([], {}, [])
    assert os.path.getsize(bag.path) > 16
