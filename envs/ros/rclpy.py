"""ROS 2 through its own Python library, `rclpy`: untested against a real ROS 2 installation."""

from __future__ import annotations

import os
import threading
from array import array
from importlib import import_module
from typing import Any

from embodied.deploy.messages import CompressedImage, Image, Malformed, Message
from embodied.deploy.ros_fields import build, read, ros2_name
from embodied.errors import UserError

from .inbox import Inbox, check_topic

KEPT = 10
LOOK_S = 0.2
SMALL = 1000
"""Bytes that a message which is no image is taken for."""


class Rclpy(Inbox):
    """A node of its own in the ROS domain of the number `domain`, or of ROS_DOMAIN_ID.

    `rclpy` comes with ROS 2 and for one version of Python: source its `setup.bash`, then run this
    with that Python. Who can reach the node is as ROS 2 is set up to. States and commands are sent
    reliably, images are read as sensors send them. This was written by the documentation of
    `rclpy` and is untested against a real ROS 2 installation.
    """

    name = "rclpy"

    def __init__(self, domain: int | None = None) -> None:
        super().__init__(read)
        try:
            self._rclpy = import_module("rclpy")
            executors = import_module("rclpy.executors")
            signals = import_module("rclpy.signals")
            self._context = import_module("rclpy.context").Context()
        except ImportError as error:
            raise UserError(
                f"rclpy comes with ROS 2 ({error}): source its setup.bash and use its Python, "
                "or choose transport=dds, which needs no ROS"
            ) from None
        try:
            self._rclpy.init(
                args=[],
                context=self._context,
                domain_id=domain,
                signal_handler_options=signals.SignalHandlerOptions.NO,
            )
            self._node = self._rclpy.create_node(f"embodied_{os.getpid()}", context=self._context)
        except (RuntimeError, ValueError) as error:
            raise UserError(f"transport.domain={domain}: {error}") from None
        self._stopped = executors.ExternalShutdownException
        self._executor = executors.SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        self._publishers: dict[str, tuple[type[Message], Any]] = {}
        self._topics: list[str] = []
        self._closed = False
        self._thread = threading.Thread(target=self._spin, name="rclpy", daemon=True)
        self._thread.start()

    @property
    def connected(self) -> bool:
        """Whether another node reads what is published here, or publishes what is read here."""
        if self._closed:
            return False
        publishers = [publisher for _, publisher in self._publishers.values()]
        return any(each.get_subscription_count() > 0 for each in publishers) or any(
            self._node.count_publishers(topic) > 0 for topic in self._topics
        )

    def advertise(self, topic: str, kind: type[Message]) -> None:
        check_topic(topic)
        publisher = self._node.create_publisher(_class(ros2_name(kind)), topic, _quality(False))
        self._publishers[topic] = kind, publisher

    def subscribe(self, topic: str, kind: type[Message]) -> None:
        self.open(topic, kind)
        image = kind in (Image, CompressedImage)

        def put(ros: Any) -> None:
            self.put(topic, ros, len(ros.data) if image else SMALL)

        self._node.create_subscription(_class(ros2_name(kind)), topic, put, _quality(image))
        self._topics.append(topic)

    def publish(self, topic: str, message: Message) -> bool:
        kind, publisher = self._publishers.get(topic, (None, None))
        if publisher is None or kind is not type(message) or self._closed:
            return False
        try:
            publisher.publish(build(message, _make))
        except (Malformed, RuntimeError, UnicodeError):
            return False
        return True

    def close(self) -> None:
        self._closed = True
        if self._executor is None:
            return
        self._thread.join()
        self._executor.shutdown()
        self._executor = None
        self._node.destroy_node()
        self._rclpy.try_shutdown(context=self._context)

    def _spin(self) -> None:
        """Take in what comes, until we leave or ROS does."""
        while not self._closed:
            try:
                self._executor.spin_once(timeout_sec=LOOK_S)
            except self._stopped:
                self._closed = True


def _class(name: str) -> Any:
    package, _, kind = name.partition("/msg/")
    return getattr(import_module(f"{package}.msg"), kind)


def _make(ros: str, /, **fields: Any) -> Any:
    """A part of a message as a class of ROS 2, which wants bytes as an array."""
    for key, value in fields.items():
        if isinstance(value, bytes):
            fields[key] = array("B", value)
    return _class(ros.replace("/", "/msg/"))(**fields)


def _quality(sensor: bool) -> Any:
    """What is promised of a topic: as sensors send, or that all arrives."""
    qos = import_module("rclpy.qos")
    if sensor:
        return qos.qos_profile_sensor_data
    return qos.QoSProfile(
        depth=KEPT,
        history=qos.HistoryPolicy.KEEP_LAST,
        reliability=qos.ReliabilityPolicy.RELIABLE,
        durability=qos.DurabilityPolicy.VOLATILE,
    )
