"""Composing a configuration: what may be chosen, and one line for every mistake."""

from __future__ import annotations

import pytest
from hydra import initialize_config_dir
from omegaconf import OmegaConf

from embodied.config import CONF, GROUPS, compose_config, options, resolved
from embodied.errors import UserError
from tests.toys import conf_of_toys


def get(key: str, *overrides: str, **settings):
    return OmegaConf.select(compose_config(overrides, **settings), key)


@pytest.fixture
def toys(tmp_path):
    return conf_of_toys(tmp_path / "options, (mine) = 'here'")


def test_without_a_word_it_trains_half_cheetah_with_ppo() -> None:
    cfg = resolved(compose_config())
    assert cfg["env"]["name"] == "half_cheetah"
    assert cfg["agent"]["_target_"] == "embodied.agents.ppo.PPO"
    assert list(cfg["reward_model"]) == ["env"]


@pytest.mark.parametrize("group", [g for g in GROUPS if g != "tuned"])
def test_every_option_composes(group: str) -> None:
    names = options(group)
    assert names
    for name in names:
        if group in ("env", "agent", "reward_model"):
            assert compose_config([f"{group}={name}"])


def test_values_are_overridden() -> None:
    assert get("agent.lr", "agent.lr=0.5") == 0.5
    assert get("env.max_steps", "env.max_steps=7") == 7
    assert get("run_dir", "run_dir=a/b") == "a/b"
    assert get("agent.target_kl", "~tuned", "agent.target_kl=0.1") == 0.1
    assert get("agent.hidden", "agent.hidden=[8,8,8]") == [8, 8, 8]
    assert get("env.task.forward_weight", "+env.task.forward_weight=2.0") == 2.0


def test_whole_numbers_may_be_written_as_floats() -> None:
    count = get("num_envs", "num_envs=1e3")
    assert (count, type(count)) == (1000, int)
    assert type(get("env.max_steps", "env.max_steps=20.0")) is int
    assert type(get("agent.lr", "agent.lr=1")) is int  # a number is a number


def test_several_reward_models_stand_side_by_side() -> None:
    cfg = compose_config(["reward_model=[env,success]", "reward_model.success.threshold=null"])
    assert set(cfg.reward_model) == {"env", "success"}
    assert cfg.reward_model.success.threshold is None
    assert set(compose_config(["reward_model=success"]).reward_model) == {"success"}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        # an option that is not there, with the nearest
        ("env=half_chetah", "unknown env 'half_chetah': did you mean half_cheetah"),
        ("agent=po", "unknown agent 'po': did you mean ppo"),
        ("sim=zzz", "unknown sim 'zzz': known: bullet, mujoco"),
        ("reward_model=[env,sucess]", "unknown reward_model 'sucess': did you mean success"),
        ("env=null", "unknown env 'None'"),
        ("env=", "unknown env ''"),
        ("tuned=zzz", "unknown tuned 'zzz'"),
        ("env=[ant,hopper]", r"env=\[ant,hopper\]: give one, as env="),
        ("env=ant,hopper", "env=ant,hopper: give one, or several as reward_model="),
        ("reward_model=env,success", r"several as reward_model=\[NAME,NAME\]"),
        ("~env", "~env: a run needs one, as env="),
        # a key that is not there, with the nearest
        ("num_env=3", "unknown key 'num_env': did you mean num_envs"),
        ("agent.lrr=3", "unknown key 'agent.lrr': did you mean agent.lr"),
        ("++agent.lrr=3", "unknown key 'agent.lrr': did you mean agent.lr"),
        ("~agent.lrr", "unknown key 'agent.lrr': did you mean agent.lr"),
        ("env.randomise.mas=1", "unknown key 'env.randomise.mas': did you mean env.randomise.mass"),
        ("agent.lr.foo=3", "unknown key 'agent.lr.foo': agent.lr has no keys of its own"),
        ("reward_model.success.every=2", "unknown key 'reward_model.success': did you mean"),
        ("hydra.verbose=true", "unknown key 'hydra'"),
        # a value of another kind
        ("agent.lr=fast", "agent.lr='fast': give a number, as 0.00"),
        ("agent.lr=true", "agent.lr=True: give a number"),
        ("num_envs=2.5", "num_envs=2.5: give a whole number, as"),
        ("num_envs=inf", "num_envs=inf: give a whole number"),
        ("num_envs=nan", "num_envs=nan: give a whole number"),
        ("num_envs=null", "num_envs=None: give a number"),
        ("num_envs=", "num_envs='': give a number"),
        ("video=1", "video=1: give true or false"),
        ("video=null", "video=None: give true or false"),
        ("agent.hidden=64", r"agent.hidden=64: give a list, as \[64"),
        ("agent.hidden=[64,wide]", "agent.hidden='wide': give a number"),
        ("agent.hidden=[64,1.5]", "agent.hidden=1.5: give a whole number"),
        ("agent.activation=[tanh]", r"agent.activation=\['tanh'\]: give text, as"),
        ("env.randomise=0.1", "env.randomise=0.1: env.randomise has keys of its own"),
        ("env.max_steps=soon", "env.max_steps='soon': give a number, as 100"),
        ("stop_at_success=often", "stop_at_success='often': give a number"),
        ("agent.lr=${nowhere}", "configuration: Interpolation key 'nowhere' not found"),
        # what is no override at all
        ("num_envs", r"override: .*'num_envs' missing EQUAL.* \(write key=value\)"),
        ("a b=3", r"override: .*a b=3.* \(write key=value\)"),
        ("agent.lr='1", r"override: .* \(write key=value\)"),
        # what the env cannot use
        ("robot=panda", "env=half_cheetah takes no robot: leave out robot="),
    ],
)
def test_a_mistake_is_one_line(override: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        resolved(compose_config([override]))
    assert "\n" not in str(caught.value)
    assert "http" not in str(caught.value)


def test_a_simulator_for_an_env_that_has_its_own() -> None:
    for mistake in ("sim=mujoco", "sim.threads=1"):
        with pytest.raises(UserError, match="env=gym brings its own simulator: leave out sim="):
            compose_config(["env=gym", "env.id=Pendulum-v1", mistake])


def test_a_mandatory_key_is_asked_for_by_its_name() -> None:
    with pytest.raises(UserError, match="env.id is not given: add env.id=VALUE"):
        resolved(compose_config(["env=gym"]))
    cfg = resolved(compose_config(["env=gym", "env.id=Pendulum-v1"]))
    assert cfg["env"]["stepper"]["id"] == "Pendulum-v1"


def test_a_folder_of_ones_own_adds_options(toys) -> None:
    """Whatever that folder is called."""
    cfg = compose_config(["env=point", "sim=points", "reward_model=[env,near]"], config_dir=toys)
    assert cfg.env.task._target_ == "tests.toys.Reach"
    assert cfg.env.max_steps is None and "randomise" in cfg.env  # what every env has
    assert set(cfg.reward_model) == {"env", "near"}
    assert "point" in options("env", toys) and "point" not in options("env")
    with pytest.raises(UserError, match="unknown env 'piont': did you mean point"):
        compose_config(["env=piont"], config_dir=toys)
    with pytest.raises(UserError, match="unknown env 'point'"):
        compose_config(["env=point"])


def test_a_folder_that_is_not_there() -> None:
    with pytest.raises(UserError, match="--config-dir nowhere: no such folder"):
        compose_config(config_dir="nowhere")


def test_tuned_settings_come_with_their_env_and_agent(toys) -> None:
    text = "# @package _global_\nnum_envs: 12\nagent:\n  lr: 0.125\nenv:\n  max_steps: 33\n"
    (toys / "tuned").mkdir()
    (toys / "tuned" / "point_ppo.yaml").write_text(text)

    def figures(*overrides: str) -> list:
        cfg = compose_config(["env=point", "sim=points", *overrides], config_dir=toys)
        return [cfg.num_envs, cfg.agent.lr, cfg.env.max_steps, cfg.env.name]

    assert figures() == [12, 0.125, 33, "point"]
    assert figures("agent.lr=0.5", "num_envs=2") == [2, 0.5, 33, "point"]
    plain = compose_config(["env=ant", "~tuned"])
    assert figures("~tuned") == [plain.num_envs, plain.agent.lr, None, "point"]
    other = compose_config(["env=half_cheetah", "tuned=point_ppo"], config_dir=toys)
    assert (other.num_envs, other.env.name) == (12, "half_cheetah")


@pytest.mark.parametrize("name", options("tuned"))
def test_our_tuned_settings_belong_to_an_env_and_an_agent(name: str) -> None:
    pairs = {f"{env}_{agent}": (env, agent) for env in options("env") for agent in options("agent")}
    env, agent = pairs[name]
    tuned = resolved(compose_config([f"env={env}", f"agent={agent}"]))
    assert tuned != resolved(compose_config([f"env={env}", f"agent={agent}", "~tuned"]))


def test_inside_another_hydra_app() -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        with pytest.raises(UserError, match="not inside another Hydra app"):
            compose_config()
    compose_config()  # and afterwards it is free again
