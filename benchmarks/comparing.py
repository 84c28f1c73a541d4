"""Comparing: two methods over many tasks, paired. Knows nothing of tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from mop.errors import DataError
from mop.seeds import stream
from mop.stats import RESAMPLES, Interval, paired_difference

Record = Mapping[str, Any]
Scores = Mapping[str, Mapping[str, Mapping[int, Record]]]


@dataclass(frozen=True)
class Pair:
    """How the first of two methods did against the second, over tasks.

    ``win_rate`` counts a tie half; ``interval`` is its 95 % bootstrap interval over tasks. ``difference`` is the mean
    over tasks of the first's score minus the second's. ``sure_wins`` and ``sure_losses`` are the tasks where the paired
    95 % interval over test examples excludes zero.
    """

    wins: int
    ties: int
    losses: int
    win_rate: float
    interval: Interval
    difference: float
    sure_wins: int
    sure_losses: int

    @property
    def tasks(self) -> int:
        """Number of tasks on which both were run."""
        return self.wins + self.ties + self.losses


def compare(scores: Scores, first: str, second: str) -> Pair | None:
    """Compare two methods on the tasks and seeds that both have; None if there are none.

    Raises DataError if they were tested on different examples.
    """
    outcomes, differences, sure = [], [], []
    for task in sorted(scores):
        seeds = sorted(set(scores[task].get(first, {})) & set(scores[task].get(second, {})))
        if not seeds:
            continue
        ours = [scores[task][first][seed] for seed in seeds]
        theirs = [scores[task][second][seed] for seed in seeds]
        for one, other in zip(ours, theirs, strict=True):
            if one["splits_sha256"]["test"] != other["splits_sha256"]["test"]:
                raise DataError(
                    f"{first} and {second} were tested on different examples of {task}, seed {one['seed']}; "
                    "results from different data don't belong into one file."
                )
        a = np.concatenate([record["scores"] for record in ours])
        b = np.concatenate([record["scores"] for record in theirs])
        difference = mean_over_seeds(ours) - mean_over_seeds(theirs)
        paired = paired_difference(a, b)
        tied = abs(difference) < 0.5 / len(a)
        outcomes.append(0.5 if tied else float(difference > 0))
        differences.append(difference)
        sure.append((paired.low > 0) - (paired.high < 0))
    if not outcomes:
        return None
    values = np.array(outcomes)
    drawn = stream(0, "win rate", len(values)).integers(len(values), size=(RESAMPLES, len(values)))
    low, high = np.quantile(values[drawn].mean(axis=1), [0.025, 0.975])
    return Pair(
        wins=int((values == 1).sum()),
        ties=int((values == 0.5).sum()),
        losses=int((values == 0).sum()),
        win_rate=float(values.mean()),
        interval=Interval(float(low), float(high)),
        difference=float(np.mean(differences)),
        sure_wins=sure.count(1),
        sure_losses=sure.count(-1),
    )


def mean_over_seeds(records: Iterable[Record]) -> float:
    """Return the mean score, whatever the order of the records."""
    values = [record["score"] for record in sorted(records, key=lambda record: record["seed"])]
    return float(sum(values) / len(values))


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
