"""What is wrong with a reply is found before anything is trained, and has a name."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from functools import cache

import numpy as np
import pytest

from embodied.abstraction import Abstraction, abstraction
from embodied.build import make_env
from embodied.config import compose_config
from embodied.evidence import IDLE, Evidence, gather, who_plays
from embodied.jail import landlock_version
from embodied.reward_check import REFUSALS, Checker, code_of
from embodied.reward_folder import read_reward

needs_landlock = pytest.mark.skipif(
    landlock_version(ctypes.CDLL(None)) < 1, reason="this kernel has no Landlock: no code is run"
)
GOOD = """
def reward(world, action, dt):
    red = np.linalg.norm(world.puck.position - world.red_pad.position, axis=-1)
    blue = np.linalg.norm(world.puck.position - world.blue_pad.position, axis=-1)
    lit = world.lamp.lit
    return {
        "reach": np.where(lit > 0, 1.0, 1.0 - np.tanh(red / 0.3)),
        "follow": lit * (1.0 - np.tanh(blue / 0.3)),
        "idle": 0.0 * red,
    }
"""


@cache
def known() -> tuple[Abstraction, Evidence]:
    env = make_env(compose_config(["env=line_reach", "sim.threads=1"]), num_envs=4)
    found = abstraction(env), gather(env)
    env.close()
    return found


@pytest.fixture(scope="module")
def checker() -> Iterator[Checker]:
    checker = Checker(*known(), deadline_s=0.5)
    yield checker
    checker.close()


def body(line: str) -> str:
    return f"```python\ndef reward(world, action, dt):\n    {line}\n```"


def test_the_evidence_is_of_everyone() -> None:
    _, evidence = known()
    assert set(evidence.sources) == {IDLE, "random", "expert"} | {
        f"expert:{name}" for name in
        ("slow", "hesitates", "retries", "stops_short", "near_miss", "wrong_object", "undoes")
    }  # fmt: skip
    sources = np.array(evidence.sources)
    assert evidence.success[sources == "expert"].all()
    assert not evidence.success[(sources == IDLE) | (sources == "random")].any()
    assert evidence.rows["puck.position"].shape == (40, 60, 2)
    assert not evidence.rows["action"][sources == IDLE].any()
    flat = evidence.flat
    assert len(flat["lamp.lit"]) == evidence.played.sum()
    mean = evidence.returns(flat["lamp.lit"])
    k = int(np.flatnonzero(sources == "expert")[0])
    np.testing.assert_allclose(mean[k], evidence.rows["lamp.lit"][k][evidence.played[k]].mean())


def test_who_plays_where_there_is_no_expert() -> None:
    env = make_env(compose_config(["env=hopper", "sim.threads=1"]), num_envs=3)
    assert who_plays(env) == (IDLE, "random")
    evidence = gather(env, steps=40)  # some fall before: what follows is not counted
    lasted = evidence.played.sum(1)
    assert lasted.min() < 40 and evidence.played[:, 0].all()
    assert (np.diff(evidence.played.astype(int), axis=1) <= 0).all()
    env.close()


@needs_landlock
def test_what_is_good_passes(checker: Checker, tmp_path) -> None:
    found = checker.check(f"Here it is.\n```python{GOOD}```\nIt pays for both pads.")
    assert (found.refused, found.why) == ("", "")
    assert found.order > 0.8
    assert found.returns["expert"] > found.returns["expert:stops_short"] > found.returns[IDLE]
    assert found.notes == ("idle never changes: it is 0 everywhere",)
    assert found.terms["reach"][1] >= 0 and found.terms["reach"][2] == 1.0
    file = read_reward(found.file(known()[0], {"origin": "authored"}).save(tmp_path))
    assert file.source == GOOD.lstrip("\n") and file.env == "line_reach"


WRONG = [
    ("I cannot do that.", "no_code", "put the function"),
    (body("retrun {}"), "syntax", "line 2: SyntaxError"),
    (body("import scipy; return {}"), "import", "line 2"),
    (body("return {'a': world.puck.speed}"), "name", "world.puck has no 'speed'"),
    (body("return {'a': world.success}"), "name", "world has no 'success'"),
    (body("return {'a': distance}"), "name", "'distance' is not defined"),
    (body("return world.lamp.lit"), "signature", "return a dict of named terms"),
    (body("return {'a': world.puck.position}"), "signature", "not one number a world"),
    (body("return {'a': 1.0}"), "signature", "does not follow from any readout"),
    ("```\ndef reward(world):\n    return {}\n```", "signature", "positional argument"),
    (body("return {'a': 1.0 if world.lamp.lit > 0 else 0.0}"), "untraceable", "use np.where"),
    (body("return {'a': world.lamp.lit - np.mean(world.lamp.lit)}"), "untraceable", "axis=-1"),
    (body("return {'a': world.puck.position[:, 0] + world.puck.velocity[:, 0]}"), "units", "adds"),
    (body("return {'a': world.lamp.lit - world.puck.position[:, 0]}"), "units", "a number with m"),
    (body("return {'a': np.log(world.lamp.lit)}"), "not_finite", "NaN or infinite"),
    (body("return {'a': 1e3 * world.lamp.lit}"), "too_large", "a step pays 1e+03"),
    (body("return {'a': 0.0 * world.lamp.lit + 3.0}"), "constant", "pays 3"),
    (body("return {'a': 1.0 - world.lamp.lit}"), "no_better_than_chance", "a step of the expert"),
    (body("while True: pass"), "deadline", "within"),
    (body("import os; os.fork()"), "killed", "forbidden system call"),
    (body("raise RuntimeError('stop')"), "error", "RuntimeError: stop"),
    ("```\n# " + "x" * 70_000 + "\n" + body("return {}")[10:], "too_long", "at most"),
]


@needs_landlock
@pytest.mark.parametrize(("reply", "refused", "why"), WRONG, ids=lambda x: str(x)[:40])
def test_what_is_wrong_has_a_name(checker: Checker, reply: str, refused: str, why: str) -> None:
    found = checker.check(reply)
    assert found.refused == refused and why in found.why, (found.refused, found.why)
    assert refused in REFUSALS


@needs_landlock
def test_code_that_no_graph_can_hold_may_pass_for_a_sandbox() -> None:
    checker = Checker(*known(), traced=False)
    found = checker.check(body("x = world.lamp.lit.copy(); x[x > 1] = 0; return {'a': x}"))
    assert found.refused == "" and found.graph is None
    assert found.notes[0].startswith("only a sandbox can run it: line 2: TraceError")
    code = "n = [0]\n" + body("n[0] += 1; return {'a': np.array(world.lamp.lit) + n[0]}")[10:-4]
    assert checker.check(code).refused == "impure"
    checker.close()


def test_code_is_found_in_a_reply() -> None:
    code = "def reward(world, action, dt):\n    return {}"
    assert code_of(f"So:\n```python\n{code}\n```\nDone.") == code + "\n"
    assert code_of(f"First:\n```\nx = 1\n```\nthen\n```py\n{code}\n```") == code + "\n"
    assert code_of(f"```python\n# old\n{code}\n```\nBetter:\n```python\n{code}\n```") == code + "\n"
    assert code_of(code) == code + "\n"
    assert code_of(f"It was cut off:\n```python\n{code}") == code + "\n"
    assert code_of("```python\nx = 1\n```") == code_of("") == ""
