"""The client of rosbridge: a hostile server, a server of ROS 1, another client of the same one."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import threading
import tracemalloc
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from embodied.envs.ros import rosbridge as module

from embodied.deploy.messages import Image, JointState, Malformed, Message, Text, Twist
from embodied.errors import UserError
from tests.envs.ros.kinds import ALL, numbered, told
from tests.envs.ros.links import ROOT, rosbridge, wait_until
from tests.envs.ros.noise import mangled

pytest.importorskip("websockets")
from websockets.sync.server import ServerConnection, serve  # noqa: E402

Rosbridge = module.Rosbridge


@contextmanager
def server(talk: Callable[[ServerConnection], None]) -> Iterator[str]:
    """The address of a server that does `talk` with whoever connects."""
    with serve(talk, "127.0.0.1", 0, max_size=None, close_timeout=1) as serving:
        thread = threading.Thread(target=serving.serve_forever)
        thread.start()
        try:
            yield f"ws://127.0.0.1:{serving.socket.getsockname()[1]}"
        finally:
            serving.shutdown()
            thread.join()


def sent_by(kind: type[Message], n: int, version: int = 2) -> list[Any]:
    """What a server hears of a client that publishes one message."""
    heard: list[Any] = []

    def talk(client: ServerConnection) -> None:
        heard.extend(json.loads(text) for text in client)

    with server(talk) as url:
        end = Rosbridge(url, version)
        end.advertise("/a", kind)
        assert end.publish("/a", numbered(kind, n))
        wait_until(lambda: len(heard) == 2)
        end.close()
    return heard


def test_what_goes_out_is_what_the_protocol_says() -> None:
    advertise, publish = sent_by(JointState, 1)
    assert advertise == {"op": "advertise", "topic": "/a", "type": "sensor_msgs/msg/JointState"}
    message = numbered(JointState, 1)
    assert isinstance(message, JointState)
    assert publish["op"] == "publish" and publish["topic"] == "/a"
    assert publish["msg"] == {
        "header": {"stamp": {"sec": 1700000001, "nanosec": 7}, "frame_id": ""},
        "name": list(message.names),
        "position": [1.1, None, -1.1],  # JSON has no NaN
        "velocity": list(message.velocity),
        "effort": list(message.effort),
    }


def test_ros_1_has_other_names_of_types_and_times() -> None:
    advertise, publish = sent_by(JointState, 1, version=1)
    assert advertise["type"] == "sensor_msgs/JointState"
    assert publish["msg"]["header"]["stamp"] == {"secs": 1700000001, "nsecs": 7}
    assert told(module._decode(JointState, json.dumps(publish).encode())) == told(
        numbered(JointState, 1)
    )


def test_bytes_are_base64_or_numbers() -> None:
    _, publish = sent_by(Image, 1)
    assert isinstance(publish["msg"]["data"], str)
    text = json.dumps(publish).encode()
    assert module._decode(Image, text) == numbered(Image, 1)
    publish["msg"]["data"] = list(numbered(Image, 1).data)  # type: ignore[union-attr, arg-type]
    assert module._decode(Image, json.dumps(publish).encode()) == numbered(Image, 1)


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.ros)
def test_noise_is_read_or_malformed_and_nothing_else(kind: type[Message]) -> None:
    text, refused = json.dumps(sent_by(kind, 3)[1]).encode(), 0
    for noise in mangled(text, 600):
        try:
            assert isinstance(module._decode(kind, noise), kind)
        except Malformed:
            refused += 1
    assert refused > 200


@pytest.mark.parametrize(
    "fields",
    [
        '{"data": 5}',
        '{"data": null}',
        '{"data": ["a"]}',
        '{"data": {"a": 1}}',
        "[]",
        "5",
        "null",
        '{"data": "a", "data": 1}',
    ],
)
def test_fields_of_another_shape_are_malformed(fields: str) -> None:
    with pytest.raises(Malformed):
        module._decode(Text, f'{{"op": "publish", "msg": {fields}}}'.encode())


def test_an_image_of_a_thousand_million_bytes_that_are_not_there_is_malformed() -> None:
    head = '{"op": "publish", "msg": {"header": {"stamp": {"sec": 0, "nanosec": 0}}, "width": 1, '
    for data in ("1000000000", "[1000000000]", '"@@@"', "null"):
        text = f'{head}"height": 1, "step": 1, "encoding": "mono8", "data": {data}}}}}'
        with pytest.raises(Malformed):
            module._decode(Image, text.encode())


def test_a_server_of_ill_will_is_survived_and_counted() -> None:
    good = '{"op": "publish", "topic": "/a", "msg": {"data": "good"}}'

    def talk(client: ServerConnection) -> None:
        assert json.loads(client.recv())["op"] == "subscribe"
        for noise in mangled(good.encode(), 600):
            client.send(noise)  # as a frame of bytes
        client.send("[" * 100_000)
        client.send('{"op": "publish", "topic": "/never/subscribed", "msg": {"data": "?"}}')
        client.send('{"op": "call_service", "service": "/rosapi/nodes", "args": {}}')
        client.send('{"op": "status", "level": "error", "msg": "no"}')
        client.send('{"op": "publish", "topic": "ready", "msg": {}}')
        client.send(good.replace("good", "the last"))
        for _ in client:
            pass

    texts: list[Message] = []
    with server(talk) as url:
        end = Rosbridge(url)
        end.subscribe("/a", Text)

        def arrived() -> bool:
            texts.extend(came.message for came in end.take())
            return Text("the last") in texts

        wait_until(arrived)
        assert end.rejected > 300
        end.close()


def test_a_message_that_is_too_long_ends_the_connection_and_not_us() -> None:
    letters = "a" * (module.MOST_TEXT + 100)
    visits = []

    def talk(client: ServerConnection) -> None:
        visits.append(client.recv())
        if len(visits) == 1:
            client.send(f'{{"op": "publish", "topic": "/a", "msg": {{"data": "{letters}"}}}}')
        else:
            client.send('{"op": "publish", "topic": "/a", "msg": {"data": "short"}}')
        for _ in client:
            pass

    with server(talk) as url:
        end = Rosbridge(url)
        end.subscribe("/a", Text)
        texts: list[Message] = []
        wait_until(lambda: texts.extend(came.message for came in end.take()) or texts)
        assert texts == [Text("short")]
        end.close()


def test_what_is_received_takes_bounded_memory() -> None:
    pixels = bytes(2000 * 1990 * 3)
    image = json.dumps(sent_by(Image, 3)[1])
    fields = json.loads(image)
    fields["msg"].update(height=2000, width=1990, step=1990 * 3)
    fields["msg"]["data"] = b64encode(pixels).decode()
    text = json.dumps(fields).encode()
    assert 0.9 * module.MOST_TEXT < len(text) + 100 < 2 * module.MOST_TEXT
    tracemalloc.start()
    try:
        assert module._decode(Image, text)
        assert tracemalloc.get_traced_memory()[1] < 64_000_000
    finally:
        tracemalloc.stop()


def test_a_server_that_does_not_read_is_not_waited_for() -> None:
    done = threading.Event()

    with server(lambda client: done.wait(60) and None) as url:
        end = Rosbridge(url)
        end.advertise("/a", Text)
        went = [end.publish("/a", Text("a" * 500_000)) for _ in range(500)]
        assert went[0] and not went[-1]
        done.set()
        end.close()


def test_a_client_that_was_closed_says_nothing_and_can_be_closed_again() -> None:
    with server(lambda client: [None for _ in client] and None) as url:
        end = Rosbridge(url)
        end.subscribe("/a", Text)
        end.close()
        end.close()
        assert not end.connected and not end.publish("/a", Text(""))


@pytest.mark.parametrize("url", ["http://127.0.0.1:9090", "127.0.0.1:9090", ""])
def test_an_address_of_another_kind_is_refused(url: str) -> None:
    with pytest.raises(UserError, match="ws://"):
        Rosbridge(url)
    with pytest.raises(UserError, match="version"):
        Rosbridge("ws://127.0.0.1:1", version=3)


OTHER_CLIENT = """
import sys, roslibpy
ros = roslibpy.Ros(host="127.0.0.1", port=int(sys.argv[1]))
ros.run(timeout=20)
back = roslibpy.Topic(ros, "/back", "sensor_msgs/JointState")
twist = roslibpy.Topic(ros, "/twist", "geometry_msgs/Twist")
back.advertise()
twist.advertise()
roslibpy.Topic(ros, "/there", "sensor_msgs/JointState").subscribe(
    lambda message: back.publish(roslibpy.Message(message)))
twist.publish(roslibpy.Message({"linear": {"x": 1, "y": 2, "z": 3},
                                "angular": {"x": 0.5, "y": 0, "z": 0}}))
print("ready", flush=True)
sys.stdin.read()
ros.terminate()
"""


def test_the_client_library_that_others_use_understands_us() -> None:
    pytest.importorskip("roslibpy")
    with rosbridge() as link:
        assert link.middle is not None
        end = Rosbridge(link.near["url"])
        end.subscribe("/back", JointState)
        end.subscribe("/twist", Twist)
        end.advertise("/there", JointState)
        peer = subprocess.Popen(
            [sys.executable, "-c", OTHER_CLIENT, str(link.middle.port)],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert peer.stdin is not None and peer.stdout is not None
        assert peer.stdout.readline() == "ready\n"
        taken: list[Message] = []

        def arrived() -> bool:
            end.publish("/there", numbered(JointState, 5))
            taken.extend(came.message for came in end.take())
            return any(isinstance(message, JointState) for message in taken)

        wait_until(arrived)
        assert told(taken[-1]) == told(numbered(JointState, 5))
        assert Twist((1.0, 2.0, 3.0), (0.5, 0.0, 0.0)) in taken
        end.close()
        peer.stdin.close()
        assert peer.wait(30) == 0
        peer.stdout.close()


def test_null_is_nan() -> None:
    message = module._decode(
        Twist,
        b'{"op": "publish", "msg": {"linear": {"x": null, "y": 0, "z": 1}, '
        b'"angular": {"x": 0, "y": 0, "z": 0}}}',
    )
    assert isinstance(message, Twist) and math.isnan(message.linear[0])
