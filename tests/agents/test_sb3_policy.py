"""SB3's `.zip` files: read without unpickling, and acting exactly as SB3 does."""

import base64
import json
import warnings
import zipfile
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from embodied.agents.sb3_policy import NORMALISER, SB3Policy, load_sb3_zip
from embodied.agents.sb3_ppo import SB3PPO
from embodied.envs.gym import GymEnv
from stable_baselines3 import A2C, PPO, SAC
from stable_baselines3.common.vec_env import VecNormalize

from embodied.errors import UserError
from embodied.registration import make_stepper
from embodied.sb3_view import SB3View


class Still(gym.Env):
    """Nothing happens; its spaces matter."""

    def __init__(self, observation: gym.Space, action: gym.Space) -> None:
        self.observation_space, self.action_space = observation, action

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        return self.observation_space.sample(), 0.0, False, False, {}


gym.register("EmbodiedTest/Still-v0", entry_point=Still, max_episode_steps=10)
FLAT = gym.spaces.Box(-1, 1, (3,))
PAIR = gym.spaces.Dict({"state": FLAT, "goal": gym.spaces.Box(-1, 1, (2,))})
PUSH, TURN = gym.spaces.Box(-2, 2, (2,)), gym.spaces.Discrete(4)


def worlds(observation: gym.Space = FLAT, action: gym.Space = PUSH, num_worlds: int = 5) -> GymEnv:
    kwargs = {"observation": observation, "action": action}
    return GymEnv("EmbodiedTest/Still-v0", num_worlds, kwargs=kwargs)


def saved(path: Path, env: GymEnv, kind: Any = PPO, **settings: Any) -> Any:
    """A model of SB3's own with weights that say something, saved to `path`."""
    name = "MultiInputPolicy" if len(env.observation_space) > 1 else "MlpPolicy"
    model = kind(name, SB3View(env), seed=0, device="cpu", **settings)
    with torch.no_grad():
        for parameter in model.policy.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.save(path)
    return model


def assert_acts_alike(policy: SB3Policy, model: Any, env: GymEnv) -> None:
    obs = env.reset()
    seen = obs if len(obs) > 1 else obs["state"]
    for greedy in (True, False):
        torch.manual_seed(0)
        want = model.predict(seen, deterministic=greedy)[0].reshape(env.num_worlds, -1)
        torch.manual_seed(0)
        carry, action = policy.act(policy.carry(env.num_worlds), obs, greedy)
        np.testing.assert_array_equal(action, want)
        assert action.dtype == np.float32 and carry == {}
    env.step(action)


RELU = {"net_arch": {"pi": [7, 5], "vf": [4]}, "activation_fn": torch.nn.ReLU}


@pytest.mark.parametrize(
    ("kind", "observation", "action", "settings"),
    [
        (PPO, FLAT, PUSH, {}),
        (PPO, FLAT, PUSH, {"policy_kwargs": RELU}),
        (PPO, FLAT, PUSH, {"policy_kwargs": {"net_arch": [], "log_std_init": -2.0}}),
        (PPO, PAIR, PUSH, {"policy_kwargs": {"net_arch": [6]}}),
        (PPO, FLAT, TURN, {}),
        (PPO, FLAT, gym.spaces.MultiDiscrete([2, 3]), {}),
        (PPO, FLAT, gym.spaces.MultiBinary(3), {}),
        (PPO, FLAT, PUSH, {"use_sde": True}),
        (PPO, FLAT, PUSH, {"use_sde": True, "policy_kwargs": {"squash_output": True}}),
        (A2C, FLAT, PUSH, {}),
    ],
    ids="default relu linear dict discrete multidiscrete multibinary sde squashed a2c".split(),
)
def test_a_foreign_zip_acts_as_sb3_does(
    tmp_path: Path, kind: Any, observation: Any, action: Any, settings: dict[str, Any]
) -> None:
    env = worlds(observation, action)
    model = saved(tmp_path / "model.zip", env, kind, **settings)
    policy = load_sb3_zip(tmp_path / "model.zip", env)
    if settings.get("use_sde"):
        obs = env.reset()
        want = model.predict(obs["state"], deterministic=True)[0]
        np.testing.assert_array_equal(policy.act({}, obs, True)[1], want)
        assert (np.abs(policy.act({}, obs)[1] - want) > 0.1).any()
        model.policy.log_std.data.fill_(-20.0)  # no noise is left
        model.save(tmp_path / "model.zip")
        quiet = load_sb3_zip(tmp_path / "model.zip", env)
        np.testing.assert_allclose(quiet.act({}, obs)[1], want, atol=1e-4)
    else:
        assert_acts_alike(policy, model, env)
    assert policy.origin["zip"] == "model.zip" and policy.origin["trust_pickle"] is False
    assert (policy.action_spec is None) == (not isinstance(action, gym.spaces.Box))


def test_our_zip_brings_its_normaliser(tmp_path: Path) -> None:
    env = make_stepper("hopper", 4, 0, sim={"threads": 1}, max_steps=20)
    agent = SB3PPO(env.observation_space, env.action_space, env.action_spec, 4, n_steps=16,
                   batch_size=32, threads=1)  # fmt: skip
    agent.learn(env, 128, lambda row: False)
    agent.save_zip(tmp_path / "model.zip")
    policy = load_sb3_zip(tmp_path / "model.zip", env)
    obs = env.reset(seed=5)
    want = agent.policy.act({}, obs, greedy=True)[1]
    np.testing.assert_array_equal(policy.act({}, obs, greedy=True)[1], want)
    policy.normaliser = None
    assert (policy.act({}, obs, greedy=True)[1] != want).any()


class Bomb:
    """Unpickling this says so."""

    set_off: list[str] = []

    def __reduce__(self) -> Any:
        return Bomb.set_off.append, ("boom",)


def rewrite(path: Path, **members: bytes | None) -> None:
    """Replace members of a zip (`policy_pth` for "policy.pth"); None leaves one out."""
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    content |= {name.replace("_pth", ".pth"): value for name, value in members.items()}  # type: ignore[misc]
    with zipfile.ZipFile(path, "w") as archive:
        for name, value in content.items():
            if value is not None:
                archive.writestr(name, value)


def pickled(thing: Any) -> bytes:
    import pickle  # noqa: TID251  (an attack, made here and not read)

    return pickle.dumps(thing)


def test_pickled_code_in_a_zip_is_not_run(tmp_path: Path) -> None:
    path, env = tmp_path / "model.zip", worlds()
    saved(path, env)
    with zipfile.ZipFile(path) as archive:
        data = json.loads(archive.read("data"))
    blob = {":type:": "x", ":serialized:": base64.b64encode(pickled(Bomb())).decode()}
    data |= {"lr_schedule": blob, "observation_space": blob, "policy_class": blob}
    rewrite(path, data=json.dumps(data).encode())
    assert isinstance(load_sb3_zip(path, env), SB3Policy)
    assert Bomb.set_off == []
    rewrite(path, policy_pth=pickled(Bomb()))
    with warnings.catch_warnings(), pytest.raises(UserError, match="is not a model saved by"):
        warnings.simplefilter("ignore")  # torch on the pickle's protocol
        load_sb3_zip(path, env)
    assert Bomb.set_off == []


def test_other_networks_need_trust(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path, env = tmp_path / "model.zip", worlds()
    model = saved(path, env, SAC, policy_kwargs={"net_arch": [8]})
    with pytest.raises(UserError, match=r"cannot rebuild its network .*trust_pickle=true"):
        load_sb3_zip(path, env)
    policy = load_sb3_zip(path, env, trust_pickle=True)
    obs = env.reset()
    want = model.predict(obs["state"], deterministic=True)[0]
    np.testing.assert_array_equal(policy.act({}, obs, greedy=True)[1], want)
    assert policy.origin["trust_pickle"] is True
    assert caplog.messages == ["model.zip: its pickled code was run, as trust_pickle=true allows"]


def test_an_unknown_activation_needs_trust(tmp_path: Path) -> None:
    path, env = tmp_path / "model.zip", worlds()
    model = saved(path, env, policy_kwargs={"activation_fn": torch.nn.Softplus})
    with pytest.raises(UserError, match=r"activation .*Softplus.*trust_pickle=true"):
        load_sb3_zip(path, env)
    assert_acts_alike(load_sb3_zip(path, env, trust_pickle=True), model, env)


def test_a_pickled_normaliser_beside_it_is_read_only_with_trust(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, env = tmp_path / "model.zip", worlds()
    model = saved(path, env)
    venv = VecNormalize(SB3View(env))
    venv.obs_rms.mean = np.full(3, 0.5)  # type: ignore[union-attr]
    venv.save(str(tmp_path / "vecnormalize.pkl"))
    assert_acts_alike(load_sb3_zip(path, env), model, env)
    assert "vecnormalize.pkl beside it is not read" in caplog.text
    policy, obs = load_sb3_zip(path, env, trust_pickle=True), env.reset()
    want = model.predict(venv.normalize_obs(obs["state"]), deterministic=True)[0]
    np.testing.assert_array_equal(policy.act({}, obs, greedy=True)[1], want)


def test_other_limits_of_the_actions_are_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    saved(tmp_path / "model.zip", worlds())
    load_sb3_zip(tmp_path / "model.zip", worlds())
    assert caplog.messages == []
    load_sb3_zip(tmp_path / "model.zip", worlds(action=gym.spaces.Box(-1, 1, (2,))))
    assert caplog.messages == [
        "model.zip: its actions went from [-2. -2.] to [2. 2.]; EmbodiedTest/Still-v0's differ"
    ]


@pytest.mark.parametrize(
    ("env", "message"),
    [
        (lambda: worlds(gym.spaces.Box(-1, 1, (4,))), "trained with 3 observations, .* has 4"),
        (lambda: worlds(action=gym.spaces.Box(-2, 2, (3,))), "trained with 2 actions, .* has 3"),
        (lambda: worlds(action=gym.spaces.Discrete(2)), "does not fit"),
    ],
)
def test_other_spaces_are_refused(tmp_path: Path, env: Any, message: str) -> None:
    saved(tmp_path / "model.zip", worlds())
    for trust in (False, True):
        with pytest.raises(UserError, match=message if not trust else "cannot load|does not fit"):
            load_sb3_zip(tmp_path / "model.zip", env(), trust)


def test_a_broken_file_is_said_in_one_line(tmp_path: Path) -> None:
    path, env = tmp_path / "model.zip", worlds()
    with pytest.raises(UserError, match="no model at"):
        load_sb3_zip(path, env)
    path.write_bytes(b"not a zip")
    with pytest.raises(UserError, match="is not a model saved by stable-baselines3"):
        load_sb3_zip(path, env)
    for change in (
        {"data": None},
        {"policy_pth": None},
        {"data": b"[]"},
        {"data": b"{"},
        {"policy_pth": b"junk"},
        {NORMALISER: b"{}"},
        {NORMALISER: b'{"obs": {"state": {"mean": [0], "var": [1], "count": 1}}}'},
        {"data": b'{"policy_kwargs": 3}'},
    ):
        saved(path, env)
        rewrite(path, **change)  # type: ignore[arg-type]
        with pytest.raises(UserError) as caught:
            load_sb3_zip(path, env)
        assert "\n" not in str(caught.value)
    saved(path, env)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match="is not a model saved by stable-baselines3"):
        load_sb3_zip(path, env)
