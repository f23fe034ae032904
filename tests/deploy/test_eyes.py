"""The simulated camera and the tracker that looks at its images."""

from __future__ import annotations

import copy
import math
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from embodied.envs.tasks.marked import tracker
from embodied.envs.tasks.robot import panda
from omegaconf import OmegaConf

from embodied.build import make, make_env
from embodied.config import compose_config
from embodied.deploy.camera import Camera, scene_slot
from embodied.deploy.deploy import CAMERA, ROBOTS
from embodied.deploy.eyes import Eyes
from embodied.deploy.mailbox import Mailbox
from embodied.deploy.messages import CompressedImage, Image
from embodied.deploy.plant import Plant
from embodied.deploy.robot_map import robot_map
from embodied.errors import UserError
from tests.deploy.lockstep import pair

PLAIN = yaml.safe_load((ROBOTS / "panda_sim.yaml").read_text())


def scene(seed: int) -> tuple[Plant, np.ndarray]:
    """A world at the start of an episode, and what a camera's process is shown of it."""
    env: Any = make_env(compose_config(["env=stack_cube", "sim.threads=1"]), num_envs=1)
    shown = Mailbox(scene_slot(env.sim.model))
    plant = Plant(env, robot_map(PLAIN), pair()[0], shown)
    plant.reset(seed)
    plant.show()
    read = shown.read("scene")
    assert read is not None
    return plant, read[1][1:]


def test_the_map_that_ships_has_the_simulated_camera_where_it_is() -> None:
    told = copy.deepcopy(PLAIN["tracker"])
    assert told.pop("topic") and told.pop("kind") == "compressed"
    made = tracker(panda(), {"cube": 0.022, "blue_cube": 0.022})
    assert told["dictionary"] == made["dictionary"]
    assert told["camera"].pop("pose") == pytest.approx(made["camera"].pop("pose"), abs=1e-6)
    assert told["camera"] == pytest.approx(made["camera"])
    for name, object in made["objects"].items():
        assert told["objects"][name]["cube"]["ids"] == object["cube"]["ids"]
        assert told["objects"][name]["cube"]["side_m"] == pytest.approx(object["cube"]["side_m"])


def test_what_the_camera_shows_is_found_where_it_is_by_a_process_of_its_own() -> None:
    plant, shown = scene(5)
    camera = Camera(plant.task, CAMERA, 360, 480)
    with tempfile.TemporaryDirectory() as folder:
        transport = {"_target_": "embodied.envs.ros.local.Local", "folder": folder}
        ours = make(OmegaConf.create(transport))
        topic = PLAIN["tracker"]["topic"]
        ours.advertise(topic, Image)
        eyes = Eyes({**PLAIN["tracker"], "kind": "image"}, transport)
        eyes.define(plant.sizes)
        assert eyes.sightings() == {} and eyes.age_s() == math.inf
        pixels = camera.photograph(shown)
        end = time.monotonic() + 30.0
        while len(eyes.sightings()) < 2 and time.monotonic() < end:
            ours.publish(topic, Image(time.time_ns(), 360, 480, "rgb8", pixels.tobytes()))
            time.sleep(0.02)
        seen, counts = eyes.sightings(), eyes.counts()
        assert eyes.age_s() < 5.0 and not any(eyes.faults().values())
        while not eyes.faults()["unreadable"]:
            assert time.monotonic() < end + 10.0
            ours.publish(topic, Image(time.time_ns(), 1, 1, "rgb8", b"abc"))
            time.sleep(0.02)
        with pytest.raises(UserError, match="does not see cube, blue_cube"):
            eyes.wait(0.1)
        eyes.close()
        ours.close()
    assert min(counts.values()) >= 1
    for name, half in plant.sizes.items():
        place, _ = plant.sim.joint(name)
        truth = plant.sim.qpos[0, place]
        stamp_ns, pose = seen[name]
        assert 0 <= time.time_ns() - stamp_ns < 60_000_000_000
        np.testing.assert_allclose(pose[:3], truth[:3], atol=2e-3)
        assert abs(pose[3:] @ truth[3:]) > np.cos(0.01)
        assert half == pytest.approx(truth[2], abs=1e-6), "it lies on the table"


def test_a_tracker_that_is_described_wrongly_is_said_to_be(capfd: Any, tmp_path: Path) -> None:
    wrong = {**PLAIN["tracker"], "dictionary": "DICT_NONE"}
    eyes = Eyes(wrong, {"_target_": "embodied.envs.ros.local.Local", "folder": str(tmp_path)})
    with pytest.raises(UserError, match="the tracker has ended"):
        eyes.wait(30.0)
    eyes.close()
    assert "dictionary: 'DICT_NONE' is none of" in capfd.readouterr().err


def test_images_are_of_a_kind_that_the_tracker_reads() -> None:
    assert CompressedImage.ros == "sensor_msgs/CompressedImage"
    with pytest.raises(UserError, match="tracker.kind: 'film' is none of compressed, image"):
        robot_map({**PLAIN, "tracker": {**PLAIN["tracker"], "kind": "film"}})
