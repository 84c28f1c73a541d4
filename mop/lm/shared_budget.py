"""Shared budget: caps that all processes of one run keep together, in the ledger's database. Knows no endpoints.

It is what `mop.lm.budget` is within a process. A call counts once for the run, whoever sends it, so processes that ask
the same questions share one account, and a run that is started again goes on with it. What a process reserved that has
ended is anybody's.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from dataclasses import replace

import sqlalchemy as sa

from mop.errors import BudgetExceeded
from mop.lm.books import Books, Entry, Sums
from mop.lm.budget import Reservation, Spend, check_caps, passed, refusal
from mop.lm.ledger import Ledger
from mop.lm.prices import PICO, Prices
from mop.lm.request import Reply, Request, Role, Usage
from mop.lm.wire import most_prompt_tokens

#: Seconds between two looks at whether other processes have made room.
LOOK = 0.05
#: Least seconds between two looks at what is spent by role, for those who watch.
WATCH = 0.5


class SharedBudget:
    """Caps over all roles and processes of a run; ``None`` is no cap. Safe to use from several threads and event loops.

    Args:
        ledger: Where the books are kept, with the replies.
        run: Name of the run, at most 64 characters: the same in every process of it.
        calls: Most model calls.
        tokens: Most tokens, prompt and completion together.
        usd: Most money in USD.
        prices: Price list for ``usd``; the built-in one by default.

    Raises:
        SettingsError: A cap is negative or not a number.
        LedgerError: The ledger cannot be read or written.
    """

    def __init__(
        self,
        ledger: Ledger,
        run: str,
        calls: int | None = None,
        tokens: int | None = None,
        usd: float | None = None,
        prices: Prices | None = None,
    ) -> None:
        check_caps(calls, tokens, usd)
        self.calls: int | None = calls
        self.tokens: int | None = tokens
        self.usd: float | None = usd
        self.run = run
        self._pico = None if usd is None else int(usd * PICO)
        self.prices = prices if prices is not None else Prices()
        self._database = ledger.database
        self._worker = ledger.worker
        self._books = Books(self._database, run, self._worker)
        self._lock = threading.Lock()
        self._spent = Spend()
        self._watched = 0.0
        #: Calls that are counted, reservations of this process, and what is to be written about them.
        self._counted: set[str] = set()
        self._open: set[str] = set()
        self._pending: dict[str, Entry | None] = {}
        #: Reservations that were another worker's and wait for their calls here.
        self._handed: dict[str, Reservation] = {}
        self._database.run(self._begin, write=True)

    @property
    def account(self) -> SharedBudget:
        """This budget: it counts replies in the transaction that records them."""
        return self

    @property
    def spent(self) -> Spend:
        """What the run has used, in total and by role, as of the last look at the books."""
        with self._lock:
            return self._spent

    async def admit(self, request: Request, known: Reply | None, *, paying: bool = False) -> Reservation | None:
        """Keep room for a call, or return None if it is counted; wait while open reservations may still make room.

        A reservation that isn't ``owned`` is another worker's for the same call. ``paying`` makes it this one's.

        Raises:
            BudgetExceeded: Together with what is spent, it would pass a cap.
            UnknownPrice: Money is capped and the model has no price.
            LedgerError: The books cannot be read or written.
        """
        key = request.key
        with self._lock:
            if (handed := self._handed.pop(key, None)) is not None:
                return handed
            if key in self._counted and key not in self._pending:
                return None
        return (await self._admit_in_turn([(request, known)], paying))[0]

    async def admit_many(self, requests: Sequence[tuple[Request, Reply | None]]) -> list[Reservation | None]:
        """Keep room for as many of the first requests as fit now, at least one; return what `admit` does for each.

        Each comes with its reply if that was recorded before. All of it is one transaction. Raises as `admit` does,
        for the first request.
        """
        return await self._admit_in_turn(requests, paying=False) if requests else []

    def take_over(self, owner: str, requests: Sequence[Request]) -> None:
        """Make the reservations of another worker for ``requests`` this one's, if they are that ``owner``'s still.

        `admit` then finds them without a look at the books. Raises LedgerError.
        """
        wanted = {request.key: self._wanted(request) for request in requests}

        def take(connection: sa.Connection) -> set[str]:
            self._worker.renew(connection)
            self._books.lock(connection)
            return self._books.take_from(connection, owner, wanted)

        mine = self._database.run(take, write=True)
        self._note(opened=mine)
        with self._lock:
            self._handed |= {key: wanted[key] for key in mine}

    def let_go(self, requests: Sequence[Request]) -> None:
        """Give back what was taken over for ``requests`` and not asked for; it is written with the next change."""
        with self._lock:
            unused = [handed for one in requests if (handed := self._handed.pop(one.key, None)) is not None]
        for handed in unused:
            self.cancel(handed)

    def settle(self, reservation: Reservation, usage: Usage) -> None:
        """Replace a reservation by what its call used; it is written with the next change of the books."""
        with self._lock:
            if reservation.key not in self._counted:
                entry = self._entry(reservation.model, reservation.role, reservation.key, usage)
                self._pending[reservation.key] = entry

    def cancel(self, reservation: Reservation) -> None:
        """Give a reservation back, unless it is another worker's; it is written with the next change of the books."""
        with self._lock:
            if reservation.key in self._open:
                self._pending[reservation.key] = None

    async def flush(self) -> None:
        """Write what is to be written, and look at what is spent. Raises LedgerError."""
        await asyncio.to_thread(self._flush)

    def settle_in(self, connection: sa.Connection, calls: Sequence[tuple[Request, Reply]]) -> None:
        """Count replies in the transaction that records them."""
        sums = self._books.lock(connection)
        entries = [self._entry(request.model, request.role, reply.key, reply.usage) for request, reply in calls]
        self._books.count(connection, sums, entries)
        self._books.save(connection, sums)

    def settled(self, calls: Sequence[tuple[Request, Reply]]) -> None:
        """Note that the transaction of `settle_in` was committed."""
        self._note(counted={reply.key for _, reply in calls})

    def _wanted(self, request: Request) -> Reservation:
        price = self.prices.find(request.model) if self._pico is None else self.prices.get(request.model)
        prompt, answer = most_prompt_tokens(request), request.max_tokens
        pico = 0 if price is None else price.pico_at_most(prompt, answer)
        return Reservation(request.model, request.role, 1, prompt + answer, pico, request.key)

    def _entry(self, model: str, role: Role, key: str, usage: Usage) -> Entry:
        price = self.prices.find(model)
        return Entry(key, role, usage, None if price is None else price.pico(usage))

    def _begin(self, connection: sa.Connection) -> None:
        self._books.open(connection)
        self._counted |= self._books.counted(connection)
        self._spent = self._books.spend(connection)

    async def _admit_in_turn(
        self, requests: Sequence[tuple[Request, Reply | None]], paying: bool
    ) -> list[Reservation | None]:
        asked: list[tuple[Reservation, Entry | None]] = []
        for request, known in requests:
            entry = None if known is None else self._entry(request.model, request.role, request.key, known.usage)
            asked.append((self._wanted(request), entry))
        while not (admitted := await asyncio.to_thread(self._admit_now, asked, paying)):
            await asyncio.sleep(LOOK)
        return admitted

    def _admit_now(self, asked: Sequence[tuple[Reservation, Entry | None]], paying: bool) -> list[Reservation | None]:
        """Return what is decided for the first of ``asked``: a reservation, or None for a call that is counted."""
        with self._lock:
            pending = dict(self._pending)

        def admit(connection: sa.Connection) -> list[Reservation | None]:
            sums = self._books.lock(connection)
            self._write(connection, sums, pending)
            self._worker.renew(connection)
            owners = dict(self._books.owners(connection, [wanted.key for wanted, _ in asked]))
            admitted: list[Reservation | None] = []
            for wanted, known in asked:
                try:
                    done, reservation = self._decide(connection, sums, wanted, known, paying, owners)
                except BudgetExceeded:
                    if not admitted:
                        raise
                    break  # whoever asks again is told, once what goes before it is counted
                if not done:
                    break
                admitted.append(reservation)
            self._books.save(connection, sums)
            self._watch(connection)
            return admitted

        admitted = self._database.run(admit, write=True)
        decided = [(wanted.key, reservation) for (wanted, _), reservation in zip(asked, admitted, strict=False)]
        counted = {key for key, reservation in decided if reservation is None}
        opened = {key for key, reservation in decided if reservation is not None and reservation.owned}
        self._note(counted, opened, pending)
        return admitted

    def _decide(
        self,
        connection: sa.Connection,
        sums: Sums,
        wanted: Reservation,
        known: Entry | None,
        paying: bool,
        owners: dict[str, str | None],
    ) -> tuple[bool, Reservation | None]:
        """Return whether it is decided, and the reservation if it is one."""
        if wanted.key in owners:
            owner = owners[wanted.key]
            if owner is None:
                return True, None
            if owner != self._worker.owner:
                if not paying and self._books.is_alive(connection, owner):
                    return True, replace(wanted, owned=False)
                self._books.take_over(connection, wanted.key)
            return True, wanted
        caps = (self.calls, self.tokens, self._pico)
        problem = passed(caps, sums.spent, (0, 0, 0), wanted)
        if problem is not None:
            raise refusal(wanted, problem)
        if passed(caps, sums.spent, sums.reserved, wanted) is not None:
            for key in self._books.release_dead(connection, sums):
                owners.pop(key, None)
            if passed(caps, sums.spent, sums.reserved, wanted) is not None:
                return False, None
        if known is not None:
            self._books.count(connection, sums, [known])
            return True, None
        self._books.reserve(connection, sums, wanted)
        return True, wanted

    def _flush(self) -> None:
        with self._lock:
            pending = dict(self._pending)

        def flush(connection: sa.Connection) -> None:
            if pending:
                sums = self._books.lock(connection)
                self._write(connection, sums, pending)
                self._books.save(connection, sums)
            self._watched = 0.0
            self._watch(connection)

        self._database.run(flush, write=bool(pending))
        self._note(pending=pending)

    def _write(self, connection: sa.Connection, sums: Sums, pending: dict[str, Entry | None]) -> None:
        """Write what is pending; doing it twice is the same as doing it once."""
        entries = [entry for entry in pending.values() if entry is not None]
        if entries:
            self._books.count(connection, sums, entries)
        if released := [key for key, entry in pending.items() if entry is None]:
            self._books.release(connection, sums, released)

    def _watch(self, connection: sa.Connection) -> None:
        if (now := time.monotonic()) - self._watched >= WATCH:
            spent = self._books.spend(connection)
            with self._lock:
                self._watched, self._spent = now, spent

    def _note(
        self,
        counted: set[str] | None = None,
        opened: set[str] | None = None,
        pending: dict[str, Entry | None] | None = None,
    ) -> None:
        """Note what was committed."""
        counted, opened = counted or set(), opened or set()
        written = pending or {}
        with self._lock:
            for key, entry in written.items():
                if self._pending.get(key, self) is entry:
                    del self._pending[key]
            counted = counted | {key for key, entry in written.items() if entry is not None}
            before = len(self._open)
            self._open -= counted | {key for key, entry in written.items() if entry is None}
            self._open |= opened
            self._counted |= counted
            for key in counted:
                self._pending.pop(key, None)
            change = len(self._open) - before
        self._worker.hold(change)
