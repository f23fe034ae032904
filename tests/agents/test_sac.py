"""SAC: its losses by hand, what its replay does to them, that it learns and goes on."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from embodied.agents.sac import SAC
from embodied.reward_models.env import EnvReward

from embodied.collect import Collector
from embodied.env import TaskEnv
from embodied.errors import UserError
from embodied.reward_model import Channel
from embodied.rewards import Rewards
from tests.toys import reach, through_disk


def make(env: TaskEnv, **settings: Any) -> SAC:
    settings = {"hidden": (32, 32), "batch": 64, "warm_up": 64, "gamma": 0.9, "lr": 3e-3,
                "capacity": 20_000, "compile": False, **settings}  # fmt: skip
    return SAC(env.observation_space, env.action_spec, env.num_worlds, **settings)


def collector(env: TaskEnv) -> Collector:
    return Collector(env, Rewards({"env": Channel("env", EnvReward())}, env.num_worlds, 0.9))


def trained(updates: int = 6, worlds: int = 16, **settings: Any) -> tuple[SAC, Collector]:
    env = reach(worlds)
    agent, collect = make(env, **settings), collector(env)
    for _ in range(updates):
        agent.update(collect.collect(agent.policy, agent.rollout_steps))
    return agent, collect


def assert_equal(a: SAC, b: SAC) -> None:
    for one, other in zip(
        (*a.policy.parameters(), *a.critic.parameters(), *a.target.parameters(), a.log_alpha),
        (*b.policy.parameters(), *b.critic.parameters(), *b.target.parameters(), b.log_alpha),
        strict=True,
    ):
        assert torch.equal(one, other)


def flat(agent: SAC, *values: float) -> None:
    """Critics that say these whatever they see."""
    for stack, numbers in ((agent.critic, values), (agent.target, values)):
        for weight, bias in zip(stack.weights, stack.biases, strict=True):
            weight.data.zero_()
            bias.data.zero_()
        stack.biases[-1].data[:, 0, 0] = torch.tensor(numbers)


def test_losses_by_hand() -> None:
    agent = make(reach(4), critics=2)
    flat(agent, 3.0, 5.0)
    obs, noise = torch.randn(4, 4), torch.randn(4, 2)
    _, log_prob = agent.policy.sample(obs, noise)
    value = agent.following_value(obs, noise, torch.tensor(0.5))
    torch.testing.assert_close(value, 3.0 - 0.5 * log_prob.detach())
    aims = torch.tensor([3.0, 5.0, 4.0, 2.0])
    loss, q = agent.critic_loss(obs, torch.zeros(4, 2), aims)
    # (0 + 4 + 1 + 1) / 4 and (4 + 0 + 1 + 9) / 4, half of each
    assert loss.item() == pytest.approx(0.5 * (6 + 14) / 4) and float(q) == 4.0
    loss, mean = agent.actor_loss(obs, noise, torch.tensor(0.5))
    assert loss.item() == pytest.approx(0.5 * log_prob.mean().item() - 3.0, abs=1e-5)
    assert mean.item() == pytest.approx(log_prob.mean().item())


def test_an_update_aims_at_reward_and_discounted_value() -> None:
    agent = make(reach(4), batch=4, init_alpha=0.5)
    flat(agent, 3.0, 5.0)
    obs, noise, action = torch.randn(4, 4), torch.randn(4, 2), torch.zeros(4, 2)
    reward, discount = torch.tensor([1.0, 2.0, 0.0, 0.0]), torch.tensor([0.9, 0.0, 0.81, 0.9])
    aims = reward + discount * agent.following_value(obs, noise, torch.tensor(0.5))
    figures = agent.learn_from(obs, action, reward, discount, obs, noise, noise)
    by_hand = 0.5 * (((3.0 - aims) ** 2).mean() + ((5.0 - aims) ** 2).mean())
    assert figures[0].item() == pytest.approx(by_hand.item(), rel=1e-5)
    assert figures[2].item() == 4.0 and figures[4].item() == pytest.approx(0.5)


def test_batches_drawn_at_once_are_learned_from_in_turn() -> None:
    agent, collect = trained(updates=10)
    twin = make(collect.env)
    twin.load_state_dict(agent.state_dict())
    drawn = agent._draw(3 * agent.batch)
    noise = torch.randn(2, 3 * agent.batch, 2, generator=agent.noise)
    for k in range(3):
        part = slice(k * agent.batch, (k + 1) * agent.batch)
        rows = [value[part] for value in (*vars(drawn).values(), *noise)]
        agent.learn_from(*rows)
    twin.improve(3)
    assert_equal(agent, twin)


def test_the_temperature_follows_the_entropy() -> None:
    agents = [trained(updates=30, target_entropy=aim)[0] for aim in (-50.0, 50.0)]
    assert agents[0].log_alpha.item() < 0.0 < agents[1].log_alpha.item()
    assert make(reach(4)).target_entropy == -2.0


def test_the_target_follows_by_tau() -> None:
    agent, collect = trained(updates=10)
    before = [p.clone() for p in agent.target.parameters()]
    agent.update(collect.collect(agent.policy, 1))
    for old, new, critic in zip(
        before, agent.target.parameters(), agent.critic.parameters(), strict=True
    ):
        torch.testing.assert_close(new, old + agent.tau * (critic - old))


def test_until_it_is_warm_it_acts_at_random_and_learns_nothing() -> None:
    agent, collect = trained(updates=3, warm_up=64)
    fresh = make(reach(16))
    assert_equal(agent, fresh)
    assert agent.policy.at_random and agent.update(collect.collect(agent.policy, 1))
    assert not agent.policy.at_random


def test_what_is_not_valid_is_not_learned_from() -> None:
    agents = []
    for nonsense in (0.0, 1e6):
        agent, collect = trained(updates=0, rollout_steps=15)
        traj = collect.collect(agent.policy, 15)
        traj.valid[3::5, ::3] = False
        traj.reward_terms["env"][~traj.valid] = nonsense
        assert all(math.isfinite(value) for value in agent.update(traj).values())
        agents.append(agent)
    assert_equal(*agents)


def test_weights_count_as_those_of_the_run() -> None:
    told = []
    for weight in (1.0, 2.0):
        env = reach(16)
        agent = make(env)
        channel = Channel("env", EnvReward(), weight=weight)
        collect = Collector(env, Rewards({"env": channel}, 16, 0.9))
        traj = collect.collect(agent.policy, 8)
        agent.update(traj)
        batch = agent.replay.draw(4000, agent.noise, agent.weights, 0.9)
        told.append(float(batch.reward.mean()))
        assert told[-1] == pytest.approx(float(traj.reward.mean()), rel=0.1)
    assert told[1] == pytest.approx(2.0 * told[0], rel=0.1)


def test_labels_may_come_late() -> None:
    agent, collect = trained(updates=0, rollout_steps=8)
    traj = collect.collect(agent.policy, 8)
    late = dataclasses.replace(traj, reward_terms={"env": np.full(traj.shape, np.nan, np.float32)})
    with pytest.raises(UserError, match="no step of the replay is both"):
        agent.update(late)
    told = agent.relabel(traj.step_id.ravel(), {"env": traj.reward_terms["env"].ravel()})
    assert told == traj.reward.size
    assert agent.relabel(np.array([10_000_000]), {"env": np.array([1.0])}) == 0
    assert math.isfinite(agent.update(collect.collect(agent.policy, 8))["critic_loss"])


@pytest.mark.parametrize("n_step", [1, 3])
def test_it_learns_to_reach(n_step: int) -> None:
    def mean_return(policy: Any) -> float:
        collect = collector(reach(256, seed=100))
        collect.collect(Greedy(policy), collect.env.max_steps)
        return float(collect.episodes.drain()["return"].mean())

    untrained = trained(updates=0)[0]
    agent = trained(updates=800, batch=128, n_step=n_step, init_alpha=0.05)[0]
    before, after = mean_return(untrained.policy), mean_return(agent.policy)
    assert before < -4.0 and after > -1.6  # an expert has -1.3


class Greedy:
    def __init__(self, policy: Any) -> None:
        self.policy = policy

    def carry(self, num_worlds: int) -> dict:
        return {}

    def act(self, carry, obs, greedy=False):
        return self.policy.act(carry, obs, greedy=True)


def test_a_seed_is_a_run() -> None:
    assert_equal(trained(seed=1)[0], trained(seed=1)[0])
    first, second = (trained(seed=seed)[0] for seed in (1, 2))
    assert not torch.equal(first.critic.weights[0], second.critic.weights[0])


@pytest.mark.parametrize("updates", [2, 8])
def test_it_goes_on_from_its_state_bit_for_bit(updates: int, tmp_path: Path) -> None:
    whole, collect = trained(updates)
    resumed = make(collect.env, seed=9)
    resumed.load_state_dict(through_disk(whole.state_dict(), tmp_path))
    for _ in range(4):
        obs = collect.env.reset()
        actions = [agent.policy.act({}, obs)[1] for agent in (whole, resumed)]
        assert (actions[0] == actions[1]).all()
        traj = collect.collect(whole.policy, 1)
        resumed.policy.noise.set_state(whole.policy.noise.get_state())
        assert whole.update(traj) == resumed.update(traj)
    assert_equal(whole, resumed)


def test_a_state_of_other_spaces_is_refused() -> None:
    state = make(reach(4, dims=2)).state_dict()
    with pytest.raises(UserError, match="does not fit"):
        make(reach(4, dims=3)).load_state_dict(state)


def test_half_the_precision_comes_near() -> None:
    agents = [make(reach(4), precision=name) for name in ("float32", "bfloat16")]
    obs, action, noise = torch.randn(64, 4), torch.randn(64, 2).tanh(), torch.randn(64, 2)
    losses = []
    for agent in agents:
        critic = agent.critic_loss(obs, action, torch.ones(64))[0]
        actor = agent.actor_loss(obs, noise, torch.tensor(0.1))[0]
        assert critic.dtype == actor.dtype == torch.float32
        critic.backward()
        gradient = agent.critic.weights[1].grad
        assert gradient is not None and gradient.dtype == torch.float32
        losses.append(torch.stack([critic, actor, gradient.norm()]).detach())
    assert not torch.equal(*losses)
    torch.testing.assert_close(losses[0], losses[1], rtol=0.02, atol=0.01)


def test_it_is_the_same_compiled() -> None:
    plain, fused = (trained(updates=8, compile=compile)[0] for compile in (False, True))
    for one, other in zip(plain.critic.parameters(), fused.critic.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch": 0}, "agent.batch=0"),
        ({"gamma": 1.5}, "agent.gamma=1.5"),
        ({"n_step": 0}, "agent.n_step=0"),
        ({"precision": "float16"}, "agent.precision 'float16'"),
        ({"capacity": 4}, "a replay of 4 steps for 4 worlds"),
        ({"device": "nowhere"}, "device=nowhere"),
    ],
)
def test_settings_that_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make(reach(4), **settings)


def test_demonstrations_are_a_fixed_share_of_every_batch(tmp_path: Path) -> None:
    agent, collect = trained(updates=0, batch=32, shown_share=0.25)
    traj = collect.collect(agent.policy, 10)
    bold = dataclasses.replace(traj, action=np.ones_like(traj.action))
    agent.begin_with(bold)
    agent.update(traj)
    resumed = make(collect.env, batch=32, shown_share=0.25)
    resumed.load_state_dict(through_disk(agent.state_dict(), tmp_path))
    for one in (agent, resumed):
        drawn = one._draw(2 * 32)
        bold_ones = (drawn.action == 1.0).all(-1).reshape(2, 32).sum(-1)
        assert bold_ones.tolist() == [8, 8]
    resumed.load_state_dict(agent.state_dict())
    traj = collect.collect(agent.policy, 1)
    assert agent.update(traj) == resumed.update(traj)
    assert_equal(agent, resumed)
