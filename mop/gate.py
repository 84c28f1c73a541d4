"""Gate: lets a run that the user interrupts finish the calls it has on the wire, and start no others.

The gate is a context variable, so it reaches whatever a run starts and nothing else; without one, work isn't counted.
Knows nothing of what the work is.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar

_current: ContextVar[Gate | None] = ContextVar("mop_gate", default=None)


class Gate:
    """Counts the work of one run; used from the run's event loop only."""

    def __init__(self) -> None:
        self.closed = False
        self.inside = 0
        self._idle = asyncio.Event()
        self._idle.set()

    def close(self) -> None:
        """Let nothing in any more."""
        self.closed = True

    async def empty(self) -> None:
        """Wait until nothing is inside."""
        await self._idle.wait()

    @asynccontextmanager
    async def _entered(self) -> AsyncIterator[None]:
        if self.closed:
            # Until the run is cancelled: its owner has stopped it and only waits for what is inside.
            await asyncio.get_running_loop().create_future()
        self.inside += 1
        self._idle.clear()
        try:
            yield
        finally:
            self.inside -= 1
            if not self.inside:
                self._idle.set()


def install(gate: Gate) -> None:
    """Make ``gate`` the one of the present context."""
    _current.set(gate)


@asynccontextmanager
async def passing() -> AsyncIterator[None]:
    """Do work that an interrupted run finishes; once the run is interrupted, nobody gets in."""
    gate = _current.get()
    if gate is None:
        yield
    else:
        async with gate._entered():
            yield
