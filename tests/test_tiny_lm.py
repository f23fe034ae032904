"""The small model from scratch: its tokens are Qwen2's kind, and it is whole after its files."""

from __future__ import annotations

import pytest
import torch
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

from embodied.errors import UserError
from embodied.tiny_lm import SPLIT, from_state, tiny_model, tiny_tokenizer, to_state

TEXTS = ["take key27 from box33", "open box33", "don't go to Room33, I'll wait.\n\nü"] * 20


def test_it_splits_texts_as_qwen2_does() -> None:
    assert SPLIT == PRETOKENIZE_REGEX


def test_digits_are_tokens_of_their_own_and_words_are_learned() -> None:
    tokenizer = tiny_tokenizer(TEXTS, 400)
    parts = [tokenizer.decode([k]) for k in tokenizer("take box33 from box90")["input_ids"]]
    assert parts == ["take", " box", "3", "3", " from", " box", "9", "0"]
    assert not [word for word in tokenizer.get_vocab() if sum(map(str.isdigit, word)) > 1]


@pytest.mark.parametrize("text", [*TEXTS[:3], "", "  two\tspaces \r\n", "雪 😀 \x00 ٣٤"])
def test_any_text_can_be_written_and_comes_back(text: str) -> None:
    tokenizer = tiny_tokenizer(TEXTS, 400)
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_it_comes_back_from_what_is_written_of_it() -> None:
    tokenizer = tiny_tokenizer(TEXTS, 400)
    model = tiny_model(tokenizer, 32, 1, 2)
    again, splits = from_state(to_state(model, tokenizer))
    again.load_state_dict(model.state_dict())
    ids = tokenizer(TEXTS[2])["input_ids"]
    assert splits(TEXTS[2])["input_ids"] == ids
    with torch.no_grad():
        one, other = (m.eval()(torch.tensor([ids])).logits for m in (model, again))
    torch.testing.assert_close(one, other, rtol=0.0, atol=0.0)


def test_bad_sizes_are_refused() -> None:
    with pytest.raises(UserError, match="vocabulary"):
        tiny_tokenizer(TEXTS, 20)
    with pytest.raises(UserError, match="agent.width=30"):
        tiny_model(tiny_tokenizer(TEXTS, 400), 30)
