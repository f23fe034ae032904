"""`embodied audit`: put a reward model to the test before anything learns from it."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from embodied.arguments import settings
from embodied.build import make_env, make_reward_model
from embodied.card import THRESHOLD, Card, measure
from embodied.checks import Finding
from embodied.config import compose_config
from embodied.dataset import Dataset
from embodied.errors import UserError
from embodied.gate import (
    FORMAT,
    RECORD,
    dataset_fingerprint,
    fingerprint,
    model_path,
    write_whole,
)
from embodied.lerobot_reader import read_dataset
from embodied.report import render

DEFAULTS = {"dataset": str, "rollouts": str, "others": str, "out": str}


@dataclass
class Audit:
    """An audit and where it was written."""

    card: Card
    record: dict[str, Any]
    record_path: Path
    report_path: Path


def audit(arguments: Sequence[str], config_dir: str | Path | None = None) -> int:
    """Audit the one configured reward model, print its card; 0 if the gate passes, 1 if not.

    A model of turns is audited in its world of text: see `embodied.text_audit`.
    Raises `UserError` for bad input, and writes nothing then.
    """
    wanted, overrides = settings(arguments, {**DEFAULTS, "episodes": int}, extra=("reward_model",))
    cfg = compose_config(overrides, config_dir=config_dir)
    if "world" in (cfg.env.get("stepper") or {}):
        from embodied.text_audit import audit_text

        return audit_text(cfg, wanted)
    done = run_audit(arguments, config_dir)
    print_card(done.card, done.record)
    print(f"\nreport  {done.report_path}\nrecord  {done.record_path}")
    return 0 if done.card.gate == "passed" else 1


def run_audit(arguments: Sequence[str], config_dir: str | Path | None = None) -> Audit:
    """Audit a model on `dataset`, and write `audit.json` beside it and `report.html` to `out`."""
    wanted, overrides = settings(arguments, DEFAULTS, extra=("reward_model",))
    if not wanted["dataset"]:
        raise UserError("say which episodes to audit on: dataset=FOLDER (embodied collect)")
    cfg = compose_config(overrides, config_dir=config_dir)
    names = list(cfg.get("reward_model") or {})
    if len(names) != 1:
        raise UserError(f"audit takes one reward model, not {names}: reward_model=stage_aware")
    name, node = names[0], cfg.reward_model[names[0]]
    env = make_env(cfg, num_envs=1)
    try:
        model = make_reward_model(cfg, env, name)
        env_name = env.name
    finally:
        env.close()
    beside = model_path(model, node)
    out = Path(wanted["out"]) if wanted["out"] else beside
    if out is None:
        raise UserError(f"reward_model.{name} has no folder: say where to write with out=FOLDER")
    dataset = _read(wanted["dataset"], env_name)
    others = [read_dataset(path) for path in (wanted["others"] or "").split(",") if path]
    rollouts = _read(wanted["rollouts"], env_name) if wanted["rollouts"] else None
    threshold = node.get("threshold")
    card = measure(model, dataset, others, rollouts, threshold, int(node.get("every", 1)))
    record = {
        "format": FORMAT,
        **card.to_dict(),
        "model": name,
        "fingerprint": fingerprint(model, node),
        "env": env_name,
        "dataset": {
            "path": wanted["dataset"],
            "episodes": len(dataset),
            "fingerprint": dataset_fingerprint(dataset),
        },
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    if threshold is None:
        record["note"] = f"the model has no threshold; success is a value of {THRESHOLD} or more"
    page = render(card, record, tuple(model.needs.cameras))
    text = json.dumps(finite(record), indent=1, allow_nan=False) + "\n"
    report_path = write_whole(out / "report.html", page)
    return Audit(card, record, write_whole((beside or out) / RECORD, text), report_path)


def _read(path: str, env: str) -> Dataset:
    dataset = read_dataset(path)
    if not dataset.episodes:
        raise UserError(f"{path} has no episodes")
    if dataset.info.env not in ("", env):
        raise UserError(f"{path} is of env={dataset.info.env}, the reward model of env={env}")
    return dataset


def finite(value: Any) -> Any:
    """As JSON can say it: a number that is not finite as null."""
    if isinstance(value, dict):
        return {key: finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def print_card(card: Card, record: dict[str, Any]) -> None:
    """The verdict, every check, and the sources, as text."""
    print(f"{card.gate.upper()}  {record['model']} on {record['env']}: {card.verdict}\n")
    for finding in card.findings:
        if finding.value is not None:
            print(_line(finding))
    print(f"\n{card.weakness}")
    skipped = [finding.check.name for finding in card.findings if finding.value is None]
    if skipped:
        print(f"does not apply: {', '.join(skipped)}")
    head = ("source", "episodes", "success", "accepted", "ever", "value", "VOC", "truth")
    print("\n{:<22}{:>9}{:>9}{:>10}{:>7}{:>7}{:>7}{:>7}".format(*head))
    for row in card.sources:
        print(
            f"{row['source']:<22}{row['episodes']:>9}{row['true_success']:>9.0%}"
            f"{row['accepted_at_end']:>10.0%}{row['accepted_ever']:>7.0%}"
            f"{row['final_value']:>7.2f}{row['voc']:>7.2f}{row['truth_spearman']:>7.2f}"
        )


def _line(finding: Finding) -> str:
    check = finding.check
    word = "ok" if finding.passed else ("FAILED" if check.gates else "warning")
    found = round(finding.value or 0.0, 2) + 0.0  # no minus zero
    want = f"{check.sense} {check.limit:g}"
    return f"  {word:<8}{check.name:<20}{found:>7.2f}  {want:<8}{check.title}"
