"""The limiter: how many calls may be in flight, and when they start."""

import asyncio
import time

from asking import asks, client_of, expected
from fake_endpoint import FakeEndpoint, Fault

from mop.lm import endpoint as endpoint_module
from mop.lm.ledger import Ledger
from mop.lm.limiter import AdaptiveLimiter


async def test_the_limiter_doubles_until_the_first_refusal_then_halves_once_and_creeps():
    limiter = AdaptiveLimiter(64)
    assert limiter.limit == 8

    async def succeed(count):
        for _ in range(count):
            async with limiter.slot() as slot:
                slot.succeeded()

    await succeed(8 + 16)
    assert limiter.limit == 32
    slots = [limiter.slot() for _ in range(5)]
    for slot in slots:
        await slot.__aenter__()
    for slot in slots:
        slot.throttled()
        await slot.__aexit__(None, None, None)
    assert limiter.limit == 16
    await succeed(16)
    assert limiter.limit == 17
    for _ in range(9):
        async with limiter.slot() as slot:
            slot.throttled()
    assert limiter.limit == 1


async def test_the_limiter_lets_nobody_start_before_retry_after_has_passed():
    limiter = AdaptiveLimiter(4)
    async with limiter.slot() as slot:
        slot.throttled(0.1)
    started = time.monotonic()
    async with limiter.slot():
        pass
    assert time.monotonic() - started >= 0.09


async def test_the_limiter_wakes_someone_though_the_clock_passes_the_opening_while_it_looks():
    class Ticking:
        now, timers = -0.5, 0

        def time(self):
            self.now += 1.0
            return self.now

        def call_at(self, *_):
            self.timers += 1

    clock, limiter = Ticking(), AdaptiveLimiter(4)
    limiter._resume_at = 1.0
    turn = asyncio.get_running_loop().create_future()
    limiter._queue.append(turn)
    limiter._wake(clock)
    assert turn.done() or clock.timers == 1


async def test_the_limiter_loses_no_slot_to_cancelled_waiters():
    limiter = AdaptiveLimiter(1)

    async def hold(seconds):
        async with limiter.slot():
            await asyncio.sleep(seconds)

    holder = asyncio.create_task(hold(0.02))
    await asyncio.sleep(0)
    waiters = [asyncio.create_task(hold(0)) for _ in range(5)]
    await asyncio.sleep(0)
    for waiter in waiters[::2]:
        waiter.cancel()
    await asyncio.gather(holder, *waiters, return_exceptions=True)
    assert limiter.in_flight == 0
    await asyncio.wait_for(hold(0), 1)


async def test_many_refusals_slow_the_client_down_and_everything_is_still_answered(monkeypatch):
    monkeypatch.setattr(endpoint_module, "PAUSE", 0.01)
    ledger = Ledger.in_memory()
    with FakeEndpoint(latency=0.002) as server:
        # The endpoint takes four at a time.
        server._faults = lambda n, body: Fault.error(429) if server.in_flight > 4 else None
        client = client_of(server, ledger, concurrency=64)
        replies = await client.complete_many(asks(200))
        await client.aclose()
    assert [reply.text for reply in replies] == expected(asks(200))
