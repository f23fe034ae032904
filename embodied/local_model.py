"""A language model in this process: a checkpoint on disk, through `transformers`.

Asked like one behind a server (`embodied.endpoint`), with equal faults. Weights are safetensors,
and no code that came with them is run.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from embodied.endpoint import Prompt, Reply
from embodied.errors import UserError
from embodied.nets import usable_device
from embodied.reply_cache import ReplyCache, key_of


class LocalModel:
    """The causal language model in the folder `path`, as `save_pretrained` writes it.

    Prompts are put as its chat template says (role and text, line by line, where it has none).
    Samples of one question are drawn together, and the same are drawn again for the same question.
    Replies are kept in the folder `cache`. Raises `UserError` for a folder that holds no model.
    """

    def __init__(
        self,
        path: str | Path,
        device: str = "cpu",
        deadline_s: float = 600.0,
        cache: str | None = None,
        threads: int | None = None,
    ) -> None:
        self.path, self.device, self.deadline_s = str(path), usable_device(device), deadline_s
        model, self.tokenizer = read_checkpoint(path)
        self.model = model.to(self.device).eval()
        self.revision = _digest(Path(path))
        self.cache = ReplyCache(cache) if cache else None
        self.counts: Counter[str] = Counter()
        """Questions, those found in the cache, and faults by name."""
        if threads is not None:
            torch.set_num_threads(threads)

    def ask(self, prompts: Sequence[Prompt], deadline_s: float | None = None) -> list[Reply]:
        """The replies to `prompts`, in order; equal ones are asked once."""
        until = time.monotonic() + (self.deadline_s if deadline_s is None else deadline_s)
        replies: dict[str, Reply] = {}
        groups: dict[str, list[tuple[str, Prompt]]] = {}
        for prompt in prompts:
            key = key_of(self._asked(prompt))
            if key in replies:
                continue
            self.counts["questions"] += 1
            if not all(isinstance(said, str) for _, said in prompt.messages):
                replies[key] = Reply(None, "refused")  # it reads text alone
                continue
            known = self.cache.get(key) if self.cache is not None else None
            if known is not None:
                self.counts["cached"] += 1
                replies[key] = Reply(known["text"], origin=known["origin"], cached=True)
                continue
            replies[key] = Reply(None, "deadline")
            alike = json.dumps({**self._asked(prompt), "sample": 0}, sort_keys=True)
            groups.setdefault(alike, []).append((key, prompt))
        for group in groups.values():
            replies |= self._sampled(group, until)
        return [replies[key_of(self._asked(prompt))] for prompt in prompts]

    def close(self) -> None:
        """There is nothing to let go of."""

    def _asked(self, prompt: Prompt) -> dict[str, Any]:
        return {"model": self.path, "revision": self.revision, **vars(prompt)}

    def _sampled(self, group: Sequence[tuple[str, Prompt]], until: float) -> dict[str, Reply]:
        """Replies to one question, drawn together."""
        start, prompt = time.monotonic(), group[0][1]
        ids, size = self._tokens(prompt), self._room()
        if ids.shape[1] + prompt.max_tokens > size:
            self.counts["too_long"] += len(group)
            return {key: Reply(None, "too_long") for key, _ in group}
        warm = prompt.temperature > 0
        seed = int(key_of({**self._asked(prompt), "sample": 0})[:12], 16)
        drawn = len(group) if warm else 1
        with torch.random.fork_rng(), torch.inference_mode():
            torch.manual_seed(seed)
            out = self.model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=prompt.max_tokens,
                do_sample=warm,
                num_return_sequences=drawn,
                pad_token_id=self._pad(),
                max_time=max(0.01, until - time.monotonic()),
                **({"temperature": prompt.temperature} if warm else {}),
            )
        rows = out[:, ids.shape[1] :].tolist() * (1 if warm else len(group))
        took, late = time.monotonic() - start, time.monotonic() >= until
        return {
            key: self._reply(key, one, row, took, late)
            for (key, one), row in zip(group, rows, strict=True)
        }

    def _reply(self, key: str, prompt: Prompt, row: list[int], took: float, late: bool) -> Reply:
        ended = any(token in self._ends() for token in row)
        if not ended:
            fault = "deadline" if late else "cut_off"
            self.counts[fault] += 1
            return Reply(None, fault, attempts=1, seconds=took)
        text = self.tokenizer.decode(row, skip_special_tokens=True)
        if not text.strip():
            self.counts["empty"] += 1
            return Reply(None, "empty", attempts=1, seconds=took)
        if self.cache is not None:
            try:
                self.cache.put(key, self._asked(prompt), {"text": text, "origin": "model"})
            except OSError:
                self.counts["not_kept"] += 1
        return Reply(text, attempts=1, seconds=took)

    def _tokens(self, prompt: Prompt) -> torch.Tensor:
        """The question as ids `(1, L)`."""
        return torch.tensor([question_ids(self.tokenizer, prompt.messages)], device=self.device)

    def _ends(self) -> set[int]:
        """Tokens that end a reply."""
        own = self.model.generation_config.eos_token_id
        ids = own if isinstance(own, list) else [own]
        return {i for i in (*ids, self.tokenizer.eos_token_id) if i is not None}

    def _pad(self) -> int:
        return self.tokenizer.pad_token_id or min(self._ends(), default=0)

    def _room(self) -> int:
        return int(getattr(self.model.config, "max_position_embeddings", 1 << 20))


def question_ids(tokenizer: Any, messages: Sequence[tuple[str, str]]) -> list[int]:
    """Messages, each a role and a text, as tokens up to where the reply begins. What a text holds
    is never read as a special token: it cannot end its own message or begin another's."""

    def ids(text: str, **how: bool) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False, **how)["input_ids"])

    held = [f"\ue000{k}\ue001" for k in range(len(messages))]  # in no template
    whole = _rendered(tokenizer, [role for role, _ in messages], held)
    out: list[int] = []
    for mark, (_, text) in zip(held, messages, strict=True):
        if mark in whole:  # a template may leave a message out
            frame, _, whole = whole.partition(mark)
            out += ids(frame) + ids(text, split_special_tokens=True)
    return out + ids(whole)


def _rendered(tokenizer: Any, roles: Sequence[str], texts: Sequence[str]) -> str:
    if not tokenizer.chat_template:
        lines = (f"{role}: {text}\n" for role, text in zip(roles, texts, strict=True))
        return "".join(lines) + "assistant:"
    said = [{"role": role, "content": text} for role, text in zip(roles, texts, strict=True)]
    return str(tokenizer.apply_chat_template(said, tokenize=False, add_generation_prompt=True))


def read_checkpoint(path: str | Path) -> tuple[Any, Any]:
    """The causal language model and the tokenizer in a folder, as `save_pretrained` writes them.

    Weights are safetensors, and no code that came with them is run. Raises `UserError` for a folder
    that holds no such model.
    """
    if find_spec("transformers") is None:
        raise UserError("a model of your own needs transformers: pip install 'embodied-rl[lm]'")
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    if not (Path(path) / "config.json").is_file():
        raise UserError(f"{path} holds no model: there is no config.json in it")
    if not list(Path(path).glob("*.safetensors")):
        raise UserError(f"{path}: its weights are no safetensors, and nothing else is read")
    try:
        tokenizer = _read_tokenizer(Path(path))
        model = AutoModelForCausalLM.from_pretrained(
            str(path), local_files_only=True, use_safetensors=True
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise UserError(f"{path}: {' '.join(str(error).split())[:200]}") from error
    return model, tokenizer


def _read_tokenizer(path: Path) -> Any:
    """The tokenizer in a folder, as its file says. `AutoTokenizer` goes by the model's family, and
    puts that family's rules of splitting in place of those of a tokenizer of one's own."""
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    file = path / "tokenizer_config.json"
    told = json.loads(file.read_text("utf-8")) if file.is_file() else None
    kind = told.get("tokenizer_class") if isinstance(told, dict) else None
    own = (path / "tokenizer.json").is_file() and kind in _OF_ONES_OWN
    return (PreTrainedTokenizerFast if own else AutoTokenizer).from_pretrained(
        str(path), local_files_only=True
    )


_OF_ONES_OWN = ("PreTrainedTokenizerFast", "TokenizersBackend")
"""What a tokenizer is called that is of no family: the second since transformers 5."""


def _digest(path: Path) -> str:
    """Of all weights: other weights are another model."""
    digest = hashlib.sha256()
    for file in sorted(path.glob("*.safetensors")):
        with file.open("rb") as handle:
            while part := handle.read(1 << 24):
                digest.update(part)
    return digest.hexdigest()[:16]
