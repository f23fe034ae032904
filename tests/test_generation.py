"""Replies to growing conversations: equal to reading everything anew, token for token."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch

from embodied.causal_lm import CausalLM, padded
from embodied.generation import Generation
from embodied.tiny_lm import tiny_model, tiny_tokenizer

TEXTS = ["take the red key", "go north", "You are in a room. There is a chest.", "open the chest"]


@cache
def model() -> CausalLM:
    tokenizer = tiny_tokenizer(TEXTS * 3, 400)
    net = tiny_model(tokenizer, width=32, layers=2, heads=2, context=256)
    with torch.no_grad():  # so that what is likely depends on what was read
        for p in net.parameters():
            p.mul_(4.0)
    return CausalLM(net, tokenizer)


def alone(lm: CausalLM, context: np.ndarray, reply: np.ndarray) -> np.ndarray:
    """How likely the tokens of a reply are, by one plain pass."""
    ids = torch.from_numpy(np.concatenate([context, reply])[None].astype(np.int64))
    each = torch.log_softmax(lm.model(ids).logits[0].float(), -1)
    rows = torch.arange(len(context) - 1, ids.shape[1] - 1)
    return each[rows, ids[0, len(context) :]].detach().numpy()


def grown(lm: CausalLM, contexts: list[np.ndarray], said: list[np.ndarray]) -> list[np.ndarray]:
    heard = ["open", "the chest is shut, and you see a red key", ""]
    return [
        np.concatenate([c, s, *([] if s[-1] == lm.chat.stop[-1] else [lm.chat.stop]),
                        lm.chat.following(heard[i % 3])])
        for i, (c, s) in enumerate(zip(contexts, said, strict=True))
    ]  # fmt: skip


@pytest.mark.parametrize("greedy", [True, False])
def test_what_was_kept_equals_reading_anew(greedy: bool) -> None:
    lm, noise = model(), torch.Generator().manual_seed(1)
    generation = Generation(lm, max_tokens=6)
    contexts = [lm.chat.first(text) for text in (TEXTS[2], "hi", TEXTS[0])]
    for _ in range(4):
        said = generation.reply(contexts, np.arange(3), noise, greedy)
        for context, ids, logs in zip(contexts, said.ids, said.log_probs, strict=True):
            np.testing.assert_allclose(logs, alone(lm, context, ids), atol=2e-4)
            if greedy:
                first = lm.model(torch.from_numpy(context[None].astype(np.int64))).logits[0, -1]
                assert int(ids[0]) == int(first.argmax())
        contexts = grown(lm, contexts, said.ids)


def test_rows_that_leave_and_rows_that_begin_anew() -> None:
    lm, noise = model(), torch.Generator().manual_seed(2)
    generation = Generation(lm, max_tokens=5)
    contexts = [lm.chat.first(text) for text in (TEXTS[2], "hi", TEXTS[0], "")]
    said = generation.reply(contexts, np.arange(4), noise)
    contexts = grown(lm, contexts, said.ids)
    for rows in ([1, 3], [3], [0, 3]):  # the last brings one back: all is read anew
        chosen = [contexts[k] for k in rows]
        said = generation.reply(chosen, np.array(rows), noise)
        for context, ids, logs in zip(chosen, said.ids, said.log_probs, strict=True):
            np.testing.assert_allclose(logs, alone(lm, context, ids), atol=2e-4)
        for k, more in zip(rows, grown(lm, chosen, said.ids), strict=True):
            contexts[k] = more


def test_weights_that_changed_are_read_with_anew() -> None:
    lm = model().clone()
    generation, noise = Generation(lm, max_tokens=4), torch.Generator().manual_seed(3)
    contexts = [lm.chat.first("hi")]
    contexts = grown(lm, contexts, generation.reply(contexts, np.arange(1), noise).ids)
    with torch.no_grad():
        for p in lm.model.parameters():
            p.mul_(0.9)
    lm.version += 1
    said = generation.reply(contexts, np.arange(1), noise)
    np.testing.assert_allclose(said.log_probs[0], alone(lm, contexts[0], said.ids[0]), atol=2e-4)


def test_replies_are_as_often_as_they_are_likely() -> None:
    lm, noise = model(), torch.Generator().manual_seed(4)
    context, count = lm.chat.first("go north"), 3000
    generation = Generation(lm, max_tokens=1)
    said = generation.reply([context] * count, np.arange(count), noise)
    first = lm.model(torch.from_numpy(context[None].astype(np.int64))).logits[0, -1]
    likely = torch.softmax(first.float(), -1).detach().numpy()
    seen = np.bincount([int(ids[0]) for ids in said.ids], minlength=len(likely)) / count
    assert np.abs(seen - likely).max() < 0.03


def test_a_batch_padded_at_its_end_is_as_likely_as_each_row_alone() -> None:
    lm = model()
    rows = [lm.chat.first(text) for text in TEXTS]
    replies = [lm.chat.reply(text) for text in ("go", "take the key", "", "open the chest")]
    ids = padded([np.concatenate(p) for p in zip(rows, replies, strict=True)], lm.pad)
    targets = padded(
        [np.concatenate([np.full(len(a), -1), b]) for a, b in zip(rows, replies, strict=True)], -1
    )
    got = lm.logprobs(ids, targets)[0]
    for k, (context, reply) in enumerate(zip(rows, replies, strict=True)):
        mine = got[k, len(context) : len(context) + len(reply)].detach().numpy()
        np.testing.assert_allclose(mine, alone(lm, context, reply), atol=2e-4)
    assert float(got[targets == -1].abs().sum().detach()) == 0.0
