"""What every transport promises, between two processes."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
from hydra.utils import get_object
from omegaconf import OmegaConf

from embodied.config import CONF
from embodied.deploy.messages import Flag, Floats, Text
from embodied.deploy.transport import DEPTH, Transport
from embodied.errors import UserError
from tests.envs.ros.kinds import ALL, numbered, slug, told
from tests.envs.ros.links import LINKS, ROOT, Far, Link, free_port, made, wait_until

COUNT = 50
pytestmark = pytest.mark.filterwarnings("ignore:notifyAll")  # of rospy


@pytest.fixture(params=LINKS)
def link(request: pytest.FixtureRequest) -> Iterator[Link]:
    with LINKS[request.param]() as made_link:
        yield made_link


def joined(link: Link) -> tuple[Transport, Far]:
    """Both ends, with every topic open; either may have to be there first."""
    far = Far(link) if link.far_first else None
    near = made(link.near)
    for kind in ALL:
        near.subscribe(f"/back/{slug(kind)}", kind)
        near.advertise(f"/there/{slug(kind)}", kind)
    return near, far or Far(link)


def wait_for_echoes(near: Transport) -> None:
    """Send until every topic is answered, then wait until all is quiet."""
    silent = {f"/back/{slug(kind)}" for kind in ALL}

    def answered() -> bool:
        for kind in ALL:
            near.publish(f"/there/{slug(kind)}", numbered(kind, 1))
        time.sleep(0.05)
        silent.difference_update(came.topic for came in near.take())
        return not silent

    wait_until(answered)
    time.sleep(0.3)
    while near.take():
        time.sleep(0.3)


def test_every_kind_arrives_whole_and_in_order_both_ways(link: Link) -> None:
    near, far = joined(link)
    with far:
        wait_for_echoes(near)
        wait_until(lambda: near.connected)
        assert not near.publish("/there/other", Text(""))  # which was not advertised
        assert not near.publish("/there/string", Flag(True))
        lost, came = near.lost, defaultdict(list)
        expected = {
            f"/back/{slug(kind)}": [told(numbered(kind, n)) for n in range(COUNT)] for kind in ALL
        }

        def take() -> bool:
            for each in near.take():
                came[each.topic].append(told(each.message))
            return sum(map(len, came.values())) == COUNT * len(ALL)

        for n in range(COUNT):
            for kind in ALL:
                assert near.publish(f"/there/{slug(kind)}", numbered(kind, n))
            time.sleep(0.01)
            take()
        wait_until(take, lambda: {topic: len(rows) for topic, rows in came.items()})
        near.close()
        near.close()  # of no effect
        assert not near.connected
        assert not near.publish("/there/string", Text("late"))
    assert came == expected
    assert near.rejected == 0 and near.lost == lost


def test_what_is_not_taken_is_bounded_and_what_is_lost_is_counted(link: Link) -> None:
    near, far = joined(link)
    with far:
        wait_for_echoes(near)
        before, sent = near.lost, 3 * DEPTH
        for n in range(sent):
            near.publish("/there/string", Text(str(n)))
            near.publish("/there/bool", Flag(True))
            time.sleep(0.003)
        near.publish("/there/string", Text("last"))
        wait_until(lambda: near.lost >= before + 2 * (sent - DEPTH) + 1)
        taken = near.take()
        texts = [each.message for each in taken if each.topic == "/back/string"]
        assert len(texts) == DEPTH and len(taken) == 2 * DEPTH
        assert texts == [*(Text(str(n)) for n in range(sent - DEPTH + 1, sent)), Text("last")]
        times = [each.received_ns for each in taken]
        assert times == sorted(times) and times[-1] <= time.monotonic_ns()
        near.close()


def test_a_peer_that_dies_is_missed_and_found_again(link: Link) -> None:
    near, far = joined(link)
    with far:
        wait_for_echoes(near)
        far.kill()
        if link.middle is None:  # a master or a server is no less there
            wait_until(lambda: not near.connected)
        for n in range(5 * DEPTH):  # nobody listens, and nothing waits for them
            near.publish("/there/joint_state", numbered(ALL[0], n))
            near.publish("/there/image", numbered(ALL[1], n))
    with Far(link):
        wait_for_echoes(near)
        wait_until(lambda: near.connected)
        near.close()


@pytest.mark.parametrize("link", ["ros1", "rosbridge"], indirect=True)
def test_a_middle_that_dies_is_missed_and_found_again(link: Link) -> None:
    near, far = joined(link)
    assert link.middle is not None
    with far:
        wait_for_echoes(near)
        link.middle.stop()
        wait_until(lambda: not near.connected)
        near.publish("/there/string", Text("to nobody"))
        near.advertise("/there/later", Text)  # which waits until there is a middle again
        near.subscribe("/there/later", Text)
        link.middle.start()
        wait_until(lambda: near.connected)
        wait_for_echoes(near)
        wait_until(lambda: near.publish("/there/later", Text("!")) and near.take())
        near.close()


def test_what_comes_as_another_kind_is_left_out(link: Link) -> None:
    far, near = made(link.far), made(link.near)
    for topic in ("/well", "/ill"):
        far.advertise(topic, Text)
    near.subscribe("/well", Text)
    near.subscribe("/ill", Floats)

    def heard() -> list[str]:
        far.publish("/ill", Text("no numbers"))
        far.publish("/well", Text("a text"))
        time.sleep(0.01)
        return [came.topic for came in near.take()]

    topics = set()
    wait_until(heard)
    for _ in range(30):
        topics.update(heard())
    assert topics == {"/well"}
    near.close()
    far.close()


COME_AND_GO = """
import gc, json, os, sys
from embodied.deploy.messages import Text
from tests.envs.ros.links import made, wait_until
given = json.loads(sys.argv[1])

def held():
    gc.collect()
    return len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd"))

def come_and_go():
    far, near = made(given), made(given)
    near.subscribe("/a", Text)
    far.advertise("/a", Text)
    wait_until(lambda: far.publish("/a", Text("!")) and near.take())
    near.close()
    far.close()
    assert not near.connected and not far.connected
    assert not far.publish("/a", Text("late"))

come_and_go()  # what is loaded once stays
before = held()
for _ in range(3):
    come_and_go()
wait_until(lambda: held() <= before, held)
assert before[0] == 1, before
"""


@pytest.mark.parametrize("link", ["local", "dds", "rosbridge"], indirect=True)
def test_nothing_remains_of_ends_that_were_closed(link: Link) -> None:
    """No thread, process or socket; `rospy` and Zenoh keep some until their process ends."""
    done = subprocess.run(
        [sys.executable, "-c", COME_AND_GO, json.dumps(link.near)],
        cwd=ROOT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("file", sorted((CONF / "transport").glob("*.yaml")), ids=lambda f: f.stem)
def test_an_option_gives_its_transport_what_it_takes(file: Path) -> None:
    given = OmegaConf.to_container(OmegaConf.load(file))
    assert isinstance(given, dict)
    target = get_object(given.pop("_target_"))
    assert given.keys() == inspect.signature(target).parameters.keys()


@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("ros1", "master=http://127.0.0.1:{}"),
        ("rosbridge", "url=ws://127.0.0.1:{}"),
        ("zenoh", "connect=tcp/127.0.0.1:{}"),
    ],
)
def test_without_a_peer_there_is_one_line_that_says_where_it_was_sought(
    name: str, option: str
) -> None:
    key, _, where = option.format(free_port()).partition("=")
    target = getattr(import_module(f"embodied.envs.ros.{name}"), name.capitalize())
    with pytest.raises(UserError, match=f"transport.{key}=.*{where}"):
        target(**{key: [where] if key == "connect" else where})
