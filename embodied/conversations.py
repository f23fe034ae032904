"""Episodes of text as conversations: who said what, turn by turn, and how it ended.

On disk they are lines of JSON, with the `messages` that other libraries of language models read:

    {"messages": [{"role": "user", "content": ...}, {"role": "assistant", ...}, ...],
     "env": "textworld", "task": 17, "source": "expert", "success": true, "rewards": [0.0, ...],
     "valid": [true, ...]}
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from embodied.agent import Policy
from embodied.errors import UserError
from embodied.text_env import TextEnv
from embodied.text_policies import Gold


@dataclass
class Conversation:
    """What a world said, `(T + 1)` texts, and what was said to it, `(T)`."""

    seen: list[str]
    said: list[str]
    env: str = ""
    task: int = 0
    source: str = ""
    """Who spoke: "expert", or a run."""
    success: bool = False
    rewards: list[float] = field(default_factory=list)
    valid: list[bool] = field(default_factory=list)
    """Whether what was said could be done, where that is known."""

    def __len__(self) -> int:
        return len(self.said)


def converse(
    env: TextEnv, policy: Policy, seeds: Sequence[int], source: str, greedy: bool = True
) -> list[Conversation]:
    """An episode of each seed, in which a policy speaks; those with a fault are left out."""
    out: list[Conversation] = []
    for start in range(0, len(seeds), env.num_worlds):
        mine = np.array(seeds[start : start + env.num_worlds])
        count = len(mine)
        padded = np.concatenate([mine, np.full(env.num_worlds - count, mine[0])])
        obs, carry = env.reset(seed=padded), policy.carry(env.num_worlds)
        tasks = [row["task"] for row in env.snapshot(np.arange(count))]
        told = [
            Conversation([text], [], env.name, task, source)
            for text, task in zip(obs["text"][:count].tolist(), tasks, strict=True)
        ]
        live, sound = np.arange(env.num_worlds) < count, np.ones(count, bool)
        while live.any():
            carry, said = policy.act(carry, obs, greedy)
            step = env.step(said)
            valid = env.readouts()["world.valid"]
            for i in np.flatnonzero(live):
                one = told[i]
                one.said.append(str(said[i]))
                one.seen.append(str(step.obs["text"][i]))
                one.rewards.append(float(step.reward[i]))
                one.valid.append(bool(valid[i]))
                one.success = bool(step.success[i])
                sound[i] &= step.fault[i] == 0
            obs, live = step.obs, live & ~step.done
        out += [one for one, whole in zip(told, sound, strict=True) if whole]
    return out


def experts(env: TextEnv, seeds: Sequence[int]) -> list[Conversation]:
    """A conversation of each seed, in which the gold actions are said.

    Raises `UserError` where a world has none, or they do not succeed.
    """
    told = converse(env, Gold(env), seeds, "expert")
    if len(told) < len(seeds) or not all(one.success for one in told):
        raise UserError(f"{env.name}: the gold actions do not succeed within {env.max_steps}")
    return told


def write_conversations(path: str | Path, told: Iterable[Conversation]) -> None:
    """Write conversations to the new file `path`, whole or not at all."""
    path = Path(path)
    if path.exists():
        raise UserError(f"{path} exists: choose another file")
    draft = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with draft.open("w", encoding="utf-8") as file:
            for one in told:
                file.write(json.dumps(_row(one), ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        draft.rename(path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error
    finally:
        draft.unlink(missing_ok=True)


def read_conversations(path: str | Path) -> list[Conversation]:
    """Raises `UserError`, with the line, for what is no conversation."""
    try:
        lines = [line for line in Path(path).read_text("utf-8").split("\n") if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    out = []
    for number, line in enumerate(lines, 1):
        try:
            out.append(_conversation(json.loads(line)))
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path}, line {number}: no conversation ({error})") from error
    if not out:
        raise UserError(f"{path} holds no conversation")
    return out


def _row(one: Conversation) -> dict:
    messages = [{"role": "user", "content": one.seen[0]}]
    for said, seen in zip(one.said, one.seen[1:], strict=True):
        messages.append({"role": "assistant", "content": said})
        messages.append({"role": "user", "content": seen})
    return {
        "messages": messages, "env": one.env, "task": one.task, "source": one.source,
        "success": one.success, "rewards": one.rewards, "valid": one.valid,
    }  # fmt: skip


def _conversation(row: dict) -> Conversation:
    roles = [message["role"] for message in row["messages"]]
    said = [message["content"] for message in row["messages"]]
    if not all(isinstance(text, str) for text in said):
        raise ValueError("its contents are texts")
    if roles and roles[0] == "system":
        roles, said = roles[1:], said[1:]
    if len(roles) < 2 or any(r != ("user", "assistant")[k % 2] for k, r in enumerate(roles)):
        raise ValueError("user and assistant take turns, the user first")
    if len(roles) % 2 == 0:
        said.append("")  # what the world said last is not told
    rewards = [float(value) for value in row.get("rewards", ())]
    return Conversation(
        said[::2], said[1::2], str(row.get("env", "")), int(row.get("task", 0)),
        str(row.get("source", "")), bool(row.get("success", False)), rewards,
        [bool(value) for value in row.get("valid", ())],
    )  # fmt: skip


def all_texts(told: Sequence[Conversation]) -> list[str]:
    return [text for one in told for text in (*one.seen, *one.said)]
