"""An episode's return shared out over its steps: what it learns, keeps, and refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from embodied.reward_models.lare import LaRe

from embodied.build import make_env
from embodied.cli import main
from embodied.collect import Collector
from embodied.config import compose_config
from embodied.errors import UserError
from embodied.reward_folder import RewardFile
from embodied.reward_model import Channel
from embodied.rewards import Rewards
from embodied.sandbox_worker import load, world_of
from embodied.tracing import Trace
from tests.toys import Wander, through_disk

READS = {"puck.position": [2], "red_pad.position": [2], "action": [2]}
CODE = """
def reward(world, action, dt):
    away = np.linalg.norm(world.puck.position - world.red_pad.position, axis=-1)
    return {"away": away, "x": world.puck.position[:, 0], "effort": np.sum(action**2, axis=-1)}
"""


@pytest.fixture
def folder(tmp_path: Path) -> str:
    trace = Trace(READS)
    given = trace.inputs()
    graph = trace.graph(load(CODE)(world_of(given), given["action"], 0.05))
    file = RewardFile(CODE, "line_reach", 0.05, READS, unreal=("red_pad.position",), graph=graph)
    return str(file.save(tmp_path / "factors"))


def collector(model: LaRe, worlds: int = 8, max_steps: int = 12) -> Collector:
    cfg = compose_config(["env=line_reach", "sim.threads=1", f"env.max_steps={max_steps}"])
    env = make_env(cfg, num_envs=worlds, seed=1)
    return Collector(env, Rewards({"lare": Channel("lare", model)}, worlds, 0.9))


def paid(traj: Any) -> np.ndarray:
    """A hidden reward of every step, which the model sees only the sum of."""
    x, pad = traj.readouts["world.puck.position"], traj.readouts["world.red_pad.position"]
    return (1.0 - 2.0 * np.linalg.norm(x - pad, axis=-1)).astype(np.float32)


@pytest.mark.parametrize(("subset", "least"), [(None, 0.7), (6, 0.95)])
def test_it_finds_the_share_of_every_step(folder: str, subset: int | None, least: float) -> None:
    # Of whole episodes of a wanderer the sums are much alike, so it learns more slowly from them.
    model = LaRe(folder, returns="reward", updates=60, subset=subset)
    collect = collector(model, worlds=32)
    policy = Wander(collect.env)
    for _ in range(12):
        traj = collect.collect(policy, 12)
        traj.readouts["reward"] = paid(traj)
        figures = model.learn(traj)
    _, score = model.score({}, traj)
    truth = paid(traj)
    assert np.corrcoef(score.value.ravel(), truth.ravel())[0, 1] > least
    np.testing.assert_allclose(score.value.mean(), truth.mean(), atol=0.1)
    assert set(score.terms) == {"away", "x", "effort"} and figures["loss"] < 0.1


def test_episodes_are_put_together_by_hand(folder: str) -> None:
    model = LaRe(folder, returns="reward")
    collect = collector(model, worlds=2, max_steps=5)
    policy = Wander(collect.env)
    first = collect.collect(policy, 3)
    first.readouts["reward"][:] = [[1.0, 10.0]] * 3
    model._remember(first)
    assert model.ended == [] and [len(np.concatenate(r)) for r in model.running] == [3, 3]
    second = collect.collect(policy, 4)
    second.readouts["reward"][:] = [[2.0, 20.0]] * 4
    second.valid[1, 1] = False
    model._remember(second)
    (one,) = model.ended  # the other world's has a step that is not valid
    assert one[1] == 3 * 1.0 + 2 * 2.0 and one[0].shape == (5, 3)
    np.testing.assert_allclose(one[0][:3], model.factors(first)[:, 0])
    np.testing.assert_allclose(one[0][3:], model.factors(second)[:2, 0])
    assert [len(np.concatenate(r)) for r in model.running] == [2, 2]
    model.most = 1
    third = collect.collect(policy, 5)
    model._remember(third)
    assert len(model.ended) == 1


def test_success_counts_once(folder: str) -> None:
    model = LaRe(folder)
    model._end(np.array([[0.0, 0, 0, 0], [0, 0, 0, 1], [0, 0, 0, 1]]))
    assert model.ended[0][1] == 1.0 and model.needs.privileged == {
        "success", "world.red_pad.position",
    }  # fmt: skip


def test_before_an_episode_has_ended_nothing_is_paid(folder: str) -> None:
    model = LaRe(folder)
    traj = collector(model).collect(Wander(collector(model).env), 4)
    assert not traj.reward.any() and model.learn(traj) == {}


def test_what_it_learned_is_kept_and_goes_on_alike(folder: str, tmp_path: Path) -> None:
    model, again = LaRe(folder, returns="reward"), LaRe(folder, returns="reward", seed=7)
    collect = collector(model)
    policy = Wander(collect.env)
    rollouts = [collect.collect(policy, 7) for _ in range(6)]
    for traj in rollouts[:4]:
        model.learn(traj)
    again.load_state_dict(through_disk(model.state_dict(), tmp_path))
    for traj in rollouts[4:]:
        assert model.learn(traj) == again.learn(traj)
    values = [m.score({}, rollouts[0])[1].value for m in (model, again)]
    assert np.array_equal(*values)


def test_a_run_with_it_goes_on_bit_for_bit(folder: str, tmp_path: Path) -> None:
    args = ["env=line_reach", "sim.threads=1", "num_envs=16", "video=false", "tensorboard=false",
            "reward_model=lare", f"reward_model.lare.path={folder}"]  # fmt: skip
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert main(["train", *args, "total_steps=4096", f"run_dir={whole}"]) == 0
    assert main(["train", *args, "total_steps=2048", f"run_dir={parts}"]) == 0
    assert main(["train", "--resume", str(parts), "total_steps=4096"]) == 0

    def losses(path: Path) -> list[str]:
        lines = (path / "log.jsonl").read_text().splitlines()
        return [part for line in lines for part in line.split(", ") if "lare/loss" in part]

    assert losses(whole) == losses(parts) and len(losses(whole)) > 4


def test_bad_input_is_one_line(folder: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="give a folder"):
        LaRe()
    with pytest.raises(UserError, match="did you mean reward"):
        LaRe(folder, returns="rewards")
    with pytest.raises(UserError, match=r"lare\.batch=0"):
        LaRe(folder, batch=0)
    untraced = replace(RewardFile(CODE, "line_reach", 0.05, READS)).save(tmp_path / "b")
    with pytest.raises(UserError, match="cannot be traced"):
        LaRe(str(untraced))
    with pytest.raises(UserError, match="not the factors that the run began with"):
        LaRe(folder).load_state_dict({"fingerprint": "other"})
