"""Progress of a grid: what is finished, on standard error, as lines appear in the result file.

The file is all that workers on several machines share, so it is what is watched.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from benchmarks.results import Results

#: Seconds without a finished cell after which the watcher says that it is still there.
SILENCE = 300.0


@contextmanager
def progress(results: Results, wanted: set[str]) -> Iterator[None]:
    """Say which cells of ``wanted`` (keys) get finished while the block runs, and about how long the rest takes."""
    watcher, done = _Watcher(results, wanted), threading.Event()

    def watch() -> None:
        while not done.wait(0.5):
            watcher.tell()

    thread = threading.Thread(target=watch, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        watcher.tell()


class _Watcher:
    def __init__(self, results: Results, wanted: set[str]) -> None:
        self.results, self.wanted = results, wanted
        self.known = wanted & set(results.read())
        self.before = len(self.known)
        self.size = results.size()
        self.started = self.heard = time.monotonic()
        _say(f"{len(wanted)} cells, {self.before} of them finished before.")

    def tell(self) -> None:
        """Say what is new."""
        now = time.monotonic()
        if (size := self.results.size()) != self.size:
            self.size = size
            for key, record in self.results.read().items():
                if key in self.wanted and key not in self.known:
                    self.known.add(key)
                    self.heard = now
                    _say(f"{self._place} {_finished(record)}{self._ahead(now)})")
        if now - self.heard >= SILENCE:
            self.heard = now
            _say(f"{self._place} at work for {(now - self.started) / 60:.0f} min; every answer so far is in the ledger")

    @property
    def _place(self) -> str:
        return f"[{len(self.known)}/{len(self.wanted)}]"

    def _ahead(self, now: float) -> str:
        missing = len(self.wanted) - len(self.known)
        left = (now - self.started) / (len(self.known) - self.before) * missing
        if left >= 90:
            return f", about {left / 60:.0f} min left"
        return f", about {left:.0f} s left" if missing else ""


def _finished(record: Mapping[str, Any]) -> str:
    search, test = record["search"], record["test"]
    return (
        f"{record['task']} seed {record['seed']} {record['method']}: {record['score']:.3f} "
        f"({search['calls']} + {test['calls']} calls, {search['seconds'] + test['seconds']:.0f} s"
    )


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
