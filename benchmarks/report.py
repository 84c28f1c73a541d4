"""Report: the tables of a result file as Markdown. The same cells give the same bytes, in whatever order they came.

Seconds are in the result file but not here: they are those of one machine on one day.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.comparing import (
    Pair,
    average_ranks,
    by_task,
    compare,
    interval_of,
    mean_over_seeds,
    shared_tasks,
)
from benchmarks.conditions import Record, condition, in_order, label
from benchmarks.markdown import markdown
from mop.errors import DataError
from mop.stats import bootstrap_interval

#: Kinds of tables.
KINDS = ("scores", "failed", "pairs", "bootstrap", "differences", "methods", "routing")
#: Those of them that compare methods two by two, and those that compare one with all others and need its name.
PAIRED = ("pairs", "bootstrap", "differences")
AGAINST_ONE = ("differences",)
#: Scores of one condition: task → method → seed → line of results.
Scores = dict[str, dict[str, dict[int, Record]]]

EXPLANATION = """\
A cell is one method on one task under one seed; a seed has a split of its own. With several seeds, `±` is the wider of
two half-widths: of the 95 % t interval over seeds (search, split and test together, but few values), and of the 95 %
interval over distinct test inputs (which inputs were drawn, and nothing else). A task with one seed has the latter in
brackets. `—`: not run; `failed`: ended by an error, which is listed. Of a cell that was run again after its method had
changed, the newest result counts.

Pairs are compared on the tasks and seeds that both have, on the same examples; **left out** are the other tasks of the
section. A task is **won** by the higher mean score over seeds, and **tied** where the means differ by less than half of
one test example of one seed (0.005 with 100 test examples); a tie counts half in the win rate. The interval of the win
rate is Wilson's 95 % interval of (wins + ties / 2) out of the tasks. **Sure** wins and losses are those where the
paired 95 % interval over distinct test inputs excludes zero; an input of several seeds counts once, by its mean.
The interval covers the choice of test inputs, not that of tasks, and no correction is made for many pairs.

The table **bootstrap** has the same pairs with percentile intervals over tasks drawn anew, 4,000 times. Those of few
tasks are too narrow, and shrink to a point where all tasks agree, as Wilson's don't.

The table **differences** (`--table differences --of METHOD`) has the paired difference of one method to each other on
every task, with its 95 % interval over distinct test inputs.

Ranks are averaged over the tasks that all methods have under the same seeds, 1 for the best; equal scores share their
ranks. A method that finished no cell counts for nothing here. Calls and tokens of the search are means over cells,
whether the endpoint or the ledger answered. Experts are those that answer queries, not regions that fall back to the
single prompt; a method of one prompt has none.

Routing is bounded for methods with several experts: **random expert** is the score where each test query goes to an
expert by chance; on the first few test examples all experts were asked, which gives **any expert** (their mean) and the
**oracle** (the best expert for each query in hindsight), beside what the mixture's own routing has on these examples.
"""


@dataclass(frozen=True)
class Section:
    """Results that can be compared: scores and failures, and the methods in the order of the tables."""

    scores: Scores
    failed: Scores
    methods: tuple[str, ...]

    @classmethod
    def of(cls, records: Sequence[Record]) -> Section:
        """Sort records by task, method and seed; raises DataError for two of the same."""
        return _section(records)


def by_condition(every: Sequence[Record]) -> dict[str, list[Record]]:
    """Return the records under each condition that all methods share, by its name.

    Raises DataError for a record that names no task, method or seed.
    """
    for record in every:
        if missing := [name for name in ("task", "method", "seed") if name not in record]:
            raise DataError(
                f"The result of cell {record.get('cell')} has no {' and no '.join(missing)}; it is none of the grid, "
                "so remove its line."
            )
    digests: dict[str, set[str]] = {}
    for record in every:
        digests.setdefault(record["task"], set()).add(record.get("data_sha256", ""))
    conditions: dict[str, list[Record]] = {}
    for record in every:
        name = condition(record)
        if len(digests[record["task"]]) > 1:
            name += f", data {record.get('data_sha256', '')[:8]}"
        conditions.setdefault(name, []).append(record)
    return {name: _newest(found) for name, found in conditions.items()}


def _newest(records: list[Record]) -> list[Record]:
    """Return of each cell what was run in the newest era (`cells.ERA`), without failures where it finished then.

    Eras are numbered by method, so results of one method in an era and of another in its own belong together.
    """

    def cell(record: Record) -> tuple[Any, ...]:
        return record["task"], label(record), record["seed"]

    def rank(record: Record) -> tuple[int, bool]:
        return record.get("era", -1), "failed" not in record

    newest: dict[tuple[Any, ...], tuple[int, bool]] = {}
    for record in records:
        newest[cell(record)] = max(rank(record), newest.get(cell(record), rank(record)))
    return [record for record in records if rank(record) == newest[cell(record)]]


def report(records: Iterable[Record], failed: Iterable[Record] = ()) -> str:
    """Return all tables; results under different conditions (model, budget, test, data, …) have their own sections.

    Raises DataError if two results are of the same task, method and seed under the same conditions.
    """
    conditions = by_condition([*records, *failed])
    sections = []
    for name in sorted(conditions):
        section = Section.of(conditions[name])
        sections += [f"## {name}\n", _versions(conditions[name])]
        for kind, made in _tables(section).items():
            sections += [f"### {kind.capitalize()}\n", made]
    return "\n".join(["# Results of the grid\n", EXPLANATION, *sections])


def table(records: Iterable[Record], kind: str, failed: Iterable[Record] = (), of: str | None = None) -> str:
    """Return one kind of table (`KINDS`) alone, for other texts to quote; with its condition if there are several.

    ``of`` names the one method whose pairs are shown, against all others; DataError if it has no results.
    """
    every = [*records, *failed]
    if of is not None and of not in (known := sorted({label(record) for record in every})):
        raise DataError(f"There are no results of the method {of}; there are some of {', '.join(known)}.")
    conditions = by_condition(every)
    parts = []
    for name in sorted(conditions):
        made = _tables(Section.of(conditions[name]), of).get(kind)
        if made is not None:
            parts.append(f"{name}:\n\n{made}" if len(conditions) > 1 else made)
    return "\n".join(parts)


def _section(records: Sequence[Record]) -> Section:
    scores: Scores = {}
    failed: Scores = {}
    for record in records:
        table = failed if "failed" in record else scores
        cell = table.setdefault(record["task"], {}).setdefault(label(record), {})
        if record["seed"] in cell and "failed" not in record:
            raise DataError(
                f"There are two results of {label(record)} on {record['task']} under seed {record['seed']}; they "
                "differ in something that the tables don't show. Keep one of them, or use a result file for each."
            )
        cell[record["seed"]] = record
    methods = sorted({label(record) for record in records}, key=in_order)
    return Section(scores, failed, tuple(methods))


def _tables(section: Section, of: str | None = None) -> dict[str, str]:
    """Return the tables of a section that have something to show; those of pairs for one method if ``of`` names it."""
    scores, failed, methods = section.scores, section.failed, section.methods
    pairs = _pairs(methods, of)
    found = {"scores": _score_table(scores, failed, methods)}
    if failed:
        found["failed"] = _failure_table(failed)
    if len(methods) > 1:
        found["pairs"] = _pair_table(scores, len({*scores, *failed}), pairs)
        if drawn := _bootstrap_rows(scores, pairs):
            head = ["method", "against", "tasks", "win rate", "95 % over tasks", "mean difference", "95 % over tasks"]
            found["bootstrap"] = markdown(head, drawn)
        if of is not None:
            found["differences"] = _difference_table(scores, pairs)
    found["methods"] = _method_table(scores, methods)
    if routing := _routing_rows(scores, methods):
        head = ["method", "cells", "score", "random expert", "examples", "routed", "any expert", "oracle"]
        found["routing"] = markdown(head, routing)
    return found


def _routing_rows(scores: Scores, methods: Sequence[str]) -> list[list[str]]:
    rows = []
    for method in methods:
        records = [record for task in sorted(scores) for record in scores[task].get(method, {}).values()]
        bounded = [record for record in records if record.get("bounds")]
        if not bounded:
            continue
        bounds = [record["bounds"] for record in bounded]
        count = len(bounded)
        means = [sum(one[name] for one in bounds) / count for name in ("random", "routed", "any_expert", "oracle")]
        few = f"{sum(one['examples'] for one in bounds) / count:.0f}"
        score = f"{sum(record['score'] for record in bounded) / count:.3f}"
        rows.append([method, str(count), score, f"{means[0]:.3f}", few, *(f"{mean:.3f}" for mean in means[1:])])
    return rows


def _versions(records: Sequence[Record]) -> str:
    finished = [record for record in records if "failed" not in record]
    found = sorted({json.dumps([record["versions"]["mop"], record["encoder"]]) for record in finished})
    each = "".join(f"; mop {mop}, encoder {encoder}" for mop, encoder in map(json.loads, found))
    seeds = sorted({record["seed"] for record in records})
    failed = f" and {len(records) - len(finished)} failed" if len(finished) < len(records) else ""
    return f"{len(finished)} cells{failed}, seeds {', '.join(map(str, seeds))}{each}.{_of_several_eras(finished)}\n"


def _of_several_eras(finished: Sequence[Record]) -> str:
    """Name what is of an earlier state of its method than other cells of the method here, with the tasks."""
    newest: dict[str, int] = {}
    for record in finished:
        newest[record["method"]] = max(record.get("era", -1), newest.get(record["method"], -1))
    older: dict[str, set[str]] = {}
    for record in finished:
        if record.get("era", -1) < newest[record["method"]]:
            older.setdefault(label(record), set()).add(record["task"])
    named = [f"{name} ({', '.join(sorted(tasks))})" for name, tasks in sorted(older.items())]
    return f" Of an earlier state of the method: {'; '.join(named)}." if named else ""


def _score_table(scores: Scores, failed: Scores, methods: Sequence[str]) -> str:
    rows = []
    for task in sorted({*scores, *failed}):
        cells = [scores.get(task, {}).get(method, {}) for method in methods]
        failures = [failed.get(task, {}).get(method, {}) for method in methods]
        some = next(iter(next(cell for cell in (*cells, *failures) if cell).values()))
        size = str(some["sizes"]["test"]) if "sizes" in some else "—"
        rows.append([task, some["metric"], size, *map(_score, cells, failures)])
    ran, shared = _shared(scores, methods)
    if len(shared) > 1:
        means = [
            f"{sum(mean_over_seeds(scores[task][method].values()) for task in shared) / len(shared):.3f}"
            if method in ran
            else "—"
            for method in methods
        ]
        rows.append([f"mean of the {len(shared)} tasks that all have", "", "", *means])
    return markdown(["task", "metric", "test", *methods], rows)


def _score(cell: dict[int, Record], failures: dict[int, Record]) -> str:
    if not cell:
        return "failed" if failures else "—"
    missing = f" ({len(failures)} failed)" if failures else ""
    mean = mean_over_seeds(cell.values())
    low, high = interval_of(cell)
    if len(cell) == 1:
        return f"{mean:.3f} [{low:.2f}, {high:.2f}]{missing}"
    return f"{mean:.3f} ± {(high - low) / 2:.3f} ({len(cell)} seeds){missing}"


def _failure_table(failed: Scores) -> str:
    rows = []
    for task in sorted(failed):
        for method in sorted(failed[task]):
            for seed, record in sorted(failed[task][method].items()):
                error = record["failed"]
                message = error["message"].replace("|", "\\|").replace("\n", " ")
                rows.append([task, method, str(seed), error["type"], message])
    return markdown(["task", "method", "seed", "error", "message"], rows)


def _pairs(methods: Sequence[str], of: str | None) -> list[tuple[str, str]]:
    """Return the methods two by two: each against those after it, or ``of`` against all others."""
    if of is None:
        return list(itertools.combinations(methods, 2))
    return [(of, other) for other in methods if other != of and of in methods]


def _pair_table(scores: Scores, tasks: int, pairs: Sequence[tuple[str, str]]) -> str:
    rows = []
    for first, second in pairs:
        pair = compare(scores, first, second)
        if pair is not None:
            rows.append([*_pair_row(first, second, pair), str(tasks - pair.tasks)])
        else:
            rows.append([first, second, "0", *["—"] * 8, str(tasks)])
    head = ["method", "against", "tasks", "wins", "ties", "losses", "win rate", "95 %", "mean difference", "sure wins"]
    return markdown([*head, "sure losses", "left out"], rows)


def _pair_row(first: str, second: str, pair: Pair) -> list[str]:
    counts = [pair.tasks, pair.wins, pair.ties, pair.losses]
    interval = f"[{100 * pair.interval.low:.0f}, {100 * pair.interval.high:.0f}]"
    return [
        first,
        second,
        *map(str, counts),
        f"{100 * pair.win_rate:.0f} %",
        interval,
        f"{pair.difference:+.3f}",
        str(pair.sure_wins),
        str(pair.sure_losses),
    ]


def _bootstrap_rows(scores: Scores, pairs: Sequence[tuple[str, str]]) -> list[list[str]]:
    """Return the pairs that share two tasks or more, with intervals over tasks that are drawn anew."""
    rows = []
    for first, second in pairs:
        pair = compare(scores, first, second)
        if pair is None or pair.tasks < 2:
            continue
        rate, difference = bootstrap_interval(pair.outcomes), bootstrap_interval(pair.differences)
        rows.append(
            [
                *(first, second, str(pair.tasks), f"{100 * pair.win_rate:.0f} %"),
                f"[{100 * rate.low:.0f}, {100 * rate.high:.0f}]",
                *(f"{pair.difference:+.3f}", f"[{difference.low:+.3f}, {difference.high:+.3f}]"),
            ]
        )
    return rows


def _difference_table(scores: Scores, pairs: Sequence[tuple[str, str]]) -> str:
    """Return the paired difference on each task with its interval over distinct inputs, a column for each pair."""
    columns = [{one.task: one for one in by_task(scores, first, second)} for first, second in pairs]
    rows = [
        [task, *(column[task].words if task in column else "—" for column in columns)]
        for task in sorted(scores)
        if any(task in column for column in columns)
    ]
    return markdown(["task", *(f"{first} − {second}" for first, second in pairs)], rows)


def _shared(scores: Scores, methods: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the methods that finished any cell, and the tasks that all of these have."""
    ran = [method for method in methods if any(method in cells for cells in scores.values())]
    return ran, shared_tasks(scores, ran) if ran else []


def _method_table(scores: Scores, methods: Sequence[str]) -> str:
    ran, shared = _shared(scores, methods)
    ranks = average_ranks(scores, ran, shared)
    rows = []
    for method in methods:
        records = [record for task in sorted(scores) for record in scores[task].get(method, {}).values()]
        count = len(records)
        if not count:
            rows.append([method, "0", *["—"] * 7])
            continue
        queries = sum(len(record["scores"]) for record in records)
        search = [record["search"] for record in records]
        test = [record["test"] for record in records]
        rows.append(
            [
                method,
                str(count),
                f"{ranks[method]:.2f}" if method in ranks else "—",
                f"{sum(one['calls'] for one in search) / count:,.0f}",
                f"{sum(one['prompt_tokens'] for one in search) / count:,.0f}",
                f"{sum(one['completion_tokens'] for one in search) / count:,.0f}",
                f"{sum(one['prompt_tokens'] for one in test) / queries:,.0f}",
                f"{sum(one['completion_tokens'] for one in test) / queries:,.0f}",
                f"{sum(record['kept'] for record in records) / count:.1f}",
            ]
        )
    head = ["method", "cells", "average rank", "search calls", "search prompt tokens"]
    head += ["search completion tokens", "prompt tokens a query", "completion tokens a query", "experts"]
    return markdown(head, rows)
