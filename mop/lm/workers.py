"""Workers: who has calls underway on a ledger, and who of them is alive. Knows nothing of what the calls are.

A worker is alive until its row expires, by the database's clock, and renews it four times as often; one process that
is killed is replaced after `SECONDS` at the latest, and at once where its end can be seen from the same machine.
"""

from __future__ import annotations

import secrets
import threading

import sqlalchemy as sa

from mop.errors import LedgerError
from mop.lm.database import Database
from mop.lm.process import has_ended, machine, myself
from mop.lm.tables import LEASES, WORKERS

#: Seconds for which a worker that isn't heard of counts as alive. A process that is frozen or cut off from the
#: database for longer loses what it has underway to others, which may then pay for it again.
SECONDS = 30.0
#: Seconds after which the row of a worker that is dead is dropped.
KEPT_SECONDS = 86400.0


class Worker:
    """This process as a worker on ``database``. Safe to use from several threads.

    The row is renewed by a thread of its own while something is held.
    """

    def __init__(self, database: Database, seconds: float | None = None) -> None:
        self.owner = secrets.token_hex(8)
        self._database = database
        self._seconds = SECONDS if seconds is None else seconds
        self._lock = threading.Lock()
        self._held = 0
        self._entered = False
        self._thread: threading.Thread | None = None
        self._over = threading.Event()

    def hold(self, count: int) -> None:
        """Note that ``count`` more leases or reservations are held, or fewer if it is negative."""
        with self._lock:
            self._held += count
            if self._held > 0 and self._thread is None and not self._over.is_set():
                self._thread = threading.Thread(target=self._beat, name="mop-lease", daemon=True)
                self._thread.start()

    def renew(self, connection: sa.Connection) -> None:
        """Be alive from now on, in the caller's transaction."""
        self._entered = True
        row = {
            "owner": self.owner,
            "expires_at": self._database.now() + self._seconds,
            "machine": machine(),
            "process": myself(),
        }
        connection.execute(self._database.insert_or_update(WORKERS, ["expires_at"]).values(row))

    def alive(self, connection: sa.Connection) -> sa.Select[tuple[str]]:
        """Return the query of the workers that are alive, after those that have ended on this machine were removed.

        Whoever isn't in it is dead; its leases and reservations are anybody's.
        """
        others = sa.select(WORKERS.c.owner, WORKERS.c.process).where(
            WORKERS.c.machine == machine(), WORKERS.c.owner != self.owner
        )
        ended = [row.owner for row in connection.execute(others) if has_ended(row.process)]
        if ended:
            connection.execute(WORKERS.delete().where(WORKERS.c.owner.in_(ended)))
        return sa.select(WORKERS.c.owner).where(WORKERS.c.expires_at > self._database.now())

    def close(self) -> None:
        """Give up everything that is held. Where the database is gone, it expires by itself."""
        self._over.set()
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            thread.join()
        if self._entered:
            try:
                with self._database.transaction(write=True) as connection:
                    self._leave(connection)
            except LedgerError:
                return  # nobody waits for longer than the row lasts, and what ended the run is told already

    def _leave(self, connection: sa.Connection) -> None:
        connection.execute(LEASES.delete().where(LEASES.c.owner == self.owner))
        # With it go the rows of those that were killed long ago.
        past = WORKERS.c.expires_at < self._database.now() - KEPT_SECONDS
        connection.execute(WORKERS.delete().where((WORKERS.c.owner == self.owner) | past))

    def _beat(self) -> None:
        while not self._over.wait(self._seconds / 4):
            with self._lock:
                if self._held <= 0:
                    self._thread = None
                    return
            try:
                with self._database.transaction(write=True) as connection:
                    self.renew(connection)
            except LedgerError:
                continue  # the next beat may get through, and the work itself meets the same error and tells it
