"""`embodied deploy`: a trained policy on a robot, or on a simulated one behind the same topics."""

from __future__ import annotations

import json
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from embodied import __version__
from embodied.actor import Actor, find_actor
from embodied.agent import Policy
from embodied.arguments import settings
from embodied.build import make
from embodied.config import CONF, amend, options
from embodied.deploy.bench import Bench
from embodied.deploy.chunked import in_time
from embodied.deploy.eyes import Eyes
from embodied.deploy.fit import body_settings, check_fit, start_pose
from embodied.deploy.in_hand import InHand
from embodied.deploy.keeper import Keeper, Tripped
from embodied.deploy.messages import Text
from embodied.deploy.recorder import ABOUT, EVENT, START, Recorder
from embodied.deploy.requests import Mode, Wish
from embodied.deploy.robot_env import RobotEnv
from embodied.deploy.robot_map import RobotMap, load_robot_map
from embodied.deploy.session import Session
from embodied.errors import UserError, unknown
from embodied.spaces import to_vector, vector_keys, vector_size

ROBOTS = Path(__file__).parent / "robots"
DEFAULTS = {
    "robot": "panda_sim",
    "transport": "sim",
    "simulated": bool,
    "shadow": False,
    "episodes": 1,
    "seed": 10_000,
    "greedy": True,
    "record": str,
    "max_steps": int,
    "home": True,
    "trust_pickle": False,
}
SIM = {"_target_": "embodied.envs.ros.robot_sim.RobotSim"}
LOOK_EVERY = 5
"""Steps of control between questions to the bench whether the task is done."""
HOME_S, LISTEN_S = 60.0, 10.0
CAMERA, CAMERA_HZ = "tracking", 30.0
"""Of the simulated robot: the name of its model's camera, and images a second."""


@dataclass
class Deployment:
    """All that a deployment is made of, chosen but not started."""

    robot: RobotMap
    transport: dict[str, Any]
    cfg: DictConfig
    env: RobotEnv
    policy: Policy
    actor: Actor
    shadow: bool
    greedy: bool
    simulated: bool
    tracked: tuple[str, ...]
    record: Path | None

    @property
    def sizes(self) -> tuple[int, int]:
        return vector_size(self.env.observation_space), self.env.action_spec.size


def deploy(who: str, arguments: Sequence[str] = (), config_dir: str | Path | None = None) -> int:
    """Deploy `who` (see `embodied.actor`) as the `key=value` arguments say; 1 if the robot tripped.

    Raises `UserError` for bad input, and where policy and robot do not fit, before anything moves.
    """
    wanted, overrides = settings(arguments, DEFAULTS, ("transport",))
    plan = choose(who, wanted, overrides, config_dir)
    seeds = range(wanted["seed"], wanted["seed"] + wanted["episodes"])
    with ExitStack() as stack:
        session, recorder = start(plan, stack)
        try:
            rows = _episodes(plan, session, recorder, seeds)
        finally:  # also where somebody interrupts it: then it goes home first
            tripped = session.keeper.state.mode == Mode.TRIPPED
            if wanted["home"] and not plan.shadow and not tripped:
                go_home(session)
    return int(any(row["tripped"] for row in rows))


def _episodes(
    plan: Deployment, session: Session, recorder: Recorder | None, seeds: range
) -> list[dict[str, Any]]:
    """Run all episodes, and say how they went."""
    console, rows = Console(highlight=False), []
    for seed in seeds:
        if session.failed() and not plan.simulated:
            console.print(f"waiting for true on {plan.robot.arm_topic}, to go on (Ctrl-C ends it)")
            session.wait_armed()
        rows.append(run_episode(plan, session, seed, recorder))
        console.print(describe(rows[-1]))
        for line, count in Counter(session.keeper.hear()).items():
            console.print(f"  {line}{f' ({count} times)' if count > 1 else ''}", markup=False)
    return rows


def choose(
    who: str, wanted: dict[str, Any], overrides: list[str], config_dir: str | Path | None = None
) -> Deployment:
    """Find everything, and see whether it fits. Raises `UserError`."""
    if wanted["max_steps"]:
        overrides.append(f"env.max_steps={wanted['max_steps']}")
    ways = [text for text in overrides if text.startswith("transport.")]
    overrides = [text for text in overrides if text not in ways]
    actor = find_actor(who, overrides, wanted["trust_pickle"])
    cfg = actor.worlds(overrides, config_dir)
    if "task" not in cfg.env:
        raise UserError(
            f"{cfg.env.name} is no task of a robot arm: there is nothing to deploy it on"
        )
    robot = load_robot_map(robot_file(wanted["robot"]))
    task = make(cfg.env.task)
    tracked = [name for name in getattr(task, "tracked", ()) if name in robot.objects]
    names = [joint.name for joint in robot.joints]
    sim = make(
        OmegaConf.create(SIM), source=task.model(), num_worlds=1, joints=(), objects=(),
        rate_hz=robot.rate_hz,
    )  # fmt: skip
    check_fit(robot, task, sim)
    sim.watch(names, tracked)
    env = RobotEnv(task, sim, cfg.env.max_steps, seed=wanted["seed"])
    transport = transport_settings(wanted["transport"], ways)
    simulated = wanted["simulated"]
    if simulated is None:
        simulated = wanted["transport"] == "sim"
    policy = in_time(actor.policy(env), robot.rate_hz)
    return Deployment(
        robot=robot,
        transport=transport,
        cfg=cfg,
        env=env,
        policy=policy,
        actor=actor,
        shadow=wanted["shadow"],
        greedy=wanted["greedy"],
        simulated=simulated,
        tracked=tuple(tracked),
        record=_record_folder(actor, wanted["record"]),
    )


def robot_file(name: str) -> Path:
    """A robot.yaml by its path, or by the name of one that ships with embodied."""
    if Path(name).suffix in (".yaml", ".yml"):
        return Path(name)
    known = sorted(file.stem for file in ROBOTS.glob("*.yaml"))
    if name not in known:
        raise unknown("robot (give a robot.yaml, or one of ours)", name, known)
    return ROBOTS / f"{name}.yaml"


def transport_settings(name: str, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """A transport's configuration, with `transport.KEY=VALUE` overrides. Raises `UserError`."""
    if name not in options("transport"):
        raise unknown("transport", name, options("transport"))
    cfg = OmegaConf.create({"transport": OmegaConf.load(CONF / "transport" / f"{name}.yaml")})
    plain = OmegaConf.to_container(amend(cfg, overrides).transport, resolve=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def start(plan: Deployment, stack: ExitStack) -> tuple[Session, Recorder | None]:
    """Start the recorder, the simulated robot where there is one, the guard; nothing moves yet."""
    transport = dict(plan.transport)
    if plan.simulated and "folder" in transport and transport["folder"] is None:
        transport["folder"] = stack.enter_context(tempfile.TemporaryDirectory(prefix="robot_"))
    recorder = None
    if plan.record is not None:
        recorder = stack.enter_context(Recorder(plan.record))
        recorder.record(ABOUT, Text(json.dumps(about(plan))))
    common = {"robot": plan.robot.plain, "where": plan.robot.name, "transport": transport}
    bench, tracker = None, None
    tracked = bool(plan.tracked)
    if plan.simulated:
        cfg = OmegaConf.to_container(plan.cfg, resolve=True)
        camera = camera_settings(plan.robot) if tracked else None
        bench = Bench({**common, "cfg": cfg, "camera": camera})
        stack.callback(bench.close)
    if tracked:
        with _recording(recorder) as file:
            tracker = Eyes(_tracker(plan), transport, file)
        stack.callback(tracker.close)
    with _recording(recorder) as file:
        keeper = Keeper(guard_settings(plan, transport), len(plan.robot.joints), file)
    stack.callback(keeper.close)
    in_hand = carried(plan) if tracked else None
    session = Session(plan.robot, keeper, tracker, bench, plan.shadow, in_hand)
    plan.env.sim.link = session  # type: ignore[attr-defined]
    topic = plan.robot.state_topic
    keeper.wait(
        lambda state: state.mode != Mode.WAITING, LISTEN_S, f"no joints are heard on {topic}"
    )
    return session, recorder


@contextmanager
def _recording(recorder: Recorder | None) -> Iterator[int | None]:
    """An open file by which another process, once it has it, adds to the record."""
    if recorder is None:
        yield None
        return
    sender = recorder.sender()
    try:
        yield sender.fileno()
    finally:
        sender.close()


def guard_settings(plan: Deployment, transport: dict[str, Any]) -> dict[str, Any]:
    """What the guard's process is told."""
    return {
        "robot": plan.robot.plain,
        "where": plan.robot.name,
        "transport": transport,
        "observation": plan.sizes[0],
        "action": plan.sizes[1],
        "body": body_settings(plan.robot, plan.env.task),
        "home": start_pose(plan.robot, plan.env.task),
        "shadow": plan.shadow,
    }


def _tracker(plan: Deployment) -> dict[str, Any]:
    """The tracker of the objects that this task sees, and of no other."""
    objects = {name: plan.robot.tracker["objects"][name] for name in plan.tracked}
    return {**plan.robot.tracker, "objects": objects}


def carried(plan: Deployment) -> InHand:
    """What carries the tracked cubes that the hand holds, as large as the map has them."""
    cubes = {name: plan.robot.tracker["objects"][name].get("cube") for name in plan.tracked}
    sizes = {name: float(cube["half_m"]) for name, cube in cubes.items() if cube}
    task: Any = plan.env.task
    return InHand(task.robot, [joint.name for joint in plan.robot.joints], sizes)


def camera_settings(robot: RobotMap) -> dict[str, Any]:
    """The simulated camera, where the map has the real one."""
    lens = robot.tracker["camera"]
    return {
        "name": CAMERA,
        "topic": robot.tracker["topic"],
        "height": lens["height"],
        "width": lens["width"],
        "rate_hz": CAMERA_HZ,
    }


def run_episode(
    plan: Deployment, session: Session, seed: int, recorder: Recorder | None = None
) -> dict[str, Any]:
    """One episode: `seed`, `success`, `length`, `tripped` (why, or None), `holds`, `blind` (steps
    without the camera), `overruns`."""
    env, keeper = plan.env, session.keeper
    keys = vector_keys(env.observation_space)
    session.seed = seed
    if recorder is not None:
        told = {"t_ns": time.time_ns(), "kind": START, "what": f"episode of seed {seed}"}
        recorder.record(EVENT, Text(json.dumps(told)))
    before, overruns = keeper.state.holds, env.sim.overruns  # type: ignore[attr-defined]
    blind = session.blind
    success, tripped, length = False, None, 0
    try:
        obs, carry = env.reset(seed=np.array([seed])), plan.policy.carry(1)
        for length in range(1, env.max_steps + 1):
            carry, action = plan.policy.act(carry, obs, plan.greedy)
            keeper.observation[:] = to_vector(obs, keys)[0]
            keeper.action[:] = action[0]
            step = env.step(action)
            obs = step.obs
            success = success or _done(session, step, length)
            if step.fault[0]:
                raise Tripped(keeper.why())
            if success:
                break
        keeper.ask(Wish.NOTHING)
    except Tripped as trip:
        tripped = str(trip)
    return {
        "seed": seed,
        "success": bool(success),
        "length": length,
        "tripped": tripped,
        "holds": keeper.state.holds - before,
        "blind": session.blind - blind,
        "overruns": env.sim.overruns - overruns,  # type: ignore[attr-defined]
    }


def _done(session: Session, step: Any, length: int) -> bool:
    """Whether the task is done: by the bench, which knows; else by what was seen."""
    if session.bench is None:
        return bool(step.success[0])
    return length % LOOK_EVERY == 0 and bool(session.bench.look()["succeeded"])


def go_home(session: Session) -> None:
    """Bring the robot to its home pose, and end."""
    number = session.keeper.ask(Wish.HOME)
    try:
        session.keeper.wait_for(number, (Mode.DONE,), HOME_S, "the robot does not get home")
    except Tripped as trip:
        raise UserError(f"stopped on its way home: {trip}") from None


def describe(row: dict[str, Any]) -> str:
    """A line about an episode."""
    end = f"tripped: {row['tripped']}" if row["tripped"] else "done" if row["success"] else "failed"
    blind = f", {row['blind']} of them without the camera" if row["blind"] else ""
    return f"seed {row['seed']}  {end}, {row['length']} steps{blind}, held {row['holds']} times"


def about(plan: Deployment) -> dict[str, Any]:
    """What a record says of itself."""
    return {
        "checkpoint": plan.actor.name,
        "robot_map": plan.robot.plain,
        "transport": plan.transport,
        "simulated": plan.simulated,
        "live": not plan.shadow,
        "greedy": plan.greedy,
        "env": plan.env.name,
        "embodied": __version__,
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
    }


def _record_folder(actor: Actor, given: str | None) -> Path | None:
    if given == "false":
        return None
    if given is not None:
        return Path(given)
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    return (actor.folder or Path()) / "flights" / stamp
