"""Any Gymnasium env as worlds: against the env itself, and when it misbehaves."""

import logging
import warnings
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import pytest
from embodied.envs.gym import GymEnv
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Text

from embodied.collect import Collector
from embodied.config import compose_config, resolved
from embodied.errors import UserError
from embodied.reward_model import Channel
from embodied.rewards import Rewards
from embodied.types import ACTION_FAULT, PHYSICS_FAULT, WORLD_FAULT

LIMIT = 8


class Walk(gym.Env):
    """A point on a line: moves by its action, is done beyond 1; breaks on request."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 10}
    made = 0

    def __init__(self, render_mode: str | None = None, observation: Any = None, action: Any = None,
                 breaks: str = "") -> None:  # fmt: skip
        Walk.made += 1
        self.observation_space = observation or Box(-9, 9, (1,))
        self.action_space = action or Box(-0.5, 0.5, (1,))
        self.render_mode, self.breaks, self.steps = render_mode, breaks, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        if self.breaks == "reset":
            raise RuntimeError("no reset")
        self.x, self.steps = float(self.np_random.uniform(-0.2, 0.2)), 0
        return self._obs(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        self.steps, self.action = self.steps + 1, action
        if self.breaks == "step" and self.steps == 3:
            raise RuntimeError("the engine\ncrashed")
        self.x += float(np.sum(action)) if isinstance(self.action_space, Box) else 0.0
        reward = np.nan if self.breaks == "reward" and self.steps == 3 else self.x
        return self._obs(), reward, self.x > 1, False, {"is_success": self.x > 1}

    def _obs(self) -> Any:
        if isinstance(self.observation_space, Box):
            return np.array([self.x], np.float32)
        self.observation_space.seed(0)
        return self.observation_space.sample()

    def render(self) -> np.ndarray:
        return np.full((6, 8, 3), 200, np.uint8)


gym.register("EmbodiedTest/Walk-v0", entry_point=Walk, max_episode_steps=LIMIT)
gym.register("EmbodiedTest/Endless-v0", entry_point=Walk)


def walk(num_worlds: int = 2, **settings: Any) -> GymEnv:
    max_steps = settings.pop("max_steps", None)
    seed = settings.pop("seed", 0)
    return GymEnv("EmbodiedTest/Walk-v0", num_worlds, max_steps, seed, settings)


def test_equals_the_env_itself() -> None:
    ours = GymEnv("Pendulum-v1", 3, seed=4)
    theirs = [gym.make("Pendulum-v1") for _ in range(3)]
    obs = ours.reset()["state"]
    wanted: list[Any] = [env.reset(seed=4 + i)[0] for i, env in enumerate(theirs)]
    np.testing.assert_array_equal(obs, wanted)
    rng = np.random.default_rng(0)
    for _ in range(450):
        action = rng.uniform(-3, 3, (3, 1)).astype(np.float32)  # also beyond the limits
        step = ours.step(action)
        rows = [env.step(np.clip(a, -2, 2)) for env, a in zip(theirs, action, strict=True)]
        np.testing.assert_array_equal(step.obs["state"], [row[0] for row in rows])
        np.testing.assert_array_equal(step.reward, [row[1] for row in rows])
        np.testing.assert_array_equal(step.truncated, [row[3] for row in rows])
        np.testing.assert_array_equal(step.action_executed, np.clip(action, -2, 2))
        np.testing.assert_array_equal(step.reward_terms["reward"], step.reward)
        if step.done.any():
            obs = ours.reset(step.done)["state"]
            np.testing.assert_array_equal(obs, [env.reset()[0] for env in theirs])


def test_the_time_limit_is_the_envs_own_or_the_given_one() -> None:
    assert GymEnv("EmbodiedTest/Walk-v0", 1).max_steps == LIMIT
    assert GymEnv("EmbodiedTest/Endless-v0", 1).max_steps == 1000
    env = GymEnv("EmbodiedTest/Endless-v0", 1, max_steps=3)
    env.reset()
    ends = [bool(env.step(np.zeros((1, 1))).truncated[0]) for _ in range(3)]
    assert ends == [False, False, True]


def test_success_and_ends_are_the_envs_own() -> None:
    env = walk()
    env.reset()
    action = np.array([[0.5], [-0.5]])
    steps = [env.step(action) for _ in range(4)]
    ends = [s.terminated.tolist() for s in steps]
    assert ends.count([True, False]) >= 1 and not any(s.terminated[1] for s in steps)
    assert steps[-1].success.tolist() == [False, False] or steps[-1].terminated[0]
    over = next(s for s in steps if s.terminated[0])
    assert over.success.tolist() == [True, False] and not over.truncated.any()


def test_an_end_at_the_time_limit_is_no_truncation() -> None:
    env = walk(num_worlds=1)
    push = (1.01 - env.reset()["state"]) / LIMIT
    steps = [env.step(push) for _ in range(LIMIT)]
    assert not any(step.done[0] for step in steps[:-1])
    assert steps[-1].terminated[0] and not steps[-1].truncated[0]


def test_an_ended_world_stands_still_until_its_reset() -> None:
    env = walk()
    env.reset()
    for _ in range(LIMIT):
        step = env.step(np.array([[0.1], [-0.1]]))
    assert step.truncated.all()
    after = env.step(np.ones((2, 1)))
    np.testing.assert_array_equal(after.obs["state"], step.obs["state"])
    assert after.truncated.all() and not after.reward.any()
    obs = env.reset(np.array([True, False]))["state"]
    assert abs(obs[0, 0]) <= 0.2 and obs[1, 0] == step.obs["state"][1, 0]


def test_an_exception_ends_its_world_which_is_then_made_anew(
    caplog: pytest.LogCaptureFixture,
) -> None:
    env = walk(breaks="step")
    env.reset()
    env.worlds[1].unwrapped.breaks = ""  # type: ignore[attr-defined]
    made = Walk.made
    for _ in range(2):
        before = env.step(np.full((2, 1), 0.1))
    step = env.step(np.full((2, 1), 0.1))
    assert step.fault.tolist() == [WORLD_FAULT, 0] and env.failures == 1
    assert step.truncated.tolist() == [True, False] and not step.terminated.any()
    assert step.reward[0] == 0.0 and step.reward[1] != 0.0
    np.testing.assert_array_equal(step.obs["state"][0], before.obs["state"][0])
    assert [r.getMessage() for r in caplog.records] == [
        "EmbodiedTest/Walk-v0: world 0 failed, it starts anew: RuntimeError: the engine crashed"
    ]
    broken, first = env.worlds[0], env.worlds[1]
    obs = env.reset(step.done)["state"]
    assert env.worlds[0] is not broken and env.worlds[1] is first and Walk.made == made + 1
    assert abs(obs[0, 0]) <= 0.2
    assert not env.step(np.zeros((2, 1))).fault.any()


def test_a_rebuilt_world_does_not_repeat_its_first_episode() -> None:
    env = walk(num_worlds=1, breaks="step")
    starts = [float(env.reset()["state"][0, 0])]
    for _ in range(3):
        env.step(np.zeros((1, 1)))
    starts.append(float(env.reset(np.array([True]))["state"][0, 0]))
    assert starts[0] != starts[1]
    again = walk(num_worlds=1, breaks="step")
    again.reset()
    for _ in range(3):
        again.step(np.zeros((1, 1)))
    assert float(again.reset(np.array([True]))["state"][0, 0]) == starts[1]  # yet repeatable


def test_an_env_that_cannot_be_reset_is_said() -> None:
    with pytest.raises(UserError, match="Walk-v0 cannot be reset: RuntimeError: no reset"):
        walk(breaks="reset").reset()


def test_what_is_not_finite_is_a_fault() -> None:
    env = walk()
    before = env.reset()["state"]
    step = env.step(np.array([[np.nan], [0.1]]))
    assert step.fault.tolist() == [ACTION_FAULT, 0] and step.truncated.tolist() == [True, False]
    np.testing.assert_array_equal(step.obs["state"][0], before[0])
    assert np.isfinite(step.action_executed).all()
    env = walk(breaks="reward")
    env.reset()
    for _ in range(3):
        step = env.step(np.zeros((2, 1)))
    assert (step.fault == PHYSICS_FAULT).all() and step.truncated.all() and not step.reward.any()


@pytest.mark.parametrize(
    ("space", "boxes"),
    [
        (Discrete(3), {"state": (3,)}),
        (MultiBinary(4), {"state": (4,)}),
        (MultiDiscrete([2, 3]), {"state": (5,)}),
        (Dict({"a": Box(-1, 1, (2, 2)), "b": Discrete(2)}), {"a": (2, 2), "b": (2,)}),
        (Dict({"a": Dict({"b": Box(-1, 1, (2,)), "c": Discrete(3)})}), {"a": (5,)}),
        (Dict({"cam": Box(0, 255, (4, 5, 3), np.uint8)}), {"cam": (4, 5, 3)}),
        (gym.spaces.Tuple([Discrete(2), Box(-1, 1, (1,))]), {"state": (3,)}),
    ],
    ids=str,
)
def test_observations_become_numbers(space: gym.Space, boxes: dict[str, tuple]) -> None:
    env = walk(observation=space)
    obs = env.reset()
    assert {key: box.shape for key, box in env.observation_space.items()} == boxes
    for key, value in obs.items():
        assert value.shape == (2, *boxes[key]) and value.dtype == env.observation_space[key].dtype
        assert value[0] in env.observation_space[key]
    images = [key for key, box in env.observation_space.items() if box.dtype == np.uint8]
    assert images == [key for key in boxes if key == "cam"]


def test_discrete_observations_are_one_hot() -> None:
    env = GymEnv("FrozenLake-v1", 2)
    assert env.reset()["state"].tolist() == [[1.0] + [0.0] * 15] * 2


@pytest.mark.parametrize(
    ("space", "action", "native"),
    [
        (Discrete(3), [2.0], 2),
        (MultiDiscrete([2, 3]), [1.0, 2.0], [1, 2]),
        (MultiBinary(3), [1.0, 0.0, 1.0], [1, 0, 1]),
        (Box(-1, 1, (2, 2), np.float64), [1, 2, -3, 0.5], [[1, 1], [-1, 0.5]]),
    ],
    ids=str,
)
def test_actions_arrive_as_the_env_takes_them(space: Any, action: list, native: Any) -> None:
    env = walk(num_worlds=1, action=space)
    env.reset()
    assert not env.step(np.array([action], np.float32)).fault.any()
    got = env.worlds[0].unwrapped.action  # type: ignore[attr-defined]
    assert got in space
    np.testing.assert_array_equal(got, native)
    if isinstance(space, Box):
        assert env.action_spec is not None and env.action_spec.size == 4
    else:
        assert env.action_spec is None


def test_a_wrong_action_shape_is_an_error() -> None:
    env = walk()
    env.reset()
    with pytest.raises(ValueError, match=r"shape \(2, 2\), expected \(2, 1\)"):
        env.step(np.zeros((2, 2)))


def test_worlds_differ_and_repeat() -> None:
    starts = [walk(num_worlds=3, seed=5).reset()["state"] for _ in range(2)]
    np.testing.assert_array_equal(*starts)
    assert len(np.unique(starts[0])) == 3
    env = walk(num_worlds=3)
    np.testing.assert_array_equal(env.reset(seed=5)["state"], starts[0])
    np.testing.assert_array_equal(env.reset(seed=np.array([5, 6, 7]))["state"], starts[0])
    assert (env.reset()["state"] != starts[0]).all()


def test_observations_share_no_memory() -> None:
    env = walk()
    first = env.reset()["state"]
    kept = first.copy()
    second = env.step(np.ones((2, 1))).obs["state"]
    second[:] = 7.0
    np.testing.assert_array_equal(first, kept)
    assert (env.step(np.zeros((2, 1))).obs["state"] < 5).all()


def test_after_a_resume_episodes_start_anew(caplog: pytest.LogCaptureFixture) -> None:
    env = walk()
    seen = [env.reset()["state"] for _ in range(4)]
    state = env.state_dict()
    resumed = walk()
    with caplog.at_level(logging.INFO):
        resumed.load_state_dict(state)
    assert "cannot save its state" in caplog.text and not resumed.exact_resume
    start = resumed.reset()["state"]
    assert all((start != old).all() for old in seen)
    with pytest.raises(UserError, match="the checkpoint has 2 worlds .* this env 3"):
        walk(num_worlds=3).load_state_dict(state)


def test_staggered_worlds_end_apart() -> None:
    env = walk(num_worlds=6)
    env.reset()
    assert env.stagger()
    ends = [env.step(np.zeros((6, 1))).truncated.copy() for _ in range(LIMIT)]
    assert len({int(np.argmax(column)) for column in np.transpose(ends)}) > 2
    assert ends[-1].all()


def test_render_is_scaled_to_what_is_asked() -> None:
    env = walk()
    env.reset()
    images = env.render(None, np.arange(2), 3, 4)
    assert images.shape == (2, 3, 4, 3) and images.dtype == np.uint8 and (images == 200).all()
    with pytest.raises(UserError, match="no named cameras"):
        env.render("front", np.arange(1), 3, 4)
    env.worlds[0].unwrapped.render = lambda: 1 / 0  # type: ignore[method-assign]
    with pytest.raises(UserError, match="cannot render: ZeroDivisionError"):
        env.render(None, np.arange(1), 3, 4)
    Walk.metadata["render_modes"], before = [], Walk.metadata["render_modes"]
    try:
        with pytest.raises(UserError, match="renders no images"):
            walk().render(None, np.arange(1), 3, 4)
    finally:
        Walk.metadata["render_modes"] = before


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GymEnv("Pendulm-v1", 1), "unknown env.id 'Pendulm-v1': did you mean Pendulum-v1"),
        (lambda: GymEnv("Pendulum-v0", 1), "unknown env.id 'Pendulum-v0': did you mean Pendulum"),
        (lambda: GymEnv("no_such_module:X-v0", 1), "No module named 'no_such_module'"),
        (lambda: GymEnv(None, 1), "env.id=Pendulum-v1"),
        (lambda: GymEnv("Pendulum-v1", 0), "num_envs=0: give a whole number"),
        (lambda: GymEnv("Pendulum-v1", 1, max_steps=0), "env.max_steps=0: give a whole"),
        (lambda: GymEnv("Pendulum-v1", 1, kwargs={"gravity": 3}), "cannot make Pendulum-v1: .*gra"),
        (lambda: walk(observation=Text(5)), "cannot learn from observations in Text"),
        (lambda: walk(action=Dict({"a": Discrete(2)})), "cannot act in Dict"),
        (lambda: walk(action=Discrete(3, start=1)), "does not start at 0"),
    ],
)
def test_a_mistake_is_said_in_one_line(make: Any, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_the_configuration_asks_for_an_id() -> None:
    with pytest.raises(UserError, match="env.id"):
        resolved(compose_config(["env=gym"]))
    cfg = resolved(compose_config(["env=gym", "env.id=Pendulum-v1", "+env.kwargs.g=9.81"]))
    assert cfg["env"]["stepper"]["kwargs"] == {"g": 9.81}


def test_our_ppo_learns_on_it() -> None:
    from embodied.agents.ppo import PPO
    from embodied.reward_models.env import EnvReward

    env = walk(num_worlds=8)
    agent = PPO(env.observation_space, env.action_spec, 8, rollout_steps=16, lr=3e-3, compile=False)
    rewards = Rewards({"env": Channel("env", EnvReward())}, 8, agent.gamma)
    collector = Collector(env, rewards)
    returns = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(25):
            agent.update(collector.collect(agent.policy, agent.rollout_steps))
            returns.append(collector.episodes.drain()["return"].mean())
    assert np.mean(returns[-5:]) > np.mean(returns[:5]) + 2.0  # it stays just below 1
