"""A desk of a shop, worked through tools over its database (after LOGIGEN, arXiv 2603.00540).

The policy is SQL constraints and triggers, so that no tool can break it; a task is solved if the
database ends in the state that the gold calls lead to. LOGIGEN finds solutions by exploring; here
the request and its gold calls come from templates and a number.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from embodied.errors import check_range
from embodied.text_world import Turn

from .shop import Call, Row, Shop, State, open_shop, state_of

MOST_LETTERS = 80
"""Of a text that is an argument."""
MOST = 10**9
"""Of a number that is an argument, above or below 0."""
TRIES = 16
"""Braces at which a call may begin; what comes after them is not read."""
CUT = json.JSONDecoder()
NO_ORDER = "There is no order of that number."
NO_LINE = "There is no such item in an order of that number."
Reply = tuple[str, Sequence[Row]]
"""What a tool says, and the rows that it has shown."""


class Refused(Exception):
    """Why a call is not carried out, in one line."""


class ToolUse:
    """A clerk's desk: look-ups and changes by calls {"name": ..., "arguments": {...}}.

    The policy forbids one request in seven: there the right thing is to finish without a change
    (at once will do: no look-up is asked for). Subgoals are the rows that the gold look-ups show,
    once a tool has shown them, and the rows that the goal has and the start has not, once they are
    there. "calls" has the calls of tools that exist with arguments they take, also if refused. A
    shop has `customers`, 2 to 60.
    """

    max_turns = 16
    tells = ("calls", "gold_calls")

    def __init__(self, customers: int = 12) -> None:
        check_range("env", 2, 60, customers=customers)
        self.customers = int(customers)
        self._db: sqlite3.Connection | None = None
        self._gold: list[Call] = []
        self._calls: list[Call] = []
        self._goal: State = Counter()
        self._wanted: list[tuple[Row, int]] = []  # rows that are to come, and how many of each
        self._look: list[Row] = []
        self._reached: set[Row] = set()

    def reset(self, seed: int) -> Turn:
        self.close()
        shop = Shop(seed, self.customers)
        self._db = db = open_shop(shop.rows)
        self._gold, self._calls, self._reached = shop.request.gold(), [], set()
        start = state_of(db)
        db.execute("BEGIN")
        for call in self._gold[:-1]:
            TOOLS[call["name"]].run(db, **call["arguments"])
        self._goal = state_of(db)
        db.execute("ROLLBACK")
        self._wanted = [(row, self._goal[row]) for row in self._goal - start]
        self._look = shop.request.rows
        return self._turn(_opening(shop), True)

    def step(self, action: str) -> Turn:
        assert self._db is not None, "reset it first"
        try:
            call = read_call(action)
            self._calls.append(call)
            if call["name"] == "finish":
                success = state_of(self._db) == self._goal
                return self._turn("The request is closed.", True, True, success)
            said, shown = TOOLS[call["name"]].run(self._db, **call["arguments"])
        except Refused as why:
            return self._turn(str(why), False)
        self._reached.update(row for row in self._look if row in shown)
        if TOOLS[call["name"]].changes:
            now = state_of(self._db)
            self._reached.update(row for row, count in self._wanted if now[row] >= count)
        return self._turn(said, True)

    def gold(self) -> list[str]:
        return [json.dumps(call) for call in self._gold]

    def close(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None

    def _turn(self, text: str, valid: bool, over: bool = False, success: bool = False) -> Turn:
        subgoals = len(self._look) + len(self._wanted)
        told = {"calls": json.dumps(self._calls), "gold_calls": json.dumps(self._gold)}
        return Turn(text, over, success, valid, float(success), len(self._reached), subgoals, told)


def read_call(action: str) -> Call:
    """The first JSON object in `action`: a call of a known tool with the arguments it takes.

    Raises `Refused` where there is none.
    """
    found = _first_object(action)
    name, given = found.get("name"), found.get("arguments")
    if not isinstance(name, str) or not isinstance(given, dict):
        raise Refused('A call is {"name": text, "arguments": {...}}.')
    if name != "finish" and name not in TOOLS:
        raise Refused(f"There is no tool of that name; there are {', '.join(TOOLS)}, finish.")
    takes = {} if name == "finish" else TOOLS[name].takes
    for key, kind in takes.items():
        if key not in given:
            raise Refused(f"{name} needs {key} ({KINDS[kind]}).")
        if not _fits(given[key], kind):
            raise Refused(f"{name}: {key} has to be {LIMITS[kind]}.")
    if len(given) > len(takes):
        raise Refused(f"{name} takes {', '.join(takes) or 'no arguments'} and nothing else.")
    return {"name": name, "arguments": {key: given[key] for key in takes}}


def _first_object(action: str) -> dict[str, Any]:
    at = -1
    for _ in range(TRIES):
        at = action.find("{", at + 1)
        if at < 0:
            break
        try:
            return CUT.raw_decode(action, at)[0]
        except RecursionError:
            break
        except ValueError:
            continue
    raise Refused("There is no call in that: give one JSON object.")


KINDS = {int: "integer", str: "text"}
LIMITS = {
    int: f"a whole number from {-MOST} to {MOST}",
    str: f"a text of 1 to {MOST_LETTERS} letters on one line",
}


def _fits(value: Any, kind: type) -> bool:
    if kind is int:
        return type(value) is int and abs(value) <= MOST
    return isinstance(value, str) and 0 < len(value) <= MOST_LETTERS and value.isprintable()


def find_customer(db: sqlite3.Connection, name: str) -> Reply:
    sql = "SELECT * FROM customers WHERE name = ? COLLATE NOCASE ORDER BY id"
    rows = _read(db, sql, name, "No customer has that name.")
    lines = [f"customer {k}: {called}, {at}; {member} member" for k, called, at, member in rows]
    return "\n".join(lines), [("customers", row[0]) for row in rows]


def list_orders(db: sqlite3.Connection, customer: int) -> Reply:
    sql = "SELECT id, status, placed FROM orders WHERE customer_id = ? ORDER BY id"
    rows = _read(db, sql, customer, "There is no customer with orders of that number.")
    lines = [f"order {k}: placed on day {day}, status {status}" for k, status, day in rows]
    return "\n".join(lines), [("orders", row[0]) for row in rows]


def get_order(db: sqlite3.Connection, order: int) -> Reply:
    sql = "SELECT * FROM orders WHERE id = ?"
    _, customer, status, placed, delivered, address = _read(db, sql, order, NO_ORDER)[0]
    sql = (
        "SELECT item_id, name, option, quantity, order_lines.price FROM order_lines"
        " JOIN items ON items.id = item_id JOIN products ON products.id = product_id"
        " WHERE order_id = ? ORDER BY item_id"
    )
    lines = _read(db, sql, order, NO_LINE)
    sql = "SELECT coalesce(sum(amount), 0) FROM refunds WHERE order_id = ?"
    back = _read(db, sql, order, NO_ORDER)[0][0]
    came = f" on day {delivered}" if delivered is not None else ""
    says = [
        f"order {order} of customer {customer}: placed on day {placed}, status {status}{came}",
        f"to {address}; paid {sum(line[3] * line[4] for line in lines)}, refunded {back}",
        *(f"{n} of item {k} ({name}, {option}) at {each}" for k, name, option, n, each in lines),
    ]
    return "\n".join(says), [("orders", order), *(("order_lines", order, k[0]) for k in lines)]


def find_items(db: sqlite3.Connection, product: str) -> Reply:
    sql = (
        "SELECT items.id, name, option, price, stock FROM items JOIN products"
        " ON products.id = product_id WHERE name = ? COLLATE NOCASE ORDER BY items.id"
    )
    rows = _read(db, sql, product, "No product has that name.")
    lines = [f"item {k}: {name}, {o}, {each} each, {n} in stock" for k, name, o, each, n in rows]
    return "\n".join(lines), [("items", row[0]) for row in rows]


def _read(db: sqlite3.Connection, sql: str, value: int | str, missing: str) -> list[Row]:
    """The rows of a query. Raises `Refused` where there are none."""
    rows = db.execute(sql, (value,)).fetchall()
    if not rows:
        raise Refused(missing)
    return rows


def _write(db: sqlite3.Connection, sql: str, values: Sequence[Any], missing: str) -> None:
    """One statement. Raises `Refused` with what the database's rules say against it."""
    try:
        changed = db.execute(sql, values).rowcount
    except sqlite3.IntegrityError as error:
        why = str(error).removeprefix("CHECK constraint failed: ").replace("_", " ")
        raise Refused(f"Refused: {why}.") from None
    if not changed:
        raise Refused(missing)


def cancel_order(db: sqlite3.Connection, order: int) -> Reply:
    _write(db, "UPDATE orders SET status = 'cancelled' WHERE id = ?", (order,), NO_ORDER)
    return f"Order {order} is cancelled.", ()


def change_address(db: sqlite3.Connection, order: int, address: str) -> Reply:
    _write(db, "UPDATE orders SET address = ? WHERE id = ?", (address, order), NO_ORDER)
    return f"Order {order} goes to {address}.", ()


def exchange_item(db: sqlite3.Connection, order: int, old_item: int, new_item: int) -> Reply:
    sql = "UPDATE order_lines SET item_id = ? WHERE order_id = ? AND item_id = ?"
    _write(db, sql, (new_item, order, old_item), NO_LINE)
    return f"Order {order} has item {new_item} for item {old_item}.", ()


def change_quantity(db: sqlite3.Connection, order: int, item: int, quantity: int) -> Reply:
    sql = "UPDATE order_lines SET quantity = ? WHERE order_id = ? AND item_id = ?"
    _write(db, sql, (quantity, order, item), NO_LINE)
    return f"Order {order} has {quantity} of item {item}.", ()


def refund(db: sqlite3.Connection, order: int, amount: int) -> Reply:
    _write(db, "INSERT INTO refunds VALUES (?, ?)", (order, amount), NO_ORDER)
    return f"{amount} crowns of order {order} are refunded.", ()


@dataclass(frozen=True)
class Tool:
    run: Callable[..., Reply]
    says: str
    takes: dict[str, type]
    changes: bool = False


TOOLS = {
    tool.run.__name__: tool
    for tool in (
        Tool(find_customer, "the customers of that full name", {"name": str}),
        Tool(list_orders, "the orders of a customer", {"customer": int}),
        Tool(get_order, "an order, its items and payments", {"order": int}),
        Tool(find_items, "the options of a product, and the stock", {"product": str}),
        Tool(cancel_order, "cancel an order", {"order": int}, True),
        Tool(change_address, "send it elsewhere", {"order": int, "address": str}, True),
        Tool(exchange_item, "all of one item for as many of another",
             {"order": int, "old_item": int, "new_item": int}, True),
        Tool(change_quantity, "hold so many of an item",
             {"order": int, "item": int, "quantity": int}, True),
        Tool(refund, "pay crowns back", {"order": int, "amount": int}, True),
    )
}  # fmt: skip


def _opening(shop: Shop) -> str:
    """The policy, the tools and the request."""
    today, window, gold_window, most = shop.rows["policy"][0]
    tools = [
        f"  {name}({', '.join(f'{key}: {KINDS[kind]}' for key, kind in tool.takes.items())}): "
        f"{tool.says}"
        for name, tool in TOOLS.items()
    ]
    return "\n".join([
        f"You work at the desk of a shop. Today is day {today}.",
        "Policy:",
        "- Only an order that is placed can be cancelled or changed, not one that is shipped.",
        "- An item is exchanged only for another option of the same product.",
        f"- An order may not be raised above {most} of one item.",
        "- Nothing is sold that is not in stock.",
        f"- Refunds are for orders that are cancelled, or were delivered at most {window} days ago"
        f" ({gold_window} for gold members), and never exceed what was paid.",
        "- An address is written like this: 3 Mill Lane, Porto",
        "Do what is asked and nothing else. What the policy forbids is not done, also not in part:"
        " then finish without a change.",
        'Answer with one call at a time: {"name": "get_order", "arguments": {"order": 12}}',
        "Tools:",
        *tools,
        "  finish(): the request is dealt with",
        f"Request: {shop.request.text}",
    ])  # fmt: skip
