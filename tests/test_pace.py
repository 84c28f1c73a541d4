"""The pace against token buckets, on an event loop whose clock jumps from event to event: minutes take milliseconds."""

from __future__ import annotations

import asyncio
import random
import selectors
from collections.abc import Mapping
from typing import Any

import pytest

from mop.lm.limiter import AdaptiveLimiter
from mop.lm.pace import SLOWEST, Pace

CONCURRENCY = 64
#: Seconds of the first and the longest pause before a refused call is made again, as in `mop.lm.endpoint`.
PAUSE, LONGEST_PAUSE = 0.5, 30.0


class _Jump(selectors.BaseSelector):
    """Has no files to wait for; a wait moves the clock on."""

    def __init__(self) -> None:
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        self.now += timeout or 0.0
        return []

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return selectors.SelectorKey(fileobj, 0, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return selectors.SelectorKey(fileobj, 0, 0, None)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return {}


class Bucket:
    """An endpoint that allows ``rate`` calls a second and saves up ``burst`` of them."""

    def __init__(self, rate: float, burst: float, retry_after: str) -> None:
        self.rate, self.burst, self.retry_after = rate, burst, retry_after
        self._level, self._at = burst, 0.0

    def refuses(self, now: float) -> bool:
        self._level = min(self.burst, self._level + (now - self._at) * self.rate)
        self._at = now
        if self._level < 1:
            return True
        self._level -= 1
        return False

    def says(self) -> float | None:
        wait = (1 - self._level) / self.rate
        return {"nothing": None, "whole seconds": float(-int(-wait // 1)), "milliseconds": wait}[self.retry_after]


def shares(bucket: Bucket, latency: float, *spans: tuple[float, float]) -> tuple[list[float], float]:
    """Return the share of the allowed rate that gets through in each span, and the attempts for each answer."""
    jump = _Jump()
    loop = asyncio.SelectorEventLoop(jump)
    loop.time = lambda: jump.now  # type: ignore[method-assign]
    rng, answered, attempts = random.Random(0), [], [0]
    limiter, window = AdaptiveLimiter(CONCURRENCY), asyncio.Semaphore(CONCURRENCY)

    async def call() -> None:
        jitter, attempt = rng.random(), 0
        while True:
            async with limiter.slot(first=attempt > 0) as slot:
                attempt += 1
                attempts[0] += 1
                refused = bucket.refuses(jump.now)
                said = bucket.says() if refused else None
                await asyncio.sleep(latency * rng.uniform(0.8, 1.2))
                if not refused:
                    slot.succeeded()
                    answered.append(jump.now)
                    window.release()
                    return
                slot.throttled(said, rate=True)
            pause = min(LONGEST_PAUSE, PAUSE * 2 ** min(attempt - 1, 10)) * (1 - jitter / 4)
            await asyncio.sleep(max(pause, said or 0.0))

    async def main() -> None:
        async with asyncio.timeout(max(end for _, end in spans)), asyncio.TaskGroup() as calls:
            while True:
                await window.acquire()
                calls.create_task(call())

    with pytest.raises(TimeoutError):
        loop.run_until_complete(main())
    loop.close()
    got = [sum(start <= at < end for at in answered) / bucket.rate / (end - start) for start, end in spans]
    return got, attempts[0] / len(answered)


@pytest.mark.parametrize(
    ("rate", "burst", "latency", "retry_after"),
    [
        (20, 20, 0.05, "nothing"),
        (20, 5, 0.5, "milliseconds"),
        (50, 10, 0.3, "whole seconds"),
        (50, 50, 0.05, "whole seconds"),
        (100, 10, 0.2, "nothing"),
        (2, 2, 1.0, "whole seconds"),
        (5, 60, 2.0, "nothing"),
        (10, 100, 0.5, "whole seconds"),
    ],
)
def test_at_least_nine_tenths_of_what_an_endpoint_allows_gets_through(
    rate: float, burst: float, latency: float, retry_after: str
) -> None:
    (soon, later), attempts = shares(Bucket(rate, burst, retry_after), latency, (10, 40), (40, 130))
    assert soon >= 0.85  # while it still looks for the rate
    assert later >= 0.9
    assert attempts < 2


def test_a_limit_that_is_lowered_is_kept_and_one_that_is_raised_is_used() -> None:
    class Changing(Bucket):
        def refuses(self, now: float) -> bool:
            self.rate = 40 if now < 40 else 10 if now < 100 else 40
            return super().refuses(now)

    bucket = Changing(40, 10, "nothing")
    (before, lowered, raised), attempts = shares(bucket, 0.2, (10, 40), (50, 100), (150, 200))
    assert before >= 0.9
    assert 0.9 <= lowered * 40 / 10 <= 1.05
    assert raised >= 0.9
    assert attempts < 1.5


def test_the_pace_is_what_got_through_between_two_refusals_and_grows_when_none_comes() -> None:
    pace = Pace(0.0)
    assert pace.rate(0.0) == float("inf")
    for call in range(10):
        pace.started(call / 10)
    pace.refused(1.0, 0.0, 0.9)  # the bucket's savings: a guess of 9 a second
    for call in range(26):
        pace.started(1 + call / 13)
    pace.refused(2.0, 0.0, 1.5)  # before the guess has grown
    assert pace.rate(2.0) == pytest.approx(25 * 0.97)
    assert pace.rate(10.0) == pytest.approx(25)
    assert pace.rate(42.0) > 50
    pace.started(2.0)
    assert pace.next_start > 2.0


def test_a_pace_that_is_refused_always_gets_slow_but_never_stops() -> None:
    pace = Pace(0.0)
    for second in range(0, 20_000, 10):
        pace.started(second)
        pace.refused(second + 1.0, 0.0, second)
    assert SLOWEST <= pace.rate(20_000.0) < 0.2
