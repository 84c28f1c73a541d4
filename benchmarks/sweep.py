"""Sweep: one method on one task with 2, 3, … experts or with different encoders, each run alone and measured.

Every run is a process of its own with a ledger of its own, so that its seconds and its peak memory are what the search
takes from the start. Memory is that of this program, without a local model's server. A run that has ended is not
repeated, and one that was interrupted goes on (its seconds then lack the time before).
"""

from __future__ import annotations

import multiprocessing
import os
import re
import resource
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from benchmarks.cells import Cell, Place, run_cell
from benchmarks.markdown import markdown
from benchmarks.parent import end_with
from benchmarks.plotting import MARKERS, drawing
from benchmarks.preflight import check
from benchmarks.results import Results
from mop.errors import ModelError, MopError

Record = dict[str, Any]
#: What is drawn: title, and where a record has it.
PANELS = (
    ("accuracy", ("score",)),
    ("search calls", ("search", "calls")),
    ("search seconds", ("search", "seconds")),
    ("peak memory in MiB", ("peak_mib",)),
)
#: Of the table.
HEAD = ("experts asked", "experts", "encoder", "accuracy", "search calls", "search tokens", "seconds", "peak MiB")


def numbers(text: str) -> list[int]:
    """Return the whole numbers that ``text`` names: ``2,4,8`` or ``2..16``; raises ValueError for anything else."""
    found: list[int] = []
    for part in text.split(","):
        first, dots, last = part.partition("..")
        found += range(int(first), int(last) + 1) if dots else [int(first)]
    if not found or min(found) < 1:
        raise ValueError(text)
    return list(dict.fromkeys(found))


def run_sweep(cells: Sequence[Cell], place: Place, folder: Path) -> list[Record]:
    """Run each cell in a process of its own and return the lines of results, in the order of the cells.

    Raises the error that a cell ends with, and what `benchmarks.preflight.check` finds.
    """
    results = Results(folder / "sweep.jsonl")
    finished = results.read()
    check([cell for cell in cells if cell.key not in finished], place)
    records = []
    for cell in cells:
        if cell.key not in finished:
            alone = replace(place, ledger=str(folder / f"{cell.key}.ledger.sqlite"))
            record = _alone(cell, alone)
            results.add(record)
            finished[cell.key] = record
            print(_line(record), file=sys.stderr, flush=True)
        records.append(finished[cell.key])
    return records


def _alone(cell: Cell, place: Place) -> Record:
    # A fresh interpreter: a forked one would begin with this one's memory.
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_measured, args=(cell, place, theirs, os.getpid()))
    try:
        _start(process)
        theirs.close()
        said = ours.recv()
        process.join()
    except EOFError:
        process.join()
        raise ModelError(f"The run of {cell.task} ended with status {process.exitcode} and without a result.") from None
    except KeyboardInterrupt:
        _interrupt(process)
        raise
    finally:
        ours.close()
    if isinstance(said, MopError):
        raise said
    return dict(said)


def _start(process: BaseProcess) -> None:
    """Start a run that is deaf to the terminal's interrupts: the sweep alone heeds them, and passes them on."""
    # Blocked, which a new process takes over, and not ignored: one that comes now is heeded when the run has started.
    heard = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, heard)


def _interrupt(process: BaseProcess) -> None:
    """Interrupt a run and wait for its end, for which it takes the calls on the wire; each further one hurries it."""
    while process.is_alive():
        process.terminate()
        with suppress(KeyboardInterrupt):
            process.join()


def _measured(cell: Cell, place: Place, result: Any, parent: int) -> None:
    end_with(parent)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        record = run_cell(cell, place)
        result.send({**record, "peak_mib": _peak_mib()})
    except MopError as error:
        result.send(error)
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def _peak_mib() -> int:
    """Return the most memory that this process had at once."""
    with suppress(OSError):
        # Linux hands the maximum of `getrusage` down to a program that a process starts, so it may be the sweep's own.
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        if found := re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE):
            return round(int(found[1]) / 2**10)
    # macOS counts in bytes, others in KiB.
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10))


def sweep_table(records: Sequence[Record]) -> str:
    """Return the sweep as a Markdown table."""
    rows = []
    for record in records:
        search = record["search"]
        rows.append(
            [
                record["options"].get("experts", "—"),
                record["experts"],
                record["encoder"],
                f"{record['score']:.3f}",
                f"{search['calls']:,}",
                f"{search['prompt_tokens'] + search['completion_tokens']:,}",
                f"{search['seconds']:.1f}",
                record["peak_mib"],
            ]
        )
    return markdown(HEAD, rows)


def draw_sweep(records: Sequence[Record], path: Path) -> None:
    """Draw accuracy, calls, seconds and memory over the number of experts, a line for each encoder."""
    encoders = list(dict.fromkeys(record["encoder"] for record in records))
    with drawing(path, 8, 6.4) as figure:
        grid = figure.subplots(2, 2, sharex=True)
        for (title, where), axes in zip(PANELS, grid.flat, strict=True):
            for place, encoder in enumerate(encoders):
                mine = [record for record in records if record["encoder"] == encoder]
                counts = [record["options"].get("experts", record["experts"]) for record in mine]
                axes.plot(
                    counts,
                    [_value(record, where) for record in mine],
                    marker=MARKERS[place % len(MARKERS)],
                    linestyle=("-", "--", ":", "-.")[place % 4],
                    color="0.0",
                    markerfacecolor=("0.0", "1.0", "0.6")[place % 3],
                    label=encoder if axes is grid.flat[0] else None,
                )
            axes.set_title(title, fontsize=9, loc="left")
            highest = max(_value(record, where) for record in records)
            axes.set_ylim(0, 1.1 * highest or 1)
            axes.xaxis.get_major_locator().set_params(integer=True)
        for axes in grid[1]:
            axes.set_xlabel("experts")
        figure.legend(loc="outside lower center", ncols=1, frameon=False, fontsize=8)


def _value(record: Mapping[str, Any], where: Sequence[str]) -> float:
    value: Any = record
    for name in where:
        value = value[name]
    return float(value)


def _line(record: Mapping[str, Any]) -> str:
    search = record["search"]
    return (
        f"{record['experts']} experts, {record['encoder']}: {record['score']:.3f} "
        f"({search['calls']} calls, {search['seconds']:.0f} s, {record['peak_mib']} MiB)"
    )
