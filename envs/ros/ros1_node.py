"""This process's node in ROS 1: `rospy` allows one, with one master, until the process ends."""

from __future__ import annotations

import io
import logging
import os
import socket
import sys
import threading
import xmlrpc.client
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from importlib import import_module
from types import ModuleType
from typing import Any

from embodied.deploy.messages import MOST_BYTES
from embodied.errors import UserError

ANSWER_S = 2.0
"""In which a master answers."""
LOOK_S = 0.5
LIBRARIES = ("rospy", "sensor_msgs.msg", "std_msgs.msg", "trajectory_msgs.msg", "geometry_msgs.msg")
LOGGERS = ("rospy", "rosout", "rosgraph", "xmlrpc", "topicmanager")


class Node:
    """A node, and a thread that sees to it that its master knows it.

    A master that comes back has forgotten everything, and `rospy` does not notice; then all is
    registered again here. What is started while there is none waits until there is.
    """

    def __init__(self, master: str, host: str, packages: str) -> None:
        self.master, self.known = master, True
        self.rospy = _library(packages)
        os.environ["ROS_MASTER_URI"] = master
        os.environ.setdefault("ROS_IP", host)
        with _unlogged(self.rospy):
            started = _within(2 * ANSWER_S, lambda: _start(self.rospy))
        if not started:
            raise UserError(f"transport.master={master}: it does not take a node")
        self._waiting: list[Callable[[], None]] = []
        self._lock = threading.Lock()
        threading.Thread(target=self._watch, name="ros1").start()

    def when_known(self, start: Callable[[], None]) -> None:
        """Register something with the master, now or as soon as it is back.

        A master that dies at this very moment keeps `rospy` trying until there is one again; it
        does so behind our back.
        """
        with self._lock:
            if not self.known:
                self._waiting.append(start)
                return
        _within(ANSWER_S, start)

    def leave(self, parts: list[Any]) -> None:
        """Give up publishers and subscribers."""

        def unregister() -> None:
            for part in parts:
                with suppress(Exception):  # the master may be gone, and what it knew with it
                    part.unregister()

        _within(ANSWER_S, unregister)

    def _watch(self) -> None:
        """Look after the master until the main thread ends; then end the node, whose threads
        would keep the process alive."""
        main = threading.main_thread()
        while main.is_alive():
            main.join(LOOK_S)
            try:
                name = self.rospy.get_name()
                known = _ask(self.master, "lookupNode", name, name)[0] == 1
            except (OSError, HTTPException, xmlrpc.client.Error):
                self.known = False
                continue
            if not known:
                self.known = False
                with suppress(OSError, HTTPException, xmlrpc.client.Error):
                    self._register()
            with self._lock:
                self.known = True
                waiting, self._waiting = self._waiting, []
            for start in waiting:
                _within(ANSWER_S, start)
        _within(ANSWER_S, lambda: self.rospy.signal_shutdown("the process ends"))

    def _register(self) -> None:
        """Tell the master what this node publishes and reads, and the node who publishes it."""
        name, uri = self.rospy.get_name(), self.rospy.get_node_uri()
        _, _, publications = _ask(uri, "getPublications", name)
        for topic, kind in publications:
            _ask(self.master, "registerPublisher", name, topic, kind, uri)
        _, _, subscriptions = _ask(uri, "getSubscriptions", name)
        for topic, kind in subscriptions:
            _, _, publishers = _ask(self.master, "registerSubscriber", name, topic, kind, uri)
            _ask(uri, "publisherUpdate", "/master", topic, publishers)


_NODES: dict[int, Node] = {}
"""By process, so that what was forked off has none."""


def node_of(master: str, host: str, packages: str) -> Node:
    """The node of this process, made where there is none. `UserError` where it cannot be."""
    try:
        _ask(master, "getPid", "/embodied")
    except (OSError, HTTPException, xmlrpc.client.Error) as error:
        raise UserError(f"transport.master={master}: no ROS master there ({error})") from None
    node = _NODES.get(os.getpid())
    if node is None:
        node = _NODES[os.getpid()] = Node(master, host, packages)
    if node.master != master:
        raise UserError(f"transport.master={master}: this process has a node at {node.master}")
    return node


class _Patient(xmlrpc.client.Transport):
    """HTTP that waits for an answer, but not for ever."""

    def make_connection(self, host: Any) -> HTTPConnection:
        connection = super().make_connection(host)
        connection.timeout = ANSWER_S
        return connection


def _ask(uri: str, method: str, *arguments: Any) -> Any:
    """What a master or a node answers: a code (1 is well), a word on it, a value."""
    with xmlrpc.client.ServerProxy(uri, transport=_Patient()) as proxy:
        answer: Any = getattr(proxy, method)(*arguments)
    if not isinstance(answer, list) or len(answer) != 3:
        raise HTTPException("an answer that is none of ROS's")
    return answer


def _within(seconds: float, work: Callable[[], None]) -> bool:
    """Whether `work` was done in time; it goes on behind our back if not."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    return not thread.is_alive()


def _library(packages: str) -> Any:
    """`rospy`, with all that it will need from `packages`, which goes last and only for now: what
    else is there must not shadow, or stand in for, what this Python has or has not."""
    loggers = logging.getLoggerClass()
    try:
        import_module("rospy")
        found = True
    except ImportError:
        found = False
    try:
        if not found:
            sys.path.append(packages)
        for each in LIBRARIES:
            import_module(each)
    except ImportError as error:
        raise UserError(
            f"ROS 1 needs rospy and its messages ({error}): apt install python3-rospy "
            "python3-sensor-msgs python3-trajectory-msgs python3-std-msgs python3-geometry-msgs"
        ) from None
    finally:
        if not found:
            sys.path.remove(packages)
        logging.setLoggerClass(loggers)  # which rospy sets for everybody
    for name in LOGGERS:
        logging.getLogger(name).addHandler(logging.NullHandler())
        logging.getLogger(name).propagate = False
    _harden(import_module("rospy.impl.tcpros_base"))
    return import_module("rospy")


def _start(rospy: Any) -> None:
    rospy.init_node(
        "embodied",
        argv=["embodied"],
        anonymous=True,
        disable_signals=True,
        disable_rosout=True,
        disable_rostime=True,
    )


@contextmanager
def _unlogged(rospy: Any) -> Iterator[None]:
    """Keep a node that starts from writing log files and from taking over the root logger."""
    configure, rospy.core.configure_logging = rospy.core.configure_logging, lambda *_: None
    try:
        yield
    finally:
        rospy.core.configure_logging = configure


class _Bounded(io.BytesIO):
    """What a connection of `rospy` gathers, which else is as much as a peer says it will send."""

    def write(self, data: Any) -> int:
        if self.tell() + len(data) > 2 * MOST_BYTES:
            self.seek(0)
            self.truncate()
            raise ValueError("too long a message")
        return super().write(data)


def _harden(tcpros: Any) -> None:
    """Bound what peers can cost, let one that says nothing keep no other waiting, and leave the
    sockets of everybody else in this process as they are."""
    unchanged = ModuleType("socket")
    unchanged.__dict__.update(vars(socket))
    unchanged.__dict__["setdefaulttimeout"] = lambda seconds: None
    vars(import_module("rospy.impl.masterslave"))["socket"] = unchanged
    handle = tcpros.TCPROSServer._tcp_server_callback

    def handle_apart(*arguments: Any) -> None:
        threading.Thread(target=handle, args=arguments, daemon=True).start()

    tcpros.TCPROSServer._tcp_server_callback = handle_apart
    tcpros.BytesIO = _Bounded
