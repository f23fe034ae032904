"""What varies between worlds, and by how much, and that it does so repeatably."""

import mujoco
import numpy as np
import pytest
from embodied.envs.mujoco.sim import MujocoSim
from embodied.envs.tasks.half_cheetah import HalfCheetah

from embodied.env import TaskEnv
from embodied.errors import UserError
from embodied.random import Draw
from embodied.randomise import Randomisation


def make_env(num_worlds: int = 4, seed: int = 0, **ranges) -> TaskEnv:
    task = HalfCheetah()
    sim = MujocoSim(task.model(), num_worlds, threads=1)
    return TaskEnv(task, sim, max_steps=50, seed=seed, randomise=Randomisation(**ranges))


def factors(env: TaskEnv, name: str) -> np.ndarray:
    """Each world's value of a parameter over the model's own, where that is not 0."""
    own, nominal = env.sim.batch.expanded(name), env.sim.parameter(name)
    return (own / np.where(nominal == 0, np.nan, nominal)).reshape(env.num_worlds, -1)


def actions(env: TaskEnv, steps: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    shape = (steps, env.num_worlds, env.action_spec.size)
    return rng.uniform(-1, 1, shape).astype(np.float32)


def assert_within(value: np.ndarray, low: float, high: float) -> None:
    """All of it inside, and most of the range used."""
    value = value[np.isfinite(value)]
    assert low <= value.min() and value.max() <= high
    assert value.min() < low + 0.1 * (high - low)
    assert value.max() > high - 0.1 * (high - low)


def test_nothing_varies_by_default() -> None:
    env = make_env()
    assert all(env.sim.batch.expanded(name) is None for name in mujoco.batch.MODEL_FIELDS)
    step = env.step(action := actions(env, 1)[0])
    assert np.array_equal(step.action_executed, action)


def test_mass_and_inertia_of_every_body() -> None:
    env = make_env(100, mass=(0.5, 1.5))
    mass, inertia = factors(env, "body_mass"), factors(env, "body_inertia")
    assert_within(mass, 0.5, 1.5)
    np.testing.assert_allclose(inertia.reshape(100, -1, 3)[:, 1:], mass[:, 1:, None].repeat(3, 2))
    assert np.unique(mass[:, 1:]).size == mass[:, 1:].size, "bodies and worlds differ"
    assert np.ptp(env.sim.batch.expanded("body_subtreemass")[:, 0]) > 0, "constants followed"


def test_sliding_friction_of_a_world() -> None:
    env = make_env(100, friction=(0.2, 2.0))
    friction = factors(env, "geom_friction").reshape(100, -1, 3)
    assert_within(friction[..., 0], 0.2, 2.0)
    np.testing.assert_allclose(friction[..., 0], friction[:, :1, 0].repeat(friction.shape[1], 1))
    rolling = friction[..., 1:]
    np.testing.assert_array_equal(rolling[np.isfinite(rolling)], 1.0)


def test_gains_of_every_actuator() -> None:
    env = make_env(100, gains=(0.8, 1.2))
    gain = factors(env, "actuator_gainprm")
    assert_within(gain, 0.8, 1.2)
    assert np.unique(gain[np.isfinite(gain)]).size == 100 * 6


def test_factors_apply_to_what_the_task_set() -> None:
    """A task's own masses are kept, times the factor; position servos stay balanced."""
    env = make_env(3)
    draw = Draw(np.arange(3), np.zeros(3, np.int64))
    randomise = Randomisation(mass=(2.0, 2.0), gains=(3.0, 3.0), friction=(4.0, 4.0))
    own = {"body_mass": np.arange(24.0).reshape(3, 8), "actuator_biasprm": np.ones((3, 6, 10))}
    given = {name: value.copy() for name, value in own.items()}
    rows = randomise.parameters(randomise.nominal(env.sim), draw, given)
    np.testing.assert_allclose(rows["body_mass"], 2 * own["body_mass"])
    np.testing.assert_allclose(rows["actuator_biasprm"], 3.0)
    np.testing.assert_allclose(rows["actuator_gainprm"][:, :, 0], 3.0)
    np.testing.assert_allclose(
        rows["geom_friction"][2], env.sim.parameter("geom_friction") * [4.0, 1.0, 1.0]
    )
    assert set(given) == set(own) and np.array_equal(given["body_mass"], own["body_mass"])


@pytest.mark.parametrize("knob", ["mass", "friction", "gains"])
def test_each_factor_changes_the_motion(knob: str) -> None:
    plain, varied = make_env(), make_env(**{knob: (0.5, 0.6)})
    np.testing.assert_array_equal(plain.sim.qpos, varied.sim.qpos)
    for action in actions(plain, 20):
        plain.step(action)
        varied.step(action)
    assert (np.abs(plain.sim.qpos - varied.sim.qpos).max(axis=1) > 1e-3).all()


def test_an_action_arrives_its_delay_later() -> None:
    """World by world, a delayed env is an undelayed one given the earlier actions."""
    delayed, plain = make_env(8, delay_steps=(0, 3)), make_env(8)
    delays = delayed.randomise.delays(Draw(np.arange(8), np.zeros(8, np.int64)))
    assert set(delays.tolist()) == {0, 1, 2, 3}
    sequence = actions(plain, 20)
    zero, worlds = np.zeros_like(sequence[0, 0]), range(8)
    for t, action in enumerate(sequence):
        step = delayed.step(action)
        due = [sequence[t - delays[i], i] if t >= delays[i] else zero for i in worlds]
        assert np.array_equal(step.action_executed, np.stack(due))
        plain.step(np.stack(due))
        assert np.array_equal(delayed.sim.qpos, plain.sim.qpos)


def test_a_new_episode_forgets_delayed_actions() -> None:
    env = make_env(2, delay_steps=(2, 2))
    for action in actions(env, 5):
        env.step(action)
    mask = np.array([True, False])
    env.reset(mask)
    first = env.step(ones := np.ones((2, 6), np.float32)).action_executed
    assert not first[0].any() and first[1].any()
    assert not env.step(ones).action_executed[0].any()
    assert env.step(ones).action_executed[0].all()


def test_delays_differ_between_episodes_and_stay_within() -> None:
    randomise = Randomisation(delay_steps=(1, 3))
    delays = randomise.delays(Draw(np.arange(3000), np.zeros(3000, np.int64)))
    assert np.bincount(delays).tolist()[0] == 0
    assert (np.bincount(delays)[1:] > 900).all() and delays.max() == 3
    again = randomise.delays(Draw(np.arange(3000), np.ones(3000, np.int64)))
    assert 0.25 < (again == delays).mean() < 0.42


def test_noise_is_in_the_observation_alone() -> None:
    noisy, plain = make_env(50, obs_noise=0.1), make_env(50)
    errors = [noisy.reset(seed=0)["state"] - plain.reset(seed=0)["state"]]
    for action in actions(plain, 20):
        steps = noisy.step(action), plain.step(action)
        assert np.array_equal(steps[0].reward, steps[1].reward)
        assert steps[0].obs["state"].dtype == steps[1].obs["state"].dtype
        errors.append(steps[0].obs["state"] - steps[1].obs["state"])
    assert np.array_equal(noisy.sim.qpos, plain.sim.qpos)
    error = np.stack(errors)
    assert error.std() == pytest.approx(0.1, rel=0.02)
    assert error.mean() == pytest.approx(0.0, abs=0.002)
    for axis in range(3):  # from step to step, world to world, and sensor to sensor
        neighbour = np.delete(np.roll(error, -1, axis) * error, -1, axis)
        assert neighbour.mean() == pytest.approx(0.0, abs=3e-4), "noise is white"


EVERYTHING = {
    "mass": (0.7, 1.3),
    "friction": (0.5, 1.5),
    "gains": (0.9, 1.1),
    "delay_steps": (0, 2),
    "obs_noise": 0.01,
}


def roll(env: TaskEnv, sequence: np.ndarray, worlds) -> np.ndarray:
    """Observations of an episode, a reset and part of another, of some of the worlds."""
    seen = [env.reset()["state"][worlds]]
    for t, action in enumerate(sequence):
        seen.append(env.step(action).obs["state"][worlds])
        if t == 30:
            seen.append(env.reset()["state"][worlds])
    return np.stack(seen)


def test_the_same_seed_gives_the_same_worlds() -> None:
    """... also alone or among others, and another seed or episode gives others."""
    sequence = actions(make_env(5), 40)
    together = roll(make_env(5, **EVERYTHING), sequence, slice(None))
    assert np.array_equal(together, roll(make_env(5, **EVERYTHING), sequence, slice(None)))
    alone = make_env(2, seed=3, **EVERYTHING)  # seeds 3 and 4
    assert np.array_equal(together[:, 3:], roll(alone, sequence[:, 3:], slice(None)))
    other = roll(make_env(5, seed=5, **EVERYTHING), sequence, slice(None))
    assert (together != other).all()


def test_episodes_differ_and_come_back_with_the_seed() -> None:
    env = make_env(2, **EVERYTHING)
    masses = []
    for seed in (None, None, 7, None, 7, None):
        env.reset(seed=seed)
        masses.append(factors(env, "body_mass")[:, 1:])
    first, second, seeded, after, seeded_again, after_again = masses
    assert (first != second).all() and (seeded != after).all() and (second != seeded).all()
    assert np.array_equal(seeded, seeded_again) and np.array_equal(after, after_again)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"mass": (0.0, 1.0)}, "mass=.*give 0 < low <= high"),
        ({"friction": (1.5, 1.0)}, "friction=.*give 0 < low <= high"),
        ({"gains": (1.0,)}, "gains=.*give 0 < low <= high"),
        ({"mass": (1.0, float("inf"))}, "mass="),
        ({"mass": (float("nan"), 1.0)}, "mass="),
        ({"delay_steps": (-1, 2)}, "delay_steps=.*give whole 0 <= low <= high"),
        ({"delay_steps": (0, 1.5)}, "delay_steps="),
        ({"obs_noise": -1.0}, "obs_noise=-1.0: give a finite number >= 0"),
        ({"obs_noise": float("nan")}, "obs_noise=nan"),
    ],
)
def test_settings_out_of_range(setting: dict, message: str) -> None:
    with pytest.raises(UserError, match=f"env.randomise.{message}"):
        Randomisation(**setting)
