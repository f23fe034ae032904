from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from embodied.envs.ros.robot_sim import RobotSim
from embodied.envs.tasks.reach import Reach
from embodied.envs.tasks.robot import panda

from embodied.errors import UserError

ROBOT = panda()
JOINTS = (*ROBOT.joints, *ROBOT.fingers)


class Told:
    """A link that remembers, with a clock that sleeping moves."""

    def __init__(self) -> None:
        self.q = np.linspace(-0.1, 0.7, 9)
        self.commands: list[np.ndarray] = []
        self.prepared: list[np.ndarray] = []
        self.seen: dict[str, np.ndarray] = {}
        self.tripped, self.now = False, 100.0

    def joints(self) -> tuple[np.ndarray, np.ndarray]:
        return self.q, -self.q

    def objects(self) -> Mapping[str, np.ndarray]:
        return self.seen

    def command(self, target: np.ndarray) -> None:
        self.commands.append(target)
        self.now += 0.03  # it takes a while

    def prepare(self, target: np.ndarray) -> None:
        self.prepared.append(target)

    def failed(self) -> bool:
        return self.tripped

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def linked(joints: tuple[str, ...] = JOINTS, worlds: int = 1) -> tuple[RobotSim, Told]:
    link = Told()
    sim = RobotSim(
        Reach(ROBOT).model(), worlds, joints, (), 20.0, link, lambda: link.now, link.sleep
    )
    return sim, link


def test_joints_are_read_and_told_by_name() -> None:
    backwards = JOINTS[::-1]
    sim, link = linked(backwards)
    control = np.arange(9.0)[None]
    sim.step(control, 10)
    assert link.commands[0].tolist() == list(range(9))[::-1]
    for name, x in zip(backwards, link.q, strict=True):
        q, v = sim.joint(name)
        assert sim.qpos[0, q] == [x] and sim.qvel[0, v] == [-x]


def test_a_step_ends_when_the_next_is_due_and_late_ones_are_counted() -> None:
    sim, link = linked()
    sim.reset({"qpos": sim.qpos.copy()}, np.array([0]))
    start = link.now
    for _ in range(4):
        sim.step(np.zeros((1, 9)), 10)
    assert link.now == pytest.approx(start + 4 * 0.05) and sim.overruns == 0
    link.now += 0.04  # a policy that thinks for too long
    sim.step(np.zeros((1, 9)), 10)
    assert sim.overruns == 1
    begin = link.now
    sim.step(np.zeros((1, 9)), 10)
    assert link.now == pytest.approx(begin + 0.05), "what was lost is not made up for"


def test_a_reset_brings_the_robot_to_the_start_and_measures() -> None:
    sim, link = linked()
    rows = np.array(sim.qpos)
    rows[:, :9] = 0.25
    sim.reset({"qpos": rows}, np.array([0]))
    assert link.prepared[0].tolist() == [0.25] * 9
    np.testing.assert_allclose(sim.qpos[0, :9], link.q)
    assert not sim.faults()[0]
    link.tripped = True
    assert sim.faults()[0]


def test_what_a_robot_cannot_do_is_refused() -> None:
    sim, _ = linked()
    for call in (
        lambda: sim.read("cinert"), lambda: sim.sensor("touch"), sim.snapshot,
        lambda: sim.restore({}), lambda: sim.render("front", np.array([0]), 64, 64),
    ):  # fmt: skip
        with pytest.raises(UserError, match="robot"):
            call()
    with pytest.raises(UserError, match="one world"):
        linked(worlds=2)
