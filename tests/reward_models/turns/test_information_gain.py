"""Information gain: beliefs by hand, where the answer is put, and a policy that reads it."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from embodied.reward_models.turns.information_gain import InformationGain, plain
from torch import Tensor

from embodied.causal_lm import IGNORED, CausalLM, padded
from embodied.errors import UserError
from embodied.types import SCORED, Trajectory
from tests.reward_models.turns.mixed import mixed
from tests.talks import READ, lm
from tests.text_toys import WORDS

TOLD = (*READ, "world.word")


def made(model: CausalLM | None = None, **settings: Any) -> InformationGain:
    return InformationGain(lambda: model or lm(), **{"answer": "world.word"} | settings)


def talked(seed: int = 0) -> Trajectory:
    """Four worlds; in the second the first door's word, in the fourth no other is ever told."""
    return mixed(seed, 4, TOLD)


class Known(CausalLM):
    """Finds the tokens of a row that are asked about as likely as its length says: -length / 100.

    It remembers all it was asked.
    """

    def __init__(self) -> None:
        super().__init__(lm().model, lm().tokenizer)
        self.asked: list[tuple[str, str]] = []

    def logprobs(self, ids: Tensor, targets: Tensor, temperature: float = 1.0) -> tuple:
        said = targets != IGNORED
        for row, mine in zip(ids, said, strict=True):
            last = int(mine.nonzero().max()) + 1
            parts = row[:last][~mine[:last]], row[:last][mine[:last]]
            self.asked.append(tuple(self.tokenizer.decode(part.tolist()) for part in parts))
        length = said.float().cumsum(1).cumsum(1).gt(0).float().argmax(1) + said.sum(1)
        return said * (-length[:, None] / 100.0), torch.zeros(ids.shape)


def test_the_belief_is_the_geometric_mean_of_the_answers_tokens() -> None:
    model, each = made(), torch.tensor([0.5, 0.25, 0.125, 0.9, 0.9])
    chat = lm().chat
    tokens = chat.encode(" elm oak")
    assert len(tokens) > 1

    class Told(CausalLM):
        def logprobs(self, ids: Tensor, targets: Tensor, temperature: float = 1.0) -> tuple:
            out = torch.zeros(ids.shape)
            for row, wanted in zip(out, targets, strict=True):
                row[wanted != IGNORED] = each[: int((wanted != IGNORED).sum())].log()
            return out, out

    belief = model.beliefs(Told(lm().model, lm().tokenizer), [(chat.first("Hello."), "elm oak")])
    expected = math.prod(each[: len(tokens)].tolist()) ** (1 / len(tokens))
    assert belief[0] == pytest.approx(expected)


def test_the_belief_is_the_models_own() -> None:
    chat, history = lm().chat, lm().chat.first("Open 2 doors. The door says oak.")
    before = np.concatenate([history, chat.encode("The answer is")])
    ids = np.concatenate([before, chat.encode(" oak")])
    with torch.no_grad():
        hidden = lm().hidden(padded([ids], 0))
        each = torch.log_softmax(lm().model.get_output_embeddings()(hidden), -1)[0]
    places = np.arange(len(before), len(ids))
    expected = np.exp(np.mean([each[i - 1, ids[i]].item() for i in places]))
    pair = [(history, "oak"), (chat.first("Hello."), "elm")]
    assert made().beliefs(lm(), pair)[0] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("last", [False, True])
def test_a_turn_is_paid_the_rise_of_the_belief_by_hand(last: bool) -> None:
    traj, known = talked(), Known()
    score = made(known, last=last).score({}, traj)[1]
    assert (score.status == SCORED).all()
    chat = known.chat
    for n in range(4):
        turns = np.flatnonzero(traj.valid[:, n])
        answer = chat.encode(f" {plain(traj.readouts['world.word'][0, n])}")
        more = len(chat.encode("The answer is")) + len(answer)
        seen = [len(traj.extras["context"][t, n]) for t in turns]
        final = traj.next_obs["text"][turns[-1], n]
        said = len(traj.extras["reply"][turns[-1], n])
        seen.append(seen[-1] + said + len(chat.following(final)))
        belief = np.exp(-(np.array(seen) + more) / 100.0)
        gain = np.diff(belief)
        if not last:
            gain[-1] = 0.0
        expected = np.zeros(traj.shape[0])
        expected[turns] = gain
        np.testing.assert_allclose(score.value[:, n], expected, atol=1e-6)
        after = np.full(traj.shape[0], np.nan)
        after[turns if last else turns[:-1]] = belief[1:] if last else belief[1:-1]
        np.testing.assert_allclose(score.terms["belief"][:, n], after, atol=1e-6)


def test_the_answer_follows_what_was_seen_and_the_lead() -> None:
    traj, known = talked(), Known()
    made(known).score({}, traj)
    word = plain(traj.readouts["world.word"][0, 0])
    first, second = known.asked[:2]
    assert first[0].endswith(
        f"{traj.obs['text'][0, 0]}<|im_end|>\n<|im_start|>assistant\nThe answer is"
    )
    assert second[0].startswith(first[0].removesuffix("The answer is"))
    assert f"{traj.action[0, 0]}<|im_end|>" in second[0] and traj.obs["text"][1, 0] in second[0]
    assert {first[1], second[1]} == {f" {word}"}
    known.asked.clear()
    made(known, lead="").score({}, traj)
    assert known.asked[0][0].endswith("assistant\n") and known.asked[0][1] == word


def test_a_history_without_room_for_the_answer_keeps_its_end() -> None:
    known = Known()
    history = lm().chat.first("out " * 700)
    assert len(history) > known.context
    made(known).beliefs(known, [(history, "oak")])
    assert known.asked[0][0].endswith("assistant\nThe answer is")


def test_without_an_answer_nothing_is_paid() -> None:
    traj = talked()
    traj.readouts["world.word"] = traj.readouts["world.word"].copy()
    traj.readouts["world.word"][0] = '""'
    assert not made().score({}, traj)[1].value.any()
    traj.valid = np.zeros_like(traj.valid)
    assert not made().score({}, traj)[1].value.any()


def test_what_is_told_as_json_is_said_as_text() -> None:
    assert plain('"oak"') == "oak" and plain("take the key ") == "take the key"
    assert plain('["go north", "take key"]') == "go north, take key"
    assert plain('""') == plain("") == plain("[]") == "" and plain("7") == "7"


def test_what_it_needs_is_privileged() -> None:
    for answer, name in (("gold", "world.gold"), ("world.answer", "world.answer")):
        needs = made(answer=answer).needs
        assert needs.readouts == needs.privileged == {name}
    with pytest.raises(UserError, match="information_gain.answer='success'"):
        made(answer="success")


@cache
def reader() -> CausalLM:
    """A model that has learned to answer with the word that a door told last."""
    model, rng = lm().clone(), np.random.default_rng(0)
    optimiser = torch.optim.Adam(model.trained().values(), 3e-3)
    chat = model.chat
    for _ in range(150):
        rows, targets = [], []
        for word, other in rng.choice(WORDS, (16, 2)).tolist():
            seen = [chat.first(f"Open 2 doors. The door says {other}.")]
            if rng.random() < 0.5:
                said = f"It opens. The door says {word}."
                seen += [chat.reply(f"say {other}"), chat.following(said)]
            else:
                word = other
            answer = chat.encode(f" {word}")
            ids = np.concatenate([*seen, chat.encode("The answer is"), answer])
            rows.append(ids)
            told = np.arange(len(ids)) >= len(ids) - len(answer)
            targets.append(np.where(told, ids, IGNORED))
        wanted = padded(targets, IGNORED)
        loss = -model.logprobs(padded(rows, 0), wanted)[0].sum() / (wanted != IGNORED).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return model


def test_a_turn_that_tells_the_answer_is_paid_for_it() -> None:
    """Opening the first door tells the word of the second, which is the answer here."""
    gains = []
    for seed in range(8):
        traj = talked(seed)
        value = made(reader()).score({}, traj)[1].value
        words = traj.obs["text"][:2, 0]
        if words[0].split()[-1] != words[1].split()[-1]:
            gains.append(value[0, 0])
            assert value[0, 0] == pytest.approx(value[0, 1], abs=1e-6)
        assert not value[1:, 0].any()  # the last turn, and rest
    assert len(gains) > 3 and np.min(gains) > 0.2
