"""Claims: asks for leases in groups, off the event loop, and waits for those that others have. Knows nothing of calls.

While one group is asked for the next one gathers, so many calls at once take few transactions.
"""

from __future__ import annotations

import asyncio

from mop.errors import LedgerError
from mop.lm.leases import Leases
from mop.lm.request import Reply

#: Seconds between two looks at a call that another worker has underway.
LOOK = 0.1


class Claims:
    """The claims of one event loop on ``leases``."""

    def __init__(self, leases: Leases) -> None:
        self._leases = leases
        self._waiting: list[tuple[str, asyncio.Future[Reply | bool]]] = []
        self._task: asyncio.Task[None] | None = None

    async def take(self, key: str) -> Reply | bool:
        """Return the reply to a call if it is recorded, True if the caller is to send it, False if another does.

        Raises:
            LedgerError: The ledger cannot be read or written.
        """
        state: asyncio.Future[Reply | bool] = asyncio.get_running_loop().create_future()
        self._waiting.append((key, state))
        if self._task is None:
            self._task = asyncio.create_task(self._drain())
        return await state

    async def wait(self, key: str) -> Reply | None:
        """Wait for the reply of another worker and return it, or None if the caller is now to send the call.

        Raises:
            LedgerError: The ledger cannot be read or written.
        """
        while (state := await self.take(key)) is False:
            await asyncio.sleep(LOOK)
        return None if isinstance(state, bool) else state

    def give_back(self, key: str) -> None:
        """Let others send a call that got no reply here."""
        self._leases.give_back(key)

    async def flush(self) -> None:
        """Wait until everything that was given back is free. Raises LedgerError."""
        if self._task is not None:
            await asyncio.wait([self._task])
        await asyncio.to_thread(self._leases.flush)

    async def _drain(self) -> None:
        group: list[tuple[str, asyncio.Future[Reply | bool]]] = []
        try:
            while self._waiting:
                group, self._waiting = self._waiting, []
                await self._ask(group)
        finally:
            self._task = None
            for _, state in (*group, *self._waiting):
                state.cancel()  # nothing happens to those that are done

    async def _ask(self, group: list[tuple[str, asyncio.Future[Reply | bool]]]) -> None:
        wanted = [key for key, state in group if not state.done()]
        try:
            states = await asyncio.to_thread(self._leases.take, wanted) if wanted else {}
        except asyncio.CancelledError:
            for key in wanted:  # the thread goes on, and may get what nobody will use
                self._leases.give_back(key)
            raise
        except Exception as error:  # noqa: BLE001  # whatever it is, nobody may be left waiting for this group
            known = isinstance(error, LedgerError)
            told = error if known else LedgerError(f"Calls could not be leased in the ledger ({error!r}).")
            for _, state in group:
                if not state.done():
                    state.set_exception(told)
            return
        for key, state in group:
            if state.done():  # the caller was cancelled meanwhile
                if states.get(key) is True:
                    self._leases.give_back(key)
            else:
                state.set_result(states[key])
