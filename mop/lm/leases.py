"""Leases: whose turn it is to send a call that several workers want. Knows nothing of endpoints or budgets.

A call is leased before it is sent, and the lease ends in the transaction that records the reply. A worker that finds
a call leased waits for the reply, or for the end of the worker that has it, and is then its owner.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence, Set

import sqlalchemy as sa

from mop.lm.database import Database
from mop.lm.request import Reply
from mop.lm.tables import LEASES
from mop.lm.workers import Worker

#: Looks up the replies that are recorded for keys.
Select = Callable[[sa.Connection, Sequence[str]], dict[str, Reply]]


class Leases:
    """The leases that ``worker`` holds. Safe to use from several threads."""

    def __init__(self, database: Database, worker: Worker, select: Select) -> None:
        self._database = database
        self._worker = worker
        self._select = select
        self._lock = threading.Lock()
        self._held: set[str] = set()
        self._unwanted: set[str] = set()

    def take(self, keys: Sequence[str]) -> Mapping[str, Reply | bool]:
        """Return for each key its reply if there is one now, else whether it is this caller's turn to send it.

        Raises:
            LedgerError: The ledger cannot be read or written.
        """
        with self._lock:
            # Another client of this process may hold one; it is as busy as one that another process holds.
            free = sorted(set(keys) - self._held)
            self._held.update(free)
            self._unwanted.difference_update(free)
            unwanted = self._unwanted & self._held
        self._worker.hold(len(free))
        states: Mapping[str, Reply | bool] = {}
        try:
            states = self._database.run(lambda connection: self._take(connection, free, unwanted), write=True)
            self._drop(unwanted)
        finally:
            self._drop({key for key in free if states.get(key) is not True})
        return {key: states.get(key, False) for key in keys}

    def give_back(self, key: str) -> None:
        """Let others send a call that got no reply here, at the next `take` or `flush`."""
        with self._lock:
            self._unwanted.add(key)

    def flush(self) -> None:
        """Give back what isn't wanted any more. Raises LedgerError."""
        with self._lock:
            unwanted = self._unwanted & self._held
        if unwanted:
            self._database.run(lambda connection: self.end(connection, unwanted), write=True)
            self._drop(unwanted)

    def end(self, connection: sa.Connection, keys: Iterable[str]) -> None:
        """End the leases on calls whose replies are recorded in the same transaction."""
        connection.execute(LEASES.delete().where(LEASES.c.key.in_(sorted(keys)), LEASES.c.owner == self._worker.owner))

    def ended(self, keys: Iterable[str]) -> None:
        """Note that the transaction of `end` was committed."""
        self._drop(keys)

    def _drop(self, keys: Iterable[str]) -> None:
        with self._lock:
            known = self._held.intersection(keys)
            self._held -= known
            self._unwanted -= known
        self._worker.hold(-len(known))

    def _take(self, connection: sa.Connection, keys: Sequence[str], unwanted: Set[str]) -> dict[str, Reply | bool]:
        if unwanted:
            self.end(connection, unwanted)
        if not keys:
            return {}
        self._worker.renew(connection)
        mine = self._worker.owner
        # All workers insert in one order, so that none waits for another in a circle.
        connection.execute(
            self._database.insert_or_ignore(LEASES), [{"key": key, "owner": mine} for key in sorted(keys)]
        )
        chosen = sa.select(LEASES.c.key, LEASES.c.owner).where(LEASES.c.key.in_(keys))
        owners = {row.key: row.owner for row in connection.execute(chosen)}
        if any(owner != mine for owner in owners.values()):
            theirs = LEASES.c.key.in_(sorted(key for key, owner in owners.items() if owner != mine))
            dead = LEASES.c.owner.not_in(self._worker.alive(connection))
            connection.execute(LEASES.update().where(theirs, dead).values(owner=mine))
            owners = {row.key: row.owner for row in connection.execute(chosen)}
        # After the leases: who had one before recorded the reply and ended the lease in one transaction, so that it is
        # seen here. The other way round it could come between.
        known = self._select(connection, keys)
        if known:
            self.end(connection, known)
        return {key: known.get(key) or owners.get(key) == mine for key in keys}
