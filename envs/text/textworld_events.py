"""What happened in a game of TextWorld, found without listing all that could have.

After every change the library lists whatever can be done in the new state, to know the next action
by what the game then says of it ("taking the key"). Here only the rules that can be told so are
tried, and when something is told: the same action is found, for less.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any


def watch(env: Any) -> None:
    """Let a game that has been reset look for no more than it needs, until its next reset.

    It then lists no valid actions. Where its library is built otherwise than that of 1.7, it goes
    on as it did.
    """
    from textworld.envs.wrappers.tw_inform7 import StateTracking

    tracking = getattr(env, "_wrapped_env", None)
    if isinstance(tracking, StateTracking) and not tracking._game_progression.tracking_quests:
        events = Events(tracking._game_progression)
        tracking._game_progression = events
        tracking._inform7.detect_action = events.detect


class Events:
    """In the place of the library's `GameProgression`, where no quests are tracked."""

    tracking_quests = False
    valid_actions = ()
    winning_policy = None

    def __init__(self, progression: Any) -> None:
        self.game, self.state = progression.game, progression.state

    def detect(self, event: str, _: Any) -> Any:
        """The action that is told so, None where there is none: of several the first of those with
        the most preconditions, as in the library's `detect_action`."""
        kb, names = self.game.kb, self.game.infos
        told = event.lower()
        found, most = None, -1
        for rule in kb.rules.values():
            template = kb.inform7_events[rule.name]
            if not _pattern(template).fullmatch(told) or len(rule.preconditions) <= most:
                continue
            for action in self.state.all_instantiations(rule, kb.types.constants_mapping):
                match = rule.match(action)
                said = {place.name: names[var.name].name for place, var in match.items()}
                if template.format(**said).lower() == told:
                    found, most = action, len(rule.preconditions)
                    break
        return found

    def update(self, action: Any) -> None:
        self.state.apply(action)


@lru_cache(maxsize=1000)
def _pattern(template: str) -> re.Pattern[str]:
    """What an event can look like: "taking the {o}", whatever "{o}" is called."""
    return re.compile("(.*)".join(map(re.escape, re.split(r"\{\w+\}", template.lower()))))
