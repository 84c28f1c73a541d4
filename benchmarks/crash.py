"""Crash: what a run loses when it is killed at random points, and whether it still ends with the same mixture.

`mop optimize` runs in a process of its own against an endpoint in another, which writes a line for every call that
arrives. The run is killed (SIGKILL) again and again, while it starts, while calls are on the way and while it saves,
and the same command is started again. When a run ends before all kills are done, a new one begins with an empty
ledger.

    python -m benchmarks.crash --kills 50 --seed 1

prints a line for each kill, and fails unless

* every finished run has the very bytes of an uninterrupted one (SOURCE_DATE_EPOCH stands for the date),
* no call that was in the ledger at a kill is ever sent again,
* the calls sent twice are at most those that were in flight at the kills, and those at most ``--concurrency`` each.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from mop.lm.ledger import Ledger
from mop.lm.upkeep import export
from tests.fake_endpoint import fingerprint
from tests.simulated import splits

ROOT = Path(__file__).parent.parent


@dataclass
class Report:
    """What happened over all runs. ``in_flight`` has one entry for each kill."""

    needed: int = 0
    runs: int = 0
    sent: int = 0
    twice: int = 0
    paid_again: int = 0
    different: int = 0
    in_flight: list[int] = field(default_factory=list)

    def failures(self, concurrency: int) -> list[str]:
        """Return what should not have happened, in words."""
        found = {
            f"{self.paid_again} calls were sent again though the ledger had them": self.paid_again > 0,
            f"{self.twice} calls were sent twice, but only {sum(self.in_flight)} were in flight": self.twice
            > sum(self.in_flight),
            f"{max(self.in_flight, default=0)} calls were in flight at a kill": max(self.in_flight, default=0)
            > concurrency,
            f"{self.different} mixtures differ from that of the uninterrupted run": self.different > 0,
        }
        return [words for words, happened in found.items() if happened]


@contextmanager
def endpoint(journal: Path, latency: float) -> Iterator[str]:
    command = [sys.executable, "-m", "tests.fake_endpoint", "--latency", str(latency), "--answer", "simulated"]
    with subprocess.Popen(
        [*command, "--journal", str(journal)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


class Harness:
    """Runs one command until it is done, or kills it on the way.

    Args:
        folder: Where everything is kept.
        url: The endpoint's address; ``journal`` is where it writes what arrives.
        calls: Budget of the run.
        concurrency: Calls in flight that the run may have.
        latency: Seconds that the endpoint takes.
        encoder: Encoder of the run.
    """

    def __init__(
        self, folder: Path, url: str, journal: Path, *, calls: int, concurrency: int, latency: float, encoder: str
    ) -> None:
        self.folder, self.journal, self.latency = folder, journal, latency
        parts = splits()
        rows = [(one, name) for name in ("train", "validation") for one in getattr(parts, name)]
        data = folder / "task.jsonl"
        lines = [json.dumps({"input": one.input, "output": one.output, "split": name}) for one, name in rows]
        data.write_text("\n".join(lines))
        self._command = [sys.executable, "-m", "mop", "optimize", str(data), "--model", "simulated", "--base-url", url]
        self._command += ["--budget", str(calls), "--concurrency", str(concurrency), "--prompt-tokens", "200"]
        self._command += ["--instruction", "Name the thing and its state.", "--encoder", encoder, "--quiet"]
        self._environment = {**os.environ, "SOURCE_DATE_EPOCH": "1700000000", "MOP_API_KEY": "none"}

    def start(self, name: str) -> subprocess.Popen[bytes]:
        """Start the run that keeps its ledger and its mixture under ``name``."""
        command = [*self._command, "--ledger", str(self.ledger(name)), "-o", str(self.mixture(name))]
        return subprocess.Popen(command, env=self._environment, stdout=subprocess.DEVNULL)

    def ledger(self, name: str) -> Path:
        """Return the ledger of a run."""
        return self.folder / f"{name}.sqlite"

    def mixture(self, name: str) -> Path:
        """Return the mixture file of a run."""
        return self.folder / f"{name}.mop"

    def finish(self, name: str) -> None:
        """Run ``name`` to its end. Raises SystemExit if it fails."""
        if self.start(name).wait(timeout=600):
            raise SystemExit(f"The run {name} failed.")

    def arrived(self) -> list[str]:
        """Return the fingerprint of every call that has arrived, in order."""
        lines = self.journal.read_text().splitlines() if self.journal.exists() else []
        return [line[2:] for line in lines if line.startswith("+ ")]

    def committed(self, name: str) -> set[str]:
        """Return the fingerprints of the calls in the ledger, read from a copy as the kill left it."""
        if not self.ledger(name).exists():
            return set()
        with tempfile.TemporaryDirectory(dir=self.folder) as copy:
            for file in self.folder.glob(f"{name}.sqlite*"):
                shutil.copy(file, copy)
            ledger = Ledger(Path(copy) / f"{name}.sqlite")
            found = {fingerprint(_body(call["request"])) for call in export(ledger)}
            ledger.close()
        return found


def _body(request: dict[str, object]) -> dict[str, object]:
    messages = [{"role": role, "content": text} for role, text in request["messages"]]  # type: ignore[attr-defined]
    return {**request, "messages": messages}


class Watched:
    """One run from an empty ledger to its mixture: what arrived of it, and what the ledger had at the last look."""

    def __init__(self, harness: Harness, name: str, report: Report, whole: bytes) -> None:
        self.name = name
        self._harness, self._report, self._whole = harness, report, whole
        self._before = len(harness.arrived())
        self._seen = 0
        #: Calls sent between the last two looks that the ledger didn't have at the second.
        self.in_flight = 0
        self._known: set[str] = set()
        report.runs += 1

    @property
    def sent(self) -> list[str]:
        """The fingerprints of this run's calls, in order of arrival."""
        return self._harness.arrived()[self._before :]

    def look(self) -> tuple[int, int]:
        """Count what was sent though the ledger had it; return how many calls were sent, and how many it has now."""
        sent = self.sent
        latest = sent[self._seen :]
        self._report.paid_again += sum(call in self._known for call in latest)
        self._seen, self._known = len(sent), self._harness.committed(self.name)
        self.in_flight = len(set(latest) - self._known)
        mixture = self._harness.mixture(self.name)
        self._report.different += mixture.exists() and mixture.read_bytes() != self._whole
        return len(sent), len(self._known)

    def end(self) -> None:
        """Add the finished run to the report."""
        self.look()
        sent = self.sent
        self._report.sent += len(sent)
        self._report.twice += len(sent) - len(set(sent))
        self._report.different += not self._harness.mixture(self.name).exists()


def crash(harness: Harness, kills: int, seed: int, say: Callable[[str], None] = print) -> Report:
    """Kill runs ``kills`` times, let the last one end, and return what happened."""
    rng, report = random.Random(seed), Report()
    begun = time.monotonic()
    harness.finish("whole")
    seconds = time.monotonic() - begun
    report.needed = len(harness.arrived())
    whole = harness.mixture("whole").read_bytes()
    while len(report.in_flight) < kills:
        run = Watched(harness, f"run{report.runs}", report, whole)
        while len(report.in_flight) < kills:
            if not _kill(harness, run, report.needed, seconds, rng):
                break
            sent, recorded = run.look()
            report.in_flight.append(run.in_flight)
            number, flying = len(report.in_flight), report.in_flight[-1]
            say(f"kill {number:3} (run {report.runs}): {sent:4} sent, {recorded:4} in the ledger, {flying} in flight")
        else:
            harness.finish(run.name)
        run.end()
    return report


def _kill(harness: Harness, run: Watched, needed: int, seconds: float, rng: random.Random) -> bool:
    """Start the run and kill it at a random point; return False if it ended first."""
    started, before = time.monotonic(), len(run.sent)
    kind = rng.random()
    if kind < 0.15:  # while it starts
        calls, pause = 0, rng.uniform(0, seconds / 2)
    elif kind < 0.3:  # while it chooses and saves
        calls, pause = needed, rng.uniform(0, seconds / 4)
    else:
        calls, pause = before + 1 + int(rng.expovariate(12 / needed)), rng.uniform(0, 3 * harness.latency)
    process = harness.start(run.name)
    while len(set(run.sent)) < min(calls, needed) and process.poll() is None:
        time.sleep(0.005)
    if kind < 0.15:
        pause -= time.monotonic() - started
    try:
        process.wait(max(0.0, pause))
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
    killed = process.wait() == -signal.SIGKILL
    if not killed and process.returncode:
        raise SystemExit(f"The run {run.name} failed with {process.returncode}.")
    time.sleep(2 * harness.latency + 0.05)  # what was on the wire arrives
    return killed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--calls", type=int, default=200, help="budget of one run")
    parser.add_argument("--concurrency", type=int, default=6)
    parser.add_argument("--latency", type=float, default=0.03, help="seconds")
    parser.add_argument("--encoder", help="of the runs [default: the fake endpoint's, which is quick to start]")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        journal = folder / "journal"
        with endpoint(journal, options.latency) as url:
            harness = Harness(
                folder,
                url,
                journal,
                calls=options.calls,
                concurrency=options.concurrency,
                latency=options.latency,
                encoder=options.encoder or f"endpoint:words@{url}",
            )
            report = crash(harness, options.kills, options.seed)
    print(
        f"{len(report.in_flight)} kills over {report.runs} runs of {report.needed} calls: {report.sent} calls sent, "
        f"{report.twice} of them twice, {sum(report.in_flight)} in flight at the kills "
        f"(at most {max(report.in_flight, default=0)} at one), {report.paid_again} sent though the ledger had them, "
        f"{report.different} mixtures that differ."
    )
    if failures := report.failures(options.concurrency):
        raise SystemExit("; ".join(failures))


if __name__ == "__main__":
    main()
