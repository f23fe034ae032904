"""PPO against stable-baselines3: steps a second with the same settings, and time to a return.

`vs_sb3_same`: HalfCheetah, the same networks and hyper-parameters on both sides (256 worlds, 32
steps, 4 epochs of 4 minibatches, 64x64 tanh, observations and rewards normalised); SB3 on
Gymnasium's envs in its DummyVecEnv; each at the thread count of torch that suits it best.
`vs_sb3_wall_clock_to_return`: seconds of training until the greedy policy returns 3,000 over ten
episodes, each side with the settings tuned for it (SB3's are those of RL Baselines3 Zoo), a seed
after the other by turns. Evaluation is off the clock; compilation and set-up are on it.

    python -m benchmarks.ppo [--quick]
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from benchmarks.harness import interleave, parse_args, ratio, summary, write_result
from embodied.build import make_agent, make_env, make_rewards
from embodied.collect import Collector
from embodied.config import compose_config

GOAL = 3000.0
SAME = [
    "env=half_cheetah", "~tuned", "num_envs=256", "agent.rollout_steps=32", "agent.epochs=4",
    "agent.minibatches=4", "agent.hidden=[64,64]", "agent.lr=3e-4", "agent.gamma=0.99",
]  # fmt: skip
ZOO = {  # RL Baselines3 Zoo, hyperparams/ppo.yml, HalfCheetah-v4
    "batch_size": 64, "n_steps": 512, "gamma": 0.98, "learning_rate": 2.0633e-05,
    "ent_coef": 0.000401762, "clip_range": 0.1, "n_epochs": 20, "gae_lambda": 0.92,
    "max_grad_norm": 0.8, "vf_coef": 0.58096,
    "policy_kwargs": {
        "log_std_init": -2, "ortho_init": False, "activation_fn": torch.nn.ReLU,
        "net_arch": {"pi": [256, 256], "vf": [256, 256]},
    },
}  # fmt: skip


class Ours:
    """One of our runs, an update at a time."""

    def __init__(self, overrides: list[str]) -> None:
        torch.set_num_threads(1)
        self.cfg = compose_config(overrides)
        self.env = make_env(self.cfg)
        self.agent: Any = make_agent(self.cfg, self.env)
        rewards = make_rewards(self.cfg, self.env, self.agent.gamma)
        self.collector = Collector(self.env, rewards, stagger=self.cfg.stagger)

    def update(self) -> None:
        self.agent.progress = self.collector.steps / self.cfg.total_steps
        traj = self.collector.collect(self.agent.policy, self.agent.rollout_steps)
        self.agent.update(traj)

    def steps_per_s(self, updates: int) -> float:
        torch.set_num_threads(1)
        start, first = time.perf_counter(), self.collector.steps
        for _ in range(updates):
            self.update()
        return (self.collector.steps - first) / (time.perf_counter() - start)


def sb3_same(threads: int) -> Callable[[int], float]:
    """SB3 with the settings of `SAME`, as a function of a number of updates."""
    from stable_baselines3 import PPO
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.vec_env import VecNormalize

    env = VecNormalize(make_vec_env("HalfCheetah-v5", n_envs=256, seed=0))
    model = PPO(
        "MlpPolicy", env, n_steps=32, batch_size=2048, n_epochs=4, learning_rate=3e-4, gamma=0.99,
        gae_lambda=0.95, clip_range=0.2, ent_coef=0.0, vf_coef=0.5, max_grad_norm=0.5,
        policy_kwargs={"net_arch": {"pi": [64, 64], "vf": [64, 64]}}, device="cpu",
    )  # fmt: skip

    def steps_per_s(updates: int) -> float:
        torch.set_num_threads(threads)
        start = time.perf_counter()
        model.learn(updates * 32 * 256, reset_num_timesteps=False)
        return updates * 32 * 256 / (time.perf_counter() - start)

    return steps_per_s


def same_settings(rounds: int, updates: int) -> dict[str, list[float]]:
    own = {n: Ours([*SAME, f"agent.threads={n}"]) for n in (1, 2)}
    for run in own.values():
        run.steps_per_s(2)  # compile
    trials = {n: sb3_same(n) for n in (1, 2)}
    best = max(trials, key=lambda n: trials[n](2))
    own_best = max(own, key=lambda n: own[n].steps_per_s(4))
    ours, peer = own[own_best], trials[best]
    rates = interleave(
        {"ours": lambda: ours.steps_per_s(updates), "sb3": lambda: peer(updates)}, rounds
    )
    return rates | {"ours_threads": [float(own_best)], "sb3_threads": [float(best)]}


def ours_to_goal(seed: int, budget: int) -> dict[str, Any]:
    """Seconds and steps of ours until the greedy policy returns `GOAL`."""
    start = time.perf_counter()
    run = Ours(["env=half_cheetah", f"seed={seed}"])
    test: Any = make_env(run.cfg, num_envs=10, seed=10_000 + seed)
    elapsed, curve, following = time.perf_counter() - start, [], 20_000
    while run.collector.steps < budget:
        start = time.perf_counter()
        run.update()
        elapsed += time.perf_counter() - start
        if run.collector.steps >= following:
            following += 20_000
            obs, total = test.reset(seed=10_000 + seed), np.zeros(10)
            for _ in range(test.max_steps):
                step = test.step(run.agent.policy.act({}, obs, greedy=True)[1])
                obs, total = step.obs, total + step.reward
            curve.append([run.collector.steps, elapsed, float(total.mean())])
            if total.mean() >= GOAL:
                return {"seconds": elapsed, "steps": run.collector.steps, "curve": curve}
    return {"seconds": None, "steps": run.collector.steps, "curve": curve}


def sb3_to_goal(seed: int, budget: int) -> dict[str, Any]:
    """The same for SB3 with the settings of its zoo (one env, VecNormalize)."""
    from stable_baselines3 import PPO
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.vec_env import VecNormalize

    torch.set_num_threads(1)
    start = time.perf_counter()
    env = VecNormalize(make_vec_env("HalfCheetah-v5", n_envs=1, seed=seed), gamma=ZOO["gamma"])
    model = PPO("MlpPolicy", env, seed=seed, device="cpu", **ZOO)
    test: Any = make_env(compose_config(["env=half_cheetah"]), num_envs=10)
    elapsed, curve = time.perf_counter() - start, []
    while model.num_timesteps < budget:
        start = time.perf_counter()
        model.learn(20_480, reset_num_timesteps=False)
        elapsed += time.perf_counter() - start
        obs, total = test.reset(seed=10_000 + seed), np.zeros(10)
        for _ in range(test.max_steps):
            action, _ = model.predict(env.normalize_obs(obs["state"]), deterministic=True)
            step = test.step(action)
            obs, total = step.obs, total + step.reward
        curve.append([model.num_timesteps, elapsed, float(total.mean())])
        print(f"sb3 seed {seed}: {curve[-1]}", flush=True)
        if total.mean() >= GOAL:
            return {"seconds": elapsed, "steps": model.num_timesteps, "curve": curve}
    return {"seconds": None, "steps": model.num_timesteps, "curve": curve}


def main() -> None:
    args = parse_args(__doc__)
    warnings.filterwarnings("ignore")
    rounds, updates, seeds = (2, 4, 0) if args.quick else (5, 12, 5)
    rates = same_settings(rounds, updates)
    figures: dict[str, Any] = {"vs_sb3_same": ratio(rates["ours"], rates["sb3"])}
    detail: dict[str, Any] = {"steps_per_s": {k: summary(v) for k, v in rates.items()}}
    runs: dict[str, list[dict]] = {"ours": [], "sb3": []}
    for seed in range(seeds):
        runs["ours"].append(ours_to_goal(seed, 3_000_000))
        runs["sb3"].append(sb3_to_goal(seed, 1_000_000))
        missed = {who: sum(r["seconds"] is None for r in found) for who, found in runs.items()}
        ours = [r["seconds"] or float("inf") for r in runs["ours"]]
        sb3 = [r["seconds"] or r["curve"][-1][1] for r in runs["sb3"]]  # at least so long
        figures["vs_sb3_wall_clock_to_return"] = ratio(sb3, ours)
        detail |= {"goal": GOAL, "seeds": seed + 1, "never_reached": missed, "to_return": runs}
        write_result("ppo", figures, detail, args.quick, args.out)  # an hour's work: keep what is
    if not seeds:
        write_result("ppo", figures, detail, args.quick, args.out)


if __name__ == "__main__":
    main()
