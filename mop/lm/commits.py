"""Commits: writes replies to the ledger in groups, off the event loop. Knows nothing of endpoints or budgets.

A reply is given out only after its commit. While one group is being committed the next one gathers, so the
number of transactions follows the speed of the disk and not the number of replies.
"""

from __future__ import annotations

import asyncio

from mop.errors import LedgerError
from mop.lm.caps import Account
from mop.lm.ledger import Ledger
from mop.lm.request import Reply, Request

#: Least seconds between the starts of two commits; the first reply after a quiet time is committed at once.
INTERVAL = 0.02

_Entry = tuple[Request, Reply, "asyncio.Future[Reply]"]


class GroupCommit:
    """Commits replies to ``ledger`` as those of ``run``, which ``account`` counts; belongs to one event loop."""

    def __init__(self, ledger: Ledger, run: str | None = None, account: Account | None = None) -> None:
        self._ledger = ledger
        self._run = run
        self._account = account
        self._waiting: list[_Entry] = []
        self._task: asyncio.Task[None] | None = None
        self._next_start = 0.0

    def add(self, request: Request, reply: Reply) -> asyncio.Future[Reply]:
        """Queue a reply; the future resolves to the reply that the ledger holds, once it is committed."""
        committed: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting.append((request, reply, committed))
        if self._task is None:
            self._task = asyncio.create_task(self._drain())
        return committed

    async def flush(self) -> None:
        """Wait until everything that was queued is committed."""
        if self._task is not None:
            await asyncio.wait([self._task])

    async def _drain(self) -> None:
        loop = asyncio.get_running_loop()
        group: list[_Entry] = []
        try:
            while self._waiting:
                await asyncio.sleep(max(0.0, self._next_start - loop.time()))
                self._next_start = loop.time() + INTERVAL
                group, self._waiting = self._waiting, []
                await self._commit(group)
        except asyncio.CancelledError:
            # The loop is being torn down: what was received is still recorded, without handing control back.
            # That takes in the group whose thread may not have started; recording a reply twice changes
            # nothing.
            left, self._waiting = [*group, *self._waiting], []
            self._ledger.put_many([(request, reply) for request, reply, _ in left], self._run, self._account)
            raise
        finally:
            self._task = None

    async def _commit(self, group: list[_Entry]) -> None:
        rows = [(request, reply) for request, reply, _ in group]
        try:
            recorded = await asyncio.to_thread(self._ledger.put_many, rows, self._run, self._account)
        except Exception as error:  # noqa: BLE001  # whatever it is, nobody may be left waiting for this group
            known = isinstance(error, LedgerError)
            told = error if known else LedgerError(f"Replies could not be recorded in the ledger ({error!r}).")
            for _, _, committed in group:
                if not committed.done():
                    committed.set_exception(told)
            return
        for (_, _, committed), reply in zip(group, recorded, strict=True):
            if not committed.done():
                committed.set_result(reply)
