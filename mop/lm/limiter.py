"""Limiter: how many calls may be in flight and how fast they start, found out by trying. Knows nothing of the calls.

Additive increase, multiplicative decrease, with the slow start of TCP: the limit doubles for each full window
of successes until the endpoint first says "too many", and grows by one per window from then on. A refusal
halves it, once per round trip: calls that were already in flight when the limit was cut don't cut it again.

An endpoint that counts calls per time is another matter: fewer in flight would not help there, a slower start does
(`mop.lm.pace`; `benchmarks/rate_limit.py` measures it). Such refusals set the pace and leave the limit to grow.
"""

from __future__ import annotations

import asyncio
from collections import deque
from types import TracebackType

from mop.lm.pace import Pace

#: Calls in flight at the start, if the maximum allows it.
START = 8
#: Longest pause in seconds that an endpoint's Retry-After can impose on the other calls.
LONGEST_PAUSE = 60.0


class Slot:
    """The right to have one call in flight; use it as an async context manager.

    Report `succeeded` or `throttled` before leaving it; a call that failed in another way says nothing about
    load.
    """

    __slots__ = ("_epoch", "_first", "_limiter", "_started")

    def __init__(self, limiter: AdaptiveLimiter, first: bool) -> None:
        self._limiter = limiter
        self._first = first
        self._epoch = 0
        self._started = 0.0

    def succeeded(self) -> None:
        """Report that the endpoint answered."""
        self._limiter._grow()

    def throttled(self, retry_after: float | None = None, *, rate: bool = False) -> None:
        """Report that the endpoint refused the call; no call starts for ``retry_after`` seconds.

        ``rate`` says that calls came too fast, otherwise too many were in flight.
        """
        self._limiter._cut(self._epoch, self._started, retry_after, rate)

    async def __aenter__(self) -> Slot:
        await self._limiter._acquire(self._first)
        self._epoch = self._limiter._epoch
        self._started = asyncio.get_running_loop().time()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._limiter._release()


class AdaptiveLimiter:
    """Lets at most ``limit`` calls be in flight, ``1 <= limit <= maximum``, first come first served.

    Belongs to one event loop.
    """

    def __init__(self, maximum: int) -> None:
        self.maximum = max(1, maximum)
        self.limit = min(START, self.maximum)
        self.in_flight = 0
        self._epoch = 0
        self._successes = 0
        self._slow_start = True
        self._resume_at = 0.0
        self._pace: Pace | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._queue: deque[asyncio.Future[None]] = deque()

    def slot(self, *, first: bool = False) -> Slot:
        """Return a slot to enter; ``first`` (for a repeated call) goes before everyone who waits."""
        return Slot(self, first)

    async def _acquire(self, first: bool) -> None:
        loop = asyncio.get_running_loop()
        if self._pace is None:
            self._pace = Pace(loop.time())
        now = loop.time()
        if self._free(now) and (first or not self._queue):
            self._start(now)
            return
        turn: asyncio.Future[None] = loop.create_future()
        if first:
            self._queue.appendleft(turn)
        else:
            self._queue.append(turn)
        self._wake(loop)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                # The slot was handed over in the same turn of the loop: pass it on.
                self._release()
            raise

    def _free(self, now: float) -> bool:
        return self.in_flight < self.limit and now >= self._opens()

    def _opens(self) -> float:
        """Return when the next call may start, as far as time is concerned."""
        return self._resume_at if self._pace is None else max(self._resume_at, self._pace.next_start)

    def _start(self, now: float) -> None:
        self.in_flight += 1
        if self._pace is not None:
            self._pace.started(now)

    def _wake(self, loop: asyncio.AbstractEventLoop) -> None:
        # One time for all: were it read again below, the opening could lie between the two, and nobody would be woken.
        now = loop.time()
        while self._queue and self._free(now):
            turn = self._queue.popleft()
            if not turn.done():
                self._start(now)
                turn.set_result(None)
        opens = self._opens()
        if self._queue and self._timer is None and now < opens:
            self._timer = loop.call_at(opens, self._resume, loop)

    def _resume(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        self._wake(loop)

    def _release(self) -> None:
        self.in_flight -= 1
        self._wake(asyncio.get_running_loop())

    def _grow(self) -> None:
        self._successes += 1
        if self._successes >= self.limit:
            self._successes = 0
            self.limit = min(self.maximum, self.limit * 2 if self._slow_start else self.limit + 1)

    def _cut(self, epoch: int, started: float, retry_after: float | None, rate: bool) -> None:
        now = asyncio.get_running_loop().time()
        if retry_after is not None and retry_after > 0:
            pause = min(retry_after, LONGEST_PAUSE)
            self._resume_at = max(self._resume_at, now + pause)
        if rate and self._pace is not None:
            self._pace.refused(now, max(0.0, self._resume_at - now), started)
        if epoch != self._epoch:
            return
        self._epoch += 1
        if not rate:
            self._slow_start = False
            self._successes = 0
            self.limit = max(1, self.limit // 2)
