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
from contextlib import suppress
from typing import Any

import numpy as np
from omegaconf import OmegaConf

from embodied.build import make, make_env
from embodied.deploy.mailbox import Mailbox
from embodied.deploy.messages import JointState, Malformed
from embodied.deploy.robot_map import COMMANDS, RobotMap, robot_map
from embodied.deploy.transport import Transport

BEHIND_NS = 100_000_000
"""How far physics may fall behind the wall's clock before it gives up to catch up."""


class Plant:
    """One world of a task, told and asked as a robot is. `step` goes one step of physics on.

    `scene` is a slot of a mailbox that a camera's process reads: all of qpos, of the mocap poses
    and of the sizes of shapes.
    """

    def __init__(
        self, env: Any, robot: RobotMap, transport: Transport, scene: Mailbox | None = None
    ) -> None:
        self.env, self.robot, self.transport, self.scene = env, robot, transport, scene
        self.sim, self.task = env.sim, env.task
        self._places = [self.sim.joint(joint.name) for joint in robot.joints]
        self._servos = [self.sim.actuator(joint.name) for joint in robot.joints]
        self.control = np.zeros((1, len(self.sim.control_range)))
        self.rows: dict[str, np.ndarray] = {}
        self.steps = self.malformed = 0
        self.succeeded = False
        transport.advertise(robot.state_topic, JointState)
        transport.subscribe(robot.command_topic, COMMANDS[robot.command_kind])
        self.reset(0)

    def reset(self, seed: int) -> None:
        """The start of the episode with that seed; the robot holds where it then is."""
        self.env.reset(seed=np.array([seed]))
        self.transport.take()
        self.hold()
        self.steps, self.succeeded = 0, False
        self.action = np.zeros((1, self.env.action_spec.size), np.float32)
        self.before = self.task.before(self.sim)

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
            parts = [np.ravel(self.sim.qpos[0]), *(np.ravel(self.rows[k]) for k in self.rows)]
            self.scene.write("scene", np.concatenate(parts))


def main() -> int:
    """Run until the bench lets go (or, without one, until it is interrupted)."""
    given = json.loads(sys.stdin.buffer.readline())
    with suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(given.get("priority", 5)))
    cfg = OmegaConf.create(given["cfg"])
    robot = robot_map(given["robot"], given["where"])
    env: Any = make_env(cfg, num_envs=1, seed=0)
    transport = make(given["transport"])
    plant = Plant(env, robot, transport)
    bench = socket.socket(fileno=given["bench"]) if given.get("bench") is not None else None
    if bench is not None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        bench.setblocking(False)
    try:
        run(plant, bench, round(1e9 * env.sim.timestep_s))
    finally:
        transport.close()
        env.close()
    return 0


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
    answer = {"succeeded": plant.succeeded, "steps": plant.steps, "malformed": plant.malformed}
    bench.send(json.dumps(answer).encode())
    return True


if __name__ == "__main__":
    sys.exit(main())
