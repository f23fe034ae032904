"""The desk of a shop: its policy is kept by the database, and its goal is a state."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections import Counter
from typing import Any

import pytest
from embodied.envs.text.shop import EACH, KINDS, Call, Shop, call, open_shop, state_of
from embodied.envs.text.tool_use import TOOLS, Refused, ToolUse, read_call
from hypothesis import given, settings
from hypothesis import strategies as st

from embodied.errors import UserError
from embodied.text_world import Turn

SEEDS = 300
TODAY, WINDOW, GOLD_WINDOW, MOST = 100, 14, 30, 4


ROWS: dict[str, list[list[Any]]] = {
    "policy": [[TODAY, WINDOW, GOLD_WINDOW, MOST]],
    "customers": [[1, "Ada Abel", "1 Mill Lane, Arden", "basic"],
                  [2, "Ben Cole", "2 Mill Lane, Arden", "gold"]],
    "products": [[1, "mug", 10], [2, "lamp", 30]],
    "items": [[10, 1, "red", 3], [11, 1, "blue", 2], [20, 2, "red", 5]],
    "orders": [[100, 1, "placed", 90, None, "1 Mill Lane, Arden"],
               [101, 1, "shipped", 91, None, "1 Mill Lane, Arden"],
               [102, 1, "delivered", 80, TODAY - WINDOW, "1 Mill Lane, Arden"],
               [103, 1, "delivered", 79, TODAY - WINDOW - 1, "1 Mill Lane, Arden"],
               [104, 2, "delivered", 60, TODAY - GOLD_WINDOW, "2 Mill Lane, Arden"]],
    "order_lines": [[100, 10, 2, 9], [100, 20, 1, 30], [101, 10, 1, 10], [102, 10, 2, 10],
                    [103, 20, 1, 30], [104, 20, 1, 30]],
    "refunds": [],
}  # fmt: skip


@pytest.fixture
def db():
    db = open_shop(ROWS)
    yield db
    db.close()


def do(db: sqlite3.Connection, tool: str, **arguments: Any) -> str:
    return TOOLS[tool].run(db, **arguments)[0]


def say(world: ToolUse, calls: list[Call]) -> list[Turn]:
    return [world.step(json.dumps(call)) for call in calls]


@pytest.mark.parametrize(
    ("tool", "arguments", "why"),
    [
        ("cancel_order", {"order": 101}, "only an order that is placed can be cancelled"),
        ("cancel_order", {"order": 102}, "only an order that is placed can be cancelled"),
        ("change_address", {"order": 101, "address": "3 Mill Lane, Elsby"}, "can be changed"),
        ("change_address", {"order": 100, "address": "the moon"}, "an address is like"),
        ("change_address", {"order": 100, "address": "3 Mill Lane, '; --"}, "an address is like"),
        ("exchange_item", {"order": 100, "old_item": 10, "new_item": 20}, "the same product"),
        ("exchange_item", {"order": 100, "old_item": 10, "new_item": 99}, "the same product"),
        ("exchange_item", {"order": 101, "old_item": 10, "new_item": 11}, "can be changed"),
        ("exchange_item", {"order": 100, "old_item": 11, "new_item": 10}, "no such item"),
        ("change_quantity", {"order": 100, "item": 10, "quantity": 5}, "more of one item"),
        ("change_quantity", {"order": 100, "item": 10, "quantity": 0}, "1 or more"),
        ("change_quantity", {"order": 100, "item": 10, "quantity": -3}, "1 or more"),
        ("refund", {"order": 100, "amount": 1}, "cancelled or delivered"),
        ("refund", {"order": 101, "amount": 1}, "cancelled or delivered"),
        ("refund", {"order": 102, "amount": 21}, "never exceed"),
        ("refund", {"order": 102, "amount": -1}, "1 or more"),
        ("refund", {"order": 103, "amount": 1}, "too long ago"),
        ("refund", {"order": 999, "amount": 1}, "no such order"),
        ("get_order", {"order": 999}, "no order"),
        ("find_customer", {"name": "' OR 1 = 1 --"}, "No customer"),
        ("find_items", {"product": "%"}, "No product"),
        ("list_orders", {"customer": 3}, "no customer"),
    ],
)
def test_what_is_forbidden_is_refused_and_changes_nothing(
    db: sqlite3.Connection, tool: str, arguments: dict[str, Any], why: str
) -> None:
    before = state_of(db)
    with pytest.raises(Refused, match=why):
        do(db, tool, **arguments)
    assert state_of(db) == before


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE orders SET status = 'shipped' WHERE id = 102",
        "UPDATE orders SET status = 'cancelled' WHERE id = 101",
        "UPDATE items SET stock = -1",
        "UPDATE order_lines SET price = 1 WHERE order_id = 100",
        "UPDATE order_lines SET quantity = 4 WHERE order_id = 102",
        "INSERT INTO refunds VALUES (103, 1)",
        "INSERT INTO refunds VALUES (102, 21)",
        "INSERT INTO orders VALUES (105, 77, 'placed', 1, NULL, '1 Mill Lane, Arden')",
    ],
)
def test_the_database_itself_keeps_the_policy(db: sqlite3.Connection, sql: str) -> None:
    before = state_of(db)
    with pytest.raises(sqlite3.IntegrityError):
        db.execute(sql)
    assert state_of(db) == before


def test_what_is_allowed_is_done_to_the_last_day_crown_and_piece(db: sqlite3.Connection) -> None:
    def stock() -> dict[int, int]:
        return dict(db.execute("SELECT id, stock FROM items"))

    do(db, "exchange_item", order=100, old_item=10, new_item=11)
    assert stock() == {10: 5, 11: 0, 20: 5}
    with pytest.raises(Refused, match="not enough in stock"):
        do(db, "change_quantity", order=100, item=11, quantity=3)
    do(db, "exchange_item", order=100, old_item=11, new_item=10)
    do(db, "change_quantity", order=100, item=10, quantity=MOST)
    assert stock() == {10: 1, 11: 2, 20: 5}
    do(db, "cancel_order", order=100)
    assert stock() == {10: 5, 11: 2, 20: 6}
    do(db, "refund", order=100, amount=60)
    do(db, "refund", order=100, amount=6)
    with pytest.raises(Refused, match="never exceed"):
        do(db, "refund", order=100, amount=1)
    do(db, "refund", order=102, amount=20)
    do(db, "refund", order=104, amount=30)
    assert "paid 66, refunded 66" in do(db, "get_order", order=100)
    assert do(db, "find_customer", name="ada abel").startswith("customer 1: Ada Abel, 1 Mill")


def test_gold_calls_solve_every_task_and_a_wrong_extra_change_none() -> None:
    world, kinds, forbidden = ToolUse(), Counter(), 0
    for seed in range(SEEDS):
        shop = Shop(seed, 12)
        request = shop.request
        first = world.reset(seed)
        assert request.text in first.text and first.subgoals >= 2
        assert 3 <= len(world.gold()) <= 6
        turns = [world.step(action) for action in world.gold()]
        assert all(turn.valid for turn in turns), seed
        assert [turn.success for turn in turns] == [False] * (len(turns) - 1) + [True]
        assert turns[-1].reached == turns[-1].subgoals == first.subgoals
        assert turns[-1].told["calls"] == turns[-1].told["gold_calls"]
        kinds[request.writes[0]["name"], len(request.writes), request.forbidden] += 1
        forbidden += request.forbidden
        world.reset(seed)
        *_, last, finish = say(world, [*request.gold()[:-1], _extra(shop), call("finish")])
        assert last.valid and finish.terminated and not finish.success and finish.score == 0.0
    assert len(KINDS) == 6 and len(kinds) >= 11
    assert 0.08 < forbidden / SEEDS < 0.25
    world.close()


def _extra(shop: Shop) -> Call:
    """A change that is allowed, and that nobody asked for: one order is placed, or one can be."""
    db = open_shop(shop.rows)
    sold = db.execute("SELECT id FROM orders WHERE status = 'placed' ORDER BY id").fetchall()
    db.close()
    used = {w["arguments"]["order"] for w in shop.request.writes}
    free = [number for (number,) in sold if number not in used]
    return call("change_address", order=free[0], address="3 Nowhere Lane, Porto")


def test_a_forbidden_request_is_refused_by_the_database() -> None:
    world, seen = ToolUse(), 0
    for seed in range(SEEDS):
        request = Shop(seed, 12).request
        if request.forbidden:
            seen += 1
            world.reset(seed)
            *before, last = say(world, request.writes)
            assert all(turn.valid for turn in before)
            assert not last.valid and last.text.startswith("Refused: "), seed
            assert world.step('{"name": "finish", "arguments": {}}').success
    assert seen > SEEDS // 12
    world.close()


def test_subgoals_are_rows_that_are_seen_and_made() -> None:
    world = ToolUse()
    seed = next(s for s in range(99) if not Shop(s, 12).request.forbidden and
                Shop(s, 12).request.writes[0]["name"] == "change_address")  # fmt: skip
    request = Shop(seed, 12).request
    assert world.reset(seed).subgoals == len(request.rows) + 1
    (write,) = request.writes
    wrong = call("change_address", order=write["arguments"]["order"], address="3 No Lane, Porto")
    assert [t.reached for t in say(world, [wrong, write, wrong])] == [0, 1, 1]
    assert [t.reached for t in say(world, request.lookups)] == [2, 3]
    assert not world.step('{"name": "finish", "arguments": {}}').success, "it was undone"
    world.close()


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("", "no call in that"),
        ("please cancel it", "no call in that"),
        ('[{"a": ', "no call in that"),
        ('{"name": "cancel_order"}', "A call is"),
        ('{"name": 3, "arguments": {}}', "A call is"),
        ('{"name": "finish", "arguments": []}', "A call is"),
        ('{"a": 1} {"name": "finish", "arguments": {}}', "A call is"),
        ('{"name": "drop_table", "arguments": {}}', "no tool of that name"),
        ('{"name": "cancel_order", "arguments": {}}', r"needs order \(integer\)"),
        ('{"name": "cancel_order", "arguments": {"order": "12"}}', "a whole number"),
        ('{"name": "cancel_order", "arguments": {"order": 12.0}}', "a whole number"),
        ('{"name": "cancel_order", "arguments": {"order": true}}', "a whole number"),
        ('{"name": "cancel_order", "arguments": {"order": NaN}}', "a whole number"),
        ('{"name": "cancel_order", "arguments": {"order": 1e999}}', "a whole number"),
        (f'{{"name": "cancel_order", "arguments": {{"order": {10**30}}}}}', "a whole number"),
        (f'{{"name": "cancel_order", "arguments": {{"order": {"9" * 5000}}}}}', "."),
        ('{"name": "cancel_order", "arguments": {"order": 12, "x": 1}}', "nothing else"),
        ('{"name": "finish", "arguments": {"x": 1}}', "takes no arguments"),
        ('{"name": "find_customer", "arguments": {"name": ""}}', "a text of 1 to 80"),
        ('{"name": "find_customer", "arguments": {"name": "a\\u0000b"}}', "a text of 1 to 80"),
        ('{"name": "find_customer", "arguments": {"name": "\\ud800"}}', "a text of 1 to 80"),
        ('{"name": "find_customer", "arguments": {"name": ["a"]}}', "a text of 1 to 80"),
        ("{" * 60000, "no call in that"),
        ('{"a":' * 10000, "no call in that"),
        ('{"a":' + "[" * 50000, "no call in that"),
        ('{"a":[1,2],"b":' * 900, "no call in that"),
    ],
)
def test_a_call_that_cannot_be_read_says_why_in_a_line(said: str, why: str) -> None:
    with pytest.raises(Refused, match=why) as caught:
        read_call(said)
    assert "\n" not in str(caught.value)


def test_a_call_is_found_among_words() -> None:
    there = call("cancel_order", order=12)
    for said in (
        json.dumps(there),
        f"I cancel {{it}}:\n```json\n{json.dumps(there, indent=2)}\n```\nDone.",
        f'{json.dumps(there)} {{"name": "finish", "arguments": {{}}}}',
        json.dumps({"thought": "first this", **there}),
    ):
        assert read_call(said) == there


ATTACKS = ("'; DROP TABLE orders; --", "1 OR 1=1", '" OR ""="', "x'); DELETE FROM refunds; --",
           "3 Mill Lane, Porto'; DROP TABLE orders; --", "%", "*", "\0", "日本")  # fmt: skip


def test_injections_are_answered_and_change_nothing() -> None:
    world = ToolUse()
    world.reset(3)
    assert world._db is not None
    before = state_of(world._db)
    orders = [row[1] for row in before if row[0] == "orders"]
    for attack in ATTACKS:
        for name, tool in TOOLS.items():
            every: dict[str, Any] = dict.fromkeys(tool.takes, attack)
            typed = {k: orders[0] if kind is int else attack for k, kind in tool.takes.items()}
            for arguments in [every, *([typed] if str in tool.takes.values() else [])]:
                turn = world.step(json.dumps({"name": name, "arguments": arguments}))
                assert not turn.valid and turn.text, (name, arguments)
        assert not world.step(attack).valid
    assert state_of(world._db) == before
    world.close()


def _number(draw: st.DrawFn, shop: Shop, key: str) -> int:
    rows = shop.rows
    known = {"customer": rows["customers"], "order": rows["orders"]}.get(key, rows["items"])
    if key in ("quantity", "amount") or draw(st.integers(0, 9)) == 0:
        return draw(st.integers(-2, 60))
    return draw(st.sampled_from([row[0] for row in known]))


@st.composite
def plays(draw: st.DrawFn) -> tuple[Shop, list[Call]]:
    shop = Shop(draw(st.integers(0, 10**6)), 3)
    calls = []
    for name in draw(st.lists(st.sampled_from(sorted(TOOLS)), min_size=5, max_size=40)):
        takes = {
            key: _number(draw, shop, key) if kind is int else draw(st.sampled_from(
                ("3 Mill Lane, Porto", "mug", "nowhere")))
            for key, kind in TOOLS[name].takes.items()
        }  # fmt: skip
        calls.append({"name": name, "arguments": takes})
    return shop, calls


@settings(max_examples=150)
@given(plays())
def test_no_calls_break_the_policy(play: tuple[Shop, list[Call]]) -> None:
    shop, calls = play
    db = open_shop(shop.rows)
    held, frozen = _held(db), _frozen(db)
    for each in calls:
        before = state_of(db)
        try:
            TOOLS[each["name"]].run(db, **each["arguments"])
        except Refused:
            assert state_of(db) == before, "a refused call changes nothing"
    today, window, gold_window, most = shop.rows["policy"][0]
    assert _held(db) == held, "what is in stock or ordered, together"
    assert frozen <= _frozen(db), "what is shipped stays as it is"
    assert db.execute("SELECT min(stock) FROM items").fetchone()[0] >= 0
    assert db.execute("SELECT max(quantity) FROM order_lines").fetchone()[0] <= most
    paid = Counter(dict(db.execute(
        "SELECT order_id, sum(quantity * price) FROM order_lines GROUP BY 1")))  # fmt: skip
    back = dict(db.execute("SELECT order_id, sum(amount) FROM refunds GROUP BY 1"))
    assert all(amount <= paid[order] for order, amount in back.items())
    for order in back:
        sql = "SELECT status, ? - delivered, member FROM orders JOIN customers ON"
        sql += " customers.id = customer_id WHERE orders.id = ?"
        status, since, member = db.execute(sql, (today, order)).fetchone()
        late = status == "delivered" and since > (gold_window if member == "gold" else window)
        assert status in ("cancelled", "delivered") and not late
    assert db.execute("PRAGMA foreign_key_check").fetchall() == []
    db.close()


def _held(db: sqlite3.Connection) -> dict[int, int]:
    """Of every product: what is in stock and in orders that are not cancelled."""
    held = Counter(dict(db.execute("SELECT product_id, sum(stock) FROM items GROUP BY 1")))
    sql = "SELECT product_id, sum(quantity) FROM order_lines JOIN items ON items.id = item_id"
    sql += " JOIN orders ON orders.id = order_id WHERE status <> 'cancelled' GROUP BY 1"
    held.update(dict(db.execute(sql)))
    return held


def _frozen(db: sqlite3.Connection) -> set[Any]:
    sql = "SELECT * FROM orders JOIN order_lines ON order_id = id WHERE status <> 'placed'"
    return set(db.execute(sql))


def test_equal_seeds_make_equal_shops_and_others_differ() -> None:
    shops = [Shop(seed, 12) for seed in range(50)]
    assert [shop.rows for shop in shops] == [Shop(seed, 12).rows for seed in range(50)]
    assert len({shop.request.text for shop in shops}) == 50
    for shop in shops:
        days = [(order[1], order[3]) for order in shop.rows["orders"]]
        assert len(set(days)) == len(days), "the day tells which order"
        whom = [(row[1], row[2].split(", ")[1]) for row in shop.rows["customers"]]
        assert len(set(whom)) == len(whom), "name and town tell who"
        assert len(shop.rows["items"]) == EACH * len(shop.rows["products"])


def test_another_process_makes_the_same_shop() -> None:
    code = "from embodied.envs.text.shop import Shop; s = Shop(7, 12); print(s.rows, s.request)"
    for hashes in ("1", "2"):
        env = {**os.environ, "PYTHONHASHSEED": hashes}
        said = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
        here = Shop(7, 12)
        assert said.stdout == f"{here.rows} {here.request}\n", said.stderr


def test_settings_that_make_no_shop_are_refused() -> None:
    for customers in (1, 61):
        with pytest.raises(UserError, match="env.customers"):
            ToolUse(customers)
