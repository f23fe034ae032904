"""`embodied export`: a trained policy as an ONNX graph, with its joint map beside it.

What is written is in `embodied.exported`. Before it is, `embodied.parity` sees to it that
onnxruntime acts with the graph as the policy does.

A policy can be exported that has `keys`, the observations it takes, and `greedy_layers()`, from
their flat vector `(N, D)` to actions `(N, A)`. A task with a `robot` has its joints written down,
and one with `control_rule()`, a dict for JSON, how `control` makes commands of an action.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from embodied.actor import find_actor
from embodied.agent import Policy
from embodied.arguments import settings
from embodied.build import make_env
from embodied.env import Stepper
from embodied.errors import UserError
from embodied.exported import FORMAT, GRAPH, OUTPUT, RECORD, finite
from embodied.onnx_graph import OPSET, build
from embodied.parity import WORLDS, compare
from embodied.run import Run, load_policy, versions

DEFAULTS = {"out": str, "seed": 0}


def export(
    arguments: Sequence[str], config_dir: str | Path | None = None
) -> tuple[Path, dict[str, Any]]:
    """Export the policy of a run, the first of `arguments`, to the folder `out`: it, and figures.

    Raises `UserError`, with nothing written, for a run whose policy cannot be exported and for a
    graph that does not act as the policy does.
    """
    if not arguments or "=" in arguments[0]:
        raise UserError("say which run: embodied export RUN out=FOLDER")
    wanted, overrides = settings(arguments[1:], DEFAULTS)
    out = _free(wanted["out"])
    actor = find_actor(arguments[0], overrides)
    if actor.run is None:
        raise UserError(f"{arguments[0]} is no run: export takes one that `embodied train` left")
    env = make_env(actor.worlds(overrides, config_dir), num_envs=WORLDS, seed=wanted["seed"])
    try:
        if env.action_spec is None:
            raise UserError(f"{env.name}: only a policy with continuous actions can be exported")
        policy = load_policy(actor.run, env)
        figures = write_policy(policy, env, out, _origin(actor.run), wanted["seed"])
    finally:
        env.close()
    return out, figures


def write_policy(
    policy: Policy, env: Stepper, out: Path | str, origin: Mapping[str, Any], seed: int = 0
) -> dict[str, Any]:
    """Export a policy for the worlds of `env` to the folder `out`, which appears whole or not at
    all; figures for people. `origin` says in JSON where the policy comes from.

    Raises `UserError` as `export` does.
    """
    out, layers = _free(out), _layers(policy)
    spec, space = policy.action_spec, env.observation_space
    assert spec is not None
    keys: tuple[str, ...] = policy.keys  # type: ignore[attr-defined]
    inputs = {key: tuple(space[key].shape or ()) for key in keys}
    graph = build(layers, inputs, spec)
    parity = compare(policy, env, graph, inputs, layers[0], seed)
    record = {
        "format": FORMAT,
        "onnx": {"sha256": hashlib.sha256(graph).hexdigest(), "size": len(graph), "opset": OPSET},
        "inputs": [_tensor(key, shape) for key, shape in inputs.items()],
        "output": _tensor(OUTPUT, (spec.size,)),
        "action_spec": spec.to_dict(),
        "normaliser": _normaliser(layers[0]),
        **joint_map(getattr(env, "task", None)),
        "env": env.name,
        "rate_hz": float(spec.rate_hz),
        **origin,
        "parity": parity,
        "versions": versions(),
    }
    text = json.dumps(finite(record), indent=1, allow_nan=False) + "\n"
    _publish(out, {GRAPH: graph, RECORD: text.encode()})
    return {"inputs": inputs, "actions": spec.size, "bytes": len(graph), "parity": parity}


def report(out: Path, figures: Mapping[str, Any]) -> None:
    """Print what was exported, and how near it is to the policy."""
    for name, shape in figures["inputs"].items():
        print(f"{name:<16}({', '.join(map(str, ('N', *shape)))})")
    print(f"{OUTPUT:<16}(N, {figures['actions']})")
    if (parity := figures["parity"]) is None:
        print("not compared     onnxruntime is missing: pip install 'embodied-rl[onnx]'")
    else:
        print(
            f"{'differs by':<16}{parity['largest']:.2g} of an action's range at most, "
            f"over {parity['observations']} observations"
        )
    print(out / GRAPH, out / RECORD, sep="\n")


def joint_map(task: Any) -> dict[str, Any]:
    """The robot of a task, joint by joint in the order of its commands, and how an action becomes
    commands; None each where a task has none to tell of."""
    robot, rule = getattr(task, "robot", None), getattr(task, "control_rule", None)
    told = None
    if robot is not None:
        joints = zip(
            robot.joints, robot.joint_range.tolist(), robot.velocity_limit, robot.home, strict=True
        )
        told = {
            "name": robot.name,
            "tool": robot.tool,
            "joints": [
                {"name": name, "unit": "rad", "low": low, "high": high, "max_speed_rad_s": speed,
                 "home": home}
                for name, (low, high), speed, home in joints
            ],
            "fingers": [
                {"name": name, "unit": "m", "low": 0.0, "high": robot.max_opening_m / 2}
                for name in robot.fingers
            ],
        }  # fmt: skip
    return {"robot": told, "control": None if rule is None else dict(rule())}


def _layers(policy: Any) -> Any:
    """Raises `UserError` for a policy that is no plain function of its observations."""
    kind = type(policy).__name__
    if not hasattr(policy, "greedy_layers") or not hasattr(policy, "keys"):
        raise UserError(
            f"{kind} cannot be exported: a policy of agent=ppo, sac, bc or sb3_ppo can, or one "
            "of your own with `keys` and `greedy_layers()`"
        )
    if policy.carry(1):
        raise UserError(f"{kind} cannot be exported: it remembers {', '.join(policy.carry(1))}")
    return policy.greedy_layers()


def _tensor(name: str, shape: tuple[int, ...]) -> dict[str, Any]:
    """How the record describes an input or output; its shape is without the batch."""
    return {"name": name, "shape": list(shape), "dtype": "float32"}


def _normaliser(first: Any) -> dict[str, Any] | None:
    """What the first layer knows of observations, on their flat vector in the inputs' order."""
    if not hasattr(first, "var"):
        return None
    return {"mean": first.mean.tolist(), "var": first.var.tolist(), "limit": float(first.limit)}


def _origin(run: Run) -> dict[str, Any]:
    """Where a run's policy comes from."""
    manifest = json.loads((run.checkpoint.path / "manifest.json").read_bytes())
    checkpoint = {
        "run": run.path.resolve().name,
        "step": run.checkpoint.step,
        "sha256": manifest["sha256"],
        "agent": run.cfg.agent["_target_"],
    }
    return {"checkpoint": checkpoint}


def _free(out: Path | str | None) -> Path:
    """Raises `UserError` for a folder in which there is something."""
    if not out:
        raise UserError("say where to export to: out=FOLDER")
    path = Path(out)
    if os.path.lexists(path) and not (path.is_dir() and not any(path.iterdir())):
        raise UserError(f"{path} exists: choose another out=")
    return path


def _publish(out: Path, files: Mapping[str, bytes]) -> None:
    """Write the files to a folder that appears whole, and durable, or not at all."""
    out = out.absolute()
    draft = out.with_name(f".{out.name}.part")
    try:
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        for name, data in files.items():
            (draft / name).write_bytes(data)
        for path in (*(draft / name for name in files), draft):
            _sync(path)
        os.rename(draft, out)
        _sync(out.parent)
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _sync(path: Path) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
