"""`embodied write-reward`: from a sentence to reward code that is checked, run safely, improved."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from embodied.abstraction import Abstraction, abstraction
from embodied.arguments import settings
from embodied.build import make_env, make_reward_model
from embodied.config import compose_config
from embodied.endpoint import Endpoint
from embodied.env import TaskEnv
from embodied.errors import UserError, unknown
from embodied.evaluate import can_succeed
from embodied.evidence import gather
from embodied.gate import FORMAT, RECORD, fingerprint, write_whole
from embodied.jail import JailError
from embodied.reward_author import (
    Author,
    BlindAuthor,
    FileAuthor,
    ModelAuthor,
    RecordedAuthor,
)
from embodied.reward_check import Checker
from embodied.reward_prompt import first_messages
from embodied.reward_search import MODES, Candidate, Search
from embodied.reward_trial import Trial, trial
from embodied.train import say

DEFAULTS = {
    "task": str, "out": str, "mode": "eureka", "rounds": 3, "samples": 4, "steps": 500_000,
    "episodes": 128, "seed": 0, "prompt": False, "train": True, "traced": True,
    "local": str, "url": str, "model": str, "revision": str, "key_env": str, "deadline_s": 120.0,
    "cache": str, "ledger": str, "budget": float, "price_in": float, "price_out": float,
    "replay": str, "reply_file": str, "origin": "authored", "blind": False,
}  # fmt: skip
LOOKED_AT = 4
"""Episodes of everyone that code is tried on before it is trained on."""
LONGEST = 400
"""Steps of those, where the env's episodes are longer."""


def write_reward(arguments: Sequence[str] = (), config_dir: str | Path | None = None) -> int:
    """Search for a reward, see `embodied.reward_search`; the exit code: 0 found, 1 none.

    Replies come from one of: a model behind `url`, one in the folder `local`, a recording
    (`replay`), a file (`reply_file`), or chance (`blind`). With `train=false` they are
    only checked. Raises `UserError` before anything is written.
    """
    wanted, overrides = settings(
        arguments, DEFAULTS, extra=("num_envs", "tuned", "device", "stagger")
    )
    if wanted["mode"] not in MODES:
        raise unknown("mode", wanted["mode"], MODES)
    cfg = compose_config(overrides, config_dir=config_dir)
    env = make_env(cfg, num_envs=LOOKED_AT, seed=wanted["seed"])
    about = abstraction(env)
    assert isinstance(env, TaskEnv)
    instruction = wanted["task"] or about.instruction
    if wanted["prompt"]:
        for role, said in first_messages(about, instruction, wanted["mode"] == "lare"):
            print(f"# {role}\n\n{said}\n")
        return 0
    if wanted["train"] and not can_succeed(env):
        raise UserError(
            f"env={env.name} has no success to choose rewards by: give train=false, or another env"
        )
    out = _out(wanted["out"])
    author = _author(wanted, about)
    say(f"looking at what everyone does in {env.name}")
    evidence = gather(env, steps=min(env.max_steps, LONGEST), seed=wanted["seed"])
    env.close()
    try:
        lare = wanted["mode"] == "lare"
        checker = Checker(about, evidence, traced=wanted["traced"] or lare, factors=lare)
        try:
            search = _search(wanted, overrides, about, instruction, checker, author, out)
            best = search.run()
        finally:
            checker.close()
    except JailError as error:
        raise UserError(f"reward code cannot be run safely here: {error}") from error
    return _tell(search, best, out, overrides)


def _out(text: str | None) -> Path:
    if not text:
        raise UserError("say where to write: out=FOLDER")
    if Path(text).exists():
        raise UserError(f"{text} exists: choose another out=")
    return Path(text)


def _author(wanted: Mapping[str, Any], about: Abstraction) -> Author:
    """Whoever the arguments say; exactly one."""
    given = [key for key in ("url", "local", "replay", "reply_file", "blind") if wanted[key]]
    if len(given) != 1:
        ways = "url=http://... model=NAME, local=FOLDER, replay=FOLDER, reply_file=FILE, blind=true"
        raise UserError(f"say who writes, one of {ways}, not {' and '.join(given) or 'nobody'}")
    if wanted["replay"]:
        return RecordedAuthor(wanted["replay"], wanted["seed"])
    if wanted["reply_file"]:
        return FileAuthor(wanted["reply_file"], wanted["origin"])
    if wanted["blind"]:
        return BlindAuthor(about, wanted["seed"])
    if wanted["local"]:
        from embodied.local_model import LocalModel

        return ModelAuthor(
            LocalModel(wanted["local"], deadline_s=wanted["deadline_s"], cache=wanted["cache"])
        )
    if not wanted["model"]:
        raise UserError("say which model is to write: model=NAME")
    return ModelAuthor(
        Endpoint(
            wanted["url"],
            wanted["model"],
            revision=wanted["revision"] or "",
            key_env=wanted["key_env"] or "",
            deadline_s=wanted["deadline_s"],
            price=(wanted["price_in"] or 0.0, wanted["price_out"] or 0.0),
            budget=wanted["budget"],
            ledger=wanted["ledger"],
            cache=wanted["cache"],
        )
    )


def _search(
    wanted: Mapping[str, Any],
    overrides: Sequence[str],
    about: Abstraction,
    instruction: str,
    checker: Checker,
    author: Author,
    out: Path,
) -> Search:
    def train_on(folder: Path, number: int) -> Trial:
        if not wanted["train"]:
            return Trial(0.0, 0)
        return trial(
            folder, out / "runs" / f"{number:03d}", about, overrides, wanted["steps"],
            wanted["seed"], wanted["episodes"], video=wanted["mode"] == "text2reward",
            model=_model(wanted["mode"]),
        )  # fmt: skip

    return Search(
        about, instruction, checker, author, train_on, out, wanted["mode"], wanted["rounds"],
        wanted["samples"], listen=_listen, say=say,
    )  # fmt: skip


def _model(mode: str) -> str:
    """What makes a reward of what is written."""
    return "lare" if mode == "lare" else "reward_code"


def _listen(candidate: Candidate) -> str:
    """What a person at the terminal says of a policy; "" where nobody is there."""
    assert candidate.trial is not None
    if not sys.stdin.isatty():
        return ""
    print(candidate.trial.failures)
    print(f"{candidate.trial.success:.0%} succeed; watch {candidate.trial.run}/video.mp4")
    return input("What is wrong with what it does? (nothing: done) ").strip()


def _tell(search: Search, best: Candidate | None, out: Path, overrides: Sequence[str]) -> int:
    """What was found, and how to use it."""
    counts = search.counts
    told = f"{counts['replies']} replies, {counts['refused']} refused, {counts['trained']} trained"
    if best is None:
        print(f"{told}: none could be trained on; what was said is in {out}/rounds.jsonl")
        return 1
    assert best.trial is not None
    folder, model = out / "reward", _model(search.mode)
    if model == "reward_code":
        _mark_checked(folder, search.about, overrides)
    worlds = " ".join(overrides)
    by = f"{best.trial.success:.0%} true success" if best.trial.episodes else "checked, not trained"
    print(f"{told}; the best, of round {best.round} ({best.origin}): {by}")
    print(f"read it: {folder}/reward.py")
    print(
        f"train on it: embodied train {worlds} reward_model={model} "
        f"reward_model.{model}.path={folder}"
    )
    return 0


def _mark_checked(folder: Path, about: Abstraction, overrides: Sequence[str]) -> None:
    """Leave with the reward that it has passed its checks, for `embodied train` to find."""
    own = ["reward_model=[reward_code]", f"reward_model.reward_code.path={folder}"]
    cfg = compose_config([*overrides, *own])
    env = make_env(cfg, num_envs=1)
    traced = json.loads((folder / "reward.json").read_text())["graph"] is not None
    cfg.reward_model.reward_code.tier = "graph" if traced else "worker"
    model = make_reward_model(cfg, env, "reward_code")
    env.close()
    record = {
        "format": FORMAT,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "fingerprint": fingerprint(model, cfg.reward_model.reward_code),
        "env": about.env,
        "gate": "passed",
        "verdict": "passed the checks of reward code",
    }
    write_whole(folder / RECORD, json.dumps(record, indent=1) + "\n")
