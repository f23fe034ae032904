"""A robot arm from a URDF: its kinematics, limits and masses, with capsules for its shape."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from .robot import Robot, asset, with_gripper

Element = ElementTree.Element


def arm_from_urdf(
    urdf: str,
    radii_m: Sequence[float],
    gains: Sequence[tuple[float, float]],
    flange_m: float,
    flange_quat: str = "1 0 0 0",
    apart: Sequence[tuple[int, int]] = (),
) -> str:
    """MJCF of a serial arm of revolute joints.

    Every link is a capsule from its joint to the next (`radii_m`, the base's first), the last to
    a site `flange` that lies `flange_m` out along z, turned by `flange_quat`. `gains` are
    stiffness and damping of the joints' position servos; `apart` names pairs of links, by number,
    that never count as colliding (neighbours do not anyway). Meshes of the URDF are not read.
    """
    root = ElementTree.fromstring(urdf)
    names, joints = _chain(root)
    links = {link.get("name", ""): link for link in root.iter("link")}

    mjcf = ElementTree.Element("mujoco", model=root.get("name", "arm"))
    _add(mjcf, "compiler", angle="radian", autolimits="true")
    assets = _add(mjcf, "asset")
    _add(assets, "material", name="shell", rgba="0.88 0.89 0.92 1", specular="0.4")
    _add(assets, "material", name="accent", rgba="0.95 0.50 0.16 1", specular="0.4")
    defaults = _add(_add(mjcf, "default"), "default", **{"class": "arm"})
    _add(defaults, "geom", type="capsule", contype="1", conaffinity="3")
    defaults[0].attrib |= {"group": "2", "mass": "0", "friction": "0.4"}
    parent = _add(mjcf, "worldbody")
    contact, actuators = _add(mjcf, "contact"), _add(mjcf, "actuator")
    origins = [{}, *map(_origin, joints), {"pos": f"0 0 {flange_m}", "quat": flange_quat}]
    for i, name in enumerate(names):
        parent = _add(parent, "body", name=name, **origins[i])
        _inertial(parent, links[name])
        start, end = "0 0 0", origins[i + 1]["pos"]
        if i:
            parent.set("gravcomp", "1")
            _hinge(parent, joints[i - 1], actuators, gains[i - 1])
        else:  # the base stands on the table
            parent.set("childclass", "arm")
            start, end = f"0 0 {radii_m[0]}", f"0 0 {radii_m[0] + 0.01}"
        geom = _add(parent, "geom", name=name, fromto=f"{start} {end}", size=f"{radii_m[i]}")
        geom.set("material", "accent" if i % 3 == 2 else "shell")
    _add(parent, "site", name="flange", group="4", size="0.005", **origins[-1])
    for first, second in [(0, 1), *apart]:  # MuJoCo lets bodies fixed to the world hit their child
        _add(contact, "exclude", body1=names[first], body2=names[second])
    return ElementTree.tostring(mjcf, encoding="unicode")


def iiwa() -> Robot:
    """KUKA's LBR iiwa, from the URDF that ships with PyBullet (which is not imported)."""
    spec = importlib.util.find_spec("pybullet_data")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("robot=iiwa needs PyBullet's data: pip install pybullet")
    urdf = (Path(spec.origin).parent / "kuka_iiwa" / "model.urdf").read_text()
    arm = arm_from_urdf(
        urdf,
        radii_m=(0.08, 0.075, 0.07, 0.07, 0.065, 0.06, 0.055, 0.045),
        gains=[(2000, 180), (2000, 180), (1500, 120), (1500, 120), (500, 30), (500, 30), (400, 25)],
        flange_m=0.045,
        flange_quat="0 0 0 1",
        apart=[(5, 7)],
    )
    moving = _chain(ElementTree.fromstring(urdf))[1]
    return Robot(
        name="iiwa",
        xml=with_gripper(arm, asset("gripper.xml")),
        joints=tuple(joint.get("name", "") for joint in moving),
        fingers=("finger_left", "finger_right"),
        tool="tcp",
        home=(0.0, 0.528, 0.0, -1.605, 0.0, 1.008, 0.0),
        workspace={"x": (0.48, 0.68), "y": (-0.20, 0.20), "z": (0.10, 0.25)},
        velocity_limit=tuple(float(_get(joint, "limit", "velocity")) for joint in moving),
    )


def _chain(root: Element) -> tuple[list[str], list[Element]]:
    """The links from the base on, and the revolute joints between them."""
    joints = {
        _get(joint, "parent", "link"): joint
        for joint in root.iter("joint")
        if joint.get("type") == "revolute"
    }
    names = list(set(joints) - {_get(joint, "child", "link") for joint in joints.values()})
    if len(names) != 1:
        raise ValueError(f"a serial arm has one base, this URDF has {len(names)}")
    while names[-1] in joints:
        names.append(_get(joints[names[-1]], "child", "link"))
    return names, [joints[name] for name in names[:-1]]


def _hinge(body: Element, joint: Element, actuators: Element, gain: tuple[float, float]) -> None:
    name = joint.get("name", "")
    limit = joint.find("limit")
    assert limit is not None
    span = f"{limit.get('lower')} {limit.get('upper')}"
    hinge = _add(body, "joint", name=name, axis=_get(joint, "axis", "xyz"), range=span)
    hinge.attrib |= {"armature": "0.1", "damping": _get(joint, "dynamics", "damping")}
    effort = limit.get("effort")
    servo = _add(actuators, "position", name=name, joint=name, ctrlrange=span)
    servo.attrib |= {"kp": f"{gain[0]}", "kv": f"{gain[1]}", "forcerange": f"-{effort} {effort}"}


def _inertial(body: Element, link: Element) -> None:
    inertial = link.find("inertial")
    assert inertial is not None
    mass, inertia = float(_get(inertial, "mass", "value")), inertial.find("inertia")
    if mass <= 0.0 or inertia is None:
        return
    full = " ".join(inertia.get(key, "0") for key in ("ixx", "iyy", "izz", "ixy", "ixz", "iyz"))
    frame = _origin(inertial)
    if frame.pop("quat") != "1 0 0 0":
        raise ValueError(f"link {link.get('name')!r}: inertial frames must not be turned")
    _add(body, "inertial", mass=f"{mass}", fullinertia=full, **frame)


def _origin(element: Element) -> dict[str, str]:
    """A URDF `origin` as MJCF `pos` and `quat` (roll, pitch, yaw about fixed axes)."""
    origin = element.find("origin")
    assert origin is not None
    roll, pitch, yaw = (0.5 * float(v) for v in origin.get("rpy", "0 0 0").split())
    (cr, cp, cy), (sr, sp, sy) = np.cos([roll, pitch, yaw]), np.sin([roll, pitch, yaw])
    quat = [
        cr * cp * cy + sr * sp * sy,
        sr * cp * cy - cr * sp * sy,
        cr * sp * cy + sr * cp * sy,
        cr * cp * sy - sr * sp * cy,
    ]
    return {
        "pos": " ".join(origin.get("xyz", "0 0 0").split()),
        "quat": " ".join(f"{v:.12g}" for v in quat),
    }


def _get(element: Element, child: str, key: str) -> str:
    found = element.find(child)
    if found is None or found.get(key) is None:
        raise ValueError(f"<{element.tag} name={element.get('name')!r}> has no {child} {key}")
    return found.get(key, "")


def _add(parent: Element, tag: str, **attributes: str) -> Element:
    return ElementTree.SubElement(parent, tag, attributes)
