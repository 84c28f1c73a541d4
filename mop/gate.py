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
        self._shut = asyncio.Event()

    def close(self) -> None:
        """Let nothing in any more."""
        self.closed = True
        self._shut.set()

    async def shut(self) -> None:
        """Wait until the gate is closed."""
        await self._shut.wait()

    async def empty(self) -> None:
        """Wait until nothing is inside."""
        await self._idle.wait()

    @asynccontextmanager
    async def _entered(self, count: int) -> AsyncIterator[None]:
        if self.closed:
            # Until the run is cancelled: its owner has stopped it and only waits for what is inside.
            await asyncio.get_running_loop().create_future()
        self.inside += count
        self._idle.clear()
        try:
            yield
        finally:
            self.inside -= count
            if not self.inside:
                self._idle.set()


def install(gate: Gate) -> None:
    """Make ``gate`` the one of the present context."""
    _current.set(gate)


def current() -> Gate | None:
    """Return the gate of the present context, if there is one."""
    return _current.get()


@asynccontextmanager
async def passing(count: int = 1) -> AsyncIterator[None]:
    """Do work, ``count`` calls of it, that an interrupted run finishes; once it is interrupted, nobody gets in."""
    gate = _current.get()
    if gate is None:
        yield
    else:
        async with gate._entered(count):
            yield
