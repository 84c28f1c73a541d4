"""Run coroutines from synchronous code, also where an event loop is running already (notebooks).

One background thread owns one loop for the whole process, so connections outlive a single call.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine
from concurrent.futures import Future, wait
from typing import Any, TypeVar

from mop.errors import MopError

Result = TypeVar("Result")

#: Seconds that a cancelled coroutine has to wind up; a second Ctrl-C cuts them short.
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


def run(coroutine: Coroutine[Any, Any, Result]) -> Result:
    """Run ``coroutine`` to its end and return its result.

    Ctrl-C cancels it, waits until it has wound up (replies at hand are written to the ledger), at most 30 seconds,
    and is raised again.

    Raises MopError if called from a coroutine that `run` itself is running, which would wait for itself forever.
    """
    loop = _background_loop()
    if threading.current_thread() is _thread:
        coroutine.close()
        raise MopError("A synchronous function of mop was called inside one of its coroutines; await the async form.")
    outcome: Future[Result] = Future()
    tasks: list[asyncio.Task[Result]] = []

    def start() -> None:
        tasks.append(loop.create_task(coroutine))
        tasks[0].add_done_callback(settle)

    def settle(task: asyncio.Task[Result]) -> None:
        error = None if task.cancelled() else task.exception()
        if task.cancelled():
            outcome.cancel()
            outcome.set_running_or_notify_cancel()
        elif error is not None:
            outcome.set_exception(error)
        else:
            outcome.set_result(task.result())

    def cancel() -> None:
        if tasks:
            tasks[0].cancel()
        else:  # interrupted before the start was so much as scheduled
            coroutine.close()
            outcome.cancel()
            outcome.set_running_or_notify_cancel()

    try:
        loop.call_soon_threadsafe(start)
        return outcome.result()
    except BaseException:
        if not outcome.done():
            # It is this thread that was interrupted, not the coroutine.
            loop.call_soon_threadsafe(cancel)
            wait([outcome], WIND_UP_SECONDS)
        raise
