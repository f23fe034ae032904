"""BabyAI (Chevalier-Boisvert et al. 2019, arXiv 1810.08272): rooms to be walked, told in words.

The simulator is Minigrid's. What the agent sees, which BabyAI gives as an array of cells, is said
here in sentences, as is what came of every action.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np

from embodied.errors import UserError, unknown
from embodied.text_world import Turn

TRIES = 30
"""Seeds that are tried for one task until BabyAI's bot solves it."""
SEARCHES = 100
"""For ways, by the bot before one action: it needs some ten, or never comes to an end."""
LOOKED_AT = 8
"""Episodes of a level whose time limits say how long one may take."""
CAN = "You can turn left, turn right, go forward, pick up, drop and toggle (open or close)."
VERBS = {
    "left": ("turn left", "left"),
    "right": ("turn right", "right"),
    "forward": ("go forward", "forward", "move forward", "walk forward", "step forward"),
    "pickup": ("pick up", "pickup", "pick it up", "take", "grab"),
    "drop": ("drop", "drop it", "put down", "put it down"),
    "toggle": ("toggle",),
    "open": ("open", "open it", "unlock", "open door", "open the door"),
    "close": ("close", "close it", "close door", "close the door"),
}
MEANT = {said: name for name, sayings in VERBS.items() for said in sayings}


class BabyAI:
    """A level by its name, such as BabyAI-PickupLoc-v0. Success pays 1, however late it comes.

    Subgoals are the parts of what is asked for: to go to a thing is to see it and to stand before
    it; to open or pick one up is to see it, to stand before it and to have done it; to put one next
    to another is to see it, to hold it, to see the other and to have done it. Of a sequence, what
    is not to be done yet is not counted yet.

    A task that BabyAI's own bot does not solve is not posed. The gold actions are the bot's: it
    sees what the agent sees, so that it looks around where it has to. Raises `UserError` for a
    level that there isn't, or that the bot does not solve.
    """

    tells = ()

    def __init__(self, level: str = "BabyAI-PickupLoc-v0") -> None:
        self.level = level
        self._env = make(level)
        self.max_turns = time_limit(level)
        pose(level, 0)  # it fails at once where no task is solved
        self._plan: tuple[str, ...] = ()
        self._seen: set[int] = set()
        self._reached: list[list[bool]] = []

    def reset(self, seed: int) -> Turn:
        number, self._plan = pose(self.level, seed)
        start(self._env, number)
        return self.begin()

    def begin(self) -> Turn:
        """The first turn of an episode whose room is as it is to be."""
        self._seen = set()
        parts = (part for part, *_ in instructions(self._env.instrs, False))
        self._reached = [[False, *(False for _ in facts(p, self._env, set()))] for p in parts]
        return self._turn(f"Your task: {self._env.mission}. {CAN}")

    def step(self, action: str) -> Turn:
        name = MEANT.get(" ".join(action.lower().split()).rstrip(".!"), "")
        if not name:
            return self._turn(f"That means nothing here. {CAN}", valid=False)
        env = self._env
        front, carried = env.grid.get(*env.front_pos), env.carrying
        is_open = front is not None and front.type == "door" and front.is_open
        if is_open if name == "open" else name == "close" and not is_open:
            return self._turn(undone(name, front, carried), valid=False)
        reward, over, changed = act(env, "toggle" if name in ("open", "close") else name)
        said = done(name, front, carried, env) if changed else undone(name, front, carried)
        won = over and reward > 0
        if over:
            said += " You have done your task." if won else " You have failed your task."
        return self._turn(said, over, won, changed)

    def gold(self) -> list[str]:
        return list(self._plan)

    def close(self) -> None:
        self._env.close()

    def _turn(self, said: str, over: bool = False, won: bool = False, valid: bool = True) -> Turn:
        things, walls = look(self._env)
        self._seen |= {id(thing) for thing, *_ in things} | {id(self._env.carrying)}
        parts = instructions(self._env.instrs, won)
        for reached, (part, due, finished) in zip(self._reached, parts, strict=True):
            if due:
                now = [*facts(part, self._env, self._seen), finished]
                reached[:] = [finished or a or b for a, b in zip(reached, now, strict=True)]
        flat = [part for parts in self._reached for part in parts]
        text = f"{said}\n{describe(self._env, things, walls)}"
        return Turn(text, over, won, valid, float(won), sum(flat), len(flat))


def make(level: str, limited: bool = False) -> Any:
    """The level's simulator, with its own limit of time or with none."""
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    import gymnasium as gym
    import minigrid  # noqa: F401 (it registers the levels)

    levels = [name for name in gym.registry if name.startswith("BabyAI-")]
    if level not in levels:
        raise unknown("BabyAI level", str(level), levels)
    env: Any = gym.make(level, disable_env_checker=True).unwrapped
    if not limited:
        env.fixed_max_steps, env.max_steps = True, 1 << 30
    return env


def start(env: Any, number: int) -> int:
    """Make the room of a seed, and say its limit of time. BabyAI prints about rooms it rejects."""
    with contextlib.redirect_stdout(io.StringIO()):
        env.reset(seed=number)
    return int(env.max_steps)


@lru_cache
def time_limit(level: str) -> int:
    """The longest that the level gives to one of its first episodes."""
    env = make(level, limited=True)
    return max(start(env, number) for number in range(LOOKED_AT))


@lru_cache(maxsize=1 << 14)
def pose(level: str, task: int) -> tuple[int, tuple[str, ...]]:
    """The simulator's seed for a task, and what BabyAI's bot does there."""
    env = make(level)
    for attempt in range(TRIES):
        number = int(np.random.SeedSequence([task, attempt]).generate_state(1)[0])
        start(env, number)
        plan = bot_plan(env, time_limit(level))
        if plan:
            return number, tuple(plan)
    raise UserError(f"env.level={level}: BabyAI's bot solves none of {TRIES} tasks; give another")


def bot_plan(env: Any, limit: int) -> list[str] | None:
    """What the bot does until the task is done, None where it fails; the episode is used up."""
    from minigrid.utils.baby_ai_bot import BabyAIBot

    class Bot(BabyAIBot):
        def _breadth_first_search(self, *where: Any, **how: Any) -> Any:
            if self.bfs_counter > SEARCHES:
                raise RecursionError
            return super()._breadth_first_search(*where, **how)

    plan: list[str] = []
    with contextlib.suppress(Exception):  # of any kind, where it knows no way on
        bot = Bot(env)
        action = bot.replan()
        while len(plan) < limit:
            reward, over, changed = act(env, action.name)
            if not changed:
                return None
            plan.append(VERBS[action.name][0])
            if over:
                return plan if reward > 0 else None
            bot.bfs_counter = 0
            action = bot.replan(action)
    return None


def act(env: Any, name: str) -> tuple[float, bool, bool]:
    """The simulator's reward and whether the episode is over; whether anything has changed."""
    front = np.array(env.front_pos)

    def state() -> tuple[Any, ...]:
        cell = env.grid.get(*front)
        place = (*map(int, env.agent_pos), env.agent_dir)
        return place, id(env.carrying), id(cell), cell.encode() if cell else None

    before = state()
    _, reward, over, _, _ = env.step(env.actions[name])
    return float(reward), bool(over), state() != before


def instructions(instr: Any, finished: bool, due: bool = True) -> Iterator[tuple[Any, bool, bool]]:
    """The simple parts of an instruction, whether each may be done now, and whether it is done."""
    if not hasattr(instr, "instr_a"):
        yield instr, due or finished, finished
        return
    order = type(instr).__name__
    a = finished or instr.a_done == "success"
    b = finished or instr.b_done == "success"
    yield from instructions(instr.instr_a, a, due and (b or order != "AfterInstr"))
    yield from instructions(instr.instr_b, b, due and (a or order != "BeforeInstr"))


def facts(instr: Any, env: Any, seen: set[int]) -> list[bool]:
    """Which of the things hold that lead up to the end of a simple instruction."""

    def among(which: Any, ids: set[int]) -> bool:
        return any(id(thing) in ids for thing in which.obj_set)

    if hasattr(instr, "desc_move"):
        held = among(instr.desc_move, {id(env.carrying)})
        return [among(instr.desc_move, seen), held, among(instr.desc_fixed, seen)]
    if type(instr).__name__ == "GoToInstr":
        return [among(instr.desc, seen)]
    return [among(instr.desc, seen), among(instr.desc, {id(env.grid.get(*env.front_pos))})]


def look(env: Any) -> tuple[list[tuple[Any, int, int]], list[tuple[int, int]]]:
    """Things in view, the nearest first, with the steps forward and to the right that lead there;
    the nearest walls ahead, to the left and to the right, as such steps."""
    grid, _ = env.gen_obs_grid()  # what is not seen is empty in it
    middle, bottom = grid.width // 2, grid.height - 1
    cells = {
        (bottom - y, x - middle): grid.get(x, y)
        for x in range(grid.width)
        for y in range(grid.height)
        if (x, y) != (middle, bottom) and grid.get(x, y) is not None
    }
    near = sorted(cells, key=lambda at: (at[0] + abs(at[1]), -at[0], at[1]))
    things = [(cells[at], *at) for at in near if cells[at].type != "wall"]
    hard = [at for at in near if cells[at].type == "wall"]
    walls = [at for at in hard if not at[1]][:1]
    for side in (-1, 1):
        walls += [at for at in hard if not at[0] and at[1] * side > 0][:1]
    return things, walls


def describe(env: Any, things: list[tuple[Any, int, int]], walls: list[tuple[int, int]]) -> str:
    """What the agent sees and carries, in sentences."""
    said = [f"You see {a(thing)} {where(*at)}." for thing, *at in things]
    said = said or ["You see no objects."]
    said += [f"A wall is {where(*at)}." for at in walls]
    under = env.grid.get(*env.agent_pos)
    if under is not None and under.type == "door":
        said.append(f"You stand in {a(under)}.")
    said.append(f"You carry {a(env.carrying) if env.carrying else 'nothing'}.")
    return " ".join(said)


def a(thing: Any) -> str:
    """A thing's name with its article."""
    if thing.type == "wall":
        return "a wall"
    if thing.type != "door":
        return f"a {thing.color} {thing.type}"
    if thing.is_open:
        return f"an open {thing.color} door"
    return f"a {'locked' if thing.is_locked else 'closed'} {thing.color} door"


def where(forward: int, right: int) -> str:
    """A place as the steps that lead there."""
    side = "to the right" if right > 0 else "to the left"
    ways = [(forward, "forward"), (abs(right), side)]
    return " and ".join(f"{k} step{'s' if k > 1 else ''} {way}" for k, way in ways if k)


def done(name: str, front: Any, carried: Any, env: Any) -> str:
    """What an action did; `front` and `carried` are from before it."""
    if name in ("left", "right", "forward"):
        return f"You {VERBS[name][0]}."
    if name == "pickup":
        return f"You pick up {a(front)}."
    if name == "drop":
        return f"You drop {a(carried)}."
    if front.type == "door":
        return f"You {'open' if front.is_open else 'close'} the {front.color} door."
    inside = env.grid.get(*env.front_pos)
    return f"You open the {front.color} box. It held {a(inside) if inside else 'nothing'}."


def undone(name: str, front: Any, carried: Any) -> str:
    """Why an action did nothing."""
    if name == "forward":
        return f"You cannot go forward: {a(front)} is in the way."
    if name == "drop":
        return f"You cannot drop it: {a(front)} is in the way." if carried else "You carry nothing."
    if front is None:
        return f"There is nothing in front of you to {'pick up' if name == 'pickup' else name}."
    if name == "pickup":
        full = front.can_pickup() and carried is not None
        return f"You cannot pick up {a(front)}" + (f": you carry {a(carried)}." if full else ".")
    if front.type == "door":
        if front.is_open or name == "close":
            return f"The {front.color} door is {'open' if front.is_open else 'closed'} already."
        return f"The {front.color} door is locked: you need the {front.color} key."
    return f"You cannot {name} {a(front)}."
