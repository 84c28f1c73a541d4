"""Large ledger: how long a look-up and `mop ledger stats` take when a ledger holds very many calls.

The rows are written by the ledger itself, in large transactions, from the requests that the client would send.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

from mop.bill import bill, whole
from mop.lm import ledger as ledger_module
from mop.lm.ledger import GROUPS, Ledger
from mop.lm.request import Reply, Request, Usage
from mop.seeds import stream

#: Rows in one transaction.
CHUNK = 20_000
#: Look-ups that are timed, half of them of calls that are not there.
LOOK_UPS = 2000
#: The marks: seconds of the median look-up, and of the slowest form of `stats`.
LOOK_UP_SECONDS, STATS_SECONDS = 0.001, 5.0
_MODELS = ("gpt-4o-mini", "gpt-5-mini", "local/qwen2.5-coder-1.5b-instruct")
_ROLES = ("execute", "execute", "execute", "propose", "judge")


def request(number: int, prompt_bytes: int) -> Request:
    """Return the request number ``number``: an instruction, demos of about ``prompt_bytes`` in all, and a query."""
    demos = "".join(f"my parcel {number % 977} number {place} is late today\n" for place in range(prompt_bytes // 40))
    messages = (("system", "Name the thing and its state."), ("user", demos), ("user", f"question {number}"))
    role = _ROLES[number % len(_ROLES)]
    return Request(_MODELS[number % 3], messages, max_tokens=16, stop=("\n",), role=role)  # type: ignore[arg-type]


def fill(path: Path, calls: int, prompt_bytes: int, say: Callable[[str], None]) -> None:
    """Write ``calls`` calls, spread over ninety days and as many runs, into the ledger at ``path``."""
    ledger, now, begun = Ledger(path), time.time(), time.monotonic()
    for start in range(0, calls, CHUNK):
        day = 90 * start // calls
        rows = []
        for number in range(start, min(calls, start + CHUNK)):
            asked = request(number, prompt_bytes)
            usage = Usage(prompt_bytes // 4, number % 7 * 10, 3 + number % 5)
            rows.append((asked, Reply(f"parcel_late_{number % 60}", usage, "stop", asked.key, False, 0.3)))
        with _written_at(now - 86400 * (90 - day)):
            ledger.put_many(rows, f"optimize {day:012x}")
        if start // CHUNK % 10 == 9:
            say(f"{start + len(rows):,} calls written in {time.monotonic() - begun:.0f} s")
    ledger.close()


@contextmanager
def _written_at(seconds: float) -> Iterator[None]:
    with mock.patch.object(ledger_module.time, "time", return_value=seconds):
        yield


def measure(path: Path, calls: int, prompt_bytes: int, say: Callable[[str], None]) -> list[str]:
    """Time look-ups and every form of `stats`; return the marks that were missed, in words."""
    missed = []
    ledger = Ledger(path)
    rng = stream(0, "large ledger")
    numbers = [*rng.integers(calls, size=LOOK_UPS // 2), *(calls + rng.integers(calls, size=LOOK_UPS // 2))]
    took = []
    for number in (int(numbers[place]) for place in rng.permutation(len(numbers))):
        key = request(number, prompt_bytes).key
        begun = time.perf_counter()
        found = ledger.get_many([key])
        took.append(time.perf_counter() - begun)
        assert (key in found) == (number < calls)
    median = statistics.median(took)
    say(f"look-up: median {1000 * median:.3f} ms, 99 in 100 under {1000 * sorted(took)[len(took) * 99 // 100]:.2f} ms")
    if median >= LOOK_UP_SECONDS:
        missed.append(f"the median look-up took {1000 * median:.2f} ms, the mark is {1000 * LOOK_UP_SECONDS:g} ms")
    for size in range(len(GROUPS) + 1):
        for by in itertools.combinations(GROUPS, size):
            begun, worked = time.perf_counter(), time.process_time()
            lines = bill(ledger, by)
            total = whole(lines)
            seconds, worked = time.perf_counter() - begun, time.process_time() - worked
            assert total is not None
            assert total.total.calls == calls
            name = ", ".join(by) or "nothing"
            say(f"stats by {name}: {seconds:.2f} s ({worked:.2f} s of processor), {len(lines)} groups")
            if seconds >= STATS_SECONDS:
                missed.append(f"stats by {by} took {seconds:.1f} s, the mark is {STATS_SECONDS:g} s")
    ledger.close()
    return missed
