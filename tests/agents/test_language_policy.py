"""A policy that speaks: what it hears, remembers and forgets, and the action in its reply."""

from __future__ import annotations

import pytest
from embodied.agents.language_policy import LanguagePolicy, spoken

from embodied.text_space import texts
from tests.talks import lm


@pytest.mark.parametrize(
    ("reply", "action"),
    [
        ("go north", "go north"),
        ("\n  open door \n then go", "open door"),
        ("I should leave.\n<action>go north</action>", "go north"),
        ("<action>go", "go"),
        ("  \n", ""),
    ],
)
def test_the_action_in_a_reply(reply: str, action: str) -> None:
    assert spoken(reply) == action


def test_a_policy_hears_and_remembers_all_of_an_episode() -> None:
    policy = LanguagePolicy(lm(), 8, 1.0, 256, None, 0)
    carry = policy.carry(2)
    carry, said = policy.act(carry, {"text": texts(["one", "two"])})
    carry, _ = policy.act(carry, {"text": texts(["three", "four"])})
    held = lm().tokenizer.decode(carry["ids"][0][: carry["length"][0]].tolist())
    assert held.index("one") < held.index("three") and "two" not in held
    assert held.count("<|im_start|>assistant") == held.count("<|im_end|>\n<|im_start|>user") + 1
    context = policy.extras["context"][1]
    assert context[-3:].tolist() == lm().chat.first("")[-3:].tolist()
    assert len(said) == 2


@pytest.mark.parametrize("memory", [None, 1])
def test_what_does_not_fit_is_forgotten_but_for_the_first_text(memory: int | None) -> None:
    policy = LanguagePolicy(lm(), 4, 1.0, 96, memory, 0)
    carry = policy.carry(1)
    for word in ("start", "first", "second", "third", "fourth", "fifth", "sixth"):
        carry, _ = policy.act(carry, {"text": texts([f"the {word} door"])})
        assert len(policy.extras["context"][0]) <= 92
    held = lm().tokenizer.decode(policy.extras["context"][0].tolist())
    assert "start" in held and "sixth" in held and "first" not in held
    assert ("fifth" in held) and ("fourth" in held) == (memory is None)


def test_a_long_text_keeps_its_frame() -> None:
    policy = LanguagePolicy(lm(), 4, 1.0, 96, None, 0)
    policy.act(policy.carry(1), {"text": texts(["a door " * 300])})
    context = policy.extras["context"][0]
    assert len(context) <= 92
    assert context[:2].tolist() == lm().chat.first("")[:2].tolist()
    assert context[-3:].tolist() == lm().chat.first("")[-3:].tolist()


def test_two_long_texts_fit() -> None:
    policy = LanguagePolicy(lm(), 24, 1.0, 128, None, 0)
    carry = policy.carry(1)
    for _ in range(4):
        carry, _ = policy.act(carry, {"text": texts(["a door " * 300])})
        assert len(policy.extras["context"][0]) <= 128 - 24
