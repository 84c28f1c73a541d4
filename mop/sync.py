"""Run coroutines from synchronous code, also where an event loop is running already (notebooks).

One background thread owns one loop for the whole process, so connections outlive a single call.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextvars import ContextVar, copy_context
from typing import Any, Generic, TypeVar

from mop.errors import MopError
from mop.gate import Gate, install

Result = TypeVar("Result")

#: Seconds that calls on the wire have to finish after Ctrl-C; a second Ctrl-C cuts them short.
DRAIN_SECONDS = 60.0
#: Seconds that a cancelled coroutine has to wind up; a third Ctrl-C cuts them short.
WIND_UP_SECONDS = 30.0

_lock = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None
_thread: threading.Thread | None = None


def _background_loop() -> asyncio.AbstractEventLoop:
    global _loop, _thread
    with _lock:
        if _loop is None or _loop.is_closed():
            _loop = asyncio.new_event_loop()
            _thread = threading.Thread(target=_serve, args=(_loop,), name="mop-loop", daemon=True)
            _thread.start()
        return _loop


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    while True:
        try:
            loop.run_forever()
        except (SystemExit, KeyboardInterrupt):
            # A coroutine raised it: asyncio stops the loop for these two, but other callers still need it.
            # `run` raises it again in the thread that is waiting for that coroutine.
            continue
        return


def _forget_loop() -> None:
    """Start afresh in a forked child, which has the loop but not its thread."""
    global _lock, _loop, _thread
    _lock, _loop, _thread = threading.Lock(), None, None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_loop)


def run(coroutine: Coroutine[Any, Any, Result], on_interrupt: Callable[[int], None] | None = None) -> Result:
    """Run ``coroutine`` to its end and return its result.

    Ctrl-C lets the calls that are on the wire finish, for they are paid for, and starts no others; then it cancels
    the coroutine, waits until it has wound up (replies at hand are written to the ledger) and is raised again.
    ``on_interrupt`` is told the number of calls waited for. A second Ctrl-C cancels at once, a third waits for nothing.

    Raises MopError if called from a coroutine that `run` itself is running, which would wait for itself forever.
    """
    loop = _background_loop()
    if threading.current_thread() is _thread:
        coroutine.close()
        raise MopError("A synchronous function of mop was called inside one of its coroutines; await the async form.")
    work = _Work(loop, coroutine)
    try:
        loop.call_soon_threadsafe(work.start)
        return work.outcome.result()
    except BaseException:
        if not work.outcome.done():
            # It is this thread that was interrupted, not the coroutine.
            try:
                work.drain(on_interrupt)
            finally:
                loop.call_soon_threadsafe(work.cancel)
                wait([work.outcome], WIND_UP_SECONDS)
        raise


class _Work(Generic[Result]):
    """One coroutine on the background loop, and the future that another thread waits for.

    A coroutine may wait for a thread that calls `run` in its turn (an encoder that asks an endpoint). That inner work
    shares the gate of the outer one and is cancelled with it: Ctrl-C reaches the main thread only.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Result]) -> None:
        self.outcome: Future[Result] = Future()
        self._loop = loop
        self._coroutine = coroutine
        self._task: asyncio.Task[Result] | None = None
        self._outer = _current.get()
        self._inner: set[_Work[Any]] = set()
        self._cancelled = False
        self._gate: Gate = Gate() if self._outer is None else self._outer._gate

    def start(self) -> None:
        context = copy_context()
        context.run(install, self._gate)
        context.run(_current.set, self)
        self._task = self._loop.create_task(self._coroutine, context=context)
        self._task.add_done_callback(self._settle)
        if self._outer is not None:
            self._outer._inner.add(self)
            if self._outer._cancelled:
                self.cancel()

    def drain(self, on_interrupt: Callable[[int], None] | None) -> None:
        """Start nothing new and wait for what is on the wire."""
        emptied = asyncio.run_coroutine_threadsafe(self._empty(), self._loop)
        try:
            if on_interrupt is not None and (inside := self._gate.inside):
                on_interrupt(inside)
            either: list[Future[Any]] = [emptied, self.outcome]
            wait(either, DRAIN_SECONDS, return_when=FIRST_COMPLETED)
        finally:
            emptied.cancel()

    async def _empty(self) -> None:
        self._gate.close()
        await self._gate.empty()

    def cancel(self) -> None:
        self._cancelled = True
        for work in tuple(self._inner):
            work.cancel()
        if self._task is not None:
            self._task.cancel()
        else:  # interrupted before the start was so much as scheduled
            self._coroutine.close()
            self.outcome.cancel()
            self.outcome.set_running_or_notify_cancel()

    def _settle(self, task: asyncio.Task[Result]) -> None:
        if self._outer is not None:
            self._outer._inner.discard(self)
        error = None if task.cancelled() else task.exception()
        if task.cancelled():
            self.outcome.cancel()
            self.outcome.set_running_or_notify_cancel()
        elif error is not None:
            self.outcome.set_exception(error)
        else:
            self.outcome.set_result(task.result())


#: The work whose coroutine, or a thread that it waits for, is running.
_current: ContextVar[_Work[Any] | None] = ContextVar("mop_work", default=None)
