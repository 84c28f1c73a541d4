"""Rate limit: how much of what an endpoint allows the client gets through, when nobody told it the limit.

A fake endpoint in a process of its own refuses (429) what a token bucket doesn't allow. After a warm-up, which the
bucket's savings and the client's search for the limit take, the answers of ``--seconds`` are counted.

    python -m benchmarks.rate_limit

prints a line for each kind of endpoint and fails if one of them gets less than 90 % of its allowed rate through.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from mop.errors import ModelError
from mop.lm.client import ModelClient
from mop.lm.ledger import Ledger
from mop.lm.request import Reply, Request

#: The least share of the allowed rate.
MARK = 0.9


@dataclass(frozen=True)
class Kind:
    """An endpoint: calls per second, calls that may be saved up, seconds per answer, what a refusal says.

    ``outage`` is when it answers 503 to everything, in seconds after the first call.
    """

    rate: float
    burst: float
    latency: float
    retry_after: str | None
    outage: tuple[float, float] | None = None

    def __str__(self) -> str:
        said = {None: "no Retry-After", "whole": "whole seconds", "exact": "milliseconds"}[self.retry_after]
        down = f", 503 for {self.outage[1] - self.outage[0]:g} s" if self.outage else ""
        return f"{self.rate:4g}/s, burst {self.burst:3g}, {self.latency:.2f} s, {said}{down}"


KINDS = [
    Kind(20, 20, 0.05, None),
    Kind(20, 5, 0.5, "exact"),
    Kind(50, 10, 0.3, "whole"),
    Kind(50, 50, 0.05, "whole"),
    Kind(100, 10, 0.2, None),
    # Answers nothing but 503 while the client is in full swing, and is measured some seconds later.
    Kind(50, 10, 0.1, None, (4.0, 6.0)),
]
#: Allows more than any client makes; tells what this machine can do while it is as busy as it is.
UNLIMITED = Kind(2000, 2000, 0.0, None)


@contextmanager
def endpoint(kind: Kind) -> Iterator[str]:
    command = [sys.executable, "-m", "tests.fake_endpoint", "--latency", str(kind.latency)]
    command += ["--rate", str(kind.rate), "--burst", str(kind.burst)]
    command += ["--retry-after", kind.retry_after] if kind.retry_after else []
    command += ["--outage", *map(str, kind.outage)] if kind.outage else []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parent.parent) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


async def share(kind: Kind, url: str, warm_up: float, seconds: float, concurrency: int) -> tuple[float, float]:
    """Return the share of the allowed rate that got through, and attempts for each answer."""
    times: list[float] = []

    def note(_place: int, _reply: Reply) -> None:
        times.append(time.monotonic())

    client = ModelClient("fake", base_url=url, ledger=Ledger.in_memory(), concurrency=concurrency)
    count = int(kind.burst + kind.rate * (warm_up + seconds) * 1.5)
    requests = [Request("fake", (("user", str(i)),), max_tokens=4) for i in range(count)]
    work = asyncio.create_task(client.complete_many(requests, note))
    begun = time.monotonic()
    await asyncio.wait([work], timeout=warm_up + seconds)
    if work.done() and work.exception() is not None:
        raise ModelError(str(work.exception()))
    attempts = sum(session.endpoint.attempts for session in client._sessions.values() if session.endpoint)
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)
    await client.aclose()
    counted = sum(warm_up <= at - begun < warm_up + seconds for at in times)
    return counted / (kind.rate * seconds), attempts / max(1, len(times))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--warm-up", type=float, default=10.0)
    parser.add_argument("--concurrency", type=int, default=64)
    options = parser.parse_args()
    worst = 1.0
    with endpoint(UNLIMITED) as url:
        got, _ = asyncio.run(share(UNLIMITED, url, 1.0, 3.0, options.concurrency))
    most = got * UNLIMITED.rate / 2
    print(
        f"This machine makes {2 * most:.0f} calls a second; endpoints that allow more than half of it allow just that."
    )
    for kind in (replace(one, rate=round(min(one.rate, most), 1)) for one in KINDS):
        with endpoint(kind) as url:
            got, attempts = asyncio.run(share(kind, url, options.warm_up, options.seconds, options.concurrency))
        worst = min(worst, got)
        print(f"{kind}: {100 * got:5.1f} % of the allowed rate, {attempts:.2f} attempts per answer", flush=True)
    if worst < MARK:
        raise SystemExit(f"The mark is {100 * MARK:.0f} %.")


if __name__ == "__main__":
    main()
