"""Turns a second of text worlds, and tokens a second of a policy that speaks.

Worlds: 32 games of TextWorld in as many processes as there are cores, against the library's own
loop in one, the same commands said and the same told (`worlds_vs_loop`, for each core
`worlds_vs_loop_per_core`). That loop steps the games in turn, as an agent must that acts in all of
them; it is faster where it plays one to its end before the next (`worlds_vs_one_by_one`).

Tokens: 32 conversations of ten turns with a small model, each reply eight tokens, against
`transformers`' `generate` on each conversation alone (`tokens_vs_generate`) and on all of them in
one batch (`tokens_vs_batched_generate`), which read all that was said before anew at every turn.

    python -m benchmarks.text_env_step [--quick]
"""

from __future__ import annotations

import os
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.harness import interleave, parse_args, ratio, summary, write_result
from embodied.causal_lm import CausalLM
from embodied.generation import Generation
from embodied.text_env import TextEnv
from embodied.text_space import texts
from embodied.tiny_lm import tiny_model, tiny_tokenizer

WORLDS, TURNS, HEARD, SAID = 32, 10, 40, 8
GAME = {"_target_": "embodied.envs.text.textworld.TextWorldGame"}


def said(env: TextEnv, turns: int) -> list[list[str]]:
    """What is said in every world: the gold actions but the last, and looking around."""
    env.reset(seed=0)
    plans = [[*plan[:-1], "look", "inventory"] for plan in env.gold()]
    return [[plan[t % len(plan)] for t in range(turns)] for plan in plans]


def worlds_rate(env: TextEnv, plans: list[list[str]]) -> float:
    env.reset(seed=0)
    start = time.perf_counter()
    for t in range(len(plans[0])):
        env.step(texts([plan[t] for plan in plans]))
    return len(plans) * len(plans[0]) / (time.perf_counter() - start)


def loop_rate(files: list[Path], plans: list[list[str]], in_turn: bool) -> float:
    """The library's own loop: all games in turn, or each to its end before the next."""
    import textworld

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        infos = textworld.EnvInfos(last_action=True)
        games = [textworld.start(str(file), infos) for file in files]
        for game in games:
            game.reset()
    said = [(game, action) for game, plan in zip(games, plans, strict=True) for action in plan]
    turns = len(plans[0])
    if in_turn:
        said = [said[k * turns + t] for t in range(turns) for k in range(len(games))]
    start = time.perf_counter()
    for game, action in said:
        game.step(action)
    took = time.perf_counter() - start
    for game in games:
        game.close()
    return len(said) / took


def talkers() -> tuple[CausalLM, list[np.ndarray]]:
    """A small model that never ends a reply by itself, and what is heard at every turn."""
    tokenizer = tiny_tokenizer(["open the door and take the red key from the chest"] * 4, 500)
    lm = CausalLM(tiny_model(tokenizer, width=64, layers=2, heads=4), tokenizer)
    lm.chat.stop = np.array([-1], np.int32)
    rng = np.random.default_rng(0)
    heard = rng.integers(10, len(tokenizer), (TURNS, WORLDS, HEARD)).astype(np.int32)
    return lm, list(heard)


def ours_rate(lm: CausalLM, heard: list[np.ndarray]) -> float:
    generation, noise = Generation(lm, SAID), torch.Generator().manual_seed(0)
    contexts = [np.empty(0, np.int32) for _ in range(WORLDS)]
    start = time.perf_counter()
    for turn in heard:
        contexts = [np.concatenate([c, h]) for c, h in zip(contexts, turn, strict=True)]
        replies = generation.reply(contexts, np.arange(WORLDS), noise)
        contexts = [np.concatenate([c, r]) for c, r in zip(contexts, replies.ids, strict=True)]
    return WORLDS * SAID * TURNS / (time.perf_counter() - start)


def generate_rate(lm: CausalLM, heard: list[np.ndarray], batch: int) -> float:
    """`generate` on `batch` conversations at a time, of the first `batch` or of eight."""
    count = max(batch, 8)
    contexts = np.empty((count, 0), np.int64)
    settings: dict[str, Any] = {"max_new_tokens": SAID, "min_new_tokens": SAID, "do_sample": True}
    start = time.perf_counter()
    for turn in heard:
        contexts = np.concatenate([contexts, turn[:count]], 1)
        rows = []
        for first in range(0, count, batch):
            ids = torch.from_numpy(contexts[first : first + batch])
            mask = torch.ones_like(ids)
            rows.append(lm.model.generate(ids, attention_mask=mask, pad_token_id=0, **settings))
        contexts = torch.cat(rows).numpy()
    return count * SAID * TURNS / (time.perf_counter() - start)


def main() -> None:
    args = parse_args(__doc__)
    torch.set_num_threads(1)
    rounds, turns, cores = (1, 10, 2) if args.quick else (5, 40, len(os.sched_getaffinity(0)))
    with tempfile.TemporaryDirectory() as folder:
        world = {**GAME, "games": folder}
        env = TextEnv(world, "textworld", WORLDS, 10_000, tasks=WORLDS, workers=cores)
        plans = said(env, turns)
        files = [Path(folder) / "w2-o3-q4-house" / f"{task}.z8" for task in range(WORLDS)]
        lm, heard = talkers()
        figures = interleave(
            {
                "worlds": lambda: worlds_rate(env, plans),
                "loop": lambda: loop_rate(files, plans, True),
                "one_by_one": lambda: loop_rate(files, plans, False),
                "tokens": lambda: ours_rate(lm, heard),
                "generate": lambda: generate_rate(lm, heard, 1),
                "batched_generate": lambda: generate_rate(lm, heard, WORLDS),
            },
            rounds,
        )
        env.close()
    told = {
        "worlds_vs_loop": ratio(figures["worlds"], figures["loop"]),
        "worlds_vs_loop_per_core": ratio(
            figures["worlds"], [cores * rate for rate in figures["loop"]]
        ),
        "worlds_vs_one_by_one": ratio(figures["worlds"], figures["one_by_one"]),
        "tokens_vs_generate": ratio(figures["tokens"], figures["generate"]),
        "tokens_vs_batched_generate": ratio(figures["tokens"], figures["batched_generate"]),
    }
    rates = {f"{name}_per_s": summary(values) for name, values in figures.items()}
    write_result("text_env_step", told, {"cores": cores, **rates}, args.quick, args.out)


if __name__ == "__main__":
    main()
