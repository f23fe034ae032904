"""Asking a model whose server goes wrong in every way: is a deadline passed, a budget, a key paid
for twice?

`late_at_most`: by what share of it the slowest call outlived its deadline, over all modes of
`benchmarks.fault_server`, `AT_ONCE` questions at once in each. For the other two, clients with
`AT_ONCE` questions in flight are killed half-way (`kill -9`), one after another, and share an
account and a folder of replies; the last one goes on until the account is empty. `overspent`: what
the server was paid beyond the budget. `paid_twice`: replies in the folder that were asked for
again.

    python -m benchmarks.endpoint_faults [--quick]
"""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
import time
from typing import Any

from rich.progress import track

from benchmarks.fault_server import FAULTS, TOKENS, FaultServer
from benchmarks.harness import parse_args, write_result
from embodied.endpoint import Endpoint, Prompt
from embodied.reply_cache import ReplyCache, key_of

AT_ONCE = 64
DEADLINE_S = 2.0
KILLS = 10
BUDGET = 30_000.0
PRICE = (0.0, 1e6)
"""Nothing for what is read, one for every written token, of which a reply has `TOKENS`."""
QUESTIONS = 100_000
"""More than a client comes to."""
CLIENT = (
    "import sys; from benchmarks.endpoint_faults import client; "
    "client(sys.argv[1], sys.argv[2], int(sys.argv[3]))"
)


def prompts(first: int, count: int) -> list[Prompt]:
    said = ((("user", f"question {k}"),) for k in range(first, first + count))
    return [Prompt(messages, max_tokens=TOKENS) for messages in said]


def lateness(server: FaultServer, mode: str) -> dict[str, Any]:
    """How long `AT_ONCE` calls took, as a share of their deadline, and what came of them."""
    endpoint = Endpoint(server.url, mode, deadline_s=DEADLINE_S, in_flight=AT_ONCE)
    start = time.perf_counter()
    replies = endpoint.ask(prompts(0, AT_ONCE))
    took = time.perf_counter() - start
    endpoint.close()
    faults = sorted({reply.fault or "answered" for reply in replies})
    return {"took": took / DEADLINE_S, "faults": faults}


def client(url: str, folder: str, first: int) -> None:
    """Ask on and on, until the account is empty, and print what it says was spent."""
    endpoint = Endpoint(
        url, "slowly", in_flight=AT_ONCE, deadline_s=20.0, price=PRICE, budget=BUDGET,
        ledger=f"{folder}/ledger.jsonl", cache=f"{folder}/replies",
    )  # fmt: skip
    for start in range(first, QUESTIONS, AT_ONCE // 2):  # half of them were asked before
        if any(reply.fault == "budget" for reply in endpoint.ask(prompts(start, AT_ONCE))):
            break
    print(endpoint.ledger.spent if endpoint.ledger else 0.0)


def killed(server: FaultServer, kills: int) -> dict[str, float]:
    """`kills` clients that are killed and one that is not, and what the server saw of them."""
    rng = random.Random(0)
    asked_when_kept: dict[int, int] = {}
    with tempfile.TemporaryDirectory() as folder:
        for k in track(range(kills + 1), "kills"):
            command = [sys.executable, "-c", CLIENT, server.url, folder, str(10 * k)]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            if k < kills:
                time.sleep(rng.uniform(1.0, 2.5))
                process.kill()
            told = process.communicate()[0]
            time.sleep(0.5)  # the server is done with what was in flight
            replies = ReplyCache(f"{folder}/replies")
            for number, prompt in enumerate(prompts(0, server.asked["slowly"])):
                key = key_of({"model": "slowly", "revision": "", **vars(prompt)})
                if number not in asked_when_kept and replies.get(key) is not None:
                    asked_when_kept[number] = server.said[f"question {number}"]
    again = {n: server.said[f"question {n}"] - count for n, count in asked_when_kept.items()}
    return {
        "budget": BUDGET,
        "paid": float(server.asked["slowly"] * TOKENS),
        "accounted": float(told),
        "kept": len(asked_when_kept),
        "paid_twice": sum(again.values()),
        "most_in_flight": server.most,
    }


def main() -> None:
    args = parse_args(__doc__)
    with FaultServer() as server:
        modes = list(FAULTS)[:: 6 if args.quick else 1]
        told = {mode: lateness(server, mode) for mode in track(modes, "modes")}
    with FaultServer() as server:
        spent = killed(server, 1 if args.quick else KILLS)
    figures = {
        "modes": len(told),
        "late_at_most": max(row["took"] for row in told.values()) - 1.0,
        "overspent": max(0.0, spent["paid"] - BUDGET),
        "paid_twice": spent["paid_twice"],
    }
    write_result(
        "endpoint_faults", figures, {"by_mode": told, "account": spent}, args.quick, args.out
    )


if __name__ == "__main__":
    main()
