"""Reward code in its sandbox: what it computes comes back, and what it does wrong has a name."""

from __future__ import annotations

import ctypes
import gc
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from embodied.errors import UserError
from embodied.jail import landlock_version
from embodied.reward_graph import RewardGraph
from embodied.sandbox import MOST_SOURCE, CodeFault, Sandbox
from embodied.sandbox_worker import MOST_TERMS, load, sizes, views, world_of

pytestmark = pytest.mark.skipif(
    landlock_version(ctypes.CDLL(None)) < 1, reason="this kernel has no Landlock: no code is run"
)
INPUTS = {"hand.position": [3], "cube.position": [3], "cube.height": [], "action": [2]}
GOOD = """
def reward(world, action, dt):
    away = np.linalg.norm(world.hand.position - world.cube.position, axis=-1)
    return {"reach": np.exp(-away), "cost": -dt * np.sum(action**2, axis=-1)}
"""


def rows(count: int = 5) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(count)
    return {k: rng.normal(size=(count, *s)).astype(np.float32) for k, s in INPUTS.items()}


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    with Sandbox(INPUTS, most=64, dt=0.05, deadline_s=0.3) as sandbox:
        yield sandbox


def fault(box: Sandbox, source: str, count: int = 5) -> CodeFault:
    with pytest.raises(CodeFault) as raised:
        box.load(source)
        box(rows(count))
    return raised.value


def body(line: str) -> str:
    return f"def reward(world, action, dt):\n    {line}\n"


def test_what_it_computes(box: Sandbox) -> None:
    box.load(GOOD)
    for count in (5, 64, 1, 5):
        given = rows(count)
        terms = box(given)
        away = np.linalg.norm(given["hand.position"] - given["cube.position"], axis=-1)
        assert list(terms) == ["reach", "cost"]
        np.testing.assert_allclose(terms["reach"], np.exp(-away), rtol=1e-5)
        np.testing.assert_allclose(terms["cost"], -0.05 * (given["action"] ** 2).sum(-1), rtol=1e-5)


def test_its_graph_does_the_same(box: Sandbox) -> None:
    box.load(GOOD)
    given = rows()
    for name, value in RewardGraph(box.trace())(given).items():
        np.testing.assert_allclose(value, box(given)[name], rtol=1e-5)
    box.check_purity(given, np.array([4, 2, 0, 1, 3]))


def test_a_reward_does_not_outlive_the_next_call(box: Sandbox) -> None:
    box.load(GOOD)
    first = box(rows())
    kept = {name: value.copy() for name, value in first.items()}
    box({name: 2.0 * value for name, value in rows().items()})
    assert all(np.array_equal(first[name], kept[name]) for name in kept)


@pytest.mark.parametrize(
    ("source", "name", "text"),
    [
        ("def reward(world, action, dt)\n    pass", "error", "line 1: SyntaxError"),
        ("x = 1", "error", "define reward(world, action, dt)"),
        ("import torch", "error", "line 1: "),
        (body("return {'a': world.cube.speed}"), "error", "world.cube has no 'speed': it has"),
        (body("return {'a': world.cub.position}"), "error", "world has no 'cub': it has hand"),
        (body("return world.cube.height"), "error", "return a dict of named terms"),
        (body("return {}"), "error", "return a dict of named terms"),
        (body("return {'a b': world.cube.height}"), "error", "a term's name is a short word"),
        (body("return {f'a{k}': world.cube.height for k in range(40)}"), "error", "at most 32"),
        (body("return {'a': world.cube.position}"), "error", "is (N, 3), not one number a world"),
        (body("return {'a': 1.0}"), "error", "is (), not one number a world"),
        (body("return {'a': world.cube.height > 0}"), "error", "is of bool, not of numbers"),
        (body("return {'a': world.cube.height + 1j}"), "error", "is of complex64"),
        (body("return {'a': np.array(['x'] * 5)}"), "error", "is of <U1"),
        (body("world.cube.height[:] = 9"), "error", "line 2: ValueError: assignment destination"),
        (body("open('/etc/passwd')"), "error", "line 2: PermissionError"),
        (body("raise SystemExit"), "error", "SystemExit"),
        (body("return reward(world, action, dt)"), "error", "RecursionError"),
        (body("return {'a': np.ones(10**10)}"), "error", "MemoryError"),
        (body("return {'a': world.cube.height / 0}"), "not_finite", "NaN or infinite"),
        (body("return {'a': world.cube.height * np.float64(1e300)}"), "not_finite", "infinite"),
        (body("return {'a': world.cube.height * 0 + 1e30}"), "too_large", "beyond 10000"),
        (body("while True: pass"), "deadline", "within 0.3 s"),
        (body("9**9**9"), "deadline", "within 0.3 s"),
        (body("import os; os.fork()"), "killed", "a forbidden system call"),
        (body("import os; os._exit(0)"), "killed", "it ended itself or crashed"),
        ("x" * (MOST_SOURCE + 1), "too_long", "at most"),
    ],
    ids=str,
)
def test_what_is_wrong_has_a_name(box: Sandbox, source: str, name: str, text: str) -> None:
    found = fault(box, source)
    assert found.name == name and text in found.text, found
    box.load(GOOD)
    assert np.isfinite(box(rows())["reach"]).all()  # and the next one is served


def test_a_call_that_fails_leaves_the_next_one_whole(box: Sandbox) -> None:
    box.load(body("return {'a': world.cube.height} if world.cube.height[0] > 0 else 1 / 0"))
    good, bad = rows(), rows()
    good["cube.height"][:], bad["cube.height"][:] = 1.0, -1.0
    before = box.counts["workers"]
    for _ in range(3):
        with pytest.raises(CodeFault, match="ZeroDivisionError"):
            box(bad)
        assert box(good)["a"].tolist() == [1.0] * 5
    assert box.counts["workers"] - before == 3


def test_text_of_the_code_is_one_short_line(box: Sandbox) -> None:
    said = fault(box, body(r"raise ValueError('a\x1b[31m\n\u202e b' * 100_000)")).text
    assert len(said) <= 2000 and said.isprintable()
    evil = "class E(Exception):\n    def __str__(self): raise self\n" + body("raise E")
    assert fault(box, evil).text == "line 4: E: (it cannot say what)"


FORGED = """
import gc, socket, struct
links = [x for x in gc.get_objects() if isinstance(x, socket.socket)]
def reward(world, action, dt):
    for link in links:
        try:
            link.send(struct.pack("<QBII", {number}, 0, 0, 0))
        except OSError:
            pass  # not of this process any more
    return {{"a": world.cube.height}}
"""


DEAF = """
import gc, socket, struct
links = [x for x in gc.get_objects() if isinstance(x, socket.socket)]
def reward(world, action, dt):
    for number in range(2, 4000):
        before = float(action[0, 0])
        for link in links:
            try:
                link.send(struct.pack("<QBII", number, 0, 1, 0))
            except OSError:
                pass
        while float(action[0, 0]) == before:
            pass
"""


def test_a_worker_that_does_not_read_is_found_out(box: Sandbox) -> None:
    box.load(DEAF)
    with pytest.raises(CodeFault) as raised:
        for k in range(2000):
            given = rows()
            given["action"][:] = k
            box(given)
    assert raised.value.name in ("forged", "deadline", "killed")


def test_nobody_believes_code_that_it_is_not_locked(box: Sandbox) -> None:
    said = FORGED.replace("{number}, 0, 0, 0", "2, 2, 0, 9").replace("{{", "{").replace("}}", "}")
    assert fault(box, said).name == "forged"


def test_forged_replies_are_seen(box: Sandbox) -> None:
    assert fault(box, FORGED.format(number=99)).name == "forged"
    box.load(FORGED.format(number=2))  # the number of the first call, for which it says no names
    with pytest.raises(CodeFault, match="forged"):
        box(rows())
        box(rows())


@pytest.mark.parametrize(
    "source",
    [
        "n = 0\ndef reward(world, action, dt):\n    global n\n    n += 1\n"
        "    return {'a': world.cube.height + n}",
        "import time\n" + body("return {'a': world.cube.height + time.perf_counter() % 100}"),
        body("return {'a': world.cube.height + np.arange(len(action))}"),
        body("return {'a': world.cube.height - np.mean(world.cube.height)}"),
        body("return {'a': np.sort(world.cube.height)}"),
    ],
    ids=["counter", "clock", "index", "batch", "sort"],
)
def test_what_is_impure_is_seen(box: Sandbox, source: str) -> None:
    box.load(source)
    box(rows())
    with pytest.raises(CodeFault, match="impure"):
        box.check_purity(rows(), np.array([4, 2, 0, 1, 3]))


def test_crashes_leave_nothing_behind() -> None:
    with Sandbox(INPUTS, most=8, dt=0.05) as box:
        box.load(body("import os; os._exit(1)"))
        with pytest.raises(CodeFault):
            box(rows())
        before = _held()
        for _ in range(30):
            with pytest.raises(CodeFault, match="killed"):
                box(rows())
        assert _held() == before
        forker = box.forker.process
        assert forker is not None and _children(forker.pid) == []
    assert forker.returncode == 0


def _held() -> tuple[int, list[int]]:
    """Descriptors and children of this process, but for what only waits to be collected."""
    gc.collect()
    return len(os.listdir("/proc/self/fd")), _children(os.getpid())


def _children(pid: int) -> list[int]:
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_the_forker_is_replaced_when_it_dies(box: Sandbox) -> None:
    box.load(GOOD)
    assert box.forker.process is not None
    box.forker.process.kill()
    box.forker.process.wait()
    for _ in range(3):  # its worker dies with it
        try:
            terms = box(rows())
            break
        except CodeFault as found:
            assert found.name == "killed"
    assert np.isfinite(terms["reach"]).all()


def test_bad_settings_are_one_line() -> None:
    with pytest.raises(UserError, match="'action'"):
        Sandbox({"x": [3]}, most=8, dt=0.05)
    with pytest.raises(UserError, match=r"sandbox\.most=0"):
        Sandbox(INPUTS, most=0, dt=0.05)
    with pytest.raises(UserError, match="deadline_s"):
        Sandbox(INPUTS, most=8, dt=0.05, deadline_s=float("nan"))


def test_memory_by_hand() -> None:
    large, small = sizes({"a": [3], "action": []}, 2)
    assert (large, small) == (1 << 20, 4 * 2 * MOST_TERMS + (1 << 20))
    memory = np.arange(8, dtype=np.float32).tobytes()
    told = views(memory, {"a": [3], "action": []}, 2)
    assert told["a"].tolist() == [[0, 1, 2], [3, 4, 5]] and told["action"].tolist() == [6, 7]


def test_the_worlds_view() -> None:
    world = world_of({"cube.position": 1, "cube.size": 2, "time": 3, "robot.hand.position": 4})
    assert (world.cube.position, world.cube.size, world.time) == (1, 2, 3)
    assert world.robot.hand.position == 4
    with pytest.raises(AttributeError, match=r"world\.robot\.hand has no 'speed': it has position"):
        _ = world.robot.hand.speed
    assert load(GOOD)(world_of(rows()), rows()["action"], 0.1)["cost"].shape == (5,)
