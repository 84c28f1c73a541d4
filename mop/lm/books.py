"""Books: what a run has spent and reserved, in two tables of the ledger. Knows no caps, and waits for nothing.

A row for each call that is reserved or counted, and their sums in one row for the run. Whoever changes anything has
locked that row first, so the sums are those of the rows at the end of every transaction.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from mop.lm.budget import Reservation, Spend
from mop.lm.database import Database
from mop.lm.prices import PICO
from mop.lm.request import Role, Usage
from mop.lm.tables import CALLS, RUNS, SPENDING
from mop.lm.workers import Worker

_AMOUNTS = ("calls", "tokens", "pico")
_NAMES = (*_AMOUNTS, *(f"open_{name}" for name in _AMOUNTS))


@dataclass(slots=True)
class Sums:
    """What is spent and what is reserved, both as [calls, tokens, picodollars]."""

    spent: list[int]
    reserved: list[int]


@dataclass(frozen=True, slots=True)
class Entry:
    """A call that was answered: ``pico`` is what it cost in picodollars, None if the price isn't known."""

    key: str
    role: Role
    usage: Usage
    pico: int | None


class Books:
    """The books of one ``run``, as ``worker`` writes them. Every method works in the transaction of a connection."""

    def __init__(self, database: Database, run: str, worker: Worker) -> None:
        self._database = database
        self._run = run
        self._worker = worker
        self._mine = SPENDING.c.run == run

    def open(self, connection: sa.Connection) -> None:
        """Begin the books, if there are none yet."""
        row = {"run": self._run, **dict.fromkeys(_NAMES, 0)}
        connection.execute(self._database.insert_or_ignore(RUNS), row)

    def lock(self, connection: sa.Connection) -> Sums:
        """Return the sums; nobody else changes them until the transaction ends."""
        chosen = sa.select(*(RUNS.c[name] for name in _NAMES)).where(RUNS.c.run == self._run).with_for_update()
        numbers = [int(number) for number in connection.execute(chosen).one()]
        return Sums(numbers[:3], numbers[3:])

    def save(self, connection: sa.Connection, sums: Sums) -> None:
        """Write the sums."""
        values = dict(zip(_NAMES, (*sums.spent, *sums.reserved), strict=True))
        connection.execute(RUNS.update().where(RUNS.c.run == self._run).values(**values))

    def owners(self, connection: sa.Connection, keys: Collection[str]) -> Mapping[str, str | None]:
        """Return who has each call reserved, None for one that is counted; others are not in the books."""
        chosen = sa.select(SPENDING.c.key, SPENDING.c.owner).where(self._mine, SPENDING.c.key.in_(sorted(keys)))
        return {row.key: row.owner for row in connection.execute(chosen)}

    def counted(self, connection: sa.Connection) -> set[str]:
        """Return all calls that are counted."""
        return set(connection.scalars(sa.select(SPENDING.c.key).where(self._mine, SPENDING.c.owner.is_(None))))

    def reserve(self, connection: sa.Connection, sums: Sums, wanted: Reservation) -> None:
        """Enter a reservation of this worker."""
        row = {"run": self._run, "key": wanted.key, "owner": self._worker.owner, "role": wanted.role}
        numbers = {"prompt_tokens": wanted.tokens, "cached_tokens": 0, "completion_tokens": 0, "pico": wanted.pico}
        connection.execute(SPENDING.insert(), {**row, **numbers})
        _move(sums.reserved, wanted.tokens, wanted.pico)

    def take_over(self, connection: sa.Connection, key: str) -> None:
        """Make this worker the one that has a call reserved."""
        chosen = SPENDING.update().where(self._mine, SPENDING.c.key == key, SPENDING.c.owner.is_not(None))
        connection.execute(chosen.values(owner=self._worker.owner))

    def take_from(self, connection: sa.Connection, owner: str, keys: Collection[str]) -> set[str]:
        """Make this worker the one that has calls reserved which ``owner`` had, and return them."""
        theirs = SPENDING.update().where(self._mine, SPENDING.c.key.in_(sorted(keys)), SPENDING.c.owner == owner)
        return set(connection.scalars(theirs.values(owner=self._worker.owner).returning(SPENDING.c.key)))

    def is_alive(self, connection: sa.Connection, owner: str) -> bool:
        """Return whether a worker is alive."""
        alive = self._worker.alive(connection).subquery()
        return connection.scalar(sa.select(alive.c.owner).where(alive.c.owner == owner)) is not None

    def count(self, connection: sa.Connection, sums: Sums, entries: Sequence[Entry]) -> None:
        """Enter what calls used in place of their reservations, each once."""
        fresh = {entry.key: entry for entry in entries}
        for row in connection.execute(self._rows(SPENDING.c.key.in_(sorted(fresh)))):
            if row.owner is None:
                del fresh[row.key]
            else:
                _move(sums.reserved, row.prompt_tokens + row.completion_tokens, row.pico, -1)
        rows = []
        for key, entry in sorted(fresh.items()):
            usage = entry.usage
            counted = {
                "owner": None,
                "role": entry.role,
                "prompt_tokens": usage.prompt_tokens,
                "cached_tokens": usage.cached_tokens,
                "completion_tokens": usage.completion_tokens,
                "pico": entry.pico,
            }
            rows.append({"run": self._run, "key": key, **counted})
            _move(sums.spent, usage.total_tokens, entry.pico)
        if rows:
            connection.execute(self._database.insert_or_update(SPENDING, list(counted)), rows)

    def release(self, connection: sa.Connection, sums: Sums, keys: Collection[str]) -> None:
        """Strike out reservations of this worker."""
        self._strike(connection, sums, SPENDING.c.key.in_(sorted(keys)) & (SPENDING.c.owner == self._worker.owner))

    def release_dead(self, connection: sa.Connection, sums: Sums) -> list[str]:
        """Strike out the reservations of workers that are dead, and return the calls that they were for."""
        alive = self._worker.alive(connection)
        return self._strike(connection, sums, SPENDING.c.owner.is_not(None) & SPENDING.c.owner.not_in(alive))

    def spend(self, connection: sa.Connection) -> Spend:
        """Return what the counted calls used, in total and by role."""
        names = ("prompt_tokens", "cached_tokens", "completion_tokens")
        sums = [sa.func.sum(SPENDING.c[name]) for name in names]
        money = (sa.func.sum(SPENDING.c.pico), sa.func.count(SPENDING.c.pico))
        query = sa.select(SPENDING.c.role, sa.func.count(), *sums, *money).where(self._mine, SPENDING.c.owner.is_(None))
        by_role: dict[Role, Spend] = {}
        total = Spend()
        for role, calls, *tokens, pico, priced in connection.execute(query.group_by(SPENDING.c.role)):
            usage = Usage(*(int(number) for number in tokens))
            usd = int(pico or 0) / PICO if priced == calls else None
            by_role[role] = Spend(int(calls), usage, usd)
            # Summed as whole numbers, as the books of one process are.
            total = Spend(total.calls + int(calls), total.usage + usage, None if total.usd is None else usd)
        if total.usd is not None:
            whole = connection.scalar(sa.select(RUNS.c.pico).where(RUNS.c.run == self._run))
            total = Spend(total.calls, total.usage, int(whole or 0) / PICO)
        return Spend(total.calls, total.usage, total.usd, by_role)

    def _rows(self, condition: sa.ColumnElement[bool]) -> sa.Select[Any]:
        columns = (SPENDING.c[name] for name in ("key", "owner", "prompt_tokens", "completion_tokens", "pico"))
        return sa.select(*columns).where(self._mine, condition)

    def _strike(self, connection: sa.Connection, sums: Sums, condition: sa.ColumnElement[bool]) -> list[str]:
        gone: list[str] = []
        for row in connection.execute(self._rows(condition)):
            _move(sums.reserved, row.prompt_tokens + row.completion_tokens, row.pico, -1)
            gone.append(row.key)
        if gone:
            connection.execute(SPENDING.delete().where(self._mine, SPENDING.c.key.in_(gone)))
        return gone


def forget(connection: sa.Connection, run: str | None = None) -> None:
    """Take calls that the ledger doesn't have any more out of all books, for they will be paid for again; of ``run``,
    all that are counted.
    """
    known = sa.exists().where(CALLS.c.key == SPENDING.c.key) & (SPENDING.c.run != (run or ""))
    connection.execute(SPENDING.delete().where(SPENDING.c.owner.is_(None), ~known))
    of_run = (SPENDING.c.run == RUNS.c.run) & SPENDING.c.owner.is_(None)
    tokens = sa.func.coalesce(sa.func.sum(SPENDING.c.prompt_tokens + SPENDING.c.completion_tokens), 0)
    sums = (sa.func.count(), tokens, sa.func.coalesce(sa.func.sum(SPENDING.c.pico), 0))
    values = {name: sa.select(one).where(of_run).scalar_subquery() for name, one in zip(_AMOUNTS, sums, strict=True)}
    connection.execute(RUNS.update().values(**values))


def _move(amounts: list[int], tokens: int, pico: int | None, sign: int = 1) -> None:
    for place, amount in enumerate((1, tokens, pico or 0)):
        amounts[place] += sign * amount
