"""Robot arms for tabletop tasks: what a task must know of one, and its forward kinematics.

A `Robot` is MJCF text with names in it. Tasks take one as a parameter and read positions from its
own kinematics of the joint angles, which are live after a step on every backend (derived readouts
lag on a plain batch).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from .kinematics import Chain, Link

Array = Any

_ASSETS = Path(__file__).parent / "assets"


@dataclass(frozen=True, eq=False)
class Robot:
    """One arm with a two-finger gripper, standing at the origin of a table and facing +x.

    `xml` is MJCF with position actuators named as the joints they move. The gripper's fingers
    each travel 0 to half of `max_opening_m`. The tool is the site `tool`: z out of the hand, the
    fingers open along y.
    """

    name: str
    xml: str
    joints: tuple[str, ...]
    fingers: tuple[str, str]
    tool: str
    home: tuple[float, ...]
    """Joint angles (rad) with the tool pointing down over the workspace."""
    workspace: Mapping[str, tuple[float, float]]
    """Where objects and goals are, in metres of the table's frame: x, y and z (low, high)."""
    velocity_limit: tuple[float, ...]
    """Joint speeds (rad/s) that the robot's controller accepts."""
    max_opening_m: float = 0.08
    cameras: tuple[str, ...] = ("front", "wrist")

    @cached_property
    def chain(self) -> tuple[Link, ...]:
        """The links from the base to the tool, read from the compiled model."""
        import mujoco

        return read_chain(mujoco.MjModel.from_xml_string(self.xml), self.joints, self.tool)

    def kinematics(self, xp: Any, device: Any = None, dtype: Any = None) -> Chain:
        """Forward kinematics of the tool for arrays of namespace `xp` (float64 by default)."""
        return Chain(self.chain, xp, device, dtype)

    @cached_property
    def joint_range(self) -> np.ndarray:
        """Joint limits in rad, `(A, 2)`."""
        import mujoco

        model = mujoco.MjModel.from_xml_string(self.xml)
        return np.stack([model.joint(name).range for name in self.joints])


def read_chain(model: Any, joints: tuple[str, ...], tool: str) -> tuple[Link, ...]:
    """A compiled model's serial chain of hinges from the world to a site, as `Link`s."""
    site = model.site(tool)
    rotation, position = _matrix(site.quat), np.array(site.pos)
    body, links = int(site.bodyid[0]), []
    by_body = {int(model.joint(name).bodyid[0]): model.joint(name) for name in joints}
    while body:
        if body in by_body:
            joint = by_body.pop(body)
            align = _onto_z(joint.axis)
            if np.any(joint.pos):
                raise ValueError(f"joint {joint.name!r} is off its body's origin: give it pos 0")
            links.append((align.T @ position, align.T @ rotation))
            position, rotation = np.zeros(3), align
        here = _matrix(model.body_quat[body])
        position = model.body_pos[body] + here @ position
        rotation = here @ rotation
        body = int(model.body_parentid[body])
    if by_body:
        stray = [joint.name for joint in by_body.values()]
        raise ValueError(f"joints that do not lead to {tool!r}: {stray}")
    links.append((position, rotation))
    return tuple(Link(p, r) for p, r in reversed(links))


def _matrix(quat: np.ndarray) -> np.ndarray:
    w, x, y, z = quat / np.linalg.norm(quat)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def _onto_z(axis: np.ndarray) -> np.ndarray:
    """A rotation that takes z to `axis`."""
    z = axis / np.linalg.norm(axis)
    x = np.cross([0.0, 1.0, 0.0] if abs(z[1]) < 0.9 else [1.0, 0.0, 0.0], z)
    x /= np.linalg.norm(x)
    return np.stack([x, np.cross(z, x), z], axis=1)


def compose(*parts: str) -> str:
    """MJCF texts as one model: a file's sections may be repeated, so their children are joined."""
    root = ElementTree.Element("mujoco")
    for part in parts:
        tree = ElementTree.fromstring(part)
        root.set("model", root.get("model") or tree.get("model") or "scene")
        root.extend(tree)
    return ElementTree.tostring(root, encoding="unicode")


def with_gripper(arm: str, gripper: str, flange: str = "flange") -> str:
    """An arm's MJCF with a gripper's bodies mounted at the arm's site `flange`."""
    root, hand = ElementTree.fromstring(arm), ElementTree.fromstring(gripper)
    mount = next(b for b in root.iter("body") if b.find(f"site[@name='{flange}']") is not None)
    site = mount.find(f"site[@name='{flange}']")
    assert site is not None
    frame = ElementTree.SubElement(mount, "frame")
    for key in ("pos", "quat"):
        if site.get(key):
            frame.set(key, site.get(key, ""))
    bodies = hand.find("worldbody")
    assert bodies is not None
    frame.extend(bodies)
    hand.remove(bodies)
    root.extend(hand)
    return ElementTree.tostring(root, encoding="unicode")


def asset(name: str) -> str:
    """The text of one of the MJCF files beside the tasks."""
    return (_ASSETS / name).read_text()


def panda() -> Robot:
    """Seven joints with the published kinematics and limits of the Franka Emika Panda."""
    return Robot(
        name="panda",
        xml=with_gripper(asset("panda.xml"), asset("gripper.xml")),
        joints=tuple(f"joint{i}" for i in range(1, 8)),
        fingers=("finger_left", "finger_right"),
        tool="tcp",
        home=(0.0, -0.1, 0.0, -2.3, 0.0, 2.2, 0.785),
        workspace={"x": (0.40, 0.60), "y": (-0.20, 0.20), "z": (0.10, 0.25)},
        velocity_limit=(2.175, 2.175, 2.175, 2.175, 2.61, 2.61, 2.61),
    )
