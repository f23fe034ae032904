"""Two processes do what one with twice the worlds does, and go on together."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from embodied import processes
from embodied.checkpoint import load_checkpoint, save_checkpoint
from embodied.errors import UserError
from embodied.run import open_run
from embodied.train import train

ROOT = Path(__file__).parents[1]
WORLDS, STEPS = 8, 20


class Scripted:
    """Actions that follow from a world's number and the step alone."""

    def __init__(self, first: int, actions: int) -> None:
        self.first, self.actions, self.step = first, actions, 0

    def carry(self, num_worlds: int) -> dict[str, Any]:
        return {"world": self.first + np.arange(num_worlds)}

    def act(self, carry: Any, obs: Any, greedy: bool = False) -> tuple[Any, np.ndarray]:
        self.step += 1
        phase = 0.7 * carry["world"][:, None] + 0.3 * self.step + np.arange(self.actions)
        return carry, (0.1 * np.sin(phase)).astype(np.float32)


def learn_ppo() -> dict[str, Any]:
    """Three updates of this process's share of the worlds."""
    from embodied.build import make_agent, make_env, make_rewards
    from embodied.collect import Collector
    from embodied.config import compose_config

    own = ["agent.compile=false", "agent.minibatches=1", "agent.epochs=3", "env.max_steps=9"]
    cfg = compose_config(["env=line_reach", "~tuned", *own, "agent.target_kl=0.001"])
    share = WORLDS // processes.count()
    first = processes.rank() * share
    env: Any = make_env(cfg, num_envs=share, first_world=first)
    agent: Any = make_agent(cfg, env)
    collector = Collector(env, make_rewards(cfg, env, agent.gamma))
    policy = Scripted(first, env.action_spec.size)
    for k in range(3):
        traj = collector.collect(policy, STEPS)  # type: ignore[arg-type]
        traj.valid[k::5, 1::4] = False  # of one world in four, however they are shared out
        agent.update(traj)
    state = agent.state_dict()
    scale = torch.tensor(state["reward_scale"]["stats"])
    return {"policy": state["policy"], "critic": state["critic"], "scale": scale}


def learn_sac() -> dict[str, Any]:
    """Three steps from this process's share of a batch."""
    import gymnasium as gym
    from embodied.agents.sac import SAC

    from embodied.replay import Batch
    from embodied.types import ActionSpec

    space = gym.spaces.Dict({"state": gym.spaces.Box(-1.0, 1.0, (3,), np.float32)})
    limit = np.ones(2, np.float32)
    spec = ActionSpec(("a", "b"), ("", ""), -limit, limit, "control", 10.0)
    agent = SAC(space, spec, 4, hidden=(16, 16), compile=False, lr=1e-2)
    share = WORLDS // processes.count()
    mine = slice(processes.rank() * share, (processes.rank() + 1) * share)
    rng = torch.Generator().manual_seed(0)

    def rows(*shape: int) -> torch.Tensor:
        return torch.randn(WORLDS, *shape, generator=rng)[mine]

    for _ in range(3):
        batch = Batch(rows(3), rows(2).tanh(), rows(), rows().sigmoid(), rows(3))
        agent.learn_from(*vars(batch).values(), rows(2), rows(2))
    state = agent.state_dict()
    return {key: state[key] for key in ("policy", "critic", "target", "log_alpha")}


def together(code: str, *arguments: str, number: int = 2) -> subprocess.CompletedProcess[str]:
    """Python, in several processes that `torchrun` starts."""
    launch = [sys.executable, "-m", "torch.distributed.run", f"--nproc_per_node={number}"]
    environ = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [*launch, "--standalone", *code.split(), *arguments],
        capture_output=True, text=True, env=environ, cwd=ROOT, timeout=280,
    )  # fmt: skip


@pytest.mark.parametrize("learn", [learn_ppo, learn_sac])
def test_two_learn_what_one_with_twice_the_worlds_does(learn: Any, tmp_path: Path) -> None:
    script = tmp_path / "learn.py"
    script.write_text(
        "import sys\n"
        "from pathlib import Path\n"
        "import tests.test_processes as t\n"
        "from embodied import processes\n"
        "from embodied.checkpoint import save_checkpoint\n"
        "processes.join()\n"
        f"state = t.{learn.__name__}()\n"
        "folder = Path(sys.argv[1]) / str(processes.rank())\n"
        "save_checkpoint(folder, state, step=1, config={}, keep=1)\n"
        "processes.leave()\n"
    )
    done = together(str(script), str(tmp_path))
    assert done.returncode == 0, done.stderr[-2000:]
    save_checkpoint(tmp_path / "alone", learn(), step=1, config={}, keep=1)
    alone, *two = (load_checkpoint(tmp_path / name).state for name in ("alone", "0", "1"))
    for name, group in alone.items():
        parts = group if isinstance(group, dict) else {"": group}
        for key, value in parts.items():
            for other in two:
                told = other[name][key] if key else other[name]
                np.testing.assert_allclose(
                    told, value, rtol=2e-4, atol=2e-6, err_msg=f"{name} {key}"
                )
    first, second = (np.concatenate([np.ravel(v) for v in s["policy"].values()]) for s in two)
    np.testing.assert_array_equal(first, second)


def test_a_run_of_two_goes_on_as_two(tmp_path: Path) -> None:
    run = tmp_path / "run"
    own = ["num_envs=4", "agent.compile=false", "tensorboard=false", "video=false"]
    start = ["env=line_reach", *own, "total_steps=512", f"run_dir={run}"]
    done = together("-m embodied train", *start)
    assert done.returncode == 0, done.stderr[-2000:]
    saved = [open_run(run / name).checkpoint for name in ("checkpoints", "checkpoints_1")]
    assert {one.step for one in saved} == {512} and all(
        one.state["processes"] == 2 for one in saved
    )
    seeds = [one.state["collector"]["env"]["seed"].tolist() for one in saved]
    assert seeds == [[0, 1, 2, 3], [4, 5, 6, 7]]
    with pytest.raises(UserError, match="a run of 2 processes: resume it with torchrun"):
        train(["total_steps=1024"], resume=run)
    done = together("-m embodied train", "--resume", str(run), "total_steps=1024")
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stderr.count("resuming") == 1
    saved = [open_run(run / name).checkpoint for name in ("checkpoints", "checkpoints_1")]
    assert {one.step for one in saved} == {1024}


def test_alone_nothing_changes() -> None:
    value = torch.ones(3)
    assert processes.count() == 1 and processes.rank() == 0
    assert processes.total(value) is value
    assert processes.pooled(3, value, value) == (3, value, value)
    assert processes.first_says([1.0, 0.0]) == [1.0, 0.0]
    assert processes.any_says(True) and not processes.any_says(False)
    assert processes.fewest(7) == 7 and processes.own_seed(5) == 5
