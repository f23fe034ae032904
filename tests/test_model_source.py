"""The model that a reward model asks: chosen by its options, and asked each question once."""

from __future__ import annotations

from typing import Any

import pytest

from embodied import model_source as module
from embodied.endpoint import Endpoint, Prompt, Reply
from embodied.errors import UserError
from embodied.local_model import LocalModel
from embodied.model_source import Remembering, model_source, unheard
from embodied.types import ABSTAINED, FAILED
from tests.scripted_models import Scripted
from tests.talks import lm


def prompts(*texts: str, **how: Any) -> list[Prompt]:
    return [Prompt((("user", text),), **how) for text in texts]


def test_what_was_answered_is_not_asked_again_and_a_fault_is() -> None:
    model = Scripted(lambda asked: None if asked == "down" else asked.upper())
    source = Remembering(model)
    assert [r.text for r in source.ask(prompts("a", "b", "a", "down"))] == ["A", "B", "A", None]
    assert [r.text for r in source.ask(prompts("b", "down", "a"))] == ["B", None, "A"]
    assert [prompt.messages[0][1] for prompt in model.asked] == ["a", "b", "down", "down"]
    source.ask(prompts("a", sample=1))
    assert len(model.asked) == 5 and source.ask([]) == []


def test_the_oldest_replies_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REMEMBERED", 2)
    model = Scripted(str.upper)
    source = Remembering(model)
    source.ask(prompts("a", "b", "c"))
    source.ask(prompts("b", "c"))
    assert len(model.asked) == 3
    source.ask(prompts("a"))
    assert len(model.asked) == 4


def test_options_say_who_is_asked(tmp_path: Any) -> None:
    server = model_source("here", url="http://127.0.0.1:1/v1", model="m", price_in=2.0).source
    assert isinstance(server, Endpoint) and server.price == (2.0, 0.0)
    played = model_source("here", model="m", cache=str(tmp_path)).source
    assert isinstance(played, Endpoint) and played.url is None
    lm().model.save_pretrained(tmp_path / "model")
    lm().tokenizer.save_pretrained(tmp_path / "model")
    local = model_source("here", local=str(tmp_path / "model"), deadline_s=3.0).source
    assert isinstance(local, LocalModel) and local.deadline_s == 3.0


def test_nobody_and_two_are_refused() -> None:
    for given in ({}, {"model": "m"}, {"url": "http://127.0.0.1:1/v1", "local": "x"}):
        with pytest.raises(UserError, match="here: say which model to ask, by here.url="):
            model_source("here", **given)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="here.model: say which"):
        model_source("here", url="http://127.0.0.1:1/v1")


def test_a_model_that_says_nothing_abstains_and_one_that_is_not_there_fails() -> None:
    assert unheard(Reply("?")) == unheard(Reply(None, "cut_off")) == ABSTAINED
    for fault in ("unreachable", "http_500", "deadline", "budget", "not_recorded", "resting"):
        assert unheard(Reply(None, fault)) == FAILED
