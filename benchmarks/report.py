"""Report: the tables of a result file as Markdown. The same cells give the same bytes, in whatever order they came.

Seconds are in the result file but not here: they are those of one machine on one day.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from benchmarks.comparing import Pair, average_ranks, compare, mean_over_seeds, shared_tasks
from mop.search.methods import METHODS, PARTICULAR
from mop.stats import proportion_interval

Record = dict[str, Any]
#: Scores of one condition: task → method → seed → line of results.
Scores = dict[str, dict[str, dict[int, Record]]]

EXPLANATION = """\
A cell is one method on one task under one seed; a seed has a split of its own. `±` is the half-width of the 95 % t
interval over seeds; a task with one seed has the 95 % interval over its test examples in brackets. `—`: not run.

Pairs are compared on the tasks and seeds that both have, on the same test examples. A task is **won** by the higher
mean score over seeds, and **tied** where the means differ by less than half a test example; a tie counts half in the
win rate. The interval of the win rate is a 95 % bootstrap interval over tasks. **Sure** wins and losses are those where
the paired 95 % interval over test examples excludes zero.

Ranks are averaged over the tasks that all methods have, 1 for the best; equal scores share their ranks. Calls and
tokens of the search are means over cells, whether the endpoint or the ledger answered.
"""


def report(records: Iterable[Record]) -> str:
    """Return all tables; results under different conditions (model, budget, …) are in sections of their own."""
    conditions: dict[str, list[Record]] = {}
    for record in records:
        conditions.setdefault(condition(record), []).append(record)
    sections = [_section(name, conditions[name]) for name in sorted(conditions)]
    return "\n".join(["# Results of the grid\n", EXPLANATION, *sections])


def condition(record: Record) -> str:
    """Return what results must share to be compared, in words."""
    shared = {name: value for name, value in record["options"].items() if name not in PARTICULAR}
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in sorted(shared.items()))


def label(record: Record) -> str:
    """Return the method with the options that are its own."""
    own = [f"{name}={record['options'][name]}" for name in PARTICULAR if name in record["options"]]
    return f"{record['method']} ({', '.join(own)})" if own else str(record["method"])


def _section(name: str, records: Sequence[Record]) -> str:
    scores: Scores = {}
    for record in records:
        scores.setdefault(record["task"], {}).setdefault(label(record), {})[record["seed"]] = record
    known = list(METHODS)
    methods = sorted(
        {label(record) for record in records},
        key=lambda one: (known.index(one.split(" ")[0]) if one.split(" ")[0] in known else len(known), one),
    )
    parts = [f"## {name}\n", _versions(records), "### Scores\n", _score_table(scores, methods)]
    if len(methods) > 1:
        parts += ["### Pairs\n", _pair_table(scores, methods)]
    parts += ["### Methods\n", _method_table(scores, methods)]
    return "\n".join(parts)


def _versions(records: Sequence[Record]) -> str:
    found = sorted({json.dumps([record["versions"]["mop"], record["encoder"]]) for record in records})
    each = "; ".join(f"mop {mop}, encoder {encoder}" for mop, encoder in map(json.loads, found))
    seeds = sorted({record["seed"] for record in records})
    return f"{len(records)} cells, seeds {', '.join(map(str, seeds))}; {each}.\n"


def _score_table(scores: Scores, methods: Sequence[str]) -> str:
    rows = []
    for task in sorted(scores):
        cells = [scores[task].get(method, {}) for method in methods]
        some = next(iter(next(cell for cell in cells if cell).values()))
        rows.append([task, some["metric"], str(some["sizes"]["test"]), *map(_score, cells)])
    shared = shared_tasks(scores, methods)
    if len(shared) > 1:
        means = [
            f"{sum(mean_over_seeds(scores[task][method].values()) for task in shared) / len(shared):.3f}"
            for method in methods
        ]
        rows.append([f"mean of the {len(shared)} tasks that all have", "", "", *means])
    return _table(["task", "metric", "test", *methods], rows)


def _score(cell: dict[int, Record]) -> str:
    if not cell:
        return "—"
    mean = mean_over_seeds(cell.values())
    if len(cell) == 1:
        (record,) = cell.values()
        interval = proportion_interval(record["scores"])
        return f"{mean:.3f} [{interval.low:.2f}, {interval.high:.2f}]"
    from scipy import stats

    values = [record["score"] for _, record in sorted(cell.items())]
    spread = (sum((value - mean) ** 2 for value in values) / (len(values) - 1)) ** 0.5
    reach = float(stats.t.ppf(0.975, len(values) - 1)) * spread / len(values) ** 0.5
    return f"{mean:.3f} ± {reach:.3f}"


def _pair_table(scores: Scores, methods: Sequence[str]) -> str:
    rows = []
    for place, first in enumerate(methods):
        for second in methods[place + 1 :]:
            pair = compare(scores, first, second)
            if pair is not None:
                rows.append(_pair_row(first, second, pair))
    head = ["method", "against", "tasks", "wins", "ties", "losses", "win rate", "95 %", "mean difference", "sure wins"]
    return _table([*head, "sure losses"], rows)


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


def _method_table(scores: Scores, methods: Sequence[str]) -> str:
    shared = shared_tasks(scores, methods)
    ranks = average_ranks(scores, methods, shared)
    rows = []
    for method in methods:
        records = [record for task in sorted(scores) for record in scores[task].get(method, {}).values()]
        count = len(records)
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
                f"{sum(record['experts'] for record in records) / count:.1f}",
            ]
        )
    head = ["method", "cells", "average rank", "search calls", "search prompt tokens"]
    head += ["search completion tokens", "prompt tokens a query", "completion tokens a query", "experts"]
    return _table(head, rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)
