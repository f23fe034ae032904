"""How fast worlds step, all host phases included, against the raw limit and against peers.

The raw limit is what as many processes as there are cores reach together with bare `mj_step`,
replaying the very controls of our own run from the same states, so both sides do the same
physics. Ours is `TaskEnv.step` and masked resets: clamp, control, physics, reward, observation,
faults. Peers run the published HalfCheetah with random actions and 5 substeps, as ours does.

    python -m benchmarks.env_step [--quick]
"""

from __future__ import annotations

import multiprocessing as mp
import os
import time
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from benchmarks.harness import interleave, parse_args, ratio, summary, write_result
from embodied.build import make_env
from embodied.config import compose_config

CORES = len(os.sched_getaffinity(0))
WORLDS = 256
TASKS = ("half_cheetah", "pick_cube")


class Ours:
    """One of our tasks under random actions, from the same states in every round."""

    def __init__(self, name: str, steps: int) -> None:
        self.env: Any = make_env(compose_config([f"env={name}"]), num_envs=WORLDS)
        spec, rng = self.env.action_spec, np.random.default_rng(0)
        shape = (steps, WORLDS, spec.size)
        self.actions = rng.uniform(spec.low, spec.high, shape).astype(np.float32)
        for action in self.actions[:20]:
            self.env.step(action)
        self.env.stagger()  # so that worlds finish and are reset all along, as in training
        self.start = self.env.state_dict()
        self.start = {k: _copied(v) for k, v in self.start.items()}
        self.states = self.start["sim"]["state"].copy()
        self.restarts: dict[tuple[int, int], np.ndarray] = {}
        self.controls = self._record()

    def _record(self) -> np.ndarray:
        """The controls that our actions become, `(T, N, nu)`, and the states of every reset."""
        sim, seen = self.env.sim, []
        step, reset = sim.step, sim.reset

        def recorded_step(control: np.ndarray, substeps: int) -> None:
            seen.append(np.array(control))
            step(control, substeps)

        def recorded_reset(rows: Any, ids: np.ndarray) -> None:
            reset(rows, ids)
            for i in ids:
                self.restarts[int(i), len(seen)] = sim.batch.state[i].copy()

        sim.step, sim.reset = recorded_step, recorded_reset
        self.steps_per_s()
        del sim.step, sim.reset
        return np.stack(seen)

    def steps_per_s(self) -> float:
        self.env.load_state_dict(self.start)
        start = time.perf_counter()
        for action in self.actions:
            step = self.env.step(action)
            self.env.reset(step.done)
        return self.actions.shape[0] * WORLDS / (time.perf_counter() - start)


class Raw:
    """`cores` processes that replay our controls with bare `mj_step`."""

    def __init__(self, name: str, ours: Ours) -> None:
        self.workers = []
        self.steps = ours.controls.shape[0] * WORLDS
        for k in range(CORES):
            here, there = mp.get_context("spawn").Pipe()
            mine = range(k, WORLDS, CORES)
            restarts = {key: row for key, row in ours.restarts.items() if key[0] in mine}
            states = {i: ours.states[i] for i in mine}
            args = (there, name, ours.env.substeps, states, ours.controls, restarts)
            process = mp.get_context("spawn").Process(target=_replay, args=args, daemon=True)
            process.start()
            self.workers.append((here, process))
        for here, _ in self.workers:
            here.recv()

    def steps_per_s(self) -> float:
        start = time.perf_counter()
        for here, _ in self.workers:
            here.send(True)
        for here, _ in self.workers:
            here.recv()
        return self.steps / (time.perf_counter() - start)

    def close(self) -> None:
        for here, process in self.workers:
            here.send(False)
            process.join()


def _replay(
    pipe: Connection,
    name: str,
    substeps: int,
    states: dict[int, np.ndarray],
    controls: np.ndarray,
    restarts: dict[tuple[int, int], np.ndarray],
) -> None:
    import mujoco
    from hydra.utils import instantiate

    source = instantiate(compose_config([f"env={name}"]).env.task, _convert_="all").model()
    model = mujoco.MjModel.from_xml_string(source.xml, dict(source.assets or {}))
    data, full = mujoco.MjData(model), mujoco.mjtState.mjSTATE_INTEGRATION
    pipe.send(True)
    while pipe.recv():
        for world, state in states.items():
            mujoco.mj_setState(model, data, state, full)
            ctrl = data.ctrl
            for t, control in enumerate(controls[:, world]):
                if (world, t) in restarts:
                    mujoco.mj_setState(model, data, restarts[world, t], full)
                ctrl[:] = control
                mujoco.mj_step(model, data, substeps)
        pipe.send(True)


def vector_peer(make: Callable[[], Any], steps: int) -> Callable[[], float]:
    """Steps a second of a vector env of HalfCheetah under random actions."""
    env = make()
    env.reset(seed=0)
    count = getattr(env, "num_envs", None) or env.config["num_envs"]
    actions = np.random.default_rng(0).uniform(-1, 1, (steps, count, 6)).astype(np.float32)

    def run() -> float:
        start = time.perf_counter()
        for action in actions:
            env.step(action)
        return steps * count / (time.perf_counter() - start)

    run()
    return run


def peers(scale: float) -> dict[str, Callable[[], float]]:
    """Gymnasium's and EnvPool's HalfCheetah, each at the size that suits it best here."""
    import gymnasium as gym

    def cheetah() -> gym.Env:
        return gym.make("HalfCheetah-v5")

    out = {"sync": vector_peer(lambda: gym.vector.SyncVectorEnv([cheetah] * 16), int(500 * scale))}
    candidates = {
        n: vector_peer(lambda n=n: gym.vector.AsyncVectorEnv([cheetah] * n), int(4000 / n * scale))
        for n in (CORES, 4 * CORES, 16 * CORES)
    }
    best = max(candidates, key=lambda n: max(candidates[n]() for _ in range(2)))
    out["async"] = candidates[best]
    try:
        import envpool
    except ImportError:
        warnings.warn("envpool is not installed: pip install envpool", stacklevel=2)
        return out
    out["envpool"] = vector_peer(
        lambda: envpool.make_gymnasium("HalfCheetah-v4", num_envs=WORLDS, num_threads=CORES),
        int(100 * scale),
    )
    return out


def main() -> None:
    args = parse_args(__doc__)
    scale, rounds = (0.3, 3) if args.quick else (1.0, 5)
    rates: dict[str, dict[str, list[float]]] = {}
    for name in TASKS:
        ours = Ours(name, int(100 * scale))
        raw = Raw(name, ours)
        contestants = {"ours": ours.steps_per_s, "raw": raw.steps_per_s}
        if name == "half_cheetah":
            contestants |= peers(scale)
        rates[name] = interleave(contestants, rounds)
        raw.close()
    cheetah, cube = rates["half_cheetah"], rates["pick_cube"]
    figures = {
        "share_of_raw": ratio(cheetah["ours"], cheetah["raw"]),
        "share_of_raw_pick_cube": ratio(cube["ours"], cube["raw"]),
        **{
            f"vs_{peer}": ratio(cheetah["ours"], cheetah[peer])
            for peer in ("envpool", "sync", "async")
            if peer in cheetah
        },
    }
    detail = {
        "worlds": WORLDS,
        "steps_per_s": {
            name: {who: summary(values) for who, values in found.items()}
            for name, found in rates.items()
        },
    }
    write_result("env_step", figures, detail, args.quick, args.out)


def _copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _copied(v) for k, v in value.items()}
    return np.array(value)


if __name__ == "__main__":
    main()
