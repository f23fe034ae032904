"""Tasks that cover most of what there is: choices by hand, and what `collect` makes of them."""

from __future__ import annotations

from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from embodied.build import make_env
from embodied.config import compose_config
from embodied.conversations import read_conversations
from embodied.coverage import covering, openings
from embodied.demonstrate import collect
from embodied.errors import UserError
from tests.talks import doors
from tests.text_toys import WORDS


def test_what_is_rare_is_chosen_first() -> None:
    texts = ["go take"] * 5 + ["go put", "go take eat"]
    # 3 of "go take eat"; then take and go count 1/2 each, and put 1
    assert covering(texts, 3) == [6, 5, 0]
    # with all of go, take, eat, put shown: go 1/4 + take 1/3
    assert covering(texts, 99) == [6, 5, 0, 1, 2, 3, 4]


def test_a_name_of_few_tasks_counts_for_nothing() -> None:
    texts = [f"take it thing{'abcdefghij'[k % 10]}{'klmnopqrst'[k // 10]}" for k in range(99)]
    assert covering([*texts, "take it in it", *["go in"] * 9], 2) == [99, 100]


def test_it_is_close_to_the_best_choice() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        texts = [" ".join(rng.choice(WORDS, 3)) for _ in range(9)]

        def worth(chosen: tuple[int, ...], texts: list[str] = texts) -> float:
            count = Counter(word for place in chosen for word in set(texts[place].split()))
            return sum(sum(1.0 / k for k in range(1, n + 1)) for n in count.values())

        best = max(worth(chosen) for chosen in combinations(range(9), 4))
        assert worth(tuple(covering(texts, 4))) >= (1.0 - 1.0 / np.e) * best


def test_the_first_texts_are_those_of_the_seeds() -> None:
    env = doors(4, 1)
    told = openings(env, [7, 3, 7, 5, 2, 9])
    assert told[0] == told[2] and len(told) == 6
    assert told[1] == env.reset(seed=np.array([3, 0, 0, 0]))["text"][0]


def test_they_are_collected_from_the_command_line(tmp_path: Path) -> None:
    out, given = tmp_path / "demos.jsonl", ["env=library", "episodes=3"]
    collect([*given, "among=40", f"out={out}", "seed=5"])
    told = read_conversations(out)
    env = make_env(compose_config(["env=library", "num_envs=4"]))
    texts = openings(env, range(5, 45))
    env.close()
    assert [one.seen[0] for one in told] == [texts[place] for place in covering(texts, 3)]


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (["env=library", "episodes=3", "among=2"], "among=2: give more tasks than the 3"),
        (["env=line_reach", "episodes=1", "among=9"], "line_reach has none"),
    ],
)
def test_what_cannot_be_chosen_is_told(tmp_path: Path, given: list[str], line: str) -> None:
    with pytest.raises(UserError, match=line):
        collect([*given, f"out={tmp_path}/none"])
    assert not (tmp_path / "none").exists()
