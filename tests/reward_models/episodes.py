"""Toy episodes that reward models learn in seconds: a hand brings a block to a goal in the plane.

The state is hand (2) and grip (1), the robot's own; then block - hand (2), goal - block (2) and
two columns of noise. Images show the hand red, the block green and the goal blue.
"""

from __future__ import annotations

import gymnasium as gym
import numpy as np

from embodied.dataset import Dataset, DatasetInfo, Episode
from embodied.types import ActionSpec

PROPRIO, SIZE, HORIZON, IMAGE = 3, 9, 120, 32
STAGES = ("reach the block", "bring it to the goal", "hold it there")
INSTRUCTION = "bring the green block to the goal"
OTHER = "push the red button"
STEP, NEAR, HELD, SHOWN = 0.09, 0.05, 3, 6
"""Speed, how near is there, steps of holding that are success, frames shown after it."""
FLAWS = ("slow", "hesitates", "retries", "stops_short", "near_miss", "undoes")

SPACE = gym.spaces.Dict({"state": gym.spaces.Box(-np.inf, np.inf, (SIZE,), np.float32)})


def demonstrations(
    count: int = 12, seed: int = 0, images: bool = False, instruction: str = INSTRUCTION
) -> Dataset:
    """Experts of varying speed: they succeed and hold it for a few frames."""
    return _dataset([_play(None, 1000 * seed + i, images, instruction) for i in range(count)])


def flawed(kind: str, count: int = 8, seed: int = 50, images: bool = False) -> Dataset:
    """Episodes of one of `FLAWS`: the first three succeed, slowly."""
    assert kind in FLAWS
    return _dataset([_play(kind, 1000 * seed + i, images, INSTRUCTION) for i in range(count)])


def _dataset(episodes: list[Episode]) -> Dataset:
    ones = np.ones(3, np.float32)
    spec = ActionSpec(("x", "y", "grip"), ("", "", ""), -ones, ones, "delta", 10.0)
    cameras = tuple(episodes[0].images)
    return Dataset(DatasetInfo("toy", 10.0, spec, PROPRIO, STAGES, cameras), episodes)


def _play(flaw: str | None, seed: int, images: bool, instruction: str) -> Episode:
    rng = np.random.default_rng(seed)
    start, goal = rng.uniform(-0.8, -0.2, 2), rng.uniform(0.2, 0.8, 2)
    hand, block, pace = rng.uniform(-0.9, 0.9, 2), start.copy(), rng.uniform(0.6, 1.4)
    whole = np.linalg.norm(goal - start)
    way = max(0.1, float(np.linalg.norm(start - hand)))
    aim = goal + np.array([0.12, 0.0]) if flaw == "near_miss" else goal
    held, dropped, undone, grip, rows, after = 0, False, False, 0.0, [], 0
    for _ in range(HORIZON):
        left = float(np.linalg.norm(goal - block))
        stage = 2 if left < NEAR else int(grip > 0.5)
        held = held + 1 if stage == 2 else 0
        reach = 1.0 - min(1.0, float(np.linalg.norm(block - hand)) / way)
        done = (reach, 1.0 - min(1.0, left / whole), min(1.0, held / HELD))[stage]
        noise = rng.normal(size=2)
        rows.append((hand, [grip], block - hand, goal - block, noise, held >= HELD, stage, done))
        after += held >= HELD
        if after > SHOWN:
            break
        if flaw == "retries" and not dropped and left < 0.3 * whole:
            dropped, grip, block = True, 0.0, start.copy()
        undone |= flaw == "undoes" and left < 0.15 * whole
        target = block if grip < 0.5 else (start if undone else aim)
        if flaw == "stops_short" and left < 0.5 * whole:
            target = hand
        move = target - hand
        speed = STEP * pace * (0.4 if flaw == "slow" else 1.0)
        if flaw == "hesitates" and rng.random() < 0.6:
            speed = 0.0
        move = move * min(1.0, speed / (np.linalg.norm(move) + 1e-9))
        if grip > 0.5:
            block = block + move
        hand = hand + move
        if np.linalg.norm(block - hand) < 0.02:
            grip = 1.0
    columns = [np.array(column) for column in zip(*rows, strict=True)]
    hands, grips, offset, ahead, noise, success, stages, share = columns
    state = np.concatenate([hands, grips, offset, ahead, noise], 1).astype(np.float32)
    progress = np.where(success, 1.0, (stages + share) / len(STAGES)).astype(np.float32)
    shown = {"front": _render(hands, hands + offset, goal)} if images else {}
    count = len(state)
    return Episode(
        instruction=instruction,
        source="expert" if flaw is None else f"expert:{flaw}",
        seed=seed,
        state=state,
        action=np.zeros((count, 3), np.float32),
        reward=np.zeros(count, np.float32),
        success=success,
        stage=stages.astype(np.int64),
        progress=progress,
        images=shown,
    )


def _render(hand: np.ndarray, block: np.ndarray, goal: np.ndarray) -> np.ndarray:
    """Frames `(T, H, W, 3)` uint8 with a disc for the goal, the block and the hand."""
    across = np.linspace(-1.1, 1.1, IMAGE)
    out = np.full((len(hand), IMAGE, IMAGE, 3), 40, np.uint8)
    for place, radius, channel in ((goal[None], 0.2, 2), (block, 0.14, 1), (hand, 0.1, 0)):
        far = (across[None, None, :] - place[:, 0, None, None]) ** 2
        far = far + (across[None, :, None] - place[:, 1, None, None]) ** 2
        out[..., channel] = np.where(far < radius**2, 230, out[..., channel])
    return out
