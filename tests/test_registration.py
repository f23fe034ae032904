"""`gymnasium.make("embodied/NAME")` for every env of the configuration."""

import subprocess
import sys
import warnings

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from stable_baselines3.common.env_checker import check_env as sb3_check_env

from embodied.config import options
from embodied.errors import UserError
from embodied.gym_view import GymView

NAMES = [name for name in options("env") if name != "gym"]
EXPECTED = ("space minimum value is -inf", "space maximum value is inf", "symmetric and normalized")


def python(code: str) -> str:
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stdout


@pytest.mark.parametrize("name", NAMES)
def test_both_checkers_pass(name: str) -> None:
    env = gym.make(f"embodied/{name}")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check_env(env.unwrapped, skip_render_check=True)
        if not isinstance(env.action_space, gym.spaces.Text):  # SB3 knows no texts
            sb3_check_env(env.unwrapped)
    said = [str(warning.message) for warning in caught]
    assert [line for line in said if not any(part in line for part in EXPECTED)] == []
    env.close()


def test_importing_embodied_registers_the_ids_and_loads_nothing_heavy() -> None:
    heavy = {"torch", "mujoco", "hydra", "omegaconf", "stable_baselines3"}
    out = python(
        "import sys, embodied, gymnasium\n"
        "print(*(n for n in gymnasium.registry if n.startswith('embodied/')))\n"
        f"print(sys.modules.keys() & {heavy})"
    )
    ids, loaded = out.splitlines()
    assert ids.split() == [f"embodied/{name}" for name in NAMES]
    assert loaded == "set()"


def test_the_module_prefix_imports_embodied() -> None:
    code = "import gymnasium; print(gymnasium.make('embodied:embodied/hopper').spec.id)"
    assert python(code).strip() == "embodied/hopper"


@pytest.mark.parametrize("mode", AutoresetMode)
def test_make_vec_in_every_mode(mode: AutoresetMode) -> None:
    env = gym.make_vec(
        "embodied/hopper",
        num_envs=3,
        vectorization_mode="vector_entry_point",
        autoreset_mode=mode,
        max_episode_steps=5,
        seed=1,
    )
    assert isinstance(env, GymView) and env.metadata["autoreset_mode"] is mode
    first, _ = env.reset()
    assert first.shape == (3, 11)
    for _ in range(5):
        *_, truncated, _ = env.step(np.zeros((3, 3), np.float32))
    assert truncated.all()
    again = gym.make_vec("embodied/hopper", num_envs=3, seed=1)
    np.testing.assert_array_equal(again.reset()[0], first)


def test_unseeded_envs_differ() -> None:
    envs = gym.make_vec("embodied/hopper", num_envs=2, vectorization_mode="sync")
    obs, _ = envs.reset()
    assert (obs[0] != obs[1]).any()


def test_it_works_inside_another_hydra_app(tmp_path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "conf.yaml").write_text("name: hopper\n")
    (tmp_path / "app.py").write_text(
        "import hydra, gymnasium, embodied\n"
        "@hydra.main(version_base='1.3', config_path='.', config_name='conf')\n"
        "def main(cfg):\n"
        "    print(gymnasium.make(f'embodied/{cfg.name}').reset(seed=0)[0].shape)\n"
        "main()\n"
    )
    command = [sys.executable, "app.py", "hydra.run.dir=."]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert run.stdout.splitlines()[-1:] == ["(11,)"], run.stderr


def test_keys_of_the_configuration_can_be_changed() -> None:
    env = gym.make("embodied/hopper", max_steps=7, randomise={"mass": [0.5, 2.0]})
    stepper = env.unwrapped.env  # type: ignore[attr-defined]
    assert stepper.max_steps == 7
    assert list(stepper.randomise.mass) == [0.5, 2.0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_step": 7}, r"unknown key 'env.max_step': did you mean env.max_steps"),
        ({"randomise": {"mas": 1}}, r"unknown key 'env.randomise.mas'"),
        ({"robot": "panda"}, r"env=hopper takes no robot"),
        ({"sim": "mujocco"}, r"unknown sim 'mujocco': did you mean mujoco"),
        ({"sim": {"thread": 1}}, r"unknown key 'sim.thread': did you mean sim.threads"),
        ({"max_steps": 0}, r"max_steps=0: give a"),
    ],
)
def test_a_mistake_is_said_in_one_line(settings: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        gym.make("embodied/hopper", **settings)


def test_an_arm_task_takes_a_robot() -> None:
    if "pick_cube" not in NAMES:
        pytest.skip("no arm task")
    env = gym.make("embodied/pick_cube", robot="panda", task={"action": "ee_delta"})
    assert env.unwrapped.env.action_spec.kind == "ee_delta"  # type: ignore[attr-defined]
    with pytest.raises(UserError, match="unknown robot 'pandda': did you mean panda"):
        gym.make("embodied/pick_cube", robot="pandda")
