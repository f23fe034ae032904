"""`embodied simulate`: a simulated robot behind the topics of a real one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from omegaconf import OmegaConf

from embodied.arguments import settings
from embodied.build import make
from embodied.config import compose_config, resolved
from embodied.deploy import plant
from embodied.deploy.deploy import camera_settings, robot_file, transport_settings
from embodied.deploy.fit import check_fit
from embodied.deploy.robot_map import load_robot_map
from embodied.errors import UserError

DEFAULTS = {"robot": "panda_sim", "transport": "ros1", "seed": 10_000}


def simulate(arguments: Sequence[str], config_dir: str | Path | None = None) -> None:
    """Simulate a robot as the `key=value` arguments say, until interrupted.

    Raises `UserError` for bad input, and where the task and the robot do not fit.
    """
    wanted, overrides = settings(arguments, DEFAULTS, ("transport",))
    ways = [text for text in overrides if text.startswith("transport.")]
    overrides = [text for text in overrides if text not in ways]
    if not any(text.startswith("env=") for text in overrides):
        raise UserError("say in which worlds, as env=pick_cube")
    cfg = resolved(compose_config(overrides, config_dir=config_dir))
    robot = load_robot_map(robot_file(wanted["robot"]))
    if "task" not in cfg["env"]:
        raise UserError(f"{cfg['env']['name']} is no task of a robot arm")
    node = OmegaConf.create(cfg)
    task = make(node.env.task)
    check_fit(robot, task, make(node.sim, source=task.model(), num_worlds=1))
    transport = transport_settings(wanted["transport"], ways)
    given = {
        "cfg": cfg,
        "robot": robot.plain,
        "where": robot.name,
        "transport": transport,
        "camera": camera_settings(robot) if task.tracked else None,
    }
    print(f"{robot.name} does {cfg['env']['name']} over {wanted['transport']}: Ctrl-C ends it")
    plant.simulate(given, seed=wanted["seed"])
