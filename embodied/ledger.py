"""What calls of paid models cost: reserved before, settled after, in a file that outlives a crash.

A line for each reservation and each settlement, on the disk before the call goes out. What was
reserved and never settled counts as spent, since nobody can know: so a budget holds through a
`kill -9`, and for several processes that share one file.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from embodied.errors import UserError, check_range


class Ledger:
    """The account in the file `path`, of which at most `budget` may be spent (None: no limit).

    Amounts are in whatever currency prices are given in. Raises `UserError` where the file cannot
    be written.
    """

    def __init__(self, path: str | Path, budget: float | None = None) -> None:
        if budget is not None:
            check_range("ledger", 0, budget=budget)
        self.path, self.budget = Path(path), budget
        self._open: dict[str, float] = {}
        self._settled = 0.0
        self._read = 0
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        except OSError as error:
            raise UserError(f"ledger {path}: {error.strerror}") from error
        with self._alone():
            pass

    def reserve(self, amount: float) -> str | None:
        """Set `amount` aside and return the reservation's name, or None where the budget is
        spent."""
        with self._alone():
            if self.budget is not None and self._sum() + amount > self.budget:
                return None
            name = secrets.token_hex(8)
            self._append({"reserve": name, "amount": amount})
            return name

    def settle(self, name: str, amount: float) -> None:
        """What a reserved call has really cost."""
        with self._alone():
            self._append({"settle": name, "amount": amount})

    @property
    def spent(self) -> float:
        """What is settled or set aside, by all processes that share the file."""
        with self._alone():
            return self._sum()

    def close(self) -> None:
        os.close(self._file)

    def _sum(self) -> float:
        return self._settled + sum(self._open.values())

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the file, having read what others wrote meanwhile."""
        fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            self._catch_up()
            yield
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def _append(self, row: dict[str, str | float]) -> None:
        line = memoryview((json.dumps(row) + "\n").encode())
        while line:
            line = line[os.write(self._file, line) :]
        os.fsync(self._file)
        self._catch_up()

    def _catch_up(self) -> None:
        size = os.fstat(self._file).st_size
        if size == self._read:
            return
        data = os.pread(self._file, size - self._read, self._read)
        if not data.endswith(b"\n"):  # a crash tore the last line: it was never acted upon
            os.write(self._file, b"\n")
            size += 1
        self._read = size
        for line in data.split(b"\n"):
            self._take(line)

    def _take(self, line: bytes) -> None:
        try:
            row = json.loads(line)
            amount = float(row["amount"])
            if "reserve" in row:
                self._open[row["reserve"]] = amount
            elif self._open.pop(row["settle"], None) is not None:
                self._settled += amount
        except (ValueError, KeyError, TypeError):
            return  # a torn line
