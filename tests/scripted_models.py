"""Language models that are functions, to test on: in this process, or served on the loopback."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

from embodied.endpoint import Prompt, Reply
from embodied.reward_model import KINDS, Channel, RewardModel, start
from embodied.rewards import Rewards
from embodied.text_space import texts
from embodied.types import Trajectory
from tests.talks import talk
from tests.toys import through_disk

Says = Callable[[str], str | None]
"""From all that is asked, its messages joined, to a reply; None where the server is down."""


class Scripted:
    """Says what a function says; `asked` keeps the questions."""

    def __init__(self, says: Says) -> None:
        self.says = says
        self.asked: list[Prompt] = []

    def ask(self, prompts: Sequence[Prompt], deadline_s: float | None = None) -> list[Reply]:
        self.asked += prompts
        said = [self.says(whole(prompt.messages)) for prompt in prompts]
        return [Reply(text, "" if text is not None else "http_500") for text in said]


def whole(messages: Any) -> str:
    return "\n\n".join(said for _, said in messages)


@contextmanager
def served(says: Says) -> Iterator[str]:
    """The address of a server of chat completions that says what a function says."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
            text = says(whole((one["role"], one["content"]) for one in asked["messages"]))
            choice = {"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
            body = json.dumps({"choices": [choice]}).encode()
            self.send_response(200 if text is not None else 401)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *given: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def told(
    *talks: tuple[Sequence[str], Sequence[str]],
    group: Sequence[int] | None = None,
    unended: Sequence[int] = (),
    **readouts: Any,
) -> Trajectory:
    """A rollout of whole episodes, each what the world says (T + 1) and what is said to it (T).

    Worlds rest when they are over; those of `unended` have not ended.
    """
    steps, worlds = max(len(said) for _, said in talks), len(talks)
    obs, said_to = texts([[""] * worlds] * steps), texts([[""] * worlds] * steps)
    live, ends = np.zeros((2, steps, worlds), bool)
    final_index, finals = np.full((steps, worlds), -1), []
    for n, (seen, said) in enumerate(talks):
        count = len(said)
        for t in range(steps):
            obs[t, n] = seen[min(t, count)]
            said_to[t, n] = said[t] if t < count else ""
        live[:count, n], ends[count - 1, n] = True, n not in unended
        if n not in unended:
            final_index[count - 1, n] = len(finals)
            finals.append(seen[-1])
    is_first = np.zeros((steps, worlds), bool)
    is_first[0] = True
    return Trajectory(
        obs={"text": obs},
        last_obs={"text": texts([seen[-1] for seen, _ in talks])},
        action=said_to,
        action_executed=said_to,
        reward=np.zeros((steps, worlds), np.float32),
        reward_terms={},
        terminated=ends,
        truncated=np.zeros((steps, worlds), bool),
        is_first=is_first,
        valid=live,
        step_id=np.arange(steps * worlds).reshape(steps, worlds),
        final_index=final_index,
        final_obs={"text": texts(finals)},
        due=live.copy(),
        group=None if group is None else np.array(group),
        readouts={name: np.asarray(value) for name, value in readouts.items()},
    )


def check_contract(make: Callable[[], RewardModel], folder: Any) -> None:
    """What `tests/contracts/test_turn_rewards.py` asks of rewards of turns that ask nobody."""
    one, other = make(), make()
    assert one.kind in KINDS and one.scope in ("step", "episode")
    assert one.needs.readouts == one.needs.privileged
    other.load_state_dict(through_disk(one.state_dict(), folder))
    for traj in (talk(group=2), talk([["say oak", "dance", "say elm"], ["say ash"]], group=2)):
        first, again = labelled(one, traj), labelled(other, traj)
        assert np.isfinite(first.reward).all()
        np.testing.assert_array_equal(first.reward[~first.valid], 0.0)
        np.testing.assert_array_equal(first.reward, again.reward)
        if traj.due is not None:
            np.testing.assert_array_equal(first.reward[~traj.due], 0.0)


def labelled(model: RewardModel, traj: Trajectory) -> Trajectory:
    """A talk with what a model pays in a run."""
    shaping = "delta" if model.kind == "potential" else "none"
    rewards = Rewards({"m": Channel("m", model, shaping=shaping, whole=True)}, traj.shape[1], 1.0)
    traj = replace(traj, reward_terms={}, valid=traj.valid.copy())
    rewards.begin(start(traj, 0))
    rewards.label(traj, np.tile(np.arange(traj.shape[0])[:, None], traj.shape[1]))
    return traj
