"""Is reward code that somebody else wrote kept in, and what does keeping it in cost?

The programs of `benchmarks.attacks` run in the sandbox, with all its layers and with one alone, as
whoever starts this, as an ordinary user too where that is root, and by plain `exec` in a process
that is thrown away. `outside_effects`: programs that bring anything about outside the whole
sandbox; `unexpected_verdicts`: of which it says something else than it should; both over all users.
`effects_under_plain_exec`: the share of programs with an effect that have it without a sandbox,
which shows that it would be seen. `seconds`: for the whole corpus, as the slower user.

`added_us_median` and `_p99`: what a call of 1,024 worlds with 64 numbers each takes longer than the
same function in this process. `graph_replay_ratio`: its graph, replayed, against the function.
`replaced_s`: from the deadline of a call that hangs to the reward of the next one, the worst.
`leaked`: processes, descriptors and mappings of shared memory that calls that crash leave behind.

    python -m benchmarks.sandbox [--quick]
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track

from benchmarks.attacks import ATTACKS
from benchmarks.attacks_processes import descendants
from benchmarks.attacks_run import CANNOT, attempts
from benchmarks.attacks_user import NOBODY
from benchmarks.harness import parse_args, summary, write_result
from embodied.jail import LAYERS
from embodied.reward_graph import RewardGraph
from embodied.sandbox import CodeFault, Sandbox
from embodied.sandbox_worker import load, world_of

WORLDS, DT = 1024, 0.02
INPUTS = {"hand.position": [3], "cube.position": [3], "goal.position": [3], "joint.position": [23],
          "joint.speed": [24], "action": [8]}  # fmt: skip
REWARD = """
def reward(world, action, dt):
    away = np.linalg.norm(world.hand.position - world.cube.position, axis=-1)
    left = np.linalg.norm(world.goal.position - world.cube.position, axis=-1)
    lifted = np.clip(world.cube.position[:, 2] / 0.1, 0.0, 1.0)
    beyond = np.maximum(np.abs(world.joint.position) - 2.8, 0.0)
    return {
        "reach": 1.0 - np.tanh(5.0 * away),
        "lift": np.where(away < 0.1, lifted, 0.0),
        "place": np.exp(-4.0 * left) * lifted,
        "smooth": -0.01 * dt * np.sum(world.joint.speed**2, axis=-1),
        "effort": -0.001 * np.sum(np.abs(action), axis=-1),
        "limits": -np.sum(beyond, axis=-1),
    }
"""
MISBEHAVES = """
import ctypes, os
def reward(world, action, dt):
    kind = int(action[0, 0])
    if kind == 1:
        os._exit(1)
    if kind == 2:
        ctypes.string_at(0)
    if kind == 3:
        os.fork()
    if kind == 4:
        raise ValueError("x" * 5000)
    while kind == 5:
        pass
    return {"a": world.cube.position[:, 2] * 1.0}
"""
"""What it does wrong is in the first number of its input."""
CRASHES, HANGS = (1, 2, 3, 4), 5
BLOCK, ROUNDS = 50, 5
"""Calls of one kind in a row, and rounds of such calls, whose median counts."""


# --- the corpus


def passes(quick: bool) -> dict[str, dict[str, list[str]]]:
    """By user, the arguments of `benchmarks.attacks_run` by what there is around the programs."""
    ways = {"all": [], "plain": ["--plain"]}
    if not quick:
        alone = {layer: ["--layers", layer, "--deadline-s", "0.15"] for layer in LAYERS}
        ways |= {**alone, "bubblewrap": ["--bubblewrap"]}
    if "bubblewrap" in ways and shutil.which("bwrap") is None:
        del ways["bubblewrap"]
    users = {"root" if os.getuid() == 0 else "user": ways}
    if os.getuid() == 0 and not quick:
        users["user"] = {k: [*way, "--user", str(NOBODY)] for k, way in ways.items()}
    return users


def corpus(quick: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """Figures and detail of what the programs do."""
    told: dict[str, dict[str, Any]] = {}
    seconds: dict[str, float] = {}
    missing: dict[str, str] = {}
    planned = [(u, k, way) for u, ways in passes(quick).items() for k, way in ways.items()]
    for user, around, arguments in track(planned, "corpus"):
        start = time.perf_counter()
        try:
            told[f"{user} {around}"] = attempts(*arguments)
        except RuntimeError as error:
            if CANNOT not in str(error):
                raise
            missing[f"{user} {around}"] = f"not measured: {error}"
        seconds[f"{user} {around}"] = time.perf_counter() - start
    if not any("bubblewrap" in key for key in told):
        missing["bubblewrap"] = "not measured"
    figures = corpus_figures(told) | {
        "seconds": max(s for key, s in seconds.items() if key.endswith("all") and key in told)
    }
    outside = {key: sum(bool(r["effects"]) for r in rows.values()) for key, rows in told.items()}
    detail = {
        "programs_with_outside_effects": outside | missing,
        "seconds": seconds,
        "seen_into": {k: all(r["seen_into"] for r in rows.values()) for k, rows in told.items()},
        "by_attack": by_attack(told),
    }
    return figures, detail


def corpus_figures(told: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """From what came of each program by "USER AROUND"."""
    whole = [rows for key, rows in told.items() if key.endswith(("all", "bubblewrap"))]
    plain = [rows for key, rows in told.items() if key.endswith("plain")]
    aimed = [a for a in ATTACKS if a.effect]
    shares = [np.mean([a.effect in rows[a.name]["effects"] for a in aimed]) for rows in plain]
    return {
        "attacks": len(ATTACKS),
        "outside_effects": sum(bool(row["effects"]) for rows in whole for row in rows.values()),
        "unexpected_verdicts": sum(
            rows[a.name]["verdict"] not in a.verdicts for rows in whole for a in ATTACKS
        ),
        "effects_under_plain_exec": float(min(shares)),
    }


def by_attack(told: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Of each program: its family and aim, the sandbox's verdicts, and effects by what was around.

    A verdict that was not expected comes with the text.
    """
    found = {}
    for a in ATTACKS:
        whole = {key: rows[a.name] for key, rows in told.items() if key.endswith(("all", "wrap"))}
        found[a.name] = {
            "family": a.family,
            "effect": a.effect,
            "verdicts": {key: row["verdict"] for key, row in whole.items()},
            "effects": {k: rows[a.name]["effects"] for k, rows in told.items()
                        if rows[a.name]["effects"]},
            **{f"unexpected {key}": row["text"] for key, row in whole.items()
               if row["verdict"] not in a.verdicts},
        }  # fmt: skip
    return found


# --- what it costs


def timed(function: Callable[[], Any]) -> list[float]:
    """Microseconds of each of a block of calls."""
    took = []
    for _ in range(BLOCK):
        start = time.perf_counter_ns()
        function()
        took.append(1e-3 * (time.perf_counter_ns() - start))
    return took


def costs(calls: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Figures and detail of one reward function: in this process, in the sandbox, as a graph."""
    rng = np.random.default_rng(0)
    inputs = {k: rng.normal(size=(WORLDS, *s)).astype(np.float32) for k, s in INPUTS.items()}
    function = load(REWARD)
    took: dict[str, list[list[float]]] = {"direct": [], "sandbox": [], "graph": []}
    world = world_of({name: value for name, value in inputs.items() if name != "action"})
    with Sandbox(INPUTS, WORLDS, DT) as box:
        box.load(REWARD)
        graph = RewardGraph(box.trace())
        contestants = {
            "direct": lambda: function(world, inputs["action"], DT),
            "sandbox": lambda: box(inputs),
            "graph": lambda: graph(inputs),
        }
        for name, value in function(world, inputs["action"], DT).items():
            np.testing.assert_allclose(box(inputs)[name], value, rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(graph(inputs)[name], value, rtol=1e-5, atol=1e-6)
        for contestant in contestants.values():
            timed(contestant)
        for _ in track(range(calls // BLOCK), "calls"):
            for name, contestant in contestants.items():
                took[name].append(timed(contestant))
    # (2, rounds): the median and p99 of each round.
    q = {k: np.percentile(np.reshape(v, (ROUNDS, -1)), (50, 99), axis=1) for k, v in took.items()}
    told = {
        "added_us_median": q["sandbox"][0] - q["direct"][0],
        "added_us_p99": q["sandbox"][1] - q["direct"][1],
        "graph_replay_ratio": q["graph"][0] / q["direct"][0],
        **{f"{name}_us_{which}": values[k] for name, values in q.items()
           for k, which in enumerate(("median", "p99"))},
    }  # fmt: skip
    detail = {name: summary(values.tolist()) for name, values in told.items()}
    return {name: detail[name]["median"] for name in list(detail)[:3]}, detail


# --- what is left when it goes wrong


def misbehaving() -> tuple[Sandbox, dict[str, np.ndarray]]:
    box = Sandbox(INPUTS, WORLDS, DT, deadline_s=0.2)
    box.load(MISBEHAVES)
    return box, {k: np.zeros((WORLDS, *s), np.float32) for k, s in INPUTS.items()}


def fails(box: Sandbox, inputs: dict[str, np.ndarray], kind: int) -> str:
    """Make a call go wrong; what the sandbox calls it."""
    inputs["action"][0, 0] = kind
    try:
        box(inputs)
    except CodeFault as fault:
        return fault.name
    finally:
        inputs["action"][0, 0] = 0
    return "fine"


def replacement_s(times: int = 10) -> list[float]:
    """From the deadline of a call that hangs to the end of the next call."""
    box, inputs = misbehaving()
    took = []
    with box:
        for _ in range(times):
            box(inputs)
            start = time.perf_counter()
            if fails(box, inputs, HANGS) != "deadline":
                raise AssertionError("it does not hang")
            box(inputs)
            took.append(time.perf_counter() - start - box.deadline_s)
    return took


def held() -> dict[str, int]:
    """What this process and those that come from it hold on to."""
    pids = {os.getpid(), *descendants(os.getpid())}
    maps = [line for pid in pids for line in _lines(f"/proc/{pid}/maps") if "memfd:" in line]
    descriptors = sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids if _is_ours(pid))
    return {"processes": len(pids), "descriptors": descriptors, "mappings": len(maps)}


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except PermissionError:
        return []  # a locked process, which shows itself to root alone


def _is_ours(pid: int) -> bool:
    return os.access(f"/proc/{pid}/fd", os.R_OK)


def leaks(crashes: int) -> dict[str, int]:
    """What is held more after calls that crash than before them."""
    box, inputs = misbehaving()
    with box:
        for kind in CRASHES:
            fails(box, inputs, kind)
        before = held()
        for k in track(range(crashes), "crashes"):
            if fails(box, inputs, CRASHES[k % len(CRASHES)]) not in ("killed", "error"):
                raise AssertionError("it does not crash")
        after = held()
    return {name: after[name] - before[name] for name in before}


def main() -> None:
    args = parse_args(__doc__)
    figures, attacks = corpus(args.quick)
    cost, costs_detail = costs(500 if args.quick else 5000)
    replaced, left = replacement_s(), leaks(20 if args.quick else 1000)
    figures |= cost | {
        "replaced_s": max(replaced),
        "leaked": sum(max(0, more) for more in left.values()),
    }
    detail = {"attacks": attacks, "costs": costs_detail, "replaced_s": replaced, "leaked": left}
    write_result("sandbox", figures, detail, args.quick, args.out)


if __name__ == "__main__":
    main()
