"""`embodied imitate`: learn a policy from recorded demonstrations, and leave a run like `train`."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence, Sized
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf

from embodied.build import make_agent, make_env, make_reward_model
from embodied.checkpoint import save_checkpoint
from embodied.config import compose_config, resolved
from embodied.conversations import Conversation, read_conversations
from embodied.dataset import Dataset, Episode
from embodied.env import Stepper
from embodied.errors import UserError, unknown
from embodied.judgement import judge_dataset
from embodied.lerobot import read_dataset
from embodied.run import versions, write_json
from embodied.run_log import RunLog

WEIGHTS = ("none", "ra_bc", "oracle")
ONLINE = (
    "total_steps", "checkpoint_every_s", "keep_checkpoints", "stagger", "max_fault_rate",
    "stop_at_success", "stop_at_return", "stop_window",
)  # fmt: skip
"""Keys of `embodied train` that mean nothing here."""
HEALTHY = (0.3, 0.8)
"""The mean weight of reward-aligned BC that its authors recommend."""


def imitate(
    overrides: Sequence[str] = (),
    config_dir: str | Path | None = None,
    dataset: Any = None,
) -> tuple[Path, dict[str, float]]:
    """Fit an agent to demonstrations as configured; the run directory and the fit's figures.

    `dataset` is what is learned from in place of reading the configured one: a `Dataset`, or for an
    agent that speaks conversations. Raises `UserError`
    before anything is written.
    """
    for text in overrides:
        if text.partition("=")[0] in ONLINE:
            raise UserError(f"{text}: that is for `embodied train`; here it is agent.steps")
    cfg = OmegaConf.create(resolved(compose_config(overrides, "imitate", config_dir)))
    if cfg.weights not in WEIGHTS:
        raise unknown("weights", str(cfg.weights), WEIGHTS)
    path = Path(cfg.run_dir or _default_name(cfg))
    if (path / "checkpoints").exists() or (path / "log.jsonl").exists():
        raise UserError(f"{path} holds a run already: give another run_dir")
    env = make_env(cfg)
    agent: Any = make_agent(cfg, env)
    if not hasattr(agent, "fit"):
        raise UserError(f"{cfg.agent['_target_']} does not learn from demonstrations: agent=bc")
    speaks = getattr(agent, "learns_from", "") == "conversations"
    data, progress = _talks(cfg, env, dataset) if speaks else _material(cfg, env, dataset)
    rows: list[dict[str, float]] = []
    figures = agent.fit(data, progress, lambda row: rows.append(dict(row)))
    _write(path, cfg, env, rows, figures, data)
    state = {"agent": agent.state_dict()}
    plain: Any = OmegaConf.to_container(cfg, resolve=True)
    save_checkpoint(path / "checkpoints", state, step=int(rows[-1]["steps"]), config=plain)
    if cfg.video:
        _record(cfg, agent, path)
    env.close()
    return path, figures


def report(path: Path, figures: Mapping[str, float]) -> None:
    """Print a fit's figures, and where the run is."""
    for name, value in figures.items():
        low, high = HEALTHY
        note = f"   healthy: {low} to {high}" if name == "mean_weight" and value != 1.0 else ""
        print(f"{name:<16}{value:.4g}{note}")
    print(path)


def is_expert(episode: Episode) -> bool:
    """Whether an episode is a successful one of the scripted expert, disturbed or not, that has no
    flaw."""
    source, *more = episode.source.split(":")
    flawless = source in ("expert", "varied") and not more or source == "noisy" and len(more) < 2
    return episode.succeeded and flawless


def _talks(
    cfg: DictConfig, env: Stepper, told: list[Conversation] | None
) -> tuple[list[Conversation], None]:
    """The conversations that are learned from."""
    if cfg.weights == "ra_bc":
        raise UserError("weights=ra_bc is for demonstrations of states: weights=none or oracle")
    told = read_conversations(cfg.dataset) if told is None else told
    others = {one.env for one in told} - {"", env.name}
    if others:
        raise UserError(f"{cfg.dataset} is of env={sorted(others)[0]}, not of {env.name}")
    if cfg.weights == "oracle":
        told = [one for one in told if one.success]
        if not told:
            raise UserError(f"weights=oracle: no conversation of {cfg.dataset} succeeded")
    return told, None


def _material(
    cfg: DictConfig, env: Stepper, dataset: Dataset | None
) -> tuple[Dataset, list[np.ndarray] | None]:
    """What is learned from, and the progress of its frames where the weights are to follow it."""
    model = _model(cfg, env) if cfg.weights == "ra_bc" and cfg.score is None else None
    if dataset is None:
        dataset = read_dataset(cfg.dataset, () if model is None else model.needs.cameras)
    if dataset.info.env not in ("", env.name):
        raise UserError(f"{cfg.dataset} is of env={dataset.info.env}, not of {env.name}")
    if cfg.weights == "oracle":
        dataset = dataset.where(is_expert)
        if not len(dataset):
            raise UserError(f"weights=oracle: {cfg.dataset} has no successful episode of an expert")
    if model is not None:
        return dataset, [judged.value for judged in judge_dataset(model, dataset)]
    return dataset, _scores(cfg, dataset) if cfg.weights == "ra_bc" else None


def _model(cfg: DictConfig, env: Stepper) -> Any:
    names = list(cfg.get("reward_model") or {})
    if len(names) != 1:
        raise UserError(
            "weights=ra_bc needs progress: score=NAME of a column of the dataset, or one "
            "reward_model=NAME with its path"
        )
    model = make_reward_model(cfg, env, names[0])
    if model.kind not in ("potential", "success"):
        raise UserError(f"reward_model={names[0]} is of kind {model.kind!r}: it tells no progress")
    return model


def _scores(cfg: DictConfig, dataset: Dataset) -> list[np.ndarray]:
    for number, episode in enumerate(dataset.episodes):
        if cfg.score not in episode.scores:
            has = ", ".join(sorted(episode.scores)) or "none"
            raise UserError(
                f"score={cfg.score}: episode {number} of {cfg.dataset} has no such column; "
                f"it has {has}"
            )
    return [episode.scores[cfg.score] for episode in dataset.episodes]


def _write(
    path: Path,
    cfg: DictConfig,
    env: Stepper,
    rows: Sequence[Mapping[str, float]],
    figures: Mapping[str, float],
    data: Sized,
) -> None:
    """What the run is made of, and how the fit went."""
    header = {
        "env": env.name,
        "seed": cfg.seed,
        "dataset": str(cfg.dataset),
        "episodes": len(data),
        "figures": dict(figures),
        "written": datetime.now().isoformat(timespec="seconds"),
        "command": ["embodied", *sys.argv[1:]],
        "versions": versions(),
    }
    try:
        path.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(cfg, path / "config.yaml")
        write_json(path / "run.json", header)
    except OSError as error:
        raise UserError(f"cannot write to {path}: {error.strerror}") from error
    log = RunLog(path, cfg.tensorboard)
    for row in rows:
        log.row(row)
    log.close()


def _record(cfg: DictConfig, agent: Any, path: Path) -> None:
    from embodied.play import record

    try:
        env = make_env(cfg, num_envs=1, seed=cfg.seed + 1_000_000)
        record(agent.policy, env, path / "video.mp4", episodes=2)
    except UserError as error:
        print(f"no video: {error}", file=sys.stderr, flush=True)


def _default_name(cfg: DictConfig) -> str:
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    return f"runs/{cfg.env.name.replace('/', '_')}_bc_s{cfg.seed}_{stamp}"
