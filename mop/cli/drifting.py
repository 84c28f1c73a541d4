"""``mop drift``: whether a log of queries still is what a mixture was learned from. No model is called."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from rich.console import Console

from mop.cli.options import OutputOptions
from mop.cli.output import say
from mop.cli.running import load_mixture, opened_ledger, standard_input_lines
from mop.cli.tables import new_table, words
from mop.cli.words import UNKNOWN, plural, shorten
from mop.drift import FALSE_ALARM_RATE, DriftMonitor
from mop.errors import BadRows, DataError, RowProblem, SettingsError
from mop.mixture import Mixture

#: Names of the query in a row, the first one that is there.
COLUMNS = ("query", "input", "text")
_BATCH = 1024
_LISTED = 20
_NO_SPEECH = OutputOptions()


def drift(
    mixture: Path,
    queries: Annotated[str, Parameter(allow_leading_hyphen=True)],
    /,
    *,
    column: str | None = None,
    rate: float = FALSE_ALARM_RATE,
    ledger: Annotated[Path | None, Parameter(group="General")] = None,
    speech: OutputOptions = _NO_SPEECH,
) -> None:
    """Say whether queries still are what a mixture was learned from, region by region. No model is called.

    Args:
        mixture: The mixture file.
        queries: A log in its order: a JSON object or a JSON string in each line, or - for standard input.
        column: Name of the query in an object [default: query, input or text].
        rate: Chance of any alarm while nothing has changed, however long the log.
        ledger: File that keeps the queries' vectors.
    """
    if not 0 < rate < 1:
        raise SettingsError(f"--rate is a chance between 0 and 1, such as 0.01; got {rate}.")
    output = speech.open()
    texts = _read(queries, column)
    with opened_ledger(ledger) as book:
        loaded = load_mixture(mixture, book)
        if loaded.reference is None:
            raise DataError(
                f"{mixture} doesn't hold what its held-out examples looked like: it was written by hand or by an older "
                "mop. Learn it again to compare queries with them."
            )
        monitor = DriftMonitor(loaded.reference, rate=rate)
        for start in range(0, len(texts), _BATCH):
            for route in loaded.route(texts[start : start + _BATCH]):
                monitor.observe(route.expert, route.distance)
    report = monitor.report()
    output.result({"mixture": str(mixture), **report}, lambda console: _draw(console, loaded, report))


def _read(source: str, column: str | None) -> list[str]:
    """Return the queries of a log. Raises DataError with every bad line."""
    if source == "-":
        lines = standard_input_lines()
    else:
        try:
            lines = Path(source).read_bytes().decode("utf-8").split("\n")
        except (OSError, ValueError) as error:
            raise DataError(f"The queries {source} cannot be read: {error}.") from error
    texts, problems = [], []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            found = _query(line, column)
            if isinstance(found, RowProblem):
                problems.append(RowProblem(number, found.reason))
            else:
                texts.append(found)
    if problems:
        shown = [f"  {problem}" for problem in problems[:_LISTED]]
        more = [f"  … and {len(problems) - _LISTED} more"] if len(problems) > _LISTED else []
        heading = f"{plural(len(problems), 'line')} of {source} cannot be used:"
        raise BadRows("\n".join([heading, *shown, *more]), tuple(problems))
    if not texts:
        raise DataError(f"{source} has no query.")
    return texts


def _query(line: str, column: str | None) -> str | RowProblem:
    try:
        row = json.loads(line)
        if isinstance(row, dict):
            names = COLUMNS if column is None else (column,)
            name = next((name for name in names if name in row), None)
            if name is None:
                return RowProblem(0, f"no {' or '.join(names)}; there are: {', '.join(map(str, row)) or 'no names'}")
            row = row[name]
        if not isinstance(row, str) or not row.strip():
            return RowProblem(0, f"the query is {shorten(repr(row), 60)}; expected a text that isn't empty")
        row.encode()
    except (ValueError, RecursionError) as error:
        return RowProblem(0, f"not JSON ({error})")
    return row


def _draw(console: Console, mixture: Mixture, report: dict[str, Any]) -> None:
    rate, queries = report["false_alarm_rate"], report["queries"]
    state = "Drift." if report["alarm"] else "No drift shown."
    say(
        console,
        f"{state} {queries:,} {'query' if queries == 1 else 'queries'} against "
        f"{plural(report['held_out'], 'held-out example')}; the chance of a false alarm is {rate:g} at most.",
        style="bold",
    )
    say(console, f"Distances of all queries: {_test(report['overall'])}.")
    if len(mixture) == 1:
        return
    table = new_table()
    for name in ("#", "queries", "share", "expected", "beyond"):
        table.add_column(name, justify="right")
    table.add_column("words", no_wrap=True, overflow="ellipsis", ratio=1, min_width=10)
    table.add_column("distances")
    table.add_column("share changed")
    table.expand = True
    for region in report["regions"]:
        alarm = region["distance"]["alarm"] or region["traffic"]["alarm"]
        table.add_row(
            str(region["expert"]),
            f"{region['queries']:,}",
            f"{region['share']:.3f}",
            f"{region['expected_share']:.3f}",
            UNKNOWN if region["beyond"] is None else f"{region['beyond']:.2f}",
            words(mixture.experts[region["expert"]]),
            _test(region["distance"]),
            _test(region["traffic"]),
            style="bold red" if alarm else None,
        )
    console.print()
    console.print(table)
    say(console, "beyond: part of the queries farther than 95 % of the region's held-out examples.", style="dim")


def _test(found: dict[str, Any]) -> str:
    if found["alarm"]:
        return f"alarm at query {found['alarm_at']:,}"
    return f"evidence {found['evidence']:.3g} of {found['threshold']:,.0f}"
