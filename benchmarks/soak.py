"""Soak: whether a process that makes calls for a long time keeps its memory, file descriptors and threads.

    python -m benchmarks.soak --minutes 60

Run after run in one process, with the real client, ledger, budget and limiter, against a fake endpoint in a process of
its own that refuses calls that come too fast and fails one call in thirty: each run makes calls in batches and asks for
them again, and every few runs a whole search is made. A line over time, each between two runs; at the end it fails
unless memory stays within 50 MB of what it was after the warm-up (a fifth of the time), and file descriptors and
threads within two.

    python -m benchmarks.soak --calls 1000000

builds a ledger of so many calls and times look-ups and `mop ledger stats` (`benchmarks/large_ledger.py`). Linux only.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.large_ledger import fill, measure
from mop.errors import BudgetExceeded
from mop.lm.budget import Budget
from mop.lm.client import ModelClient
from mop.lm.ledger import Ledger
from mop.lm.request import Request
from mop.optimization import aoptimize
from mop.settings import make_settings
from mop.sync import run
from tests.simulated import splits

#: Megabytes, and file descriptors or threads, that may come on top of what was there after the warm-up.
MORE_MB, MORE_HANDLES = 50.0, 2
#: Part of the time after which things must be steady.
WARM_UP = 0.2
#: Calls of one run, calls of one batch, and runs from one search to the next.
RUN_CALLS, BATCH, SEARCH_EVERY = 2000, 1000, 3
#: Runs that are made in any case.
LEAST_RUNS = 4


@dataclass(frozen=True)
class Look:
    """What the process holds at a moment; ``calls`` are those made so far."""

    seconds: float
    calls: int
    mb: float
    files: int
    threads: int

    def __str__(self) -> str:
        speed = self.calls / max(self.seconds, 0.001)
        return (
            f"{self.seconds / 60:6.1f} min  {self.calls:9,} calls ({speed:4.0f}/s)  {self.mb:6.1f} MB  "
            f"{self.files:3} files  {self.threads:3} threads"
        )


@dataclass
class Watch:
    """Looks at this process; ``calls`` is counted up by the work."""

    say: Callable[[str], None]
    every: float
    calls: int = 0
    looks: list[Look] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)

    def look(self, *, last: bool = False) -> None:
        """Take a look if it is time for one."""
        seconds = time.monotonic() - self.began
        if last or not self.looks or seconds - self.looks[-1].seconds >= self.every:
            status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
            mb = int(status["VmRSS"].split()[0]) / 1024
            found = Look(seconds, self.calls, mb, len(os.listdir("/proc/self/fd")), int(status["Threads"]))
            self.looks.append(found)
            self.say(str(found))

    def failures(self, whole: float) -> list[str]:
        """Return in words what grew after the warm-up of a soak of ``whole`` seconds."""
        after = [one for one in self.looks if one.seconds >= WARM_UP * whole]
        if len(after) < 2:
            return ["the soak was too short to say anything"]
        first, rest = after[0], after[1:]
        grown = {
            "memory": (max(one.mb for one in rest) - first.mb, MORE_MB),
            "file descriptors": (max(one.files for one in rest) - first.files, MORE_HANDLES),
            "threads": (max(one.threads for one in rest) - first.threads, MORE_HANDLES),
        }
        return [
            f"{what} grew by {more:.1f} after the warm-up, {mark} is allowed"
            for what, (more, mark) in grown.items()
            if more > mark
        ]


@contextmanager
def endpoint() -> Iterator[str]:
    """Serve from another process, and yield the address."""
    command = [sys.executable, "-m", "tests.fake_endpoint", "--answer", "simulated", "--failing", "0.03"]
    command += ["--rate", "3000", "--burst", "300"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parent.parent) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def soak(url: str, folder: Path, seconds: float, say: Callable[[str], None] = print, every: float = 60.0) -> list[str]:
    """Work for so many seconds; return what failed, in words."""
    watch, ledger, number = Watch(say, every), Ledger(folder / "soak.sqlite"), 0
    while number < LEAST_RUNS or time.monotonic() - watch.began < seconds:
        if number % SEARCH_EVERY == 0:  # the first run loads what a search needs, once for all
            run(_search(url, ledger, number, watch))
        run(_calls(url, ledger, number, watch))
        number += 1
        watch.look()
    watch.look(last=True)
    ledger.close()
    return watch.failures(seconds)


async def _calls(url: str, ledger: Ledger, number: int, watch: Watch) -> None:
    """One run: every batch is sent and asked for again, and the last one passes the cap."""
    budget = Budget(calls=RUN_CALLS - BATCH // 2)
    client = ModelClient("simulated", base_url=url, ledger=ledger, budget=budget, concurrency=32, run=f"soak {number}")
    try:
        for start in range(0, RUN_CALLS, BATCH):
            batch = [_request(number, place) for place in range(start, start + BATCH)]
            before = budget.spent.calls
            try:
                await client.complete_many(batch)
                await asyncio.gather(*(client.complete_many(batch[part::2]) for part in range(2)))
            except BudgetExceeded:
                if budget.spent.calls != budget.calls:
                    raise
            watch.calls += budget.spent.calls - before
    finally:
        await client.aclose()


def _request(number: int, place: int) -> Request:
    demos = [("user", f"my parcel is late {place % 7} {i}") for i in range(20)]
    shown = [message for demo in demos for message in (demo, ("assistant", "parcel_late"))]
    return Request("simulated", (*shown, ("user", f"my parcel {number} is late {place}")), max_tokens=16)


async def _search(url: str, ledger: Ledger, number: int, watch: Watch) -> None:
    options = {"model": "simulated", "base_url": url, "budget": 100, "concurrency": 16, "seed": number}
    settings = make_settings({**options, "encoder": f"endpoint:words@{url}", "prompt_tokens": 200}, environment={})
    mixture = await aoptimize(splits(), settings, ledger=ledger)
    watch.calls += mixture.provenance["calls"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--minutes", type=float, help="work for so long")
    parser.add_argument("--every", type=float, help="seconds from line to line [default: a thirtieth of the time]")
    parser.add_argument("--calls", type=int, help="build and measure a ledger of so many calls instead")
    parser.add_argument("--prompt-bytes", type=int, default=600, help="about how long the prompts in it are")
    parser.add_argument("--folder", type=Path, help="where the ledger goes [default: a temporary folder]")
    options = parser.parse_args()
    if (options.minutes is None) == (options.calls is None):
        parser.error("give --minutes or --calls")
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        if options.calls is not None:
            path = Path(name) / "large.sqlite"
            fill(path, options.calls, options.prompt_bytes, _say)
            failures = measure(path, options.calls, options.prompt_bytes, _say)
        else:
            seconds = 60 * options.minutes
            with endpoint() as url:
                failures = soak(url, Path(name), seconds, _say, options.every or max(2.0, seconds / 30))
    if failures:
        raise SystemExit("Failed: " + "; ".join(failures) + ".")
    print("Passed.")


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    main()
