"""Coroutines from synchronous code: results, errors, running loops, and Ctrl-C that waits for the wind-up."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager

import pytest

from mop import sync
from mop.errors import DataError, MopError
from mop.gate import passing
from mop.sync import run


async def double(number: int) -> int:
    await asyncio.sleep(0)
    return 2 * number


@contextmanager
def ctrl_c_when(event: threading.Event) -> Iterator[None]:
    main = threading.main_thread().ident
    assert main is not None

    def press() -> None:
        assert event.wait(10)
        signal.pthread_kill(main, signal.SIGINT)

    thread = threading.Thread(target=press)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def test_the_result_of_the_coroutine_is_returned() -> None:
    assert run(double(21)) == 42


def test_it_works_while_a_loop_is_running_as_in_a_notebook() -> None:
    async def cell() -> int:
        return run(double(4))

    assert asyncio.run(cell()) == 8


def test_all_calls_share_one_loop() -> None:
    async def loop() -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    assert run(loop()) is run(loop())


def test_an_error_comes_through_as_it_is_with_its_traceback() -> None:
    error = DataError("no rows")

    async def fail() -> None:
        raise error

    with pytest.raises(DataError) as raised:
        run(fail())
    assert raised.value is error
    assert any(entry.name == "fail" for entry in raised.traceback)


def test_a_coroutine_that_cancels_itself_is_cancelled() -> None:
    async def cancelled() -> None:
        raise asyncio.CancelledError

    with pytest.raises(CancelledError):
        run(cancelled())


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_an_exit_inside_a_coroutine_is_raised_and_does_not_end_the_loop(kind: type[BaseException]) -> None:
    async def leave() -> None:
        raise kind("enough")

    with pytest.raises(kind, match="enough"):
        run(leave())
    assert run(double(1)) == 2


def test_ctrl_c_cancels_the_coroutine_and_waits_until_it_has_wound_up() -> None:
    started, wound_up = threading.Event(), []

    async def work() -> None:
        try:
            started.set()
            await asyncio.sleep(30)
        finally:
            await asyncio.sleep(0.2)
            wound_up.append(True)

    begun = time.monotonic()
    with ctrl_c_when(started), pytest.raises(KeyboardInterrupt):
        run(work())
    assert wound_up == [True]
    assert time.monotonic() - begun < 10
    assert run(double(1)) == 2


def test_ctrl_c_is_raised_even_if_the_wind_up_fails() -> None:
    started = threading.Event()

    async def work() -> None:
        try:
            started.set()
            await asyncio.sleep(30)
        finally:
            raise DataError("the wind-up failed")

    with ctrl_c_when(started), pytest.raises(KeyboardInterrupt):
        run(work())


def test_a_wind_up_that_never_ends_is_waited_for_only_so_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sync, "WIND_UP_SECONDS", 0.1)
    started, release = threading.Event(), threading.Event()

    async def stubborn() -> None:
        started.set()
        while not release.is_set():
            try:
                await asyncio.sleep(0.05)
            except asyncio.CancelledError:
                continue

    begun = time.monotonic()
    try:
        with ctrl_c_when(started), pytest.raises(KeyboardInterrupt):
            run(stubborn())
        assert time.monotonic() - begun < 5
    finally:
        release.set()


def test_calling_it_inside_its_own_coroutine_is_an_error_and_no_deadlock() -> None:
    async def nested() -> int:
        return run(double(1))

    with pytest.raises(MopError, match="await the async form"):
        run(nested())


def test_a_thread_started_by_a_coroutine_may_use_it() -> None:
    async def nested() -> int:
        return await asyncio.to_thread(lambda: run(double(3)))

    assert run(nested()) == 6


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_gets_a_loop_of_its_own() -> None:
    script = """
import asyncio, os
from mop.sync import run
async def one(): return 1
run(one())
child = os.fork()
if child == 0:
    os._exit(10 + run(one()))
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.strip() == "11"


def test_ctrl_c_reaches_the_work_of_a_thread_that_a_coroutine_waits_for() -> None:
    """An encoder that asks an endpoint runs in a thread: the call on the wire ends, no other starts."""
    started, ended, done = threading.Event(), [], []

    async def call(number: int) -> None:
        async with passing():
            started.set()
            await asyncio.sleep(0.3)
            ended.append(number)

    async def calls() -> None:
        for number in range(100):
            await call(number)

    def encode() -> None:
        try:
            run(calls())
        finally:
            done.append(True)

    async def search() -> None:
        await asyncio.to_thread(encode)

    begun, told = time.monotonic(), []
    with ctrl_c_when(started), pytest.raises(KeyboardInterrupt):
        run(search(), told.append)
    assert time.monotonic() - begun < 5
    assert told == [1]
    assert ended == [0]
    deadline = time.monotonic() + 5
    while not done and time.monotonic() < deadline:
        time.sleep(0.01)
    assert done, "the thread is let go, or the process would never end"
