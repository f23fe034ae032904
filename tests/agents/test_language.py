"""What learners of a policy that speaks share: the loss by hand, learning, going on."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from embodied.agents.gigpo import GiGPO
from embodied.agents.grpo import GRPO
from embodied.agents.language import LanguageAgent, sound_alone
from embodied.agents.language_ppo import LanguagePPO
from embodied.agents.rloo import RLOO
from embodied.agents.sft import SFT
from embodied.reward_models.env import EnvReward

from embodied.collect import Collector
from embodied.conversations import experts
from embodied.errors import UserError
from embodied.reward_model import Channel
from embodied.rewards import Rewards
from embodied.text_env import TextEnv
from embodied.transcripts import transcripts
from tests.talks import doors, talk
from tests.toys import through_disk

LEARNERS: dict[str, type[LanguageAgent]] = {
    "grpo": GRPO, "rloo": RLOO, "gigpo": GiGPO, "language_ppo": LanguagePPO,
}  # fmt: skip


def agent(kind: type[LanguageAgent], **settings: Any) -> LanguageAgent:
    made = kind(**{"max_tokens": 8, "context": 256, **settings})
    made._begin(taught().policy.lm.clone())
    return made


@cache
def taught() -> SFT:
    """A small model that has heard a dozen conversations, and knows half of what it should."""
    sft = SFT(steps=180, width=32, heads=2, vocabulary=400, context=256, lr=3e-3)
    sft.fit(experts(doors(12, 1), range(12)))
    return sft


def collector(env: TextEnv) -> Collector:
    return Collector(env, Rewards({"env": Channel("env", EnvReward())}, env.num_worlds, 1.0))


def test_the_loss_of_a_first_pass_is_the_advantage_s_mean() -> None:
    learner = agent(GRPO, entropy=0.0)
    traj = talk(model=learner.policy.lm)
    data = transcripts(traj)
    advantage = np.where(traj.valid, np.arange(traj.reward.size).reshape(traj.shape), 0.0)
    given = {"advantage": data.spread(advantage)}
    loss, figures = learner.loss(data, given)
    said = data.turn >= 0
    assert float(loss.detach()) == pytest.approx(-float(given["advantage"][said].mean()), rel=1e-4)
    _, _, kl, clipped = figures.tolist()
    assert abs(kl) < 1e-6 and clipped == 0.0


def test_advantages_are_weighed_over_the_tokens_that_were_said_by_hand() -> None:
    """A success of one token beside a failure of three: each token against the mean of the four."""
    advantage = torch.tensor([[0.0, 1.0, 0.0, 0.0, 0.0], [7.0, -1.0, 7.0, -1.0, -1.0]])
    said = torch.tensor([[0, 1, 0, 0, 0], [0, 1, 0, 1, 1]], dtype=torch.bool)
    apart = float(np.sqrt(0.75))  # of 1, -1, -1, -1: mean -0.5, deviation sqrt(0.75)
    up, down = 1.5 / apart, -0.5 / apart
    got = agent(GRPO).weighed(advantage, said)
    np.testing.assert_allclose(got, [[0, up, 0, 0, 0], [0, down, 0, down, down]], rtol=1e-5)
    assert abs(float(got.sum())) < 1e-5  # on the whole nothing is made likelier or less likely
    tempered = agent(GRPO, negative=0.3).weighed(advantage, said)
    np.testing.assert_allclose(tempered[1], [0, 0.3 * down, 0, 0.3 * down, 0.3 * down], rtol=1e-5)
    plain = agent(GRPO, standardise=False).weighed(advantage, said)
    np.testing.assert_allclose(plain, [[0, 1, 0, 0, 0], [0, -1, 0, -1, -1]])
    assert not agent(GRPO).weighed(advantage, torch.zeros_like(said)).any()


def test_a_token_s_loss_is_clipped_by_hand() -> None:
    learner = agent(GRPO, clip=0.2)
    traj = talk(model=learner.policy.lm)
    data = transcripts(traj)
    data.log_prob -= (data.turn >= 0) * float(np.log(1.5))  # every ratio is 1.5
    up, down = (data.spread(np.where(traj.valid, sign, 0.0)) for sign in (1.0, -1.0))
    assert float(learner.loss(data, {"advantage": up})[0].detach()) == pytest.approx(-1.2, rel=1e-3)
    assert float(learner.loss(data, {"advantage": down})[0].detach()) == pytest.approx(
        1.5, rel=1e-3
    )


def test_sequences_in_which_nothing_counts_are_left_out_and_change_no_gradient(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read: list[int] = []

    def gradients(leaves_out: bool) -> list[torch.Tensor]:
        learner = agent(RLOO, negative=0.0, epochs=1, minibatches=1)
        if not leaves_out:
            monkeypatch.setattr(learner, "_useful", lambda which, given: which)
        traj = talk(model=learner.policy.lm)
        traj.reward = np.where(traj.valid, [[1.0, 0.0, 0.0, 0.0]], 0.0).astype(np.float32)
        kept = learner.loss
        monkeypatch.setattr(
            learner, "loss", lambda part, given: (read.append(len(part)), kept(part, given))[1]
        )
        learner.update(traj)
        return [p.grad for p in learner.parameters]

    some, every = gradients(True), gradients(False)
    assert 0 < read[0] < read[1]
    for one, other in zip(some, every, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-7)
    assert any(one.abs().max() > 1e-4 for one in some)


def test_staying_near_costs_nothing_at_first_and_something_later() -> None:
    learner = agent(RLOO, kl=1.0, lr=1e-2, epochs=1)
    learner.policy.lm.remember()
    traj = talk(model=learner.policy.lm)
    data = transcripts(traj)
    none = {"advantage": data.spread(np.zeros(traj.shape))}
    assert abs(float(learner.loss(data, none)[0].detach())) < 1e-6
    traj.reward = np.where(traj.valid, [[1.0, 0.0, 1.0, 0.0]], 0.0).astype(np.float32)
    learner.update(_told(traj))
    assert float(learner.loss(data, none)[0].detach()) > 1e-4


def test_a_reply_without_an_action_costs() -> None:
    learner = agent(RLOO, malformed_penalty=0.5, epochs=1)
    traj = talk([[""], ["say oak"]], learner.policy.lm)
    seen = {}

    def spy(traj: Any, reward: np.ndarray) -> np.ndarray:
        seen["reward"] = reward
        return np.zeros(traj.shape)

    learner.advantages = spy  # type: ignore[method-assign]
    figures = learner.update(_told(traj))
    np.testing.assert_allclose(seen["reward"][:, 0], -0.5)
    assert seen["reward"][0, 1] == 0.0 and 0.4 < figures["malformed"] < 0.8


def _told(traj: Any) -> Any:
    assert traj.extras["malformed"].dtype == bool
    return traj


@pytest.mark.parametrize("name", LEARNERS)
def test_it_learns_to_read_the_doors(name: str) -> None:
    learner = agent(LEARNERS[name], lr=3e-3)
    played = collector(doors(64, 8, max_steps=4))
    success = []
    for _ in range(80):
        learner.update(played.collect(learner.policy, learner.rollout_steps))
        success.append(played.episodes.drain()["success"].mean())
        if len(success) >= 5 and np.mean(success[-3:]) > 0.85:
            break
    assert success[0] < 0.6 and np.mean(success[-3:]) > 0.85, success


@pytest.mark.parametrize("name", LEARNERS)
def test_saved_and_loaded_it_goes_on_alike(name: str, tmp_path: Any) -> None:
    learner = agent(LEARNERS[name], kl=0.1, seed=3)
    learner.policy.lm.remember()
    played = collector(doors(8, 4))
    learner.update(played.collect(learner.policy, None))
    other = LEARNERS[name](max_tokens=8, context=256, kl=0.1, seed=5)
    other.load_state_dict(through_disk(learner.state_dict(), tmp_path))
    ahead = []
    for one in (learner, other):
        mine = collector(doors(8, 4, seed=9))
        traj = mine.collect(one.policy, None)
        ahead.append((traj, one.update(traj)))
    (traj, figures), (again, same) = ahead
    assert traj.action.tolist() == again.action.tolist()
    assert figures == pytest.approx(same, rel=1e-5)


def test_group_methods_want_groups() -> None:
    learner = agent(GRPO)
    traj = collector(doors(2, 1)).collect(learner.policy, None)
    with pytest.raises(UserError, match="env.group=8"):
        learner.update(traj)


def test_an_episode_that_broke_is_learned_from_by_nobody() -> None:
    traj = talk([["say oak"], ["dance"], ["say fir"], [""]], group=4)
    traj.due = traj.valid.copy()
    traj.valid[1:, 3] = False  # a fault
    got = sound_alone(traj)
    assert (
        got.valid[:, :3].all() and not got.valid[:, 3].any() and got.group[3] not in got.group[:3]
    )
    reward = np.where(got.valid, [[1.0, 0.0, 0.5, 9.0]], 0.0)
    worth = RLOO().advantages(got, reward)  # against the others that are sound
    np.testing.assert_allclose(worth[0, :3], len(worth) * np.array([0.75, -0.75, 0.0]), atol=1e-5)
    np.testing.assert_array_equal(worth[:, 3], 0.0)
    traj.valid[:] = False
    assert agent(RLOO).update(traj) == {}


def test_without_a_model_it_says_where_one_comes_from() -> None:
    with pytest.raises(UserError, match="agent.model=FOLDER.*agent.start=RUN"):
        _ = GRPO().policy
    with pytest.raises(UserError, match="agent.context=30"):
        agent(GRPO, context=30)


def test_the_learning_rate_falls_over_the_run() -> None:
    learner, steady = agent(GRPO, lr=1e-3, anneal=True), agent(GRPO, lr=1e-3)
    for one in (learner, steady):
        one.progress = 0.75
        one.update(_told(talk(model=one.policy.lm)))
    rates = [one.optimiser.param_groups[0]["lr"] for one in (learner, steady)]
    assert rates == pytest.approx([2.5e-4, 1e-3])
    again = agent(GRPO, lr=1e-3, anneal=True)
    again.load_state_dict(learner.state_dict())
    assert again.progress == 0.75
