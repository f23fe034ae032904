"""Everything that goes wrong between a policy and a robot, one at a time, while the arm moves.

The simulated arm, the guard and the policy are processes of their own on the clock on the wall; an
onlooker sees on the topics what is really sent. A fault comes at a random moment of fast motion.
`safe_FAULT` is the share of its trials in which all commands were inside the limits, the guard had
said why within 100 ms, and where it has to stop the robot every command after that slowed it down
until it stood. `within_ms` is how long the guard took to react and `rest_ms` until commands stood
still, p50 and the longest, in the details.

    python -m benchmarks.deploy_faults [--trials 20] [--quick]
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf
from rich.progress import track

from benchmarks.harness import write_result
from benchmarks.mischief import FAULTS as OF_STATES
from benchmarks.mischief import SLOT
from embodied.arguments import settings
from embodied.build import make
from embodied.deploy import deploy
from embodied.deploy.bench import Bench
from embodied.deploy.keeper import Keeper
from embodied.deploy.mailbox import Mailbox
from embodied.deploy.messages import Flag, Floats, Text
from embodied.deploy.requests import Mode
from embodied.deploy.session import Session

STOPS = (*OF_STATES[1:], "stalls", "killed", "not a number", "stop pressed")
CLAMPED = ("beyond limits", "beyond reach")
FAULTS = (*STOPS, *CLAMPED)
LIMIT_MS = 100.0
WATCH_S = 0.45
"""How long the robot is watched after a fault: less than the guard's patience."""
FEW_STEPS, MOST_STEPS = 6, 14
"""Control steps before a fault: the expert is on its way to the goal then, and fast."""
ACTOR = ("expert", "env=reach")
REACTIONS = ("hold", "trip", "clamp", "refused", "resumed")


class Onlooker:
    """Somebody who listens to what is sent to the robot, and to what the guard says."""

    def __init__(self, robot: Any, transport: dict[str, Any]) -> None:
        self.robot = robot
        self.transport = make(OmegaConf.create(transport))
        self.transport.subscribe(robot.command_topic, Floats)
        self.transport.subscribe(robot.status_topic, Text)
        self.transport.advertise(robot.stop_topic, Flag)
        self.commands: list[tuple[int, np.ndarray]] = []
        self.said: list[dict[str, Any]] = []
        self.offset_ns = time.time_ns() - time.monotonic_ns()

    def listen(self, seconds: float = 0.0) -> None:
        end = time.monotonic() + seconds
        while True:
            for received in self.transport.take():
                if isinstance(received.message, Floats):
                    row = np.array(received.message.data)
                    self.commands.append((received.received_ns, row))
                elif isinstance(received.message, Text):
                    self.said.append(json.loads(received.message.data))
            if time.monotonic() >= end:
                return
            time.sleep(0.005)

    def verdict(self, fault: str, fault_ns: int) -> dict[str, Any]:
        """What came of a fault, from what was sent and said since."""
        joints = self.robot.joints
        low, high, speed = (np.array([getattr(j, k) for j in joints]) for k in LIMITS)
        times = np.array([t for t, _ in self.commands])
        rows = np.array([row for _, row in self.commands])
        moved = np.diff(rows, axis=0)
        most = speed / self.robot.guard_hz * (1.0 + 1e-6)
        inside = bool(np.all((rows >= low) & (rows <= high)) and np.all(np.abs(moved) <= most))
        wall_ns = fault_ns + self.offset_ns
        after = [e for e in self.said if e["t_ns"] >= wall_ns and e["kind"] in REACTIONS]
        first = next((e for e in after if e["kind"] == "clamp"), None)
        first = first if fault in CLAMPED else _last_stop(after)
        if first is None:
            return {"fault": fault, "safe": False, "why": None, "inside": inside}
        within_ms = (first["t_ns"] - wall_ns) * 1e-6
        safe = inside and within_ms <= LIMIT_MS
        row = {"fault": fault, "inside": inside, "within_ms": within_ms, "why": first["what"]}
        if fault in STOPS:
            since = times[1:] > first["t_ns"] - self.offset_ns
            steps = np.abs(moved[since])
            slowing = bool(np.all(np.diff(steps, axis=0) <= 1e-9))
            stands = len(steps) == 0 or not steps[-1].any()
            moving = times[1:][(np.abs(moved).max(axis=1) > 1e-9) & (times[1:] > fault_ns)]
            row["rest_ms"] = 1e-6 * float(moving[-1] - fault_ns) if len(moving) else 0.0
            safe = safe and slowing and stands
            row |= {"slowing": slowing, "stands": bool(stands)}
        return {**row, "safe": safe}


LIMITS = ("low", "high", "velocity")


def _last_stop(said: list[dict[str, Any]]) -> dict[str, Any] | None:
    """When the guard began to hold the robot and did not go on since."""
    since = None
    for event in said:
        if event["kind"] == "resumed":
            since = None
        elif event["kind"] in ("hold", "trip") and since is None:
            since = event
    return since


class Disturbed(Exception):
    """Something went wrong before it was meant to."""


class Rig:
    """A rehearsal whose robot's transport can be made to fail."""

    def __init__(self, stack: ExitStack) -> None:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="rig_"))
        self.plan = plan = choose(folder)
        self.transport = dict(plan.transport)
        self.mailbox = Mailbox(SLOT)
        broken = {"_target_": "benchmarks.mischief.Mischief", "inner": json.dumps(self.transport)}
        broken["file"] = self.mailbox.file  # type: ignore[assignment]
        common = {"robot": plan.robot.plain, "where": plan.robot.name}
        cfg = OmegaConf.to_container(plan.cfg, resolve=True)
        self.bench = Bench({**common, "transport": broken, "cfg": cfg}, (self.mailbox.file,))
        stack.callback(self.bench.close)
        keeper = Keeper(deploy.guard_settings(plan, self.transport), len(plan.robot.joints))
        stack.callback(keeper.close)
        self.session = Session(plan.robot, keeper, None, self.bench)
        plan.env.sim.link = self.session  # type: ignore[attr-defined]
        self.onlooker = Onlooker(plan.robot, self.transport)
        stack.callback(self.onlooker.transport.close)

    def trial(self, fault: str, seed: int) -> dict[str, Any]:
        """An episode up to a random moment, a fault, and what is seen of it."""
        rng = np.random.default_rng(seed)
        self.mailbox.write("fault", np.zeros(1))
        self.onlooker.transport.publish(self.plan.robot.stop_topic, Flag(False))
        self.session.seed = seed
        env, policy = self.plan.env, self.plan.policy
        obs, carry = env.reset(seed=np.array([seed])), policy.carry(1)
        self.onlooker.commands.clear()
        self.onlooker.said.clear()
        for _ in range(int(rng.integers(FEW_STEPS, MOST_STEPS))):
            carry, action = policy.act(carry, obs)
            obs = env.step(action).obs
            self.onlooker.listen()
        self._see_it_run()
        self.onlooker.commands[:] = self.onlooker.commands[-2:]
        time.sleep(float(rng.uniform(0.0, 0.02)))
        fault_ns = self._inject(fault, rng)
        end = time.monotonic() + WATCH_S
        while time.monotonic() < end:
            if fault in ("stalls", "beyond limits", "beyond reach", "not a number"):
                self.onlooker.listen(0.05)
                if fault != "stalls":
                    self.session.command(self._bad_target(fault))
            else:  # the policy knows of nothing
                carry, action = policy.act(carry, obs)
                obs = env.step(action).obs
                self.onlooker.listen()
        return self.onlooker.verdict(fault, fault_ns)

    def _see_it_run(self) -> None:
        """The fault is to come while the guard lets the arm move."""
        if self.session.keeper.state.mode != Mode.RUNNING:
            raise Disturbed

    def _inject(self, fault: str, rng: np.random.Generator) -> int:
        self.onlooker.listen()
        now = time.monotonic_ns()
        if fault in OF_STATES:
            self.mailbox.write("fault", np.array([float(OF_STATES.index(fault))]))
        elif fault == "stop pressed":
            self.onlooker.transport.publish(self.plan.robot.stop_topic, Flag(True))
        elif fault != "stalls":
            self.session.command(self._bad_target(fault))
        return now

    def _bad_target(self, fault: str) -> np.ndarray:
        here = self.session.keeper.state.command
        if fault == "not a number":
            return np.where(np.arange(len(here)) == 2, np.nan, here)
        return here + (20.0 if fault == "beyond limits" else 0.5)


def choose(folder: str) -> deploy.Deployment:
    arguments = [*ACTOR[1:], "record=false", f"transport.folder={folder}"]
    wanted, overrides = settings(arguments, deploy.DEFAULTS, ("transport",))
    return deploy.choose(ACTOR[0], wanted, overrides)


def pilot(folder: str, seed: int) -> None:
    """Fly until killed; say when the arm moves."""
    with ExitStack() as stack:
        plan = choose(folder)
        session, _ = deploy.start(plan, stack)
        session.seed = seed
        obs, carry = plan.env.reset(seed=np.array([seed])), plan.policy.carry(1)
        for step in range(1000):
            carry, action = plan.policy.act(carry, obs)
            obs = plan.env.step(action).obs
            if step == FEW_STEPS:
                print("moving", flush=True)


def kill(robot: Any, seed: int) -> dict[str, Any]:
    """Kill a policy's process, and with it the bench; the guard is on its own."""
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory(prefix="rig_") as folder:
        command = [sys.executable, "-m", "benchmarks.deploy_faults", "--pilot", folder, str(seed)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        onlooker = Onlooker(robot, dict(choose(folder).transport))
        assert process.stdout is not None
        os.set_blocking(process.stdout.fileno(), False)
        while "moving" not in (process.stdout.readline() or ""):
            onlooker.listen(0.01)
            if process.poll() is not None:
                raise SystemExit("the pilot does not fly")
        onlooker.listen(float(rng.uniform(0.0, 0.2)))
        onlooker.commands[:] = onlooker.commands[-2:]
        onlooker.said.clear()
        fault_ns = time.monotonic_ns()
        process.send_signal(signal.SIGKILL)
        onlooker.listen(WATCH_S)
        process.wait()
        row = onlooker.verdict("killed", fault_ns)
        onlooker.transport.close()
    return row


def _undisturbed(rig: Rig, fault: str, seed: int) -> dict[str, Any]:
    """A trial, begun anew where something else held the robot before the fault."""
    for again in range(9):
        try:
            return rig.trial(fault, seed + 1000 * again)
        except Disturbed:
            continue
    raise SystemExit("this machine is too busy: the robot is held before any fault")


def summarise(rows: list[dict[str, Any]]) -> tuple[dict[str, Any], dict[str, Any]]:
    figures, detail = {}, {}
    for fault in FAULTS:
        mine = [row for row in rows if row["fault"] == fault]
        if not mine:
            continue
        figures[f"safe_{fault.replace(' ', '_')}"] = sum(row["safe"] for row in mine) / len(mine)
        detail[fault] = {"trials": len(mine), "why": Counter(row["why"] for row in mine)}
        for key in ("within_ms", "rest_ms"):
            values = [row[key] for row in mine if key in row]
            if values:
                p50 = round(float(np.median(values)), 1)
                detail[fault][key] = {"p50": p50, "longest": round(max(values), 1)}
    figures["safe"] = sum(row["safe"] for row in rows) / len(rows)
    for key in ("within_ms", "rest_ms"):
        figures[f"longest_{key}"] = max(row[key] for row in rows if key in row)
    return figures, detail


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--faults", default=",".join(FAULTS))
    parser.add_argument("--quick", action="store_true", help="a rough figure: two trials each")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--pilot", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args(argv)
    if given.pilot:
        pilot(given.pilot[0], int(given.pilot[1]))
        return 0
    trials, rows = (2 if given.quick else given.trials), []
    chosen = given.faults.split(",")
    with ExitStack() as stack:
        rig = Rig(stack)
        robot = rig.plan.robot
        plain = [(fault, k) for k in range(trials) for fault in chosen if fault != "killed"]
        for fault, k in track(plain, "faults"):
            rows.append(_undisturbed(rig, fault, 1000 + k))
    for k in track(range(trials if "killed" in chosen else 0), "kills"):
        rows.append(kill(robot, 1000 + k))
    for row in rows:
        if not row["safe"]:
            print(row)
    figures, detail = summarise(rows)
    write_result("deploy_faults", figures, detail, given.quick, given.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
