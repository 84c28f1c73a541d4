"""Run coroutines from synchronous code, also where an event loop is running already (notebooks).

One background thread owns one loop for the whole process, so connections outlive a single call.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")

_lock = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None


def _background_loop() -> asyncio.AbstractEventLoop:
    global _loop
    with _lock:
        if _loop is None or _loop.is_closed():
            _loop = asyncio.new_event_loop()
            threading.Thread(target=_loop.run_forever, name="mop-loop", daemon=True).start()
        return _loop


def run(coroutine: Coroutine[Any, Any, Result]) -> Result:
    """Run ``coroutine`` to its end and return its result.

    Ctrl-C cancels it, waits until it has wound up (replies at hand are written to the ledger), and is raised again.
    """
    future = asyncio.run_coroutine_threadsafe(coroutine, _background_loop())
    try:
        return future.result()
    except KeyboardInterrupt:
        future.cancel()
        raise
