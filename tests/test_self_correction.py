"""Failed calls that are taken out: which, what takes their place, and how likely that was."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from embodied.errors import UserError
from embodied.self_correction import SelfCorrection, rewritten, runs
from embodied.transcripts import transcripts
from tests.talks import doors, lm, talk


@pytest.mark.parametrize(
    ("turns", "tries", "expected"),
    [
        ("ok ok ok", 3, []),
        ("no ok no no ok", 3, [(0, 1), (2, 4)]),
        ("no no no no ok", 3, []),  # the fourth try is one too many
        ("no no no ok", 3, [(0, 3)]),
        ("ok no no", 3, []),  # none put it right
        ("no -- --", 3, []),  # the episode is over
    ],
)
def test_which_failures_were_put_right(turns: str, tries: int, expected: list) -> None:
    words = np.array(turns.split())
    assert runs(words == "no", words != "--", tries) == expected


@given(st.lists(st.booleans(), max_size=12), st.integers(1, 4))
def test_every_run_is_failures_and_one_success(failed: list[bool], tries: int) -> None:
    for first, right in runs(np.array(failed, bool), np.ones(len(failed), bool), tries):
        assert all(failed[first:right]) and not failed[right] and right - first <= tries


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("go nort", "go north", "go north"),
        ("Let me see. <action>go nort</action>", "Oh. <action>go north</action>",
         "Let me see. <action>go north</action>"),
        ("<action>x</action>", "go north", "go north"),
    ],
)  # fmt: skip
def test_only_the_action_is_replaced(before: str, after: str, expected: str) -> None:
    assert rewritten(before, after) == expected


def corrected(plans: list[list[str]], **settings: float):  # type: ignore[no-untyped-def]
    traj = talk(plans, group=1, env=doors(len(plans), 1, max_steps=4))
    traj.due = traj.valid.copy()
    return traj, SelfCorrection(lm, **settings)(traj)


def test_an_episode_reads_as_if_the_right_thing_had_been_said_at_once() -> None:
    traj, got = corrected([["dance", "say oak", "say elm"], ["say oak"]])
    assert got.valid.T.tolist() == [[False, True, True, True], [True] * 4]
    assert got.due.T.tolist() == got.valid.T.tolist()
    data = transcripts(got)
    assert data.world.tolist() == [0, 1]
    said = lm().tokenizer.decode(data.ids[0][data.turn[0] >= 0].tolist())
    assert said == "say oak<|im_end|>say elm<|im_end|>say elm<|im_end|>"
    whole = lm().tokenizer.decode(data.ids[0].tolist())
    assert "dance" not in whole and "What?" not in whole
    assert whole.startswith(lm().tokenizer.decode(traj.extras["context"][0, 0].tolist()))


def test_its_likelihood_is_that_of_what_is_learned_from() -> None:
    traj, got = corrected([["dance", "say oak", "say elm"], ["say oak"]])
    data = transcripts(got)
    with torch.no_grad():
        again = lm().logprobs(data.ids, data.targets)[0]
    np.testing.assert_allclose(data.log_prob, again, atol=1e-4)
    for name in ("context", "reply", "log_prob"):  # what was really said stays
        for t, n in np.ndindex(traj.shape):
            kept = got.extras[f"original_{name}"][t, n]
            np.testing.assert_array_equal(kept, traj.extras[name][t, n])
    assert len(got.extras["context"][1, 0]) < len(traj.extras["context"][1, 0])


def test_what_no_try_put_right_is_left_as_it_is() -> None:
    traj, got = corrected([["dance"], ["say oak"]])
    np.testing.assert_array_equal(got.valid, traj.valid)
    assert lm().chat.text(got.extras["reply"][0, 0]) == "dance"


def test_thoughts_stay_where_the_replies_are_alike_and_go_where_they_are_not() -> None:
    plans = [["I try. <action>sy oak</action>", "So. <action>say oak</action>"]]
    for alike, thought in ((0.5, "I try. "), (0.99, "So. ")):
        traj = talk(plans, group=1, env=doors(1, 1, max_steps=2))
        got = SelfCorrection(lm, alike=alike)(traj)
        assert lm().chat.text(got.extras["reply"][1, 0]).startswith(thought)


def test_a_collector_rewrites_before_it_rewards() -> None:
    env = doors(1, 1, max_steps=4)
    env.reset()
    word = env.gold()[0][0]
    plans = [["dance", word, "say nothing"]]
    got = talk(
        plans, env=doors(1, 1, max_steps=4), readouts=["success"], transform=SelfCorrection(lm)
    )
    assert got.valid[:, 0].tolist() == [False, True, True, True]
    assert "original_reply" in got.extras and "world.valid" in got.readouts


@pytest.mark.parametrize(
    ("settings", "says"), [({"tries": 0}, "tries=0"), ({"alike": 2.0}, "alike")]
)
def test_bad_settings_are_told(settings: dict, says: str) -> None:
    with pytest.raises(UserError, match=says):
        SelfCorrection(lm, **settings)
