"""The gate before training: whether a learned reward passed its audit, as it is now.

`embodied audit` leaves `audit.json` beside the model. It counts for the weights, configuration
and env that were audited: a model that was fitted again was never audited.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf

from embodied.dataset import ROWS, Dataset
from embodied.errors import UserError
from embodied.state_tree import split

RECORD = "audit.json"
FORMAT = 1
UNJUDGED = (
    "path", "weight", "shaping", "bonus", "clip", "every", "seed", "tier", "deadline_s",
)  # fmt: skip
"""Keys of a reward model's configuration that change nothing of what it thinks of a state."""


def audit_of(model: Any, node: Mapping[str, Any] | DictConfig, env: str) -> tuple[str, str]:
    """What the audit said of a model, configured by `node`, in env `env`: a verdict, and a detail.

    The verdict is "passed", "failed" or "never audited".
    """
    path = model_path(model, node)
    if path is None:
        return "never audited", "it was not loaded from a folder"
    record = read_record(path)
    if record is None:
        return "never audited", f"no {RECORD} in {path}"
    date = str(record.get("date", ""))[:10]
    if record.get("fingerprint") != fingerprint(model, node):
        return "never audited", f"it has changed since its audit of {date}"
    if record.get("env") != env:
        return "never audited", f"its audit of {date} is for env={record.get('env')}"
    verdict = "passed" if record.get("gate") == "passed" else "failed"
    return verdict, f"{date}: {record.get('verdict', '')}"


def model_path(model: Any, node: Mapping[str, Any] | DictConfig) -> Path | None:
    """The folder that a model was loaded from."""
    path = getattr(model, "path", None) or node.get("path")
    return Path(path) if path else None


def read_record(folder: Path) -> dict[str, Any] | None:
    """The audit in a folder; None where there is none that can be read."""
    try:
        record = json.loads((folder / RECORD).read_text())
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) and record.get("format") == FORMAT else None


def write_whole(path: Path, text: str) -> Path:
    """Write a file that appears whole or not at all. Raises `UserError` where it cannot."""
    draft = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(text, encoding="utf-8")
        draft.replace(path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
    return path


def fingerprint(model: Any, node: Mapping[str, Any] | DictConfig) -> str:
    """A hash of a model's weights and of its configuration, as far as it decides a value."""
    plain = OmegaConf.to_container(node, resolve=True) if isinstance(node, DictConfig) else node
    assert isinstance(plain, Mapping)
    kept = {str(key): value for key, value in plain.items() if key not in UNJUDGED}
    arrays: dict[str, np.ndarray] = {}
    tree = split(model.state_dict(), arrays)
    digest = hashlib.sha256(json.dumps([kept, tree], sort_keys=True, default=str).encode())
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype} {arrays[name].shape}".encode())
        digest.update(np.ascontiguousarray(arrays[name]).tobytes())
    return digest.hexdigest()[:16]


def dataset_fingerprint(dataset: Dataset) -> str:
    """A hash of all that is in the episodes of a dataset, without their scores."""
    digest = hashlib.sha256(dataset.info.env.encode())
    for episode in dataset.episodes:
        digest.update(f"{episode.instruction}|{episode.source}|{episode.seed}".encode())
        for name in ROWS:
            digest.update(np.ascontiguousarray(getattr(episode, name)).tobytes())
        for camera in sorted(episode.images):
            digest.update(np.ascontiguousarray(episode.images[camera]).tobytes())
    return digest.hexdigest()[:16]
