"""Upkeep: takes calls out of a ledger, as JSON lines or for good. Knows nothing of prices or endpoints."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from mop.errors import SettingsError
from mop.lm.books import forget
from mop.lm.ledger import Ledger
from mop.lm.request import Usage
from mop.lm.tables import CALLS

#: Rows read at a time.
BATCH = 1000
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_AGE = re.compile(r"\s*(?P<number>\d{1,9}(?:\.\d+)?)\s*(?P<unit>[smhdw])\s*")


@dataclass(frozen=True, slots=True)
class Choice:
    """Which calls are meant: those that fit everything that isn't None.

    ``older_than`` is in seconds; ``run`` is empty for calls whose run isn't known.
    """

    model: str | None = None
    role: str | None = None
    run: str | None = None
    older_than: float | None = None

    def condition(self) -> sa.ColumnElement[bool]:
        """Return the condition for the database."""
        parts: list[sa.ColumnElement[bool]] = [sa.true()]
        if self.model is not None:
            parts.append(CALLS.c.model == self.model)
        if self.role is not None:
            parts.append(CALLS.c.role == self.role)
        if self.run is not None:
            parts.append(sa.func.coalesce(CALLS.c.run, "") == self.run)
        if self.older_than is not None:
            parts.append(CALLS.c.created_at < time.time() - self.older_than)
        return sa.and_(*parts)


def read_age(text: str) -> float:
    """Return the seconds that an age in words (``90d``, ``12h``, ``2w``) stands for.

    Raises:
        SettingsError: It isn't one.
    """
    match = _AGE.fullmatch(text)
    if match is None:
        raise SettingsError(f"The age {text!r} isn't understood; write 90d, 12h, 30m or 2w.")
    return float(match["number"]) * _UNITS[match["unit"]]


def export(ledger: Ledger, choice: Choice | None = None) -> Iterator[dict[str, Any]]:
    """Yield the chosen calls as plain data, oldest first; ``request`` is what the model was asked.

    Raises:
        LedgerError: The ledger cannot be read.
    """
    chosen = (choice or Choice()).condition()
    order = sa.tuple_(CALLS.c.created_at, CALLS.c.key)
    query = sa.select(CALLS).order_by(CALLS.c.created_at, CALLS.c.key).limit(BATCH)
    after: tuple[float, str] | None = None
    while True:
        # Piece by piece: whoever reads the lines may stop at any of them, and nothing is to stay open then.
        condition = chosen if after is None else sa.and_(chosen, order > after)
        with ledger.database.transaction(write=False) as connection:
            rows = connection.execute(query.where(condition)).mappings().all()
        for row in rows:
            yield {**row, "request": json.loads(row["request"])}
        if len(rows) < BATCH:
            return
        after = (rows[-1]["created_at"], rows[-1]["key"])


def count(ledger: Ledger, choice: Choice) -> dict[str, tuple[int, Usage]]:
    """Return the calls and tokens that ``choice`` means, by model. Raises LedgerError."""
    names = ("prompt_tokens", "cached_tokens", "completion_tokens")
    sums = [sa.func.sum(CALLS.c[name]) for name in names]
    query = sa.select(CALLS.c.model, sa.func.count(), *sums).where(choice.condition()).group_by(CALLS.c.model)
    with ledger.database.transaction(write=False) as connection:
        return {str(row[0]): (int(row[1]), Usage(*map(int, row[2:]))) for row in connection.execute(query)}


def prune(ledger: Ledger, choice: Choice) -> int:
    """Delete the chosen calls for good, give their room back to the disk, and return how many there were.

    Raises:
        SettingsError: Nothing is chosen, which would delete everything.
        LedgerError: The ledger cannot be written.
    """
    if choice == Choice():
        raise SettingsError("Say what to prune: an age, a model, a role or a run; to drop everything, delete the file.")
    with ledger.database.transaction(write=True) as connection:
        gone = connection.execute(CALLS.delete().where(choice.condition())).rowcount
        if gone:
            forget(connection, choice.run)
    if gone:
        ledger.database.vacuum()
    return gone
