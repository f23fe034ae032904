"""Small models for the tests beside this file, in which something simple happens."""

from __future__ import annotations

from typing import Any

import numpy as np
from embodied.envs.bullet.sim import BulletSim

from embodied.sim import ModelSource

ARM = """<body name="base" pos="-2 0 1"><body name="tool" gravcomp="1">
    <joint name="lift" type="slide" axis="0 0 1" range="-0.5 0.5"/>
    <geom name="tool" type="box" size="0.05 0.05 0.05" mass="1"/></body></body>"""
SERVO = """<actuator><position name="lift" joint="lift" kp="1000" kv="100"
    ctrlrange="-0.5 0.5" forcerange="-200 200"/></actuator>"""


def model(bodies: str, extra: str = "", arm: str = ARM, actuators: str = SERVO) -> ModelSource:
    """A model with a one-joint arm that is out of the way, `bodies` of the world and `extra`."""
    return ModelSource(
        f"""<mujoco><compiler autolimits="true"/><option timestep="0.005"/>{extra}<worldbody>
        <geom name="floor" type="plane" size="5 5 0.1" friction="0.01"/>{arm}{bodies}
        </worldbody>{actuators}</mujoco>"""
    )


def box(name: str, pos: str, half: float, more: str = "", body: str = "") -> str:
    return f"""<body name="{name}" pos="{pos}" {body}><freejoint name="{name}"/>
        <geom name="{name}" type="box" size="{half} {half} {half}" mass="1" {more}/></body>"""


def start(sim: Any, **rows: Any) -> None:
    """All worlds anew, in the model's state but for `rows`."""
    sim.reset(rows, np.arange(sim.num_worlds))


def run(sim: Any, seconds: float, control: float = 0.0) -> None:
    steps = round(seconds / sim.timestep_s)
    sim.step(np.full((sim.num_worlds, sim.model.nu), control), steps)


def made(source: ModelSource, num_worlds: int = 1, **options: Any) -> BulletSim:
    return BulletSim(source, num_worlds, **options)
