"""Supervised fine-tuning: what was said in demonstrations is what a policy learns to say."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from embodied.babble import names, renamed, things
from embodied.causal_lm import IGNORED, CausalLM, padded
from embodied.conversations import Conversation, all_texts, read_conversations
from embodied.errors import UserError, check_range
from embodied.nets import torch_threads
from embodied.tiny_lm import tiny_model, tiny_tokenizer

from .language import LanguageAgent
from .language_state import begin_model

ROWS = 50
"""Of figures, over a fit."""
Row = tuple[np.ndarray, np.ndarray]
"""Tokens, and those among them that are to be said."""


class SFT(LanguageAgent):
    """Learns from conversations alone: `fit`. Other learners begin with it (`agent.start=RUN`).

    Without a `model` or a `start` it makes a small one (`embodied.tiny_lm`), whose words are those
    of the conversations. It learns for `steps` batches of `batch` conversations; what the world
    says in them counts for `reading` as much as what is to be said. Before that it reads `read`,
    a file of talks in which nothing is meant (`embodied.babble`), for `read_steps` batches, all of
    what is said in them alike: so a small model learns the world's language. The share `rename` of
    the conversations that it learns from have other names for what is named in them: what the world
    told with an article, or without `articles` whatever a command repeats of what it told.

    The rate falls to zero over the last share `cooldown` of both; without it a model stays less
    sure of what it says.
    """

    learns_from = "conversations"

    def __init__(
        self,
        steps: int = 1000,
        batch: int = 8,
        width: int = 64,
        layers: int = 2,
        heads: int = 4,
        vocabulary: int = 2000,
        reading: float = 0.0,
        read: str | None = None,
        read_steps: int = 1000,
        rename: float = 0.0,
        articles: bool = True,
        cooldown: float = 0.1,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        check_range("agent", 1, steps=steps, batch=batch)
        check_range("agent", 0, reading=reading)
        self.steps, self.batch = steps, batch
        self.size = {"width": width, "layers": layers, "heads": heads}
        check_range("agent", 1, read_steps=read_steps)
        self.vocabulary, self.reading = vocabulary, reading
        check_range("agent", 0, 1, rename=rename)
        self.read, self.read_steps = read, read_steps
        self.rename, self.articles = rename, articles
        check_range("agent", 0, 1, cooldown=cooldown)
        self.cooldown = cooldown

    @property
    def gamma(self) -> float:
        raise UserError(
            "agent=sft learns from demonstrations: embodied imitate agent=sft dataset=F"
        )

    @gamma.setter
    def gamma(self, value: float) -> None:
        pass

    def fit(
        self,
        told: Sequence[Conversation],
        progress: None = None,
        report: Callable[[Mapping[str, float]], None] = lambda figures: None,
    ) -> dict[str, float]:
        """Learn what was said. Returns the loss of a reply's token before and after."""
        read = read_conversations(self.read) if self.read is not None else []
        if self._policy is None:
            self._begin(self._made(all_texts([*told, *read])))
        lm = self.policy.lm
        if read:
            heard = [(ids, ids) for ids, _ in (self._row(lm, one) for one in read)]
            self._run(lm, heard.__getitem__, len(heard), self.read_steps, 0, report)
        done = self.read_steps if read else 0
        row = self._renamer(lm, told, self._names(told, read))
        losses = self._run(lm, row, len(told), self.steps, done, report)
        lm.version += 1
        last = losses[-max(1, len(losses) // ROWS) :]
        return {"loss_before": losses[0], "loss_after": float(np.mean(last))}

    def _names(self, told: Sequence[Conversation], read: Sequence[Conversation]) -> list[str]:
        said = [name for one in told for name in names(one, self.articles)]
        return list(dict.fromkeys([*said, *(things(read) if self.articles else ())]))

    def _renamer(
        self, lm: CausalLM, told: Sequence[Conversation], known: Sequence[str]
    ) -> Callable[[int], Row]:
        """The rows of conversations by number, some with other names in them each time."""
        rng = np.random.default_rng(self._speech[4])

        def row(number: int) -> Row:
            one = told[number]
            if rng.random() < self.rename:
                one = renamed(one, known, rng, self.articles)
            return self._row(lm, one)

        return row

    def _run(
        self, lm: CausalLM, row: Callable[[int], Row], count: int, steps: int, before: int,
        report: Callable[[Mapping[str, float]], None],
    ) -> list[float]:  # fmt: skip
        """Learn from batches of rows; the loss of each."""
        losses: list[float] = []
        every = max(1, steps // ROWS)
        with torch_threads(self.threads):
            for step in range(steps):
                chosen = torch.randint(count, (self.batch,), generator=self.shuffle).tolist()
                left = (1.0 / self.cooldown) * (1.0 - step / steps) if self.cooldown else 1.0
                for group in self.optimiser.param_groups:
                    group["lr"] = self.lr * min(1.0, left)
                losses.append(self._step(lm, [row(k) for k in chosen]))
                if (step + 1) % every == 0:
                    recent = float(np.mean(losses[-every:]))
                    report({"steps": before + step + 1.0, "agent/loss": recent})
        return losses

    def _step(self, lm: CausalLM, rows: Sequence[Row]) -> float:
        ids = padded([row[0] for row in rows], lm.pad, lm.device)
        targets = padded([row[1] for row in rows], IGNORED, lm.device)
        said, real = targets != IGNORED, padded([np.ones(len(row[0])) for row in rows], 0)
        each = lm.logprobs(ids, torch.where(real > 0, ids, IGNORED) if self.reading else targets)[0]
        loss = total = -each[said].sum() / said.sum()
        if self.reading:
            heard = (real > 0) & ~said
            total = loss - self.reading * each[heard].sum() / heard.sum()
        self.optimiser.zero_grad(set_to_none=True)
        total.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, self.max_grad_norm)
        self.optimiser.step()
        return float(loss.detach())

    def _row(self, lm: CausalLM, one: Conversation) -> Row:
        """A conversation as the policy has it, as far as the model can read: its tokens, and those
        that are to be said."""
        chat = lm.chat
        ids = [chat.first(one.seen[0])]
        mine = [np.zeros(len(ids[0]), bool)]
        for k, said in enumerate(one.said):
            parts = [chat.reply(said)]
            if k + 1 < len(one.said):
                parts.append(chat.following(one.seen[k + 1]))
            ids += parts
            mine += [np.full(len(part), j == 0) for j, part in enumerate(parts)]
        whole = np.concatenate(ids)[: lm.context]
        targets = np.where(np.concatenate(mine)[: lm.context], whole, IGNORED)
        if (targets == IGNORED).all():
            raise UserError(
                f"task {one.task} begins with {len(ids[0])} tokens, more than the model's "
                f"{lm.context}: give more agent.context"
            )
        return whole, targets

    def _made(self, texts: Sequence[str]) -> CausalLM:
        model, lora, start = self._origin
        if model is not None or start is not None:
            return begin_model(model, lora, start, self.device, self.system)
        tokenizer = tiny_tokenizer(texts, self.vocabulary)
        net = tiny_model(tokenizer, **self.size, context=self._speech[2], seed=self._speech[4])
        return CausalLM(net, tokenizer, self.device, self.system)

    def update(self, traj: Any) -> dict[str, float]:
        raise UserError(
            "agent=sft learns from demonstrations: embodied imitate agent=sft dataset=F"
        )
