"""Batch: admits requests in order and gathers their replies. Knows nothing of how a call is sent or recorded.

A request of a batch is answered by the ledger, by a call that another batch or another process has underway, or by a
call of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace

from mop.errors import BudgetExceeded, MopError
from mop.lm.budget import Reservation
from mop.lm.claims import Claims
from mop.lm.meter import Meter
from mop.lm.request import Reply, Request

#: Seconds that the other calls may take to finish after one failed for good; they are paid for already.
DRAIN_SECONDS = 30.0


class _Abandoned(Exception):
    """The batch whose call this was has been stopped before the reply came."""


class Underway:
    """The calls that all batches of one event loop have underway.

    ``recent`` holds replies that were committed while several batches ran: a batch that asked the ledger just
    before such a commit finds the reply here instead of paying for it again.
    """

    def __init__(self, concurrency: int) -> None:
        # The limiter may let fewer onto the wire; this bounds the tasks.
        self.window = asyncio.Semaphore(concurrency)
        self.replies: dict[str, asyncio.Future[Reply]] = {}
        self.recent: dict[str, Reply] = {}
        self._batches = 0

    def __enter__(self) -> Underway:
        self._batches += 1
        return self

    def __exit__(self, *_: object) -> None:
        self._batches -= 1
        if self._batches <= 1:
            self.recent.clear()

    def committed(self, reply: Reply) -> None:
        """Remember a reply for the other batches, if there are any."""
        if self._batches > 1:
            self.recent[reply.key] = replace(reply, from_ledger=True)


@dataclass(slots=True)
class _Call:
    request: Request
    reservation: Reservation | None
    window: asyncio.Semaphore
    reply: asyncio.Future[Reply] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    in_window: bool = True
    leased: bool = False

    async def enter_window(self) -> None:
        await self.window.acquire()
        self.in_window = True

    def leave_window(self) -> None:
        if self.in_window:
            self.in_window = False
            self.window.release()


class Batch:
    """One batch of requests with different keys.

    Args:
        send: Sends one request and returns the endpoint's reply.
        commit: Records a reply, and returns the one that is on record.
        underway: The calls of all batches of this event loop.
        meter: Counts the calls.
        deliver: Gets each reply as soon as it is committed.
        claims: Leases on calls, where other processes may want the same ones.
    """

    def __init__(
        self,
        send: Callable[[Request], Awaitable[Reply]],
        commit: Callable[[Request, Reply], Awaitable[Reply]],
        underway: Underway,
        meter: Meter,
        deliver: Callable[[Reply], None],
        claims: Claims | None = None,
    ) -> None:
        self._send = send
        self._commit = commit
        self._underway = underway
        self._meter = meter
        self._deliver = deliver
        self._claims = claims
        self._tasks: list[asyncio.Task[None]] = []
        self._failed = False

    async def run(self, requests: Sequence[Request], known: Mapping[str, Reply]) -> None:
        """Answer all requests; ``known`` are the replies that the ledger had.

        When a request doesn't fit into the budget, those before it are still answered. When one fails, no
        more are sent, and those underway may finish. When the caller is cancelled, everything stops at once.

        Raises:
            MopError: The failure of the first request, in the order of the batch, that failed.
        """
        refusal: BudgetExceeded | None = None
        try:
            try:
                for request in requests:
                    if self._failed:
                        break
                    await self._admit(request, known)
            except BudgetExceeded as error:
                refusal = error
            while not self._failed and (left := [task for task in self._tasks if not task.done()]):
                await asyncio.wait(left, return_when=asyncio.FIRST_EXCEPTION)
            if self._failed and (left := [task for task in self._tasks if not task.done()]):
                await asyncio.wait(left, timeout=DRAIN_SECONDS)
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
        for task in self._tasks:
            if not task.cancelled():
                task.result()
        if refusal is not None:
            raise refusal

    async def _admit(self, request: Request, known: Mapping[str, Reply]) -> None:
        """Answer ``request`` from what is known, or start the task that gets its reply."""
        reply = known.get(request.key)
        reservation = await self._meter.reserve(request, reply)
        if reply is None:
            try:
                await self._underway.window.acquire()
            except BaseException:
                self._meter.give_back(reservation, request)
                raise
            # Looked up after the last await, so that nothing can change before the call is on the books.
            reply = self._underway.recent.get(request.key)
            shared = self._underway.replies.get(request.key)
            if reply is None and shared is None:
                self._start_own(_Call(request, reservation, self._underway.window))
                return
            self._underway.window.release()
            if reply is None and shared is not None:
                # The batch whose call it is counts it.
                self._meter.give_back(reservation, request)
                self._start(self._follow(request, shared))
                return
        if reply is not None:
            self._meter.settle(reservation, request, reply)
            self._deliver(reply)

    def _start_own(self, call: _Call) -> None:
        self._underway.replies[call.request.key] = call.reply
        # Not a finally in the task: a task that is cancelled before its first step never enters it.
        self._start(self._own(call)).add_done_callback(lambda task: self._finish(call, task))

    def _start(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        task.add_done_callback(self._note_failure)
        self._tasks.append(task)
        return task

    def _note_failure(self, task: asyncio.Task[None]) -> None:
        self._failed |= not task.cancelled() and task.exception() is not None

    async def _own(self, call: _Call) -> None:
        reply = await self._claimed(call)
        if reply is None:
            reply = await self._send(call.request)
            # Its place in the window is free only after the commit: a kill loses no more replies than it is wide.
            reply = await self._commit(call.request, reply)
        call.leave_window()
        self._underway.committed(reply)
        self._meter.settle(call.reservation, call.request, reply)
        call.reply.set_result(reply)
        self._deliver(reply)

    async def _claimed(self, call: _Call) -> Reply | None:
        """Return the reply of another process to a call, or None once this one is to send it."""
        if self._claims is None:
            return None
        key = call.request.key
        state = await self._claims.take(key)
        if state is False:
            # Others are admitted meanwhile; what another process sends takes no place here.
            call.leave_window()
            state = await self._claims.wait(key) or True
            call.leased = state is True
            if call.leased:
                await call.enter_window()
        if not isinstance(state, bool):
            return state
        call.leased = True
        call.reservation = await self._meter.pay(call.reservation, call.request)
        return None

    def _finish(self, call: _Call, task: asyncio.Task[None]) -> None:
        call.leave_window()
        del self._underway.replies[call.request.key]
        error = None if task.cancelled() else task.exception()
        if not call.reply.done():
            if call.leased and self._claims is not None:
                self._claims.give_back(call.request.key)
            self._meter.give_back(call.reservation, call.request)
            call.reply.set_exception(error if isinstance(error, MopError) else _Abandoned())
            # Marks the exception as seen: there may be no follower.
            call.reply.exception()

    async def _follow(self, request: Request, shared: asyncio.Future[Reply]) -> None:
        """Wait for the call that another batch has underway; if that batch stops, make the call."""
        try:
            reply = await asyncio.shield(shared)
        except _Abandoned:
            await self._admit(request, {})
            return
        self._deliver(reply)
