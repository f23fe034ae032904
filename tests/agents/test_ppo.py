"""PPO: its loss and advantages by hand, what it must not learn from, and that it learns."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from embodied.agents.ppo import PPO, standardise
from embodied.reward_models.env import EnvReward

from embodied import nets
from embodied.collect import Collector
from embodied.env import TaskEnv
from embodied.errors import UserError
from embodied.reward_model import Channel
from embodied.rewards import Rewards
from embodied.types import ActionSpec, Trajectory
from tests.toys import reach, rollout, through_disk

LOG_2PI = math.log(2 * math.pi)
SPACE = gym.spaces.Dict({"state": gym.spaces.Box(-9, 9, (1,), np.float32)})


def spec(low: list[float], high: list[float]) -> ActionSpec:
    size, limits = len(low), (np.array(low, np.float32), np.array(high, np.float32))
    return ActionSpec(("a",) * size, ("m",) * size, *limits, "position", 10.0)


def linear(**settings: Any) -> PPO:
    """An agent of one observation x and one action: mean x / 2, deviation 1, value 2 x."""
    settings = {"hidden": (), "minibatches": 1, "gamma": 0.5, "lam": 1.0, "compile": False,
                "normalise_reward": False, **settings}  # fmt: skip
    agent = PPO(SPACE, spec([-1], [1]), num_worlds=1, **settings)
    with torch.no_grad():
        agent.policy.mean[0].weight.fill_(0.5)
        agent.critic[0].weight.fill_(2.0)
    return agent


def batch(*rows: tuple[float, ...]) -> list[torch.Tensor]:
    """Columns of (x, action, ratio to the old policy, advantage, target, valid) for `loss`."""
    x, action, ratio, advantage, target, valid = torch.tensor(rows).T
    log_prob = -0.5 * (action - x / 2) ** 2 - 0.5 * LOG_2PI  # of the linear agent, now
    scaled, count = standardise(advantage[None], valid[None])
    old = log_prob - ratio.log()
    first = torch.tensor([0.0, 0.5, 9.0])[: len(x), None]
    return [x[:, None], action[:, None], first, old, scaled[0], target, valid, count[0]]


TWO = (1.0, 1.5, 1.5, 3.0, 4.0, 1.0), (-1.0, -0.5, 0.9, 1.0, -1.0, 1.0)
"""Means 0.5 and -0.5, so z is 1 and 0; values 2 and -2."""


def test_the_loss_by_hand() -> None:
    agent = linear(clip=0.2, entropy=0.01, value_weight=0.5)
    loss, figures = agent.loss(*batch(*TWO))
    # advantages 3 and 1: mean 2, deviation 1, normalised 1 and -1
    # surrogate: min(1 * 1.5, 1 * 1.2) = 1.2 and min(-0.9, -0.9) = -0.9
    policy_loss = -(1.2 - 0.9) / 2
    value_loss = ((2 - 4) ** 2 + (-2 + 1) ** 2) / 2
    entropy = 0.5 * math.log(2 * math.pi * math.e)
    kl = ((1.5 - 1 - math.log(1.5)) + (0.9 - 1 - math.log(0.9))) / 2
    expected = [policy_loss, value_loss, entropy, kl, 0.5]  # one of two left the clip range
    assert figures.tolist() == pytest.approx(expected, abs=1e-5)
    assert loss.item() == pytest.approx(policy_loss + 0.5 * value_loss - 0.01 * entropy, abs=1e-5)


def test_the_anchor_by_hand() -> None:
    plain, anchored = linear(init_std=0.5), linear(init_std=0.5)
    anchored.anchor = 0.3 / 0.5**2
    apart = anchored.loss(*batch(*TWO))[0] - plain.loss(*batch(*TWO))[0]
    # means 0.5 and -0.5, where the policy that it began as had 0 and 0.5; its deviation was 0.5
    assert apart.item() == pytest.approx(0.3 * 0.5 * (0.5**2 + 1.0**2) / 0.5**2 / 2, rel=1e-4)
    with pytest.raises(UserError, match="agent.anchor=0.3: to which policy"):
        linear(anchor=0.3)
    with pytest.raises(UserError, match="knows no policy to keep"):
        anchored.load_state_dict(plain.state_dict())


def test_the_gradient_by_hand() -> None:
    agent = linear(clip=0.2, entropy=0.0, value_weight=0.5)
    agent.loss(*batch(*TWO))[0].backward()
    # the first ratio is beyond the clip: no gradient. The second is -1 * r, r = 0.9, with
    # d log p / d mean = z = 0: none either. d log p / d log_std = z^2 - 1 = -1:
    # d loss / d log_std = -(-0.9 * -1) / 2
    assert agent.policy.mean[0].weight.grad.item() == pytest.approx(0.0, abs=1e-6)
    assert agent.policy.log_std.grad.item() == pytest.approx(-0.45, abs=1e-5)
    # d 1/2 (v - target)^2 / d w = (v - target) x, the mean of -2 * 1 and -1 * -1
    assert agent.critic[0].weight.grad.item() == pytest.approx(-0.5, abs=1e-5)


def test_an_invalid_sample_weighs_nothing() -> None:
    agent = linear()
    wild = (3.0, 5.0, 40.0, 1e6, -1e6, 0.0)
    with_it, without = agent.loss(*batch(TWO[0], wild, TWO[1])), agent.loss(*batch(*TWO))
    assert with_it[0].item() == pytest.approx(without[0].item(), rel=1e-6)
    torch.testing.assert_close(with_it[1], without[1])
    gradients = [torch.autograd.grad(loss, agent.parameters) for loss, _ in (with_it, without)]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


def advantages(agent: PPO, traj: Trajectory) -> tuple[list[float], list[float]]:
    with torch.no_grad():
        value = agent.critic(torch.from_numpy(traj.obs["state"])).squeeze(-1)
        parts = agent._advantages(traj, value, torch.from_numpy(traj.valid))
    return tuple([round(x, 5) for x in part[:, 0].tolist()] for part in parts)


def two_steps(**ends: bool) -> Trajectory:
    """From x = 1 to 3 and, unless it ends there, on to 4; another episode begins at x = 10."""
    terminated, truncated = (
        np.array([[ends.get(name, False)], [False]]) for name in ("terminated", "truncated")
    )
    start = np.array([[[1.0]], [[10.0]]])
    traj = rollout(np.array([[[3.0]], [[4.0]]]), start, terminated, truncated)
    traj.reward[:] = 1.0
    return traj


def test_a_truncated_episode_bootstraps_from_its_final_observation() -> None:
    # V = 2 x, gamma = 1/2. Step 0: 1 + V(3) / 2 - V(1) = 1 + 3 - 2 = 2
    # (the next row's observation, 10, would say 1 + 10 - 2 = 9). Step 1: 1 + 4 - 20 = -15
    assert advantages(linear(), two_steps(truncated=True)) == ([2, -15], [4, 5])


def test_each_episode_bootstraps_from_its_own_final_observation() -> None:
    # both worlds start at x = 1; 1 + V(3) / 2 - 2 = 2 and 1 + V(5) / 2 - 2 = 4
    ends = np.array([[True, True]])
    traj = rollout(np.array([[[3.0], [5.0]]]), np.ones((1, 2, 1)), ~ends, ends)
    traj.reward[:] = 1.0
    agent = linear()
    with torch.no_grad():
        value = agent.critic(torch.from_numpy(traj.obs["state"])).squeeze(-1)
        advantage, _ = agent._advantages(traj, value, torch.from_numpy(traj.valid))
    assert advantage.tolist() == [pytest.approx([2, 4])]


def test_a_terminated_episode_has_no_future() -> None:
    assert advantages(linear(), two_steps(terminated=True)) == ([-1, -15], [1, 5])


def test_an_episode_that_goes_on_is_traced() -> None:
    # x = 1, 3, 4. A_1 = 1 + 8/2 - 6 = -1; A_0 = 1 + 6/2 - 2 + -1/2 = 1.5
    assert advantages(linear(), two_steps()) == ([1.5, -1], [3.5, 5])


def test_an_invalid_step_bootstraps_the_one_before() -> None:
    traj = two_steps()
    traj.valid[1] = False
    assert advantages(linear(), traj) == ([2, 0], [4, 6])


def make(env: TaskEnv, **settings: Any) -> PPO:
    settings = {"rollout_steps": 15, "lr": 3e-3, "gamma": 0.9, "hidden": (32, 32),
                "compile": False, **settings}  # fmt: skip
    return PPO(env.observation_space, env.action_spec, env.num_worlds, **settings)


def collector(env: TaskEnv, **settings: Any) -> Collector:
    return Collector(
        env, Rewards({"env": Channel("env", EnvReward())}, env.num_worlds, 0.9), **settings
    )


def trained(updates: int = 2, worlds: int = 16, **settings: Any) -> tuple[PPO, Collector]:
    env = reach(worlds)
    agent, collect = make(env, **settings), collector(env, stagger=True)
    for _ in range(updates):
        agent.update(collect.collect(agent.policy, agent.rollout_steps))
    return agent, collect


def assert_equal(a: PPO, b: PPO) -> None:
    for one, other in zip(a.parameters, b.parameters, strict=True):
        assert torch.equal(one, other)
    assert torch.equal(a.policy.norm.mean, b.policy.norm.mean)
    assert a.reward_scale.std == b.reward_scale.std


class Greedy:
    def __init__(self, agent: PPO) -> None:
        self.policy = agent.policy

    def carry(self, num_worlds: int) -> dict:
        return {}

    def act(self, carry, obs, greedy=False):
        return self.policy.act(carry, obs, greedy=True)


class Expert(Greedy):
    def __init__(self, env: TaskEnv) -> None:
        self.env = env

    def act(self, carry, obs, greedy=False):
        return carry, self.env.expert().astype(np.float32)


def mean_return(env: TaskEnv, policy: Any) -> float:
    collect = collector(env)
    collect.collect(policy, env.max_steps)
    return float(collect.episodes.drain()["return"].mean())


def test_it_learns_to_reach() -> None:
    expert = mean_return(env := reach(256, seed=100), Expert(env))
    untrained, _ = trained(updates=0, worlds=64)
    agent, _ = trained(updates=25, worlds=64)
    before, after = (mean_return(reach(256, seed=100), Greedy(a)) for a in (untrained, agent))
    assert before < 3 * expert < 0  # about -7 against -1.3
    assert after > before + 0.95 * (expert - before)


def test_it_learns_from_a_batch_with_faults_what_it_learns_without() -> None:
    """Whatever an invalid row holds, the update is the same to the last bit."""
    agents = []
    for nonsense in (0.0, 1e6):
        agent, collect = trained()
        traj = collect.collect(agent.policy, 15)
        traj.valid[3::5, ::3] = False
        traj.action[~traj.valid] = nonsense
        traj.reward[~traj.valid] = nonsense
        metrics = agent.update(traj)
        agents.append(agent)
        assert all(math.isfinite(value) for value in metrics.values())
    assert_equal(*agents)


def test_a_seed_is_a_run() -> None:
    assert_equal(trained(seed=1)[0], trained(seed=1)[0])
    first, second = (trained(updates=0, seed=seed)[0] for seed in (1, 2))
    assert not torch.equal(first.policy.mean[0].weight, second.policy.mean[0].weight)
    assert not torch.equal(first.critic[0].weight, second.critic[0].weight)
    obs = reach(16).reset()
    second.policy.load_state_dict(first.policy.state_dict())
    assert not (first.policy.act({}, obs)[1] == second.policy.act({}, obs)[1]).all()


def test_it_goes_on_from_its_state_bit_for_bit(tmp_path) -> None:
    settings = {"target_kl": 0.01, "minibatches": 3}
    whole, collect = trained(**settings)
    resumed = make(collect.env, seed=9, **settings)
    resumed.load_state_dict(through_disk(whole.state_dict(), tmp_path))
    obs = collect.env.reset()
    assert (whole.policy.act({}, obs, True)[1] == resumed.policy.act({}, obs, True)[1]).all()
    assert (whole.policy.act({}, obs)[1] == resumed.policy.act({}, obs)[1]).all()
    for _ in range(2):
        traj = collect.collect(whole.policy, 15)
        resumed.policy.act({}, obs)
        figures = whole.update(traj), resumed.update(traj)
        assert figures[0] == figures[1]
    assert_equal(whole, resumed)


def test_a_state_of_other_spaces_is_refused() -> None:
    state = make(reach(4, dims=2)).state_dict()
    with pytest.raises(UserError, match=r"does not fit: .* \(another observation space"):
        make(reach(4, dims=3)).load_state_dict(state)


def test_a_state_of_the_same_shapes_with_another_meaning_is_refused() -> None:
    env = reach(4)
    state = make(env).state_dict()
    assert ActionSpec.from_dict(state["action_spec"]).names == env.action_spec.names
    for change, message in (
        ({"kind": "torque"}, "kind of action control there, torque here"),
        (
            {"names": ("hip", "knee")},
            r"actions \['ctrl_0', 'ctrl_1'\] there, \['hip', 'knee'\] her",
        ),
    ):
        other = dataclasses.replace(env.action_spec, **change)
        with pytest.raises(UserError, match=f"does not fit: {message}"):
            PPO(env.observation_space, other, 4, hidden=(32, 32), compile=False).load_state_dict(
                state
            )
    pose = gym.spaces.Dict({"pose": env.observation_space["state"]})
    with pytest.raises(UserError, match=r"observations \['state'\] there, \['pose'\] here"):
        PPO(pose, env.action_spec, 4, hidden=(32, 32), compile=False).load_state_dict(state)


def test_greedy_is_the_mode_and_draws_nothing() -> None:
    agent, collect = trained()
    obs = collect.env.reset()
    drawn = agent.policy.noise.get_state()
    greedy = [agent.policy.act({}, obs, greedy=True)[1] for _ in range(2)]
    assert (greedy[0] == greedy[1]).all()
    assert torch.equal(agent.policy.noise.get_state(), drawn)
    many = np.mean([agent.policy.act({}, obs)[1] for _ in range(4000)], axis=0)
    np.testing.assert_allclose(many, greedy[0], atol=0.08)


@pytest.mark.parametrize(
    ("low", "high", "centre", "scale"),
    [
        ([-2, 1], [2, 5], [0, 3], [2, 2]),
        ([-math.inf, -1], [math.inf, 3], [0, 1], [1, 2]),
        ([0, -math.inf], [math.inf, 4], [0, 0], [1, 1]),  # bounded on one side only
        ([2, -1], [2, 1], [0, 0], [1, 1]),  # a dimension that cannot move
    ],
)
def test_actions_are_in_units_of_their_limits(low, high, centre, scale) -> None:
    space = gym.spaces.Dict({"state": gym.spaces.Box(-9, 9, (3,), np.float32)})
    agent = PPO(space, spec(low, high), num_worlds=2000, init_std=0.5, compile=False)
    action = agent.policy.act({}, {"state": np.zeros((2000, 3), np.float32)})[1]
    assert action.dtype == np.float32
    np.testing.assert_allclose(action.mean(0), centre, atol=0.1)
    np.testing.assert_allclose(action.std(0), np.array(scale) * 0.5, rtol=0.1)


def test_actions_of_another_unit_teach_the_same() -> None:
    traj, agents = two_steps(), []
    for low, high, action in (([-1], [1], (0.5, -0.25)), ([1], [5], (4.0, 2.5))):  # 3 + 2 a
        agents.append(PPO(SPACE, spec(low, high), 1, hidden=(), minibatches=1, compile=False))
        traj.action[:, 0, 0] = action
        agents[-1].update(traj)
    assert_equal(*agents)


def test_what_is_executed_keeps_the_limits() -> None:
    env = reach(64)
    agent = make(env, init_std=3.0)
    traj = collector(env).collect(agent.policy, 15)
    assert np.abs(traj.action).max() > 3
    assert np.abs(traj.action_executed).max() == 1.0


def test_compiled_is_eager_but_for_rounding() -> None:
    if nets.missing_for_compile():
        pytest.skip(nets.missing_for_compile())
    eager, compiled = linear(entropy=0.01), linear(entropy=0.01, compile=True)
    results = []
    for agent in (eager, compiled):
        loss, figures = agent._loss(*batch(*TWO))
        results += [loss, figures, torch.autograd.grad(loss, agent.parameters)]
    torch.testing.assert_close(results[:3], results[3:])


def test_the_learning_rate_follows_the_divergence() -> None:
    for kl, factor in ((0.05, 1 / 1.5), (0.001, 1.5), (0.01, 1.0)):
        agent = linear(target_kl=0.01, lr=1e-3)
        agent._adapt_lr(kl)
        assert agent._lr() == pytest.approx(1e-3 * factor)
    agent = linear(target_kl=0.01, lr=1.2e-5)
    agent._adapt_lr(1.0)
    assert agent._lr() == pytest.approx(1e-5)  # never less


def test_the_learning_rate_anneals_with_progress() -> None:
    agent = linear(anneal=True, lr=1e-3)
    traj = two_steps()
    for progress, lr in ((0.0, 1e-3), (0.75, 2.5e-4)):
        agent.progress = progress
        assert agent.update(traj)["lr"] == pytest.approx(lr)


def test_observations_are_normalised_by_what_was_seen() -> None:
    agent, _ = trained(updates=0)
    env = reach(16)
    traj = collector(env).collect(agent.policy, 15)
    agent.update(traj)
    rows = torch.from_numpy(traj.obs["state"]).reshape(-1, 4)
    torch.testing.assert_close(agent.policy.norm.mean, rows.mean(0), rtol=1e-4, atol=1e-5)
    plain = make(env, normalise_obs=False)
    plain.update(traj)
    assert plain.policy.norm.count == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr": -1.0}, r"agent\.lr=-1\.0: give a number >= 0"),
        ({"gamma": 1.5}, r"agent\.gamma=1\.5: give a number from 0 to 1"),
        ({"lam": math.nan}, r"agent\.lam=nan: give a number from 0 to 1"),
        ({"epochs": 0}, r"agent\.epochs=0: give a number >= 1"),
        ({"init_std": 0.0}, r"agent\.init_std=0\.0: give a number >= 1e-06"),
        ({"minibatches": 61}, r"agent\.minibatches=61: more than the samples of a rollout"),
        ({"activation": "rleu"}, "unknown activation 'rleu': did you mean relu"),
        ({"hidden": (0,)}, r"hidden=\[0\]: give whole numbers >= 1"),
        ({"device": "toaster"}, "device=toaster: .*device=cpu works everywhere"),
    ],
)
def test_a_setting_out_of_range(settings: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make(reach(4), **settings)


def test_discrete_actions_are_refused() -> None:
    with pytest.raises(UserError, match="PPO needs continuous actions"):
        PPO(reach(2).observation_space, None, num_worlds=2)
