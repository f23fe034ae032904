"""SB3's PPO as an agent: it learns on our worlds, stops, saves, and goes on."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from embodied.agents.sb3_buffer import Faultless
from embodied.agents.sb3_ppo import SB3PPO
from embodied.envs.gym import GymEnv
from stable_baselines3 import PPO
from stable_baselines3.common.buffers import RolloutBuffer

from embodied.build import make_agent
from embodied.checkpoint import load_checkpoint, save_checkpoint
from embodied.config import compose_config, resolved
from embodied.errors import UserError
from embodied.registration import make_stepper
from embodied.sb3_view import SB3View
from embodied.types import WORLD_FAULT

N = 8


class Point(gym.Env):
    """A point on a line is pushed to the origin; sometimes it breaks."""

    observation_space = gym.spaces.Box(-10, 10, (1,))
    action_space = gym.spaces.Box(-1, 1, (1,))

    def __init__(self, breaks: float = 0.0) -> None:
        self.breaks = breaks

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        self.x = self.np_random.uniform(-1, 1, 1).astype(np.float32)
        return self.x, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        if self.np_random.random() < self.breaks:
            raise RuntimeError("broken")
        self.x = np.clip(self.x + 0.3 * np.asarray(action, np.float32), -2, 2)
        return self.x, -float(abs(self.x[0])), False, False, {}


class Choice(Point):
    """The same with three discrete pushes."""

    action_space = gym.spaces.Discrete(3)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        return super().step(np.float32([action - 1]))


gym.register("EmbodiedTest/Point-v0", entry_point=Point, max_episode_steps=10)
gym.register("EmbodiedTest/Choice-v0", entry_point=Choice, max_episode_steps=10)


def points(num_worlds: int = N, name: str = "Point", **kwargs: Any) -> GymEnv:
    return GymEnv(f"EmbodiedTest/{name}-v0", num_worlds, kwargs=kwargs)


def agent_for(env: Any, **settings: Any) -> SB3PPO:
    settings = {"n_steps": 20, "batch_size": 40, "n_epochs": 6, "learning_rate": 3e-3,
                "net_arch": [16], "threads": 1, **settings}  # fmt: skip
    return SB3PPO(env.observation_space, env.action_space, env.action_spec, env.num_worlds,
                  **settings)  # fmt: skip


@pytest.mark.parametrize("name", ["Point", "Choice"])
def test_it_learns_a_toy(name: str) -> None:
    env = points(name=name)
    agent, rows = agent_for(env, gamma=0.9), []

    def on_update(figures: dict[str, float]) -> bool:
        rows.append(figures)
        return False

    agent.learn(env, 3200, on_update)
    assert [row["steps"] for row in rows] == [160.0 * (k + 1) for k in range(20)]
    returns = [row["episode/return"] for row in rows]
    assert np.mean(returns[-4:]) > 0.5 * np.mean(returns[:2])  # they are negative
    assert rows[0]["episode/length"] == 10.0 and rows[0]["faults"] == 0.0
    assert rows[0]["episode/term/reward"] == pytest.approx(rows[0]["episode/return"])
    for key in ("kl", "value_loss", "policy_loss", "clipped", "explained_variance", "lr"):
        assert np.isfinite(rows[-1][f"agent/{key}"])
    _, action = agent.policy.act({}, {"state": np.float32([[-1.0], [1.0]])}, greedy=True)
    assert action.shape == (2, 1) and action.dtype == np.float32
    assert action[0] > action[1]


def test_it_stops_when_told() -> None:
    env, steps = points(), []
    agent_for(env).learn(env, 10_000, lambda row: steps.append(row["steps"]) or len(steps) == 3)
    assert steps == [160.0, 320.0, 480.0]


def test_a_checkpoint_of_ours_holds_it_and_it_goes_on(
    tmp_path: Any, caplog: pytest.LogCaptureFixture
) -> None:
    env = points()
    agent = agent_for(env)
    agent.learn(env, 480, lambda row: False)
    assert caplog.messages == []
    save_checkpoint(tmp_path, {"agent": agent.state_dict()}, step=480, config={}, keep=2)
    resumed = agent_for(env, seed=1)
    resumed.load_state_dict(load_checkpoint(tmp_path).state["agent"])
    obs = {"state": np.linspace(-2, 2, 5, dtype=np.float32)[:, None]}
    for greedy in (True, False):
        torch.manual_seed(0)
        wanted = agent.policy.act({}, obs, greedy)[1]
        torch.manual_seed(0)
        np.testing.assert_array_equal(resumed.policy.act({}, obs, greedy)[1], wanted)
    ours, theirs = (a.model.policy.optimizer.state_dict() for a in (agent, resumed))
    for row, want in zip(theirs["state"].values(), ours["state"].values(), strict=True):
        assert all(torch.equal(row[key], want[key]) for key in want)
    steps: list[float] = []
    resumed.learn(env, 800, lambda row: bool(steps.append(row["steps"])))
    assert steps == [640.0, 800.0]
    assert resumed.normaliser.obs["state"].count > agent.normaliser.obs["state"].count
    assert resumed.normaliser.reward.count > agent.normaliser.reward.count > 480
    assert caplog.messages == [
        "sb3_ppo goes on from its weights, not bit for bit: episodes start anew"
    ]


def test_the_same_seed_gives_the_same_policy() -> None:
    weights = []
    for _ in range(2):
        env = points()
        agent = agent_for(env)
        agent.learn(env, 320, lambda row: False)
        weights.append(torch.cat([p.detach().flatten() for p in agent.model.policy.parameters()]))
    assert torch.equal(*weights)


def test_learning_equals_plain_sb3() -> None:
    from stable_baselines3.common.vec_env import VecNormalize

    settings = {"n_steps": 20, "batch_size": 40, "n_epochs": 6, "learning_rate": 3e-3}
    env = points()
    ours = agent_for(env, gamma=0.9, seed=3)
    ours.learn(env, 480, lambda row: False)
    venv = VecNormalize(SB3View(points()), gamma=0.9)
    theirs = PPO("MlpPolicy", venv, seed=3, gamma=0.9, device="cpu",
                 policy_kwargs={"net_arch": [16]}, **settings)  # type: ignore[arg-type]  # fmt: skip
    venv.venv._reset_seeds()  # ours leaves the worlds their own seeds
    theirs.learn(480)
    for mine, want in zip(ours.model.policy.parameters(), theirs.policy.parameters(), strict=True):
        assert torch.equal(mine, want)


def test_faulted_steps_are_never_drawn() -> None:
    env = points(2)
    view = SB3View(env)
    settings: Any = (4, view.observation_space, view.action_space, "cpu", 0.95, 0.9, 2)
    ours, plain = Faultless(*settings), RolloutBuffer(*settings)
    ours.view = view
    for t in range(4):
        view.faults = np.array([WORLD_FAULT if t == 2 else 0, 0], np.int8)
        starts = np.array([t == 3, t == 0])
        row = (np.full((2, 1), t), np.zeros((2, 1)), np.full(2, 100.0 if t == 2 else 1.0), starts)
        for buffer in (ours, plain):
            buffer.add(*row, torch.full((2,), 5.0), torch.zeros(2))
    ours.compute_returns_and_advantage(torch.zeros(2), np.array([True, True]))
    plain.compute_returns_and_advantage(torch.zeros(2), np.array([True, True]))
    # World 0: the faulted step pays its own value, so the one before it bootstraps to 5 there.
    np.testing.assert_allclose(ours.advantages[:, 0], [
        1 + 0.9 * 5 - 5 + 0.9 * 0.95 * (1 + 0.9 * 5 - 5), 1 + 0.9 * 5 - 5, 0.0, 1 - 5
    ], rtol=1e-6)  # fmt: skip
    np.testing.assert_array_equal(ours.advantages[:, 1], plain.advantages[:, 1])
    drawn = torch.cat([batch.returns for batch in ours.get(3)])
    assert len(drawn) == 7 and 5.0 not in drawn.tolist()


def test_breaking_worlds_are_learned_around_until_too_many(
    caplog: pytest.LogCaptureFixture,
) -> None:
    env, rows = points(breaks=0.01), []
    agent_for(env).learn(env, 800, lambda row: bool(rows.append(row)))
    assert rows[-1]["faults"] == env.failures > 0
    env = points(breaks=0.5)
    with pytest.raises(UserError, match="of 160 steps faulted, more than max_fault_rate=0.1"):
        agent_for(env).learn(env, 800, lambda row: False)


def test_its_zip_is_sb3s_own(tmp_path: Any) -> None:
    env = points()
    agent = agent_for(env, normalise_obs=False, anneal=True)
    agent.learn(env, 320, lambda row: False)
    agent.save_zip(tmp_path / "model.zip")
    theirs = PPO.load(tmp_path / "model.zip", device="cpu")
    obs = np.linspace(-2, 2, 5, dtype=np.float32)[:, None]
    np.testing.assert_array_equal(
        theirs.predict(obs, deterministic=True)[0], agent.policy.act({}, {"state": obs}, True)[1]
    )
    assert type(theirs) is PPO and type(theirs.rollout_buffer) is RolloutBuffer
    with pytest.raises(UserError, match=r"name it \.zip"):
        agent.save_zip(tmp_path / "model.pt")


def test_dict_observations_use_the_numeric_keys() -> None:
    class Seeing(Point):
        observation_space = gym.spaces.Dict(  # type: ignore[assignment]
            {
                "camera": gym.spaces.Box(0, 255, (8, 8, 3), np.uint8),
                "state": gym.spaces.Box(-9, 9, (1,)),
                "goal": gym.spaces.Box(-9, 9, (2,)),
            }
        )

        def reset(self, **kwargs: Any) -> tuple[Any, dict]:
            return self.seen(super().reset(**kwargs)[0]), {}

        def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
            obs, *rest = super().step(action)
            return self.seen(obs), *rest  # type: ignore[return-value]

        def seen(self, x: Any) -> dict[str, Any]:
            image = np.zeros((8, 8, 3), np.uint8)
            return {"camera": image, "state": x, "goal": np.zeros(2, np.float32)}

    gym.register("EmbodiedTest/Seeing-v0", entry_point=Seeing, max_episode_steps=10)
    env = points(2, "Seeing")
    agent = agent_for(env)
    agent.learn(env, 80, lambda row: False)
    assert agent.keys == ("goal", "state")
    assert agent.policy.act({}, env.reset())[1].shape == (2, 1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_steps": 1}, "agent.n_steps=1: give a"),
        ({"batch_size": 1}, "agent.batch_size=1"),
        ({"gamma": 1.5}, "agent.gamma=1.5"),
        ({"learning_rate": float("nan")}, "agent.learning_rate=nan"),
        ({"threads": 0}, "agent.threads=0"),
        ({"activation": "tahn"}, "unknown agent.activation 'tahn': did you mean tanh"),
    ],
)
def test_a_mistake_is_said_in_one_line(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        agent_for(points(1), **settings)


def test_unbounded_actions_are_refused() -> None:
    env = points(1)
    space = gym.spaces.Box(-np.inf, np.inf, (1,))
    with pytest.raises(UserError, match="finite limits"):
        SB3PPO(env.observation_space, space, env.action_spec, 1)


def test_weights_for_other_observations_are_refused() -> None:
    state = agent_for(points(1)).state_dict()
    hopper = make_stepper("hopper")
    with pytest.raises(UserError, match="does not fit"):
        agent_for(hopper).load_state_dict(state)


def test_the_configuration_makes_it() -> None:
    cfg = compose_config(["agent=sb3_ppo", "env=hopper"])
    resolved(cfg)
    agent = make_agent(cfg, make_stepper("hopper", 2, max_steps=9))
    assert isinstance(agent, SB3PPO) and agent.max_fault_rate == cfg.max_fault_rate
    assert agent.rollout_steps == cfg.agent.n_steps == agent.model.n_steps
