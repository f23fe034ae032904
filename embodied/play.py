"""`embodied play`: watch a policy, as a video, in MuJoCo's viewer, or as talks with text worlds."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from embodied.actor import find_actor, seat
from embodied.agent import Policy
from embodied.arguments import settings
from embodied.build import make_env
from embodied.env import Stepper
from embodied.errors import UserError
from embodied.evaluate import can_succeed
from embodied.talk import play_talks
from embodied.text_env import TextEnv
from embodied.types import FAULTS, Step
from embodied.video import Video, draw_cell, grid, with_header

DEFAULTS = {
    "episodes": 4,
    "num_envs": 4,
    "seed": 10_000,
    "camera": str,
    "size": "480x640",
    "out": str,
    "speed": 1.0,
    "seconds": 20.0,
    "greedy": True,
    "max_steps": int,
    "viewer": False,
    "trust_pickle": False,
}
FASTEST_HZ = 60.0
HOLD_S = 0.8


def play(who: str, arguments: Sequence[str] = (), config_dir: str | Path | None = None) -> int:
    """Show `who` (see `embodied.actor`) as the `key=value` arguments say.

    Raises `UserError` for bad input or where nothing can be rendered; then no file is written.
    """
    wanted, overrides = settings(arguments, DEFAULTS, ("reward_model",))
    if wanted["max_steps"]:
        overrides.append(f"env.max_steps={wanted['max_steps']}")
    if wanted["viewer"] and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise UserError("viewer=true needs a display, and there is none: leave it out for a video")
    size = _size(wanted["size"])
    actor = find_actor(who, overrides, wanted["trust_pickle"])
    cfg = actor.worlds(overrides, config_dir)
    if "world" in (cfg.env.get("stepper") or {}):
        cfg.env.group, count = 1, 1 if who == "human" else wanted["episodes"]
        env = make_env(cfg, num_envs=count, seed=wanted["seed"])
        assert isinstance(env, TextEnv)
        play_talks(actor, cfg, env, wanted["greedy"], wanted["out"])
        env.close()
        return 0
    count = 1 if wanted["viewer"] else min(wanted["num_envs"], wanted["episodes"])
    env = make_env(cfg, num_envs=count, seed=wanted["seed"])
    policy = actor.policy(env)
    seeds = range(wanted["seed"], wanted["seed"] + wanted["episodes"])
    if wanted["viewer"]:
        _view(policy, env, seeds, wanted["speed"], wanted["greedy"])
        return 0
    path = Path(wanted["out"] or (actor.folder or Path()) / "video.mp4")
    record(
        policy,
        env,
        path,
        episodes=wanted["episodes"],
        seed=wanted["seed"],
        camera=wanted["camera"],
        size=size,
        speed=wanted["speed"],
        seconds=wanted["seconds"],
        greedy=wanted["greedy"],
        caption=actor.title,
    )
    env.close()
    print(path)
    return 0


def record(
    policy: Policy,
    env: Stepper,
    path: str | Path,
    episodes: int = 4,
    seed: int = 10_000,
    camera: str | None = None,
    size: tuple[int, int] = (480, 640),
    speed: float = 1.0,
    seconds: float = 20.0,
    greedy: bool = True,
    caption: str = "",
) -> Path:
    """Write a video of `episodes` with seeds `seed ..`, all worlds of `env` side by side.

    `size` is (height, width) of one world's picture. Frames come at the control rate, fewer
    where that is more than a screen shows; an episode is shown for `seconds` of its own time at
    most. Raises `UserError` where nothing can be rendered, and then leaves no file.
    """
    rate = env.action_spec.rate_hz if env.action_spec is not None else 30.0
    stride = max(1, math.ceil(rate * speed / FASTEST_HZ))
    task = getattr(env, "task", None)
    title = next(iter(getattr(task, "instructions", ())), env.name)
    note = f"{env.name}  {caption}".strip()
    steps = max(1, int(seconds * rate))
    try:
        with Video(path, rate * speed / stride) as video:
            for first in range(seed, seed + episodes, env.num_worlds):
                seeds = np.arange(first, first + env.num_worlds, dtype=np.int64)
                shown = min(env.num_worlds, seed + episodes - first)
                board = _Board(env, seeds, shown, camera, size, steps)
                for _ in board.play(policy, greedy, stride):
                    frame = with_header(grid(board.cells), title, note)
                    video.write(frame)
                    _progress(f"{video.frames} frames")
                for _ in range(round(HOLD_S * video.rate_hz)):
                    video.write(frame)
    finally:
        _progress("")
    return Path(path)


class _Board:
    """One episode in each world, and its picture with what is known about it."""

    def __init__(
        self,
        env: Stepper,
        seeds: np.ndarray,
        shown: int,
        camera: str | None,
        size: tuple[int, int],
        steps: int,
    ) -> None:
        self.env, self.seeds, self.camera, self.size, self.steps = env, seeds, camera, size, steps
        self.cells = np.zeros((env.num_worlds, *size, 3), np.uint8)
        self.live = np.arange(env.num_worlds) < shown
        self.total = np.zeros(env.num_worlds)
        self.succeeded = np.zeros(env.num_worlds, bool)
        self.weights = getattr(getattr(env, "task", None), "weights", {})
        self.can_succeed = can_succeed(env)
        self.largest = 1e-9  # contribution of any term so far: what a full bar means

    def play(self, policy: Policy, greedy: bool, stride: int) -> Iterator[int]:
        """Step until every episode is over, drawing every `stride`-th; yields the step."""
        env = self.env
        obs, carry = env.reset(seed=self.seeds), policy.carry(env.num_worlds)
        seat(policy, self.seeds)
        self._draw(np.flatnonzero(self.live), 0, None)
        yield 0
        for t in range(1, self.steps + 1):
            carry, action = policy.act(carry, obs, greedy)
            step = env.step(action)
            self.total += np.where(self.live, step.reward, 0.0)
            self.succeeded |= np.asarray(step.success)
            over = step.terminated | step.truncated
            ended = self.live & over
            last = t == self.steps or not (self.live & ~over).any()
            if t % stride == 0 or last:
                self._draw(np.flatnonzero(self.live), t, step)
            elif ended.any():
                self._draw(np.flatnonzero(ended), t, step)
            self.live &= ~over
            if t % stride == 0 or last:
                yield t
            if last:
                return
            obs = step.obs
            if over.any():  # a finished world must start anew to be stepped, shown or not
                obs, fresh = env.reset(over), policy.carry(env.num_worlds)
                seat(policy, self.seeds)
                for name, value in carry.items():
                    value[over] = fresh[name][over]

    def _draw(self, worlds: np.ndarray, t: int, step: Step | None) -> None:
        pictures = self.env.render(self.camera, worlds, *self.size)
        terms = self._shares(step)
        for picture, i in zip(pictures, worlds, strict=True):
            cell = np.array(picture)
            lines = [f"step {t}", f"return {self.total[i]:.1f}", f"seed {self.seeds[i]}"]
            shares = {name: float(value[i]) for name, value in terms.items()}
            draw_cell(cell, lines, shares, self._verdict(i, step))
            self.cells[i] = cell

    def _shares(self, step: Step | None) -> dict[str, np.ndarray]:
        """Each term's contribution to the reward as a share of the largest seen, `(N,)` each."""
        if step is None:
            return {}
        parts = {k: np.asarray(v) * self.weights.get(k, 1.0) for k, v in step.reward_terms.items()}
        for part in parts.values():
            self.largest = max(self.largest, float(np.abs(part[self.live]).max(initial=0.0)))
        return {k: v / self.largest for k, v in parts.items()}

    def _verdict(self, i: int, step: Step | None) -> str | None:
        if step is None:
            return None
        if step.fault[i]:
            return FAULTS[step.fault[i]]
        if self.succeeded[i]:
            return "success"
        if not (step.terminated[i] or step.truncated[i]):
            return None
        return "failed" if self.can_succeed else "ended"


def _view(policy: Policy, env: Any, seeds: range, speed: float, greedy: bool) -> None:
    """Play in MuJoCo's own window at the pace of the real robot, until it is closed."""
    batch = getattr(getattr(env, "sim", None), "batch", None)
    if batch is None:
        raise UserError(f"viewer=true needs sim=mujoco, which {env.name} has not")
    import mujoco
    import mujoco.viewer

    model = batch.get_model(0)
    data = mujoco.MjData(model)
    with mujoco.viewer.launch_passive(model, data) as window:
        for seed in seeds:
            obs, carry = env.reset(seed=np.array([seed])), policy.carry(1)
            batch.get_model(0, model)
            over = False
            while not over and window.is_running():
                due = time.monotonic() + 1.0 / (env.action_spec.rate_hz * speed)
                carry, action = policy.act(carry, obs, greedy)
                step = env.step(action)
                obs, over = step.obs, bool(step.done[0])
                batch.get_data(0, data)
                mujoco.mj_forward(model, data)
                window.sync()
                time.sleep(max(0.0, due - time.monotonic()))


def _size(text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    if not (height.isdigit() and width.isdigit()):
        raise UserError(f"size={text}: give HEIGHTxWIDTH, as 480x640")
    size = int(height), int(width)
    if not all(64 <= side <= 4096 and side % 2 == 0 for side in size):
        raise UserError(f"size={text}: give even numbers from 64 to 4096, as 480x640")
    return size


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
