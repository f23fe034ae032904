"""The demo's policy on a simulated robot over real transports, against the same without any.

The robot's physics, its camera, the marker tracker, the guard (200 Hz, all its limits) and the
policy are processes of their own, on the clock on the wall; the policy sees what `robot.yaml` maps
and no more. Each way plays the same episodes, in nominal worlds. `none` is `embodied eval`: no
processes, no guard, exact steps. `success_WAY` is its share of successes, `behind_WAY` by how much
it is below `none`, pair by pair, with the interval in the details. `state_WAY_p50_ms`,
`command_WAY_p99_ms` and so on are how long messages travel. All of it keeps a core busy: two cores,
and nothing beside it. A way takes half an hour.

    embodied demo run_dir=RUN
    python -m benchmarks.deploy_latency RUN [--ways sim,ros1,dds] [--episodes 400] [--quick]

On a robot a command is reached when the next one is due, and an object is seen some 50 ms late; so
the demo trains with a delay of no or one step, drawn for each episode. Episodes that are done are
rows of deploy_latency.cells.jsonl.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import RESULTS, write_result
from benchmarks.relayed import peer
from benchmarks.sim_to_sim import NOMINAL
from embodied.actor import find_actor
from embodied.agent import Policy
from embodied.arguments import settings
from embodied.build import make_env
from embodied.deploy import deploy
from embodied.deploy.eyes import Unseen
from embodied.deploy.robot_map import load_robot_map, robot_map
from embodied.deploy.session import Session
from embodied.evaluate import run_episodes
from embodied.statistics import paired_rates, wilson
from embodied.types import Carry, Obs

ROWS = RESULTS / "deploy_latency.cells.jsonl"
FIRST = 50_000
"""Seed of the first episode."""
WAYS = {
    "sim": (),
    "ros1": ("transport=ros1", "simulated=true"),
    "dds": ("transport=dds", "simulated=true"),
    "fastdds": ("transport=dds", "simulated=true"),
    "zenoh": ("transport=zenoh", "simulated=true"),
    "franka_limits": (),
    "bullet": ("sim=bullet",),
}
"""Arguments of `embodied deploy`. `franka_limits`: no more acceleration than the real arm's, a
quarter of what the simulated one bears, and that on which the policy was trained. `fastdds`:
all states and commands also pass through another maker's DDS, in C++ (`benchmarks.relayed`)."""
UNSEEN = {"tripped": None, "holds": 0, "blind": 0, "overruns": 0, "unseen": True}
"""Of an episode that could not begin, since the camera did not see the cube: it counts as lost."""
MARGIN = 0.05


@contextmanager
def surroundings(way: str) -> Iterator[list[str]]:
    """What a transport needs to be there, and where it is."""
    if way == "ros1":
        with roscore() as master:
            yield [f"transport.master={master}"]
    elif way == "dds":
        yield [f"transport.domain={_domain()}"]
    elif way == "fastdds":
        with tempfile.TemporaryDirectory() as folder, peer(Path(folder), _domain()):
            yield [f"transport.domain={_domain()}"]
    elif way == "zenoh":
        with zenoh_router() as where:
            yield [f"transport.connect=[{where}]"]
    else:
        yield []


def _domain() -> int:
    return 40 + os.getpid() % 60


ROUTER = """
import json, sys, time, zenoh
settings = zenoh.Config()
settings.insert_json5("mode", json.dumps("router"))
settings.insert_json5("listen/endpoints", json.dumps([sys.argv[1]]))
settings.insert_json5("scouting/multicast/enabled", "false")
with zenoh.open(settings):
    time.sleep(1e9)
"""


@contextmanager
def zenoh_router() -> Iterator[str]:
    """A Zenoh router on a port of its own, as rmw_zenoh has one."""
    port = _free_port()
    where = f"tcp/127.0.0.1:{port}"
    process = subprocess.Popen([sys.executable, "-c", ROUTER, where])
    try:
        _wait_for(port)
        yield where
    finally:
        process.kill()
        process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def roscore() -> Iterator[str]:
    """A ROS master on a port of its own."""
    port = _free_port()
    master = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory() as logs:
        process = subprocess.Popen(
            [shutil.which("roscore") or "roscore", "-p", str(port)],
            env={**os.environ, "ROS_MASTER_URI": master, "ROS_LOG_DIR": logs},
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            _wait_for(port)
            yield master
        finally:
            process.terminate()
            process.wait()


def _wait_for(port: int) -> None:
    end = time.monotonic() + 20.0
    while time.monotonic() < end:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise SystemExit(f"nobody listens on port {port}")


def trajectories(plan: deploy.Deployment) -> deploy.Deployment:
    """The same robot, told by trajectories: their stamps say how long commands travel."""
    plain = {**plan.robot.plain, "command": {**plan.robot.plain["command"], "kind": "trajectory"}}
    return replace(plan, robot=robot_map(plain))


def gently(plan: deploy.Deployment) -> deploy.Deployment:
    """The same robot, its joints accelerated by no more than those of the real arm."""
    real = load_robot_map(deploy.robot_file("panda")).plain["joints"]
    mine = {
        name: {**joint, "acceleration": real[name]["acceleration"]}
        for name, joint in plan.robot.plain["joints"].items()
    }
    return replace(plan, robot=robot_map({**plan.robot.plain, "joints": mine}))


def play(way: str, run: str, seeds: list[int]) -> Iterator[dict[str, Any]]:
    """Episodes of one way, one after the other."""
    if way == "none":
        yield from _plain_episodes(run, seeds)
        return
    with surroundings(way) as more, ExitStack() as stack:
        arguments = [*WAYS[way], *NOMINAL, *more, "record=false"]
        wanted, overrides = settings(arguments, deploy.DEFAULTS, ("transport",))
        plan = trajectories(deploy.choose(run, wanted, overrides))
        if way == "franka_limits":
            plan = gently(plan)
        if way == "fastdds":
            inner = json.dumps(plan.transport)
            plan.transport = {"_target_": "benchmarks.relayed.Relayed", "inner": inner}
        session, _ = deploy.start(plan, stack)
        assert session.bench is not None
        plan.policy = heard = Heard(plan.policy, session)
        for seed in seeds:
            session.bench.delays_ns()
            heard.state_ms.clear()
            try:
                row = deploy.run_episode(plan, session, seed)
            except Unseen:  # something stands before it: nothing a policy could do about
                row = {"seed": seed, "success": False, "length": 0, **UNSEEN}
            told = [1e-6 * delay for delay in session.bench.delays_ns()]
            yield {**row, "state_ms": _few(heard.state_ms), "command_ms": _few(told)}


class Heard:
    """A policy, and how long the states that it acts on were on their way, in ms."""

    def __init__(self, policy: Policy, session: Session) -> None:
        self.policy, self.session = policy, session
        self.action_spec = policy.action_spec
        self.state_ms: list[float] = []
        self.offset_ns = time.time_ns() - time.monotonic_ns()

    def carry(self, num_worlds: int) -> Carry:
        return self.policy.carry(num_worlds)

    def act(self, carry: Carry, obs: Obs, greedy: bool = False) -> tuple[Carry, np.ndarray]:
        state = self.session.keeper.state
        self.state_ms.append(1e-6 * (state.received_ns + self.offset_ns - state.stamp_ns))
        return self.policy.act(carry, obs, greedy)


def _few(values: list[float]) -> list[float]:
    """Enough of them to tell their p99 over all episodes."""
    rng = np.random.default_rng(len(values))
    return [round(float(v), 3) for v in rng.permutation(values)[:40]]


def _plain_episodes(run: str, seeds: list[int]) -> Iterator[dict[str, Any]]:
    actor = find_actor(run)
    env = make_env(actor.worlds(NOMINAL), num_envs=50, seed=0)
    yield from run_episodes(env, actor.policy(env), seeds)
    env.close()


def measure(way: str, run: str, name: str, seeds: range, rows: Path) -> None:
    """Play what is left of one way's episodes; rows are written as they end."""
    mine = {"way": way, "policy": name}
    done = {row["seed"] for row in read(rows) if row.items() >= mine.items()}
    left = [seed for seed in seeds if seed not in done]
    if not left:
        return
    with rows.open("a") as file:
        for row in play(way, run, left):
            print(json.dumps({**mine, **row}), file=file, flush=True)


def read(rows: Path) -> list[dict[str, Any]]:
    if not rows.exists():
        return []
    return [json.loads(line) for line in rows.read_text().splitlines()]


def summarise(rows: list[dict[str, Any]], ways: list[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    figures: dict[str, Any] = {}
    detail: dict[str, Any] = {}
    by_way: dict[str, dict[int, Any]] = {way: {} for way in ["none", *ways]}
    for row in rows:
        by_way[row["way"]][row["seed"]] = row
    for way, mine in by_way.items():
        if not mine:
            continue
        won = sum(row["success"] for row in mine.values())
        figures[f"success_{way}"] = round(won / len(mine), 4)
        low, high = wilson(won, len(mine))
        detail[way] = {"episodes": len(mine), "low": round(low, 4), "high": round(high, 4)}
        detail[way]["length"] = round(float(np.mean([row["length"] for row in mine.values()])), 1)
        if way == "none":
            continue
        both = sorted(mine.keys() & by_way["none"].keys())
        pairs = [[side[seed]["success"] for seed in both] for side in (mine, by_way["none"])]
        mean, low, high = paired_rates(*pairs)
        figures[f"behind_{way}"] = round(-mean, 4)
        detail[way] |= {"behind_low": round(-high, 4), "behind_high": round(-low, 4)}
        detail[way]["non_inferior"] = bool(-low < MARGIN)
        for what in ("state", "command"):
            all_ms = [ms for row in mine.values() for ms in row[f"{what}_ms"]]
            if all_ms:
                p50, p99 = np.percentile(all_ms, [50, 99])
                figures |= {f"{what}_{way}_p50_ms": p50, f"{what}_{way}_p99_ms": p99}
        detail[way]["held"] = sum(row["holds"] > 0 for row in mine.values())
        detail[way]["tripped"] = sum(row["tripped"] is not None for row in mine.values())
        detail[way]["unseen"] = sum(row.get("unseen", False) for row in mine.values())
        detail[way]["overruns"] = sum(row["overruns"] for row in mine.values())
    return figures, detail


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", nargs="?", default="runs/demo")
    parser.add_argument("--ways", default=",".join(WAYS))
    parser.add_argument("--episodes", type=int, default=400)
    parser.add_argument("--quick", action="store_true", help="a rough figure: few episodes")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args(argv)
    ways = given.ways.split(",")
    seeds = range(FIRST, FIRST + (6 if given.quick else given.episodes))
    name = find_actor(given.run).name
    rows = Path(tempfile.mkdtemp()) / "rows.jsonl" if given.quick else ROWS
    for way in ["none", *ways]:
        measure(way, given.run, name, seeds, rows)
    mine = [row for row in read(rows) if row["policy"] == name]
    figures, detail = summarise(mine, list(WAYS))
    write_result("deploy_latency", figures, {"policy": name, **detail}, given.quick, given.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
