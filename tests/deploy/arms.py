"""A two-joint arm and its map, small enough to work out by hand."""

from __future__ import annotations

from typing import Any

from embodied.deploy.body import Body
from embodied.deploy.robot_map import RobotMap, robot_map

XML = """<mujoco>
  <compiler angle="radian"/>
  <worldbody>
    <body name="base"><geom name="base" type="sphere" size="0.05" contype="1" conaffinity="1"/>
      <body name="upper"><joint name="a" axis="0 0 1"/>
        <geom name="upper" type="capsule" fromto="0.1 0 0 0.4 0 0" size="0.04"/>
        <body name="lower" pos="0.5 0 0"><joint name="b" axis="0 0 1"/>
          <geom name="lower" type="capsule" fromto="0.1 0 0 0.4 0 0" size="0.04"/>
          <body name="hand" pos="0.5 0 0"><geom name="hand" type="sphere" size="0.05"/>
            <site name="tool"/></body>
        </body>
      </body>
    </body>
  </worldbody>
</mujoco>"""
"""Links of half a metre in a plane; the hand is at `(cos a + cos(a + b)) / 2` and so on."""


def plain(**changes: Any) -> dict[str, Any]:
    """What its robot.yaml says, with changes of its first level."""
    joint = {"position": [-3.0, 3.0], "velocity": 2.0, "acceleration": 10.0}
    settings: dict[str, Any] = {
        "name": "two",
        "rate_hz": 20,
        "guard_hz": 200,
        "state": {"topic": "/joint_states"},
        "command": {"topic": "/commands"},
        "joints": {"a": {"name": "left", **joint}, "b": {"name": "right", **joint}},
        "safety": {"blend_s": 0},
    }
    return {**settings, **changes}


def robot(**changes: Any) -> RobotMap:
    return robot_map(plain(**changes))


def body(box: Any = None, singular: float = 0.0, apart_m: float = 0.01) -> Body:
    return Body(XML, ("a", "b"), ("a", "b"), "tool", (0.3, 1.0), box, apart_m, singular)
