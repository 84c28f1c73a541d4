"""Splits: which rows of a task give demos, decide, and test, by the paper's rule and anew for every seed.

The rule (arXiv 2407.00256, appendix): a benchmark's training file is halved; demos are its first half, 100 at
most (BIG-Bench Hard: the first 20 of them); validation is the rest, four times as many as the half at most; the test is
100 examples of the test file. A task of one file is halved into training and test first. The released code draws all
of this with one seed for all runs, and then ``±`` over its "seeds" leaves out the split.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from benchmarks.tasks import Row, Task
from mop.data.normal_form import normal_form
from mop.errors import DataError
from mop.examples import Example, Splits
from mop.seeds import stream


@dataclass(frozen=True)
class Sizes:
    """Most examples of each kind; ``cut`` is how many of the training half really give demos."""

    train: int = 100
    validation: int = 400
    test: int = 100
    cut: int | None = None


PAPER = Sizes()
#: Benchmarks with sizes of their own. Intent sets have up to 77 answers, of which 100 demos would miss many.
SIZES = {"bbh": Sizes(cut=20), "classification": Sizes(train=450, validation=150)}


def sizes_of(task: Task, test: int | None = None) -> Sizes:
    """Return the sizes of a task's splits, with another number of test examples if one is given."""
    sizes = SIZES.get(task.benchmark, PAPER)
    return sizes if test is None else Sizes(sizes.train, sizes.validation, test, sizes.cut)


def split_task(task: Task, seed: int, sizes: Sizes) -> Splits:
    """Return the splits of ``task`` under ``seed``; no input stands in two of them.

    Inputs that differ in case, spacing or punctuation at the edges of words alone count as the same one.

    Raises DataError if the task is too small for three of them.
    """
    if task.test:
        test = _drawn(task.test, seed, task.id, "test")
        pool = _drawn(task.pool, seed, task.id, "pool")
    else:
        rows = _drawn(task.pool, seed, task.id, "pool")
        pool, test = _halves(rows, len(rows) // 2)
    tested = _distinct(test)[: sizes.test]
    # Against the whole test half, so that a smaller test moves no row into training.
    pool = _distinct(pool, taken={_key(row.example) for row in test})
    half, rest = _halves(pool, min(len(pool) // 2, sizes.train))
    train, validation = half[: sizes.cut], rest[: min(sizes.validation, 4 * len(half))]
    if not (train and validation and tested):
        raise DataError(
            f"{task.id} has {len(task.pool)} rows to learn from and {len(task.test)} to test on. Each input once, none "
            f"of them in two splits and rows of one meta.id together leaves {len(pool)} and {len(tested)}; that is too "
            "few for demos, validation and test."
        )
    return Splits(_examples(train, "train"), _examples(validation, "validation"), _examples(tested, "test"))


def splits_hash(examples: Sequence[Example]) -> str:
    """Return the SHA-256 of examples in order."""
    return hashlib.sha256(json.dumps([[one.input, one.outputs] for one in examples]).encode()).hexdigest()


def _drawn(rows: Sequence[Row], seed: int, *names: str) -> list[Row]:
    """Return the rows in an order of the seed's own, groups together."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.group, []).append(row)
    ordered = list(groups.values())
    order = stream(seed, "benchmark", *names).permutation(len(ordered))
    return [row for place in order for row in ordered[int(place)]]


def _halves(rows: Sequence[Row], size: int) -> tuple[list[Row], list[Row]]:
    """Cut rows after ``size`` of them, a little earlier if a group would be torn apart otherwise."""
    while 0 < size < len(rows) and rows[size - 1].group == rows[size].group:
        size -= 1
    return list(rows[:size]), list(rows[size:])


def _key(example: Example) -> str:
    return normal_form(example.input)


def _distinct(rows: Iterable[Row], taken: Iterable[str] = ()) -> list[Row]:
    """Return the rows whose inputs are not ``taken``, each input once."""
    seen = set(taken)
    kept = []
    for row in rows:
        if (key := _key(row.example)) not in seen:
            seen.add(key)
            kept.append(row)
    return kept


def _examples(rows: Sequence[Row], split: str) -> tuple[Example, ...]:
    return tuple(Example(row.example.input, row.example.outputs, split) for row in rows)
