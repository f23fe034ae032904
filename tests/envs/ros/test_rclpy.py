"""The way through `rclpy`, against a stand-in for it: there is no ROS 2 where this is tested."""

from __future__ import annotations

import sys
import threading
from array import array
from collections import deque
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from embodied.deploy.messages import Image, JointState, Message, Text
from embodied.errors import UserError
from tests.envs.ros.kinds import ALL, numbered, told
from tests.envs.ros.links import wait_until

from embodied.envs.ros.rclpy import Rclpy  # isort: skip

FIELDS = {
    "builtin_interfaces": {"Time": "sec nanosec", "Duration": "sec nanosec"},
    "std_msgs": {
        "Header": "stamp frame_id", "MultiArrayLayout": "dim data_offset",
        "Float64MultiArray": "layout data", "Bool": "data", "String": "data",
    },
    "sensor_msgs": {
        "JointState": "header name position velocity effort",
        "Image": "header height width encoding is_bigendian step data",
        "CompressedImage": "header format data",
    },
    "trajectory_msgs": {
        "JointTrajectory": "header joint_names points",
        "JointTrajectoryPoint": "positions velocities accelerations effort time_from_start",
    },
    "geometry_msgs": {"Twist": "linear angular", "Vector3": "x y z"},
}  # fmt: skip


def message_class(name: str, fields: str) -> type:
    """Like those that ROS 2 generates: by keyword, and strict about rows and bytes."""

    def start(self: Any, **given: Any) -> None:
        assert set(given) <= set(fields.split()), f"{name} has no such fields: {given.keys()}"
        for key, value in given.items():
            assert not isinstance(value, bytes | tuple)
            if isinstance(value, array):
                assert value.typecode == ("B" if name.endswith("Image") else "d")
            setattr(self, key, value)

    return type(name, (), {"__init__": start, "__slots__": fields.split()})


class World:
    """A ROS of one process: nodes by context, messages to every subscription of a topic."""

    def __init__(self) -> None:
        self.readers: dict[str, list[Any]] = {}
        self.writers: dict[str, list[Any]] = {}
        self.calls: list[str] = []
        self.stopped = False


class Stopped(Exception):
    pass


class Node:
    def __init__(self, world: World, name: str) -> None:
        self.world, self.name, self.came = world, name, deque[Any]()

    def create_publisher(self, kind: type, topic: str, qos: Any) -> Any:
        self.world.writers.setdefault(topic, []).append(self)
        readers = self.world.readers.setdefault(topic, [])

        def publish(ros: Any) -> None:
            assert isinstance(ros, kind)
            for node, of, callback in readers:
                if of is kind:
                    node.came.append((callback, ros))

        return SimpleNamespace(
            publish=publish, get_subscription_count=lambda: len(readers), qos=qos
        )

    def create_subscription(self, kind: type, topic: str, callback: Any, qos: Any) -> None:
        self.world.calls.append(f"{topic} {qos}")
        self.world.readers.setdefault(topic, []).append((self, kind, callback))

    def count_publishers(self, topic: str) -> int:
        return len(self.world.writers.get(topic, []))

    def destroy_node(self) -> None:
        self.world.calls.append("destroy_node")


class Executor:
    def __init__(self, context: Any) -> None:
        self.nodes: list[Node] = []

    def add_node(self, node: Node) -> None:
        self.nodes.append(node)

    def spin_once(self, timeout_sec: float) -> None:
        threading.Event().wait(min(timeout_sec, 0.002))
        for node in self.nodes:
            if node.world.stopped:
                raise Stopped
            if node.came:
                callback, ros = node.came.popleft()
                callback(ros)

    def shutdown(self) -> None:
        pass


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """What `import rclpy` finds, and the packages of messages."""
    made = World()

    def module(name: str, **contents: Any) -> None:
        stand_in = ModuleType(name)
        vars(stand_in).update(contents)
        monkeypatch.setitem(sys.modules, name, stand_in)

    def init(*, args: Any, context: Any, domain_id: Any, signal_handler_options: Any) -> None:
        assert signal_handler_options == "no signals"
        if domain_id == 999:
            raise RuntimeError("no such domain")
        made.calls.append(f"init {domain_id}")

    module(
        "rclpy",
        init=init,
        create_node=lambda name, context: Node(made, name),
        try_shutdown=lambda context: made.calls.append("shutdown"),
    )
    policies = {"HistoryPolicy": "KEEP_LAST", "ReliabilityPolicy": "RELIABLE"}
    policies["DurabilityPolicy"] = "VOLATILE"
    module(
        "rclpy.qos",
        QoSProfile=lambda **settings: " ".join(map(str, settings.values())),
        qos_profile_sensor_data="sensor",
        **{name: SimpleNamespace(**{value: value}) for name, value in policies.items()},
    )
    module("rclpy.context", Context=object)
    module("rclpy.executors", SingleThreadedExecutor=Executor, ExternalShutdownException=Stopped)
    module("rclpy.signals", SignalHandlerOptions=SimpleNamespace(NO="no signals"))
    for package, classes in FIELDS.items():
        of_package = {name: message_class(name, fields) for name, fields in classes.items()}
        module(package)
        module(f"{package}.msg", **of_package)
    yield made


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.ros)
def test_every_kind_arrives_whole(world: World, kind: type[Message]) -> None:
    near, far = Rclpy(), Rclpy(domain=5)
    near.subscribe("/a", kind)
    far.advertise("/a", kind)
    assert near.connected and far.connected
    assert all(far.publish("/a", numbered(kind, n)) for n in range(5))
    taken: list[str] = []

    def all_came() -> bool:
        taken.extend(told(came.message) for came in near.take())
        return len(taken) == 5

    wait_until(all_came)
    assert taken == [told(numbered(kind, n)) for n in range(5)]
    near.close()
    far.close()
    far.close()  # of no effect
    assert world.calls[:2] == ["init None", "init 5"]
    assert world.calls.count("destroy_node") == world.calls.count("shutdown") == 2
    assert not any(thread.name == "rclpy" for thread in threading.enumerate())


def test_states_are_read_reliably_and_images_as_sensors_send(world: World) -> None:
    end = Rclpy()
    end.subscribe("/states", JointState)
    end.subscribe("/camera", Image)
    assert world.calls[1:] == ["/states 10 KEEP_LAST RELIABLE VOLATILE", "/camera sensor"]
    assert not end.connected  # nobody else is there
    end.close()


def test_a_message_that_says_something_impossible_is_counted(world: World) -> None:
    end = Rclpy()
    end.subscribe("/a", JointState)
    ((node, kind, callback),) = world.readers["/a"]
    stamp = SimpleNamespace(sec=-1, nanosec=0)
    state = kind(
        header=SimpleNamespace(stamp=stamp), name=["a"], position=[], velocity=[], effort=[]
    )
    node.came.append((callback, state))
    wait_until(lambda: end.take() or end.rejected)
    assert end.rejected == 1
    end.close()


def test_what_cannot_be_sent_is_not(world: World) -> None:
    end = Rclpy()
    end.advertise("/a", JointState)
    assert not end.publish("/b", Text("not advertised"))
    assert not end.publish("/a", Text("of another kind"))
    assert not end.publish("/a", JointState(-1, (), ()))
    end.close()
    assert not end.publish("/a", JointState(0, (), ()))


def test_a_ros_that_is_shut_down_by_others_ends_it_quietly(world: World) -> None:
    end = Rclpy()
    end.advertise("/a", Text)
    end.subscribe("/a", Text)
    assert end.connected
    world.stopped = True
    wait_until(lambda: not end.connected)
    end.close()


def test_a_bad_domain_is_refused(world: World) -> None:
    with pytest.raises(UserError, match="domain=999: no such domain"):
        Rclpy(domain=999)


def test_without_ros_2_there_is_one_line_that_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "rclpy", None)
    with pytest.raises(UserError, match=r"setup.bash.*transport=dds"):
        Rclpy()


def test_it_says_that_it_is_untested() -> None:
    assert "untested against a real ROS 2" in " ".join((Rclpy.__doc__ or "").split())
