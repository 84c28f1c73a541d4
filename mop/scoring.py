"""Scoring: from answers to numbers, by a metric or by a judge. What search and evaluation score with.

A metric is a function and costs nothing; a judge asks a model, in calls of the role ``judge`` that count against the
run's budget and are kept in the ledger like all others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from mop.errors import SettingsError
from mop.examples import Example
from mop.metrics import JUDGED, Metric, get_metric, metric_name

if TYPE_CHECKING:
    from mop.judge import Judge


class Scorer(Protocol):
    """Scores answers; ``calls`` is how many model calls one score takes."""

    calls: int

    async def score(self, answers: Sequence[str], examples: Sequence[Example]) -> list[float]:
        """Return the score of each answer to its example, from 0 to 1."""


class MetricScorer:
    """Scores by a metric."""

    calls = 0

    def __init__(self, metric: Metric) -> None:
        self._metric = metric

    async def score(self, answers: Sequence[str], examples: Sequence[Example]) -> list[float]:
        """Return the metric of each answer against the accepted outputs of its example."""
        return [self._metric(answer, example.outputs) for answer, example in zip(answers, examples, strict=True)]


class GradeScorer:
    """Scores by a judge's grade, with the example's first output as a right answer: 0 for grade 1, 1 for grade 10."""

    calls = 1

    def __init__(self, judge: Judge) -> None:
        self._judge = judge

    async def score(self, answers: Sequence[str], examples: Sequence[Example]) -> list[float]:
        """Return the grade of each answer on a scale from 0 to 1; ModelError if the judge can't be used."""
        grades = await self._judge.grade(
            [example.input for example in examples], answers, [example.output for example in examples]
        )
        return [grade.score for grade in grades]


class WinScorer:
    """Scores by a judge's comparison with the example's first output: 1 if the answer wins, 0.5 for a tie."""

    calls = 2

    def __init__(self, judge: Judge) -> None:
        self._judge = judge

    async def score(self, answers: Sequence[str], examples: Sequence[Example]) -> list[float]:
        """Return 1, 0.5 or 0 for each answer; ModelError if the judge can't be used."""
        from mop.judge import Pair

        pairs = [Pair(example.input, answer, example.output) for answer, example in zip(answers, examples, strict=True)]
        return [verdict.score for verdict in await self._judge.compare(pairs)]


def calls_per_score(metric: str | Metric) -> int:
    """Return how many model calls one score by ``metric`` takes."""
    return {"judge": GradeScorer.calls, "judge:pairwise": WinScorer.calls}.get(metric_name(metric), 0)


def make_scorer(metric: str | Metric, judge: Judge | None = None) -> Scorer:
    """Return what scores by ``metric``; ``judge`` answers where the metric is one of `mop.metrics.JUDGED`.

    Raises SettingsError for an unknown metric, and for one that needs a judge if none is given.
    """
    found = get_metric(metric)
    name = metric_name(found)
    if name not in JUDGED:
        return MetricScorer(found)
    if judge is None:
        raise SettingsError(f"The metric {name} needs a judge, and there is none here.")
    return GradeScorer(judge) if name == "judge" else WinScorer(judge)
