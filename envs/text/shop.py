"""A shop made of a number: its customers, its stock, its orders, and what one customer asks for.

`shop.sql` has its tables and its policy. What is asked for is often at the edge of the policy: on
the last day for a refund, or a day late; the last ones in stock, or one more.
"""

from __future__ import annotations

import random
import sqlite3
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Call = dict[str, Any]
"""{"name": of a tool, "arguments": by name}."""
Row = tuple[Any, ...]
"""Its table, then its key (where it was shown) or all that it holds (where it is stored)."""
State = Counter[Row]
"""How often there is a row."""
SCHEMA = Path(__file__).with_name("shop.sql").read_text(encoding="utf-8")
TABLES = ("policy", "customers", "products", "items", "orders", "order_lines", "refunds")

FORENAMES = "Ada Alda Ben Bea Carl Cora Dina Dora Emil Emma Finn Flora Gus Greta Hal Hilda".split()
SURNAMES = "Abel Abeln Brandt Brand Cole Coles Dorn Dorne Fisk Fiske Hale Hales Moor Moore".split()
STREETS = "Mill Church Harbour Station Garden Bridge Orchard Castle Meadow Forge".split()
WAYS = "Lane Road Street Walk".split()
TOWNS = "Arden Belmont Corvin Dunmere Elsby Farrow Gilden Hartwick Ilmond Kestrel".split()
PRODUCTS = (
    "mug teapot lamp kettle blanket cushion backpack umbrella notebook clock vase apron "
    "lantern basket"
).split()
OPTIONS = "red blue green grey white black yellow brown".split()
EACH = 3
"""Options of a product."""
FORBIDDEN = 0.15
"""Share of requests that the policy forbids: more would pay those who finish at once."""


@dataclass(frozen=True)
class Request:
    """What a customer wants, in words and as calls. `rows` are what its look-ups have to show.

    `writes` would do it; where it is `forbidden` the policy refuses the last of them.
    """

    text: str
    lookups: list[Call]
    writes: list[Call]
    rows: list[Row]
    forbidden: bool

    def gold(self) -> list[Call]:
        done = [] if self.forbidden else self.writes
        return [*self.lookups, *done, call("finish")]


def call(tool: str, /, **arguments: Any) -> Call:
    return {"name": tool, "arguments": arguments}


class Shop:
    """`rows` by table; `request` is what is asked."""

    def __init__(self, seed: int, customers: int) -> None:
        self._drawn = drawn = random.Random(seed)
        self.today, window = drawn.randint(200, 360), drawn.randint(10, 30)
        self._windows = {"basic": window, "gold": window + drawn.randint(5, 30)}
        self._most = drawn.randint(3, 6)
        self._customers = self._make_customers(customers)
        self._products = self._make_products()
        self._items = self._make_items()
        self._lines: dict[int, list[list[Any]]] = {}
        self._orders = self._make_orders()
        self._refunds: list[list[Any]] = []
        for order in self._orders[1:]:
            if order[2] == "cancelled" and drawn.random() < 0.5:
                self._refunds.append([order[0], drawn.randint(1, self._paid(order))])
        self._asker, self._order = self._customers[0], self._orders[0]
        self._line = drawn.choice(self._lines[self._order[0]])
        self.request = drawn.choice(KINDS)(self, drawn.random() < FORBIDDEN)
        self.rows = self._stored()

    def _stored(self) -> dict[str, list[list[Any]]]:
        orders = sorted(self._orders)
        return {
            "policy": [[self.today, self._windows["basic"], self._windows["gold"], self._most]],
            "customers": sorted(self._customers),
            "products": self._products,
            "items": self._items,
            "orders": orders,
            "order_lines": [line for order in orders for line in self._lines[order[0]]],
            "refunds": self._refunds,
        }

    def _make_customers(self, count: int) -> list[list[Any]]:
        """The first is the one who asks; often another one, elsewhere, has the same name."""
        drawn = self._drawn
        some = drawn.sample(FORENAMES, 8), drawn.sample(SURNAMES, 8)
        names = drawn.sample([f"{first} {last}" for first in some[0] for last in some[1]], count)
        towns = [drawn.choice(TOWNS) for _ in names]
        if drawn.random() < 0.5:
            names[1] = names[0]
            towns[1] = drawn.choice([town for town in TOWNS if town != towns[0]])
        ids = drawn.sample(range(100, 1000), count)
        return [
            [k, name, self._address(town), drawn.choice(("basic", "basic", "gold"))]
            for k, name, town in zip(ids, names, towns, strict=True)
        ]

    def _address(self, town: str) -> str:
        drawn = self._drawn
        return f"{drawn.randint(1, 99)} {drawn.choice(STREETS)} {drawn.choice(WAYS)}, {town}"

    def _make_products(self) -> list[list[Any]]:
        names = self._drawn.sample(PRODUCTS, 8)
        return [[k + 1, name, self._drawn.randint(8, 60)] for k, name in enumerate(names)]

    def _make_items(self) -> list[list[Any]]:
        drawn = self._drawn
        ids = sorted(drawn.sample(range(10, 100), EACH * len(self._products)))
        options = [(k, o) for k, _, _ in self._products for o in drawn.sample(OPTIONS, EACH)]
        return [
            [k, product, option, drawn.randint(0, 12)]
            for k, (product, option) in zip(ids, options, strict=True)
        ]

    def _make_orders(self) -> list[list[Any]]:
        """The first is the one that is asked about; nobody has two of one day."""
        drawn, today = self._drawn, self.today
        orders: list[list[Any]] = []
        many = [drawn.randint(3, 4)] + [drawn.randint(1, 3) for _ in self._customers[1:]]
        ids = drawn.sample(range(1000, 10000), sum(many))
        for customer, count in zip(self._customers, many, strict=True):
            for ago in drawn.sample(range(10, 80), count):
                status = drawn.choice(("placed", "shipped", "delivered", "delivered", "cancelled"))
                placed = today - ago
                delivered = placed + drawn.randint(2, 9) if status == "delivered" else None
                address = customer[2]
                if drawn.random() < 0.25:
                    address = self._address(drawn.choice(TOWNS))
                order = [ids[len(orders)], customer[0], status, placed, delivered, address]
                self._lines[order[0]] = self._make_lines(order[0])
                orders.append(order)
        return orders

    def _make_lines(self, order: int) -> list[list[Any]]:
        """Products that differ; the price is that of the day, not always that of today."""
        lines = []
        for product in self._drawn.sample(self._products, self._drawn.randint(1, 3)):
            item = self._drawn.choice(self._options(product[0]))
            price = product[2] - self._drawn.choice((0, 0, 1, 3))
            lines.append([order, item[0], self._drawn.randint(1, 2), price])
        return sorted(lines)

    def _options(self, product: int) -> list[list[Any]]:
        return [item for item in self._items if item[1] == product]

    def _paid(self, order: list[Any]) -> int:
        return sum(quantity * price for _, _, quantity, price in self._lines[order[0]])

    def _stands(self, status: str, ago: int = 0) -> None:
        """What is asked about is in this state; if delivered, so many days ago."""
        order = self._order
        order[2], order[4] = status, None
        if status == "delivered":
            order[4] = self.today - ago
            theirs = {other[3] for other in self._orders[1:] if other[1] == order[1]}
            free = [day for day in range(order[4] - 9, order[4] - 1) if day not in theirs]
            order[3] = self._drawn.choice(free)

    def _line_s(self) -> tuple[list[Any], str, str]:
        """The item, and the names of its product and its option, of the line asked about."""
        item = next(item for item in self._items if item[0] == self._line[1])
        return item, self._products[item[1] - 1][1], item[2]

    def _asks(
        self,
        what: str,
        forbidden: bool,
        writes: list[Call],
        order: bool = False,
        item: tuple[str, int] | None = None,
    ) -> Request:
        """A request for `what`; the `order` has to be looked at, or a product's item."""
        key, name, address, _ = self._asker
        number, day = self._order[0], self._order[3]
        lookups = [call("find_customer", name=name), call("list_orders", customer=key)]
        rows: list[Row] = [("customers", key), ("orders", number)]
        if order:
            lookups.append(call("get_order", order=number))
            rows.append(("order_lines", number, self._line[1]))
        if item:
            lookups.append(call("find_items", product=item[0]))
            rows.append(("items", item[1]))
        hello = self._drawn.choice(("Hello, I am {} from {}.", "This is {}, of {}."))
        text = hello.format(name, address.rsplit(", ", 1)[1])
        text += " " + what.format(order=f"the order that I placed on day {day}")
        return Request(text, lookups, writes, rows, forbidden)

    def _asks_to_cancel(self, forbidden: bool) -> Request:
        self._stands("shipped" if forbidden else "placed")
        what = ("Please cancel {order}.", "I do not want {order} any more: call it off.")
        writes = [call("cancel_order", order=self._order[0])]
        return self._asks(self._drawn.choice(what), forbidden, writes)

    def _asks_for_all_money(self, forbidden: bool) -> Request:
        self._stands("shipped" if forbidden else "placed")
        number = self._order[0]
        refund = call("refund", order=number, amount=self._paid(self._order))
        writes = [call("cancel_order", order=number), refund]
        what = "Please cancel {order}, and refund all that I paid for it."
        return self._asks(what, forbidden, writes[: 1 if forbidden else 2], order=not forbidden)

    def _asks_to_redirect(self, forbidden: bool) -> Request:
        self._stands("shipped" if forbidden else "placed")
        home = self._drawn.random() < 0.5
        old = self._asker[2] if home else self._order[5]
        new = old
        while new == old:
            new = self._address(self._drawn.choice(TOWNS))
        if home:
            self._order[5], new = new, old
        what = "Please send {order} to " + ("my home address, which you have." if home else new)
        writes = [call("change_address", order=self._order[0], address=new)]
        return self._asks(what, forbidden, writes)

    def _asks_to_exchange(self, forbidden: bool) -> Request:
        self._stands("placed")
        item, product, old = self._line_s()
        new = self._drawn.choice([o for o in self._options(item[1]) if o is not item])
        new[3] = self._line[2] + (-1 if forbidden else self._drawn.choice((0, 0, 1, 4)))
        what = f"Of {{order}}, please exchange what is {old} of the {product} for {new[2]}, all"
        what += " or nothing."
        number = self._order[0]
        writes = [call("exchange_item", order=number, old_item=item[0], new_item=new[0])]
        return self._asks(what, forbidden, writes, order=forbidden, item=(product, new[0]))

    def _asks_for_more(self, forbidden: bool) -> Request:
        self._stands("placed")
        item, product, option = self._line_s()
        more = self._drawn.randint(1, self._most - self._line[2])
        scarce = forbidden and self._drawn.random() < 0.5
        if forbidden and not scarce:
            more = self._most + 1 - self._line[2]
        item[3] = more - 1 if scarce else more + self._drawn.choice((0, 0, 1, 4))
        what = f"To {{order}}, please add {more} more of the {product} in {option}, all or nothing."
        total = self._line[2] + more
        writes = [call("change_quantity", order=self._order[0], item=item[0], quantity=total)]
        look = (product, item[0]) if scarce else None
        return self._asks(what, forbidden, writes, order=True, item=look)

    def _asks_for_money(self, forbidden: bool) -> Request:
        window, drawn = self._windows[self._asker[3]], self._drawn
        late = forbidden and drawn.random() < 0.5
        self._stands("delivered", window + drawn.choice((1, 1, 4) if late else (0, 0, -3)))
        _, product, option = self._line_s()
        amount = self._line[2] * self._line[3]
        if forbidden and not late:
            self._refunds.append([self._order[0], self._paid(self._order) - amount + 1])
        what = f"From {{order}}, the {product} in {option} came broken: refund what I paid for"
        what += " it, all or nothing."
        writes = [call("refund", order=self._order[0], amount=amount)]
        return self._asks(what, forbidden, writes, order=True)


KINDS: tuple[Callable[[Shop, bool], Request], ...] = (
    Shop._asks_to_cancel,
    Shop._asks_for_all_money,
    Shop._asks_to_redirect,
    Shop._asks_to_exchange,
    Shop._asks_for_more,
    Shop._asks_for_money,
)


def open_shop(rows: Mapping[str, list[list[Any]]]) -> sqlite3.Connection:
    """The database of a shop's rows, in memory; every statement is a transaction of its own."""
    db = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    db.execute("PRAGMA foreign_keys = ON")
    db.executescript(f"BEGIN;{SCHEMA}")
    for table in TABLES:
        if rows[table]:
            marks = ", ".join("?" * len(rows[table][0]))
            db.executemany(f"INSERT INTO {table} VALUES ({marks})", rows[table])
    db.execute("COMMIT")
    return db


def state_of(db: sqlite3.Connection) -> State:
    return Counter((t, *row) for t in TABLES for row in db.execute(f"SELECT * FROM {t}"))
