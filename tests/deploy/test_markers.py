"""A marker tracker finds poses in pictures made by hand, holds them, and believes no miracles."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from embodied.deploy.markers import BOARD_IMAGES, Marker, MarkerTracker, cube_markers
from embodied.errors import UserError

from .pictures import (
    CAMERA,
    HALF_M,
    HEIGHT,
    LOOK,
    MARKERS,
    SIDE_M,
    WIDTH,
    config,
    off,
    picture,
    poses,
)

STEP_NS = 50_000_000
UPRIGHT = (0.5, 0.05, HALF_M, 1.0, 0.0, 0.0, 0.0)
BOARD = {"30": (0.45, -0.15, 0.0), "31": (0.6, -0.15, 0.0), "32": (0.45, 0.2, 0.0)}


@pytest.mark.parametrize("distortion", [(), (-0.2, 0.05, 0.001, -0.002)])
def test_poses_are_found(distortion: tuple[float, ...]) -> None:
    camera = {**config()["camera"], "distortion": list(distortion)}
    errors, markers = [], []
    for pose in poses(12):
        tracker = MarkerTracker.from_config(config(camera=camera))
        found = tracker.track(picture((pose, MARKERS), distortion=distortion))["cube"]
        errors.append(off(found.pose, pose))
        markers.append(found.markers)
        assert np.linalg.norm(found.pose[3:]) == pytest.approx(1.0, abs=1e-12)
        assert found.age_s == 0.0 and found.error_px < 2.0
    metres, radians = np.array(errors).T
    assert np.median(metres) < 0.0005 and metres.max() < 0.002
    assert np.median(radians) < 0.003 and radians.max() < 0.015
    assert max(markers) == 3


def test_what_is_out_of_sight_is_held_and_its_age_told() -> None:
    tracker = MarkerTracker.from_config(config())
    empty = picture()
    assert tracker.track(empty, 0) == {}
    seen = tracker.track(picture((UPRIGHT, MARKERS)), STEP_NS)["cube"]
    held = tracker.track(empty, 5 * STEP_NS)["cube"]
    np.testing.assert_array_equal(held.pose, seen.pose)
    assert (seen.age_s, held.age_s) == (0.0, pytest.approx(0.2))
    tracker.forget()
    assert tracker.track(empty, 6 * STEP_NS) == {}


def test_nothing_jumps() -> None:
    tracker = MarkerTracker.from_config(config())
    there = (0.5, -0.15, *UPRIGHT[2:])
    here, away = picture((UPRIGHT, MARKERS)), picture((there, MARKERS))
    tracker.track(here, 0)
    held = tracker.track(away, STEP_NS)["cube"]
    assert off(held.pose, UPRIGHT)[0] < 0.002 and held.age_s == pytest.approx(0.05)
    assert tracker.counts["jumps"] == 1
    later = tracker.track(away, 3 * STEP_NS)["cube"]  # it may have been carried by now
    assert off(later.pose, there)[0] < 0.002 and later.age_s == 0.0


def test_a_quaternion_never_changes_its_sign() -> None:
    tracker = MarkerTracker.from_config(config())
    last = None
    for step in range(30):
        half = math.pi * step / 15  # two turns
        pose = (0.5, 0.05, 0.1, math.cos(half), 0.0, 0.0, math.sin(half))
        found = tracker.track(picture((pose, MARKERS)), step * STEP_NS)["cube"]
        assert off(found.pose, pose)[1] < 0.02 and found.age_s == 0.0
        assert last is None or np.dot(found.pose[3:], last) > 0.9
        last = found.pose[3:]
    assert tracker.counts["jumps"] == 0


def test_a_stray_print_of_a_marker_is_left_out() -> None:
    pose = (0.5, 0.05, 0.1, math.cos(0.4), 0.0, 0.0, math.sin(0.4))
    stray = ((0.45, -0.1, 0.0, 1.0, 0.0, 0.0, 0.0), [Marker(4, 0.05, (0, 0, 0, 1, 0, 0, 0))])
    tracker = MarkerTracker.from_config(config())
    found = tracker.track(picture((pose, MARKERS), stray))["cube"]
    assert off(found.pose, pose)[0] < 0.002 and found.markers >= 2


def test_prints_where_they_cannot_be_are_no_sighting() -> None:
    wrong = [Marker(m.id, m.side_m, (*(1.6 * np.array(m.pose[:3])), *m.pose[3:])) for m in MARKERS]
    pose = (0.5, 0.05, 0.1, math.cos(0.4), 0.0, 0.0, math.sin(0.4))
    tracker = MarkerTracker.from_config(config(limits={"error_px": 0.2}))
    assert tracker.track(picture((pose, wrong))) == {}
    assert tracker.counts["unfit"] == 1


def test_a_board_tells_where_the_camera_is() -> None:
    prints = {id: {"side_m": 0.06, "pose": [*at, 1, 0, 0, 0]} for id, at in BOARD.items()}
    camera = {**CAMERA, "board": {"markers": prints}}
    board = [Marker(int(id), 0.06, (*at, 1.0, 0.0, 0.0, 0.0)) for id, at in BOARD.items()]
    image = picture(((0, 0, 0, 1, 0, 0, 0), board), (UPRIGHT, MARKERS))
    tracker = MarkerTracker.from_config(config(camera=camera))
    for _ in range(BOARD_IMAGES - 1):
        assert tracker.track(image) == {} and tracker.camera_pose is None
    found = tracker.track(image)["cube"]
    assert tracker.camera_pose is not None
    metres, radians = off(tracker.camera_pose, LOOK)
    assert metres < 0.002 and radians < 0.004
    assert off(found.pose, UPRIGHT)[0] < 0.0025


def test_another_cube_is_taken_for_what_it_is_said_to_be() -> None:
    small = cube_markers(range(6), 0.018, 0.03)
    image = picture(((*UPRIGHT[:2], 0.018, *UPRIGHT[3:]), small))
    tracker = MarkerTracker.from_config(config())
    wrong = tracker.track(image, 0)["cube"]
    assert wrong.pose[2] < 0.0 or off(wrong.pose, UPRIGHT)[0] > 0.03
    tracker.define("cube", small)
    right = tracker.track(image, STEP_NS)["cube"]
    assert off(right.pose, (*UPRIGHT[:2], 0.018, *UPRIGHT[3:]))[0] < 0.002


def test_no_image_raises() -> None:
    tracker = MarkerTracker.from_config(config())
    rng = np.random.default_rng(0)
    size = (HEIGHT, WIDTH)
    shown = picture((UPRIGHT, MARKERS))
    for dull in (
        np.zeros((*size, 3), np.uint8),
        np.full(size, 255, np.uint8),
        rng.integers(0, 256, (*size, 3), dtype=np.uint8),
        rng.integers(0, 2, size, dtype=np.uint8) * 255,
    ):
        assert tracker.track(dull) == {}
    assert tracker.counts["unreadable"] == 0
    unreadable: list[Any] = [
        np.zeros((1, 1, 3), np.uint8),
        np.zeros((0, 0), np.uint8),
        np.zeros((*size, 4), np.uint8),
        shown.astype(np.float32),
        np.zeros((WIDTH, HEIGHT), np.uint8),
        np.zeros(7, np.uint8),
        None,
    ]
    for image in unreadable:
        assert tracker.track(image) == {}
    assert tracker.counts["unreadable"] == len(unreadable)
    view = shown[:, ::-1][:, ::-1]  # not in one piece
    assert set(tracker.track(view)) == set(tracker.track(shown[:, :, 0])) == {"cube"}


CAMERA_AT = config()["camera"]
CUBE_OF = config()["objects"]["cube"]["cube"]


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"camera": {**CAMERA_AT, "fx": -1}}, "camera.fx: -1"),
        ({"camera": {**CAMERA_AT, "fz": 1}}, "camera.fz: unknown"),
        ({"camera": {**CAMERA_AT, "width": 10**6}}, "camera.width"),
        ({"camera": {**CAMERA_AT, "distortion": [0.1]}}, "camera.distortion: give 4, 5"),
        ({"camera": {**CAMERA_AT, "distortion": 3}}, "camera.distortion: give 4, 5"),
        ({"camera": {**CAMERA_AT, "pose": [1, 2, 3]}}, "camera.pose: give 7 numbers"),
        ({"camera": {**CAMERA_AT, "pose": [0] * 7}}, "camera.pose: its last four"),
        ({"camera": CAMERA}, "camera.pose: is not given"),
        ({"camera": {**CAMERA, "board": {}}}, "camera.board.markers: is not given"),
        ({"dictionary": "DICT_9X9"}, "dictionary: 'DICT_9X9' is none of"),
        ({"objects": {"cube": {"cube": {**CUBE_OF, "side_m": 0.1}}}}, "cube.side_m: 0.1"),
        ({"objects": {"cube": {"cube": {**CUBE_OF, "ids": [1] * 6}}}}, "marker 1 is used twice"),
        ({"objects": {"cube": {"cube": {**CUBE_OF, "ids": [0, 1, 2, 3, 4, 50]}}}}, "marker 50"),
        ({"objects": {"a": {"markers": {}}}}, "objects.a.markers: give one at least"),
        ({"objects": {"a": {"markers": {"x": {}}}}}, "'x': a marker's key is its number"),
        ({"objects": {"a": {}}}, "objects.a.markers: is not given"),
        ({"objects": {}}, "objects: give one at least"),
        ({"limits": {"error_px": -1}}, "limits.error_px: -1"),
        ({"limits": {"speed": 1}}, "limits.speed: unknown (did you mean speed_m_s?)"),
    ],
)
def test_wrong_settings_are_named_by_their_keys(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as caught:
        MarkerTracker.from_config(config(**changes), "robot.yaml")
    assert said in str(caught.value) and str(caught.value).startswith("robot.yaml: ")
    assert "\n" not in str(caught.value)


def test_an_id_belongs_to_one_object() -> None:
    other = {"markers": {5: {"side_m": SIDE_M, "pose": [0, 0, 0, 1, 0, 0, 0]}}}
    with pytest.raises(UserError, match="marker 5 is used twice"):
        MarkerTracker.from_config(config(objects={**config()["objects"], "other": other}))
