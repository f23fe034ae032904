"""A simulated robot behind the topics of a real one: `python -m embodied.deploy.plant`.

Its physics runs in this process on the clock on the wall, and waits for nobody: it reads what
commands have come, goes one step of physics on, and says where its joints are. All that a policy
can learn of it travels on topics. Somebody at the bench (`embodied.deploy.bench`) can put the
world at the start of an episode, and ask whether the task is done, which no robot could tell.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import numpy as np
from omegaconf import OmegaConf

from embodied.build import make, make_env
from embodied.deploy.camera import scene_slot
from embodied.deploy.mailbox import Mailbox
from embodied.deploy.messages import JointState, JointTrajectory, Malformed
from embodied.deploy.process import lifeline, start
from embodied.deploy.robot_map import COMMANDS, RobotMap, robot_map
from embodied.deploy.transport import Transport
from embodied.errors import UserError
from embodied.random import Draw

PRIORITY, FIFO = 5, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK
DELAYS = 2000
BEHIND_NS = 100_000_000
"""How far physics may fall behind the wall's clock before it gives up to catch up."""


class Plant:
    """One world of a task, told and asked as a robot is. `step` goes one step of physics on.

    `scene` is a mailbox from which a camera's process reads what there is to be seen.
    """

    def __init__(
        self, env: Any, robot: RobotMap, transport: Transport, scene: Mailbox | None = None
    ) -> None:
        self.env, self.robot, self.transport, self.scene = env, robot, transport, scene
        self.sim, self.task = env.sim, env.task
        self._places = [self.sim.joint(joint.name) for joint in robot.joints]
        self._servos = [self.sim.actuator(joint.name) for joint in robot.joints]
        self.control = np.zeros((1, len(self.sim.control_range)))
        self.still = np.zeros(0)
        """Of the scene, all that stays where it is during an episode."""
        self.sizes: dict[str, float] = {}
        """Half an edge of each tracked cube, in m: what an operator would know."""
        self.delays_ns: deque[int] = deque(maxlen=DELAYS)
        """How long commands that bear a stamp were on their way, the newest of them."""
        self.steps = self.malformed = 0
        self.succeeded = False
        transport.advertise(robot.state_topic, JointState)
        transport.subscribe(robot.command_topic, COMMANDS[robot.command_kind])
        self.reset(0)

    def reset(self, seed: int) -> None:
        """The start of the episode with that seed; the robot holds where it then is."""
        self.env.reset(seed=np.array([seed]))
        rows, parameters, _ = self.task.reset(self.sim, Draw(np.array([seed]), np.array([0])))
        shapes = parameters.get("geom_size", self.sim.parameter("geom_size")[None])
        places = [rows[key] for key in ("mocap_pos", "mocap_quat")]
        self.still = np.concatenate([np.ravel(part) for part in (*places, shapes)])
        self.sizes = {name: self._half(name, shapes[0]) for name in self.task.tracked}
        self.transport.take()
        self.hold()
        self.steps, self.succeeded = 0, False
        self.action = np.zeros((1, self.env.action_spec.size), np.float32)
        self.before = self.task.before(self.sim)

    def _half(self, name: str, shapes: np.ndarray) -> float:
        try:
            return float(shapes[self.sim.geom(name)][0])
        except UserError:  # of several shapes
            return 0.0

    def hold(self) -> None:
        """Tell the servos to stay where they are."""
        for (q, _), servo in zip(self._places, self._servos, strict=True):
            self.control[:, servo] = self.sim.qpos[:, q][:, 0]

    def hear(self) -> None:
        """Take in the commands that came."""
        for received in self.transport.take():
            try:
                told = self.robot.told(received.message)
            except Malformed:
                self.malformed += 1
                continue
            if isinstance(received.message, JointTrajectory) and received.message.stamp_ns:
                since = time.monotonic_ns() - received.received_ns
                self.delays_ns.append(time.time_ns() - since - received.message.stamp_ns)
            for joint, servo in zip(self.robot.joints, self._servos, strict=True):
                if joint.name in told and np.isfinite(told[joint.name]):
                    low, high = self.sim.control_range[servo]
                    self.control[:, servo] = np.clip(told[joint.name], low, high)

    def step(self) -> None:
        self.sim.step(self.control, 1)
        self.steps += 1
        if self.steps % self.env.substeps == 0:
            _, self.env.memory = self.task.reward(
                self.sim, self.action, self.before, self.env.memory
            )
            self.before = self.task.before(self.sim)
            self.succeeded |= bool(self.task.success(self.sim, self.env.memory)[0])

    def speak(self, stamp_ns: int) -> None:
        """Say where the joints are, in the robot's own names, units and directions."""
        position, velocity = [], []
        for joint, (q, v) in zip(self.robot.joints, self._places, strict=True):
            position.append(joint.to_theirs(float(self.sim.qpos[0, q][0])))
            velocity.append(float(self.sim.qvel[0, v][0]) / joint.factor)
        names = tuple(joint.theirs for joint in self.robot.joints)
        state = JointState(stamp_ns, names, tuple(position), tuple(velocity))
        self.transport.publish(self.robot.state_topic, state)

    def show(self) -> None:
        """Let the camera's process see the world."""
        if self.scene is not None:
            now = np.array([float(time.time_ns())])
            parts = [now, np.ravel(self.sim.qpos[0]), self.still]
            self.scene.write("scene", np.concatenate(parts))


def main() -> int:
    """Run until the bench lets go."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    given = json.loads(sys.stdin.buffer.readline())
    bench = socket.socket(fileno=given["bench"])
    bench.setblocking(False)
    try:
        simulate(given, bench)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def simulate(given: Mapping[str, Any], bench: socket.socket | None = None, seed: int = 0) -> None:
    """Simulate the robot that `given` describes, until the bench lets go (for ever without one).

    `cfg` says in which worlds, `robot` is a robot map's contents (`where` it is from), `camera`,
    unless None, what the tracking camera is. Raises `UserError`.
    """
    with suppress(OSError):
        os.sched_setscheduler(0, FIFO, os.sched_param(PRIORITY))
    cfg = OmegaConf.create(given["cfg"])
    robot = robot_map(given["robot"], given["where"])
    env: Any = make_env(cfg, num_envs=1, seed=0)
    transport = make(given["transport"])
    try:
        scene = _camera(given, env) if given.get("camera") else None
        plant = Plant(env, robot, transport, scene)
        plant.reset(seed)
        run(plant, bench, round(1e9 * env.sim.timestep_s))
    finally:
        transport.close()
        env.close()


def _camera(given: Mapping[str, Any], env: Any) -> Mailbox:
    """Start the camera's process, which ends with this one: what it is shown."""
    scene = Mailbox(scene_slot(env.sim.model))
    theirs, _ = lifeline()  # which closes when this process ends
    settings = {
        "camera": given["camera"],
        "task": given["cfg"]["env"]["task"],
        "transport": given["transport"],
        "scene": scene.file,
        "life": theirs,
    }
    start("camera", settings, (theirs, scene.file))
    os.close(theirs)
    return scene


def run(plant: Plant, bench: socket.socket | None, period_ns: int) -> None:
    due = time.monotonic_ns()
    while _answer(plant, bench):
        plant.hear()
        plant.step()
        plant.speak(time.time_ns())
        plant.show()
        due += period_ns
        now = time.monotonic_ns()
        if now - due > BEHIND_NS:
            due = now
        time.sleep(max(0.0, (due - now) * 1e-9))


def _answer(plant: Plant, bench: socket.socket | None) -> bool:
    """Do what somebody at the bench asks for; False when nobody is there any more."""
    if bench is None:
        return True
    try:
        data = bench.recv(65536)
    except BlockingIOError:
        return True
    if not data:
        return False
    asked = json.loads(data)
    if "seed" in asked:
        plant.reset(asked["seed"])
    answer = {
        "succeeded": plant.succeeded,
        "steps": plant.steps,
        "malformed": plant.malformed,
        "half_m": plant.sizes,
    }
    if asked.get("delays"):
        answer["delays_ns"] = list(plant.delays_ns)
        plant.delays_ns.clear()
    bench.send(json.dumps(answer).encode())
    return True


if __name__ == "__main__":
    sys.exit(main())
