"""Changes: what another state of the same methods did on the same tasks, paired. Reads two result files' cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.comparing import by_task, mean_over_seeds
from benchmarks.markdown import markdown
from benchmarks.report import Section, by_condition, difference_words
from mop.errors import DataError

Record = dict[str, Any]
#: Names of the two states, for errors too.
BEFORE, AFTER = "before", "after"
HEAD = ("task", "method", BEFORE, AFTER, f"{AFTER} − {BEFORE}", "better", "worse")


def changes(before: Sequence[Record], after: Sequence[Record]) -> str:
    """Return a table of the cells that both have and that were run anew, as Markdown.

    Cells are the same by task, method, options, seed and shared conditions, whatever the version or era of the method.
    **better** and **worse** count distinct test inputs.

    Raises DataError if no cell was run anew, or if one was learned from or tested on other examples.
    """
    conditions = [by_condition([_anywhen(record) for record in records]) for records in (before, after)]
    parts = {}
    for name in sorted(set(conditions[0]) & set(conditions[1])):
        old, new = (Section.of(one[name]).scores for one in conditions)
        if rows := [row for task in sorted(set(old) & set(new)) for row in _rows(task, old[task], new[task])]:
            parts[name] = markdown(HEAD, rows)
    if not parts:
        raise DataError("No cell of the two was run anew under the same conditions, so there is nothing to compare.")
    return "\n".join(f"{name}:\n\n{made}" if len(parts) > 1 else made for name, made in parts.items())


def _anywhen(record: Record) -> Record:
    """Return the record without mop's version, which is a condition elsewhere and here what changes."""
    return {**record, "versions": {**record["versions"], "mop": "of any version"}}


def _rows(
    task: str, old: Mapping[str, Mapping[int, Record]], new: Mapping[str, Mapping[int, Record]]
) -> list[list[str]]:
    rows = []
    for method in [method for method in new if method in old]:
        seeds = [seed for seed in new[method] if seed in old[method]]
        if all(_same(old[method][seed], new[method][seed]) for seed in seeds):
            continue
        states = {AFTER: new[method], BEFORE: old[method]}
        (pair,) = by_task({task: states}, AFTER, BEFORE)
        means = [mean_over_seeds(one[seed] for seed in seeds) for one in (old[method], new[method])]
        counts = [str(pair.paired.wins), str(pair.paired.losses)]
        rows.append([task, method, *(f"{mean:.2f}" for mean in means), difference_words(pair), *counts])
    return rows


def _same(one: Record, other: Record) -> bool:
    """Whether two records are of one run, rather than of two that ended alike."""
    return (one["cell"], one.get("finished")) == (other["cell"], other.get("finished"))
