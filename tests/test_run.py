"""Coming back to a run: what opens, which policy it holds, and what its reward was."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from omegaconf import DictConfig, OmegaConf

from embodied.build import make_agent, make_env, make_rewards
from embodied.checkpoint import save_checkpoint
from embodied.collect import Collector
from embodied.config import compose_config, resolved
from embodied.errors import UserError
from embodied.run import load_policy, open_run, reward_hash, versions, write_json
from tests.toys import Nearness, conf_of_toys


@pytest.fixture(autouse=True)
def trusted_toys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBODIED_TRUST", "tests")


@pytest.fixture(scope="module")
def cfg(tmp_path_factory) -> DictConfig:
    chosen = ["env=point", "sim=points", "reward_model=[env,near]", "num_envs=8"]
    small = [
        "agent.compile=false",
        "agent.hidden=[8]",
        "agent.rollout_steps=5",
        "agent.minibatches=20",
    ]
    folder = conf_of_toys(tmp_path_factory.mktemp("conf"))
    return OmegaConf.create(resolved(compose_config([*chosen, *small], config_dir=folder)))


@pytest.fixture
def run(tmp_path, cfg) -> Path:
    """A run directory with two checkpoints, after one update and after two."""
    path = tmp_path / "run"
    path.mkdir()
    OmegaConf.save(cfg, path / "config.yaml")
    env = make_env(cfg)
    agent = make_agent(cfg, env)
    collect = Collector(env, make_rewards(cfg, env, agent.gamma))
    for _ in range(2):
        agent.update(collect.collect(agent.policy, 5))
        state = {"agent": agent.state_dict(), "collector": collect.state_dict()}
        config = OmegaConf.to_container(cfg)
        save_checkpoint(path / "checkpoints", state, step=collect.steps, config=config)
    return path


def greedy(run_path: Path, cfg: DictConfig) -> np.ndarray:
    env = make_env(cfg, num_envs=1)  # fewer worlds, and fewer samples, than it learned from
    return load_policy(open_run(run_path), env).act({}, env.reset(), greedy=True)[1]


def test_a_run_opens_at_its_newest_checkpoint(run: Path) -> None:
    opened = open_run(run)
    assert opened.checkpoint.step == 80
    assert opened.path == run
    assert opened.cfg.env.name == "point"


def test_a_run_opens_by_any_of_its_parts(run: Path) -> None:
    first, last = sorted((run / "checkpoints").iterdir())
    assert open_run(str(run / "checkpoints")).checkpoint.step == 80
    assert open_run(first).checkpoint.step == 40
    assert open_run(last).checkpoint.step == 80
    assert {open_run(part).path for part in (first, last, run / "checkpoints")} == {run}


def test_a_damaged_checkpoint_is_passed_over(run: Path) -> None:
    last = max((run / "checkpoints").iterdir())
    (last / "state.json").write_text("{}")
    opened = open_run(run)
    assert opened.checkpoint.step == 40
    assert "state.json" in opened.checkpoint.skipped[0]


def test_its_policy_acts_as_when_it_was_saved(run: Path, cfg) -> None:
    env = make_env(cfg)
    agent = make_agent(cfg, env)
    collect = Collector(env, make_rewards(cfg, env, agent.gamma))
    for _ in range(2):
        agent.update(collect.collect(agent.policy, 5))
    obs = make_env(cfg, num_envs=1).reset()
    assert (greedy(run, cfg) == agent.policy.act({}, obs, greedy=True)[1]).all()
    assert not (greedy(min((run / "checkpoints").iterdir()), cfg) == greedy(run, cfg)).all()


def test_its_policy_is_refused_by_other_worlds(run: Path, cfg) -> None:
    wider = OmegaConf.merge(cfg, {"env": {"task": {"dims": 3}}})
    with pytest.raises(UserError, match="does not fit.*another observation space, action space"):
        greedy(run, wider)


def test_what_is_no_run(tmp_path) -> None:
    with pytest.raises(UserError, match="no run at .*nowhere: give a run directory, as printed"):
        open_run(tmp_path / "nowhere")
    with pytest.raises(UserError, match="is no checkpoint .* and holds none"):
        open_run(tmp_path)
    save_checkpoint(tmp_path / "model", {"net": np.zeros(2)}, step=0)
    with pytest.raises(UserError, match="is not a run of embodied: .* no configuration"):
        open_run(tmp_path / "model")


def test_a_run_that_was_moved_still_opens(run: Path, tmp_path, cfg) -> None:
    moved = shutil.move(run, tmp_path / "elsewhere")
    assert open_run(moved).path == tmp_path / "elsewhere"
    assert greedy(Path(moved), cfg).shape == (1, 2)


def hash_of(cfg: DictConfig, models: dict | None = None, gamma: float = 0.9) -> str:
    env = make_env(cfg)
    rewards = make_rewards(cfg, env, gamma)
    for name, model in (models or {}).items():
        rewards.channels[name].model = model
    return reward_hash(cfg, env, rewards)


class Learned(Nearness):
    def __init__(self, weights: list[float]) -> None:
        self.weights = np.array(weights)

    def state_dict(self):
        return {"weights": self.weights}


def test_the_hash_of_a_reward_follows_all_that_decides_it(cfg) -> None:
    same = hash_of(cfg)
    assert same == hash_of(OmegaConf.merge(cfg, {"seed": 3, "num_envs": 2, "agent": {"lr": 1.0}}))
    assert len(same) == 16
    learned, other = (hash_of(cfg, {"near": Learned([1.0, x])}) for x in (2.0, 2.5))
    heavier = OmegaConf.merge(cfg, {"reward_model": {"near": {"weight": 2.0}}})
    fewer = OmegaConf.merge(cfg)
    del fewer.reward_model.near
    hashes = [same, hash_of(heavier), hash_of(fewer), hash_of(cfg, gamma=0.8), learned, other]
    assert len(set(hashes)) == len(hashes)
    assert hash_of(cfg, {"near": Learned([1.0, 2.0])}) == learned


def test_a_reward_typed_at_a_prompt_has_a_hash(cfg) -> None:
    typed = type("Typed", (Nearness,), {"__module__": "nowhere"})
    assert hash_of(cfg, {"near": typed()}) != hash_of(cfg)


def test_versions_name_what_decides_a_run() -> None:
    found = versions()
    assert found["numpy"] == np.__version__
    assert {"embodied-rl", "mujoco", "gymnasium", "torch"} <= found.keys()


def test_json_is_written_for_people(tmp_path) -> None:
    write_json(tmp_path / "run.json", {"seed": 3, "env": "point"})
    text = (tmp_path / "run.json").read_text()
    assert json.loads(text) == {"seed": 3, "env": "point"}
    assert text == '{\n  "seed": 3,\n  "env": "point"\n}\n'


@pytest.mark.parametrize(
    "target", ["os.system", "embodied.checkpoint.os.system", "builtins.eval", "mine.Task"]
)
def test_a_foreign_checkpoint_runs_no_code_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    config = {"agent": {"_target_": "embodied.agents.ppo.PPO"}, "env": {"task": [{}]}}
    config["env"]["task"][0]["_target_"] = target  # type: ignore[index]
    save_checkpoint(tmp_path / "checkpoints", {}, step=1, config=config)
    with pytest.raises(UserError, match=f"would run {target}"):
        open_run(tmp_path)
    if target == "mine.Task":
        monkeypatch.setenv("EMBODIED_TRUST", "other,mine")
        assert open_run(tmp_path).checkpoint.step == 1
