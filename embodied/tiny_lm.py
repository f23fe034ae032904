"""A small language model from scratch: a real architecture (Qwen2) with its chat template.

It knows nothing yet. Its words are those of the texts it is made for.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from embodied.errors import UserError, check_range

CHATML = (
    "{% for message in messages %}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""Qwen2's rule of what tokens are parts of: words, single digits, and what stands between."""
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


def tiny_tokenizer(texts: Iterable[str], vocabulary: int = 2000) -> Any:
    """A byte-level BPE tokenizer of `texts`, as Qwen2's: any text can be written in it.

    Digits are tokens of their own, so that numbers are copied by one rule, seen before or not.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    check_range("agent", 300, vocabulary=vocabulary)
    bpe = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(SPLIT), "isolated")
    in_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bpe.pre_tokenizer = pre_tokenizers.Sequence([split, in_bytes])
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=list(SPECIAL), show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    roles = ["user\n", "assistant\n", "system\n"]
    bpe.train_from_iterator([*texts, *roles], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, eos_token="<|im_end|>", pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>"], chat_template=CHATML,
    )  # fmt: skip


def tiny_model(
    tokenizer: Any, width: int = 64, layers: int = 2, heads: int = 4, context: int = 1024,
    seed: int = 0,
) -> Any:  # fmt: skip
    """A Qwen2 of `width` and `layers` with random weights, which reads up to `context` tokens."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    check_range("agent", 1, width=width, layers=layers, heads=heads)
    if width % (2 * heads):
        raise UserError(f"agent.width={width}: give a multiple of twice its heads ({2 * heads})")
    config = Qwen2Config(
        vocab_size=len(tokenizer), hidden_size=width, intermediate_size=3 * width,
        num_hidden_layers=layers, num_attention_heads=heads, num_key_value_heads=heads,
        max_position_embeddings=context, tie_word_embeddings=True, use_cache=True,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Qwen2ForCausalLM(config)


def to_state(model: Any, tokenizer: Any) -> dict[str, Any]:
    """What a model of ours is made of, beside its weights: JSON."""
    return {
        "config": model.config.to_diff_dict(),
        "tokenizer": tokenizer.backend_tokenizer.to_str(),
    }


def from_state(state: dict[str, Any]) -> tuple[Any, Any]:
    """The model, with weights of its own yet, and the tokenizer that `to_state` told of."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(state["tokenizer"]), eos_token="<|im_end|>",
        pad_token="<|endoftext|>", additional_special_tokens=["<|im_start|>"], chat_template=CHATML,
    )  # fmt: skip
    return Qwen2ForCausalLM(Qwen2Config.from_dict(dict(state["config"]))), tokenizer
