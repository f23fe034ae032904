"""The one scene of all arm tasks: every object stands in it, so only words tell tasks apart.

What a task moves are bodies with joints. All else is scenery: the same shapes without joints, as
mocap bodies, which cost little physics, stand elsewhere in every episode, and are state. Where
they stand is drawn in `layout.py`.
"""

from __future__ import annotations

from functools import cache
from itertools import product
from xml.etree.ElementTree import Element, SubElement, fromstring, tostring

from .robot import Robot, asset, compose

CUBES = ("cube", "blue_cube")
OBJECTS = (*CUBES, "cabinet", "stand", "socket", "peg")
"""Bodies of the scene; "cube" is the red one, and the peg stands in its stand."""
HALF_M = (0.018, 0.026)
"""Half the side of a cube."""
BOX_FACES = (
    *(0, 1, 3, 0, 3, 2, 4, 6, 7, 4, 7, 5, 0, 4, 5, 0, 5, 1),
    *(2, 3, 7, 2, 7, 6, 0, 2, 6, 0, 6, 4, 1, 5, 7, 1, 7, 3),
)
"""Corners of a box's triangles, seen from outside against the clock; corner 4a + 2b + c is at
x, y, z by a, b, c."""

GOAL = """<mujoco><worldbody><body name="goal" mocap="true">
  <geom name="goal" type="sphere" size="0.02" rgba="0.15 0.85 0.35 0.45" contype="0"
    conaffinity="0"/></body></worldbody></mujoco>"""
"""A see-through ball that shows the goal to cameras."""


def cube(name: str, rgba: str, y: float) -> str:
    """MJCF of a free cube, of the largest size: bounding volumes made from it hold all others."""
    return f"""<mujoco><worldbody><body name="{name}" pos="0.5 {y} {HALF_M[1]}">
      <freejoint name="{name}"/>
      <geom name="{name}" type="box" size="{HALF_M[1]} {HALF_M[1]} {HALF_M[1]}" mass="0.1"
        rgba="{rgba}" contype="1" conaffinity="3" friction="0.8 0.005 0.0001"/>
      </body></worldbody></mujoco>"""


def parts() -> list[str]:
    """MJCF texts that hold all `OBJECTS` with all their joints."""
    return [
        cube("cube", "0.85 0.22 0.18 1", -0.1),
        cube("blue_cube", "0.15 0.35 0.85 1", 0.1),
        asset("drawer.xml"),
        asset("peg.xml"),
    ]


def scene(robot: Robot, movable: tuple[str, ...] = (), sliding: tuple[str, ...] = ()) -> str:
    """MJCF of the table, the robot, every object and the goal's marker.

    Objects of `movable` keep their joints; one without a free joint (the cabinet, with its drawer)
    stands where its mocap pose says, as scenery does. Those of `sliding` move only along the
    table and up, without turning, held by no contact with the table: a cheap stand-in for a cube.
    """
    texts = []
    for part in parts():
        root = fromstring(part)
        for world in root.iter("worldbody"):
            for i, body in enumerate(list(world)):
                if body.get("name") in sliding:
                    world[i] = slider(body)
        freeze(root, (*movable, *(f"{name}_base" for name in sliding)))
        texts.append(tostring(root, encoding="unicode"))
    return compose(asset("tabletop.xml"), robot.xml, *texts, GOAL)


def freeze(root: Element, movable: tuple[str, ...]) -> None:
    """Make scenery of a text's bodies that are not `movable`, with as few shapes as show."""
    world = next(root.iter("worldbody"))
    bodies = {body.get("name", ""): body for body in world.findall("body")}
    for name, body in bodies.items():
        if name not in movable:
            body.attrib.pop("gravcomp", None)
            for joint in [*body.findall("joint"), *body.findall("freejoint")]:
                body.remove(joint)
        if body.find("freejoint") is None:
            body.set("mocap", "true")
    if "cabinet" in bodies and "cabinet" not in movable:
        shut(bodies["cabinet"])
    if "peg" in bodies and "peg" not in movable:
        frame = SubElement(bodies["stand"], "frame", pos=f"0 0 {peg_height_m()}")
        frame.extend(bodies["peg"].findall("geom"))
        world.remove(bodies["peg"])
        for name in ("stand", "socket"):
            merge(root, bodies[name])


def merge(root: Element, body: Element) -> None:
    """Make one mesh of a body's boxes: it looks the same, and takes the time of one shape."""
    boxes = [geom for geom in body.findall("geom") if geom.get("size", "").count(" ") == 2]
    vertices: list[str] = []
    faces: list[str] = []
    for box in boxes:
        middle, half = (_numbers(box.get(key, "0 0 0")) for key in ("pos", "size"))
        faces += [str(8 * (len(vertices) // 8) + corner) for corner in BOX_FACES]
        for sign in product((-1, 1), repeat=3):
            corner = (m + k * h for m, k, h in zip(middle, sign, half, strict=True))
            vertices.append(" ".join(f"{number:.6g}" for number in corner))
    name = body.get("name", "")
    mesh = {"name": name, "vertex": " ".join(vertices), "face": " ".join(faces)}
    SubElement(next(root.iter("asset")), "mesh", mesh, inertia="convex")
    for box in boxes[1:]:
        body.remove(box)
    for key in ("size", "pos"):
        boxes[0].attrib.pop(key, None)
    boxes[0].attrib |= {"type": "mesh", "mesh": name}


def shut(cabinet: Element) -> None:
    """Make one body of a cabinet and its drawer, of what is seen of them while it is shut."""
    drawer = cabinet.find("body")
    assert drawer is not None
    walls = cabinet.findall("geom")
    middle, half = ([_numbers(wall.get(key, "")) for wall in walls] for key in ("pos", "size"))
    low = [min(m[i] - h[i] for m, h in zip(middle, half, strict=True)) for i in range(3)]
    high = [max(m[i] + h[i] for m, h in zip(middle, half, strict=True)) for i in range(3)]
    walls[0].set("pos", " ".join(f"{0.5 * (a + b):.6g}" for a, b in zip(low, high, strict=True)))
    walls[0].set("size", " ".join(f"{0.5 * (b - a):.6g}" for a, b in zip(low, high, strict=True)))
    for wall in walls[1:]:
        cabinet.remove(wall)
    for geom in drawer.findall("geom"):
        if geom.get("name", "").startswith(("handle", "drawer_front")):
            geom.set("class", drawer.get("childclass", ""))
            cabinet.append(geom)
    cabinet.remove(drawer)


def _numbers(text: str) -> list[float]:
    return [float(number) for number in text.split()]


def slider(body: Element) -> Element:
    """A body on three slides whose origin is a mocap pose; a weak spring stands for its weight."""
    name = body.get("name", "")
    base = Element("body", name=f"{name}_base", mocap="true", pos=body.get("pos", "0 0 0"))
    body.remove(next(iter(body.findall("freejoint"))))
    body.attrib |= {"pos": "0 0 0", "gravcomp": "1"}
    for i, axis in enumerate(("1 0 0", "0 1 0", "0 0 1")):
        joint = Element("joint", name=f"{name}_{'xyz'[i]}", type="slide", axis=axis, damping="5")
        if axis == "0 0 1":
            joint.attrib |= {"range": "0 1", "stiffness": "10"}
        body.insert(i, joint)
    for geom in body.iter("geom"):
        geom.set("conaffinity", "1")  # which the table does not meet
    base.append(body)
    return base


@cache
def peg_height_m() -> float:
    """How high the peg's origin is when it stands in its stand."""
    root = fromstring(parts()[-1])
    peg = next(body for body in root.iter("body") if body.get("name") == "peg")
    return float(peg.get("pos", "0 0 0").split()[2])
