"""Comparing: two methods over many tasks, paired. Knows nothing of tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from mop.errors import DataError
from mop.stats import Interval, PairedDifference, paired_difference, proportion_interval

Record = Mapping[str, Any]
#: Means of scores are sums of at most some thousand numbers; they differ by less than this by rounding alone.
ROUNDING = 1e-9
Scores = Mapping[str, Mapping[str, Mapping[int, Record]]]


@dataclass(frozen=True)
class Pair:
    """How the first of two methods did against the second, over tasks.

    ``win_rate`` counts a tie half; ``interval`` is Wilson's 95 % interval of it over tasks. ``difference`` is the mean
    over tasks of the first's score minus the second's. ``outcomes`` are 1, 0.5 or 0 and ``differences`` the differences
    of each task, in one order. ``sure_wins`` and ``sure_losses`` are the tasks where the paired 95 % interval over
    distinct test inputs excludes zero.
    """

    wins: int
    ties: int
    losses: int
    win_rate: float
    interval: Interval
    difference: float
    sure_wins: int
    sure_losses: int
    outcomes: tuple[float, ...]
    differences: tuple[float, ...]

    @property
    def tasks(self) -> int:
        """Number of tasks on which both were run."""
        return self.wins + self.ties + self.losses


@dataclass(frozen=True)
class TaskPair:
    """How the first of two methods did against the second on one task.

    ``difference`` is the mean over seeds of the first's score minus the second's, ``paired`` the same over distinct
    test inputs with its 95 % interval, and ``outcome`` 1 for a win, 0.5 for a tie and 0 for a loss.
    """

    task: str
    difference: float
    paired: PairedDifference
    outcome: float

    @property
    def words(self) -> str:
        """The difference with its interval."""
        return f"{self.difference:+.2f} [{self.paired.low:+.2f}, {self.paired.high:+.2f}]"


def by_task(scores: Scores, first: str, second: str) -> list[TaskPair]:
    """Compare two methods on each task and the seeds that both have.

    Raises DataError if they learned from different examples or were tested on different ones.
    """
    found = []
    for task in sorted(scores):
        seeds = sorted(set(scores[task].get(first, {})) & set(scores[task].get(second, {})))
        if not seeds:
            continue
        ours = [scores[task][first][seed] for seed in seeds]
        theirs = [scores[task][second][seed] for seed in seeds]
        for one, other in zip(ours, theirs, strict=True):
            for split, what in (("test", "were tested on"), ("learn", "learned from")):
                if one["splits_sha256"][split] != other["splits_sha256"][split]:
                    raise DataError(
                        f"{first} and {second} {what} different examples of {task}, seed {one['seed']}; "
                        "results from different data don't belong into one file."
                    )
        a, b = mean_by_input(ours), mean_by_input(theirs)
        difference = mean_over_seeds(ours) - mean_over_seeds(theirs)
        paired = paired_difference([a[name] for name in a], [b[name] for name in a])
        # Half an example exactly is no tie, whichever way sums of decimal fractions are rounded.
        tied = abs(difference) < 0.5 / max(len(record["scores"]) for record in ours) - ROUNDING
        found.append(TaskPair(task, difference, paired, 0.5 if tied else float(difference > 0)))
    return found


def compare(scores: Scores, first: str, second: str) -> Pair | None:
    """Compare two methods on the tasks and seeds that both have; None if there are none.

    Raises DataError as `by_task` does.
    """
    tasks = by_task(scores, first, second)
    if not tasks:
        return None
    values = np.array([one.outcome for one in tasks])
    differences = tuple(one.difference for one in tasks)
    return Pair(
        wins=int((values == 1).sum()),
        ties=int((values == 0.5).sum()),
        losses=int((values == 0).sum()),
        win_rate=float(values.mean()),
        interval=wilson(float(values.sum()), len(values)),
        difference=float(np.mean(differences)),
        sure_wins=sum(one.paired.low > 0 for one in tasks),
        sure_losses=sum(one.paired.high < 0 for one in tasks),
        outcomes=tuple(one.outcome for one in tasks),
        differences=differences,
    )


def mean_over_seeds(records: Iterable[Record]) -> float:
    """Return the mean score, whatever the order of the records."""
    values = [record["score"] for record in sorted(records, key=lambda record: record["seed"])]
    return float(sum(values) / len(values))


def mean_by_input(records: Iterable[Record]) -> dict[str, float]:
    """Return the mean score over seeds of each distinct test input.

    Seeds may draw the same input, and repeated measurements of one input are no independent ones. Records that don't
    name their inputs share them where their test splits are the same ones.
    """
    found: dict[str, list[float]] = {}
    for record in sorted(records, key=lambda record: record["seed"]):
        split = record["splits_sha256"]["test"]
        names = record.get("test_inputs") or [f"{split} {place}" for place in range(len(record["scores"]))]
        for name, score in zip(names, record["scores"], strict=True):
            found.setdefault(name, []).append(float(score))
    return {name: sum(scores) / len(scores) for name, scores in found.items()}


def wilson(successes: float, count: int, level: float = 0.95) -> Interval:
    """Return Wilson's interval of a rate; half a success, from a tie, is allowed.

    Unlike a bootstrap interval it doesn't shrink to a point where all outcomes are the same.
    """
    z = float(stats.norm.ppf(0.5 + level / 2))
    rate, scale = successes / count, 1 + z * z / count
    centre = (rate + z * z / (2 * count)) / scale
    reach = z / scale * (rate * (1 - rate) / count + z * z / (4 * count * count)) ** 0.5
    return Interval(max(0.0, centre - reach), min(1.0, centre + reach))


def shared_tasks(scores: Scores, methods: Sequence[str]) -> list[str]:
    """Return the tasks on which every method was run under the same seeds."""
    return [
        task
        for task in sorted(scores)
        if len({frozenset(scores[task].get(method, {})) for method in methods}) == 1 and methods[0] in scores[task]
    ]


def average_ranks(scores: Scores, methods: Sequence[str], tasks: Sequence[str]) -> dict[str, float]:
    """Return each method's mean rank over ``tasks``, 1 for the best; equal scores share their ranks."""
    if not tasks:
        return {}
    table = [[-round(mean_over_seeds(scores[task][method].values()), 9) for method in methods] for task in tasks]
    means = stats.rankdata(table, axis=1).mean(axis=0)
    return {method: float(mean) for method, mean in zip(methods, means, strict=True)}


def interval_of(cell: Mapping[int, Record]) -> tuple[float, float]:
    """Return the 95 % interval of one method on one task, from its results by seed.

    With one seed it is that of the score over distinct test inputs; with several it lies around their mean and is as
    wide as that, or as the t interval over seeds if this is wider.
    """
    inputs = proportion_interval(list(mean_by_input(cell.values()).values()))
    if len(cell) == 1:
        return inputs.low, inputs.high
    mean = mean_over_seeds(cell.values())
    values = [record["score"] for _, record in sorted(cell.items())]
    spread = (sum((value - mean) ** 2 for value in values) / (len(values) - 1)) ** 0.5
    reach = float(stats.t.ppf(0.975, len(values) - 1)) * spread / len(values) ** 0.5
    reach = max(reach, (inputs.high - inputs.low) / 2)
    return mean - reach, mean + reach
