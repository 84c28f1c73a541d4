"""Race: which of several arms is best on average, with few trials, by successive halving on paired examples.

Every arm of a rung sees the same examples in the same order (the released code of the paper compares candidates on
different random items, with a standard error larger than the differences; arXiv 2407.00256). After each rung the
worse half leaves, and so does every arm that is worse than the leader with confidence.

An arm is anything that says which prompt answers a validation example: one prompt for all of them, or a mixture.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mop.examples import Example
from mop.prompts import Prompt
from mop.search.trials import Trials
from mop.stats import lower_bound


@dataclass(frozen=True)
class Arm:
    """A way to answer: ``prompts[i]`` answers validation example ``i``."""

    name: str
    prompts: tuple[Prompt, ...]

    @classmethod
    def single(cls, name: str, prompt: Prompt, examples: int) -> Arm:
        """Return the arm that answers every example with one prompt."""
        return cls(name, (prompt,) * examples)


@dataclass(frozen=True)
class RaceResult:
    """Scores (arms × examples, NaN where a trial wasn't run) and the arms from best to worst.

    Arms are ranked by the rung they reached, then by mean score there, then by position.
    """

    scores: NDArray[np.float64]
    ranking: tuple[int, ...]

    @property
    def winner(self) -> int:
        """Position of the best arm."""
        return self.ranking[0]

    def mean(self, arm: int) -> float:
        """Mean score of an arm over the examples that it saw."""
        return float(np.nanmean(self.scores[arm]))


def rungs(arms: int, examples: int, calls: int) -> list[tuple[int, int]]:
    """Return the (arms, examples seen so far) of each rung, so that all trials together fit into ``calls``.

    Halving stops at one arm, or when the arms that are left can see every example.
    """
    count = max(1, math.ceil(math.log2(arms))) if arms > 1 else 1
    schedule: list[tuple[int, int]] = []
    left, seen, alive = calls, 0, arms
    for rung in range(count):
        share = left // (count - rung)
        upto = min(examples, seen + share // alive)
        if upto <= seen:
            break
        schedule.append((alive, upto))
        left -= alive * (upto - seen)
        seen = upto
        alive = max(1, math.ceil(alive / 2))
    return schedule


async def race(
    arms: Sequence[Arm],
    examples: Sequence[Example],
    order: NDArray[np.intp],
    trials: Trials,
    *,
    calls: int,
    confidence: float = 0.95,
) -> RaceResult:
    """Race ``arms`` on ``examples`` taken in ``order``, in at most ``calls`` model calls.

    Trials that the run already knows are free and make room for nothing: the schedule depends on the numbers alone,
    so that a resumed run takes the same decisions.
    """
    scores = np.full((len(arms), len(examples)), np.nan)
    alive = list(range(len(arms)))
    left_behind: list[int] = []
    seen = 0
    for target, upto in rungs(len(arms), len(examples), calls):
        alive, dropped = _cut(scores, alive, target)
        left_behind = dropped + left_behind
        fresh = order[seen:upto]
        cells = [(arm, int(example)) for arm in alive for example in fresh]
        results = await trials.score([(arms[arm].prompts[example], examples[example]) for arm, example in cells])
        for (arm, example), score in zip(cells, results, strict=True):
            scores[arm, example] = score
        seen = upto
        alive, dropped = _drop_beaten(scores, alive, order[:seen], confidence)
        left_behind = dropped + left_behind
    ranking = _best_first(scores, alive) + left_behind
    return RaceResult(scores, tuple(ranking))


def _best_first(scores: NDArray[np.float64], alive: Sequence[int]) -> list[int]:
    means = {arm: float(np.nanmean(scores[arm])) if np.isfinite(scores[arm]).any() else -1.0 for arm in alive}
    return sorted(alive, key=lambda arm: (-means[arm], arm))


def _cut(scores: NDArray[np.float64], alive: Sequence[int], target: int) -> tuple[list[int], list[int]]:
    ranked = _best_first(scores, alive)
    return ranked[:target], ranked[target:]


def _drop_beaten(
    scores: NDArray[np.float64], alive: Sequence[int], seen: NDArray[np.intp], confidence: float
) -> tuple[list[int], list[int]]:
    """Drop the arms whose paired difference to the leader is below zero with ``confidence``."""
    ranked = _best_first(scores, alive)
    leader = ranked[0]
    kept = [
        arm for arm in ranked if arm == leader or lower_bound(scores[leader, seen] - scores[arm, seen], confidence) <= 0
    ]
    return kept, [arm for arm in ranked if arm not in kept]
