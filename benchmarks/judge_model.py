"""A small judge from scratch: a tiny language model that learns to answer what `Judge` asks."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.judge_plays import Case
from embodied.causal_lm import IGNORED, CausalLM, padded
from embodied.endpoint import Prompt
from embodied.judge_prompt import verdict_prompt
from embodied.local_model import question_ids
from embodied.text_episodes import TextEpisode
from embodied.tiny_lm import tiny_model, tiny_tokenizer

LONGEST = 8192
"""Tokens that it reads and writes at most; a judge's question keeps 1,024 of them for a reply."""
OVER = "*** The End ***"
"""What TextWorld says when a game is won."""
LEARNED = 300
"""Episodes whose words it knows."""
Row = tuple[np.ndarray, np.ndarray]
"""Tokens, and those among them that are to be said."""
Draw = Callable[[np.random.Generator], list[Row]]


def prompt(episode: TextEpisode, hardened: bool) -> Prompt:
    """What the judge asks of an episode."""
    return verdict_prompt(episode, False, hardened, 0.0, 0)


def answer(case: Case, hardened: bool) -> str:
    """What is right to say: where evidence is asked for, a yes quotes the last sentence seen."""
    verdict = {"verdict": "yes" if case.done else "no", "score": 0.9 if case.done else 0.1}
    evidence = {"evidence": last_sentence(case.episode.seen[-1]) if case.done else ""}
    return json.dumps({**(evidence if hardened else {}), **verdict}, ensure_ascii=False)


def last_sentence(text: str) -> str:
    """The last sentence of a text; of a game that says that it is over, that one, which is always
    the same: a small model learns it by heart, but not to copy what it has never seen."""
    if OVER in text:
        return OVER
    parts = [part.strip() for part in re.split(r"(?<=[.!?])\s+|\n+", text)]
    return [part for part in parts if re.search(r"\w", part)][-1]


def row(tokenizer: Any, case: Case, hardened: bool) -> Row:
    """A question about an episode and its right answer."""
    return answered(tokenizer, prompt(case.episode, hardened), answer(case, hardened))


def answered(tokenizer: Any, asked_for: Prompt, right: str) -> Row:
    asked = question_ids(tokenizer, asked_for.messages)
    said = tokenizer(right + "<|im_end|>", add_special_tokens=False)["input_ids"]
    whole = np.concatenate([asked, said])
    return whole, np.where(np.arange(len(whole)) >= len(asked), whole, IGNORED)


def begun(asked: Sequence[str], seed: int, size: Mapping[str, int]) -> CausalLM:
    """A model that knows nothing, whose words are those of some texts."""
    tokenizer = tiny_tokenizer(asked, size["vocabulary"])
    net = tiny_model(tokenizer, size["width"], size["layers"], size["heads"], LONGEST, seed)
    return CausalLM(net, tokenizer)


def verdicts(tokenizer: Any, cases: Sequence[Case], batch: int) -> Draw:
    """What draws batches of episodes to judge: half was done; of what was not each kind is as
    frequent, but openings, where there are any, are a quarter. A third is asked hardened."""
    kinds: dict[str, list[Case]] = {}
    for case in cases:
        kinds.setdefault(case.kind, []).append(case)
    right, extra = kinds.pop("gold"), kinds.pop("openings", [])
    wrong = list(kinds.values())

    def draw(rng: np.random.Generator) -> list[Row]:
        rows = []
        for k in range(batch):
            other = extra if extra and rng.random() < 0.25 else wrong[rng.integers(len(wrong))]
            some = right if k % 2 else other
            rows.append(row(tokenizer, some[rng.integers(len(some))], rng.random() < 1 / 3))
        return rows

    return draw


def train(lm: CausalLM, draw: Draw, seed: int, steps: int, lr: float, ends: bool) -> list[float]:
    """Teach a judge, in place; the loss of each step. `ends` says that it learns ever less; else
    that it has just begun."""
    rng, losses = np.random.default_rng([seed, ends]), []
    optimiser = torch.optim.AdamW(lm.trained().values(), lr, betas=(0.9, 0.98))
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = lr * ((1.0 - step / steps) if ends else min(1.0, (step + 1) / 50))
        losses.append(_learn(lm, optimiser, draw(rng)))
        if (step + 1) % 50 == 0:
            print(f"  step {step + 1} of {steps}: loss {np.mean(losses[-50:]):.3f}", flush=True)
    lm.version += 1
    return losses


def save(lm: CausalLM, folder: Path) -> str:
    lm.model.save_pretrained(folder)
    lm.tokenizer.save_pretrained(folder)
    return str(folder)


def _learn(lm: CausalLM, optimiser: Any, rows: Sequence[Row]) -> float:
    ids = padded([one[0] for one in rows], lm.pad)
    targets = padded([one[1] for one in rows], IGNORED)
    loss = -lm.logprobs(ids, targets)[0][targets != IGNORED].mean()
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(lm.trained().values(), 1.0)
    optimiser.step()
    return float(loss.detach())


def likely(lm: CausalLM, episodes: Sequence[TextEpisode]) -> np.ndarray:
    """How likely it calls each done, asked plainly: yes against no, `(N,)`."""
    head = lm.tokenizer('{"verdict": "', add_special_tokens=False)["input_ids"]
    yes, no = (
        lm.tokenizer(f'{{"verdict": "{word}"', add_special_tokens=False)["input_ids"][len(head)]
        for word in ("yes", "no")
    )
    out = []
    for episode in episodes:
        ids = np.array([*question_ids(lm.tokenizer, prompt(episode, False).messages), *head])
        with torch.inference_mode():
            state = lm.hidden(torch.from_numpy(ids)[None])[0, -1]
            logits = lm.model.get_output_embeddings()(state)
        out.append(float(torch.sigmoid(logits[yes] - logits[no])))
    return np.array(out)


def texts(cases: Sequence[Case], seed: int) -> list[str]:
    """What is asked of some of the cases, both ways, with the answers."""
    chosen = np.random.default_rng(seed).permutation(len(cases))[:LEARNED]
    both = [(cases[k], hardened) for k in chosen for hardened in (False, True)]
    return [written(prompt(case.episode, how), answer(case, how)) for case, how in both]


def written(asked: Prompt, right: str) -> str:
    return "\n".join([*(text for _, text in asked.messages), right])
