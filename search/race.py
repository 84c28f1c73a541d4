"""Race: which of several arms is best on average, with few trials, by successive halving on paired examples.

Every arm of a rung sees the same examples in the same order (the released code of the paper compares candidates on
different random items, with a standard error larger than the differences; arXiv 2407.00256). After each rung the
worse half leaves, and so does every arm that is worse than the leader with confidence.

An arm is anything that says which prompt answers a validation example: one prompt for all of them, or a mixture.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mop.errors import BudgetExceeded
from mop.examples import Example
from mop.prompts import Prompt
from mop.search.allowance import FEW_TRIALS, Allowance
from mop.search.trials import Trial, Trials
from mop.stats import lower_bound

#: Examples of a first rung at least: after one alone, the arms that failed it are equals, and the list's order decides.
FIRST_RUNG = 2


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
        """Mean score of an arm over the examples that it saw; NaN if it saw none, as with too few calls for a rung."""
        mean = mean_seen(self.scores[arm])
        return math.nan if mean is None else mean


def mean_seen(scores: NDArray[np.float64]) -> float | None:
    """Return the mean of one arm's ``scores`` where a trial was run; None if none was."""
    seen = scores[np.isfinite(scores)]
    return float(seen.mean()) if len(seen) else None


def next_rung(alive: int, seen: int, examples: int, calls: int) -> int:
    """Return how many examples ``alive`` arms have seen after the next rung, given the ``calls`` that are left.

    The calls are shared out evenly over the rungs that halving the arms to one will take. No first rung is shorter
    than `FIRST_RUNG` examples, as far as half of the calls go.
    """
    rungs = max(1, math.ceil(math.log2(alive)))
    each = calls // rungs // alive
    if not seen and alive > 2:
        each = max(each, min(FIRST_RUNG, calls // 2 // alive))
    return min(examples, seen + each)


def schedule(arms: int, examples: int, calls: int) -> tuple[int, int]:
    """Return the calls that a race takes if no arm leaves early, and how many examples its winner has seen."""
    taken = seen = 0
    while (upto := next_rung(arms, seen, examples, calls - taken)) > seen:
        taken += arms * (upto - seen)
        seen = upto
        if arms == 1:
            break
        arms = math.ceil(arms / 2)
        if arms == 1:
            break
    return taken, seen


async def race(
    arms: Sequence[Arm],
    examples: Sequence[Example],
    order: NDArray[np.intp],
    trials: Trials,
    *,
    calls: float,
    allowance: Allowance | None = None,
    confidence: float = 0.95,
) -> RaceResult:
    """Race ``arms`` on the examples at the positions ``order``, in that order, in at most ``calls`` model calls.

    ``allowance`` says how many of them some trials count for; without one, each counts for itself.
    What arms that left early would have taken is shared out among those that stay. Trials that the run already knows
    count as well: the schedule depends on scores and numbers alone, so that a resumed run takes the same decisions.
    Where trials count by their size, a few are run first, because what they take tells what the others will.
    Where a cap refuses a call, the race ends; raises BudgetExceeded if nothing at all was answered.
    """
    cost: Callable[[Sequence[Trial]], float] = len if allowance is None else allowance.cost
    by_size = allowance is not None and allowance.by_size
    scores = np.full((len(arms), len(examples)), np.nan)
    alive = list(range(len(arms)))
    left_behind: list[int] = []
    seen, left = 0, calls

    def cells(upto: int) -> list[tuple[int, int]]:
        return [(arm, int(example)) for arm in alive for example in order[seen:upto]]

    def trials_of(some: Sequence[tuple[int, int]]) -> list[Trial]:
        return [(arms[arm].prompts[example], examples[example]) for arm, example in some]

    while seen < len(order):
        # The examples to come may be longer or shorter than those before: their own sizes count.
        ahead = trials_of(cells(len(order)))
        upto = next_rung(len(alive), seen, len(order), int(left * len(ahead) / cost(ahead)))
        if upto == seen:
            break
        few = math.ceil(FEW_TRIALS / len(alive))
        first_look = by_size and not seen and upto > 2 * few
        upto = few if first_look else upto
        rung = cells(upto)
        try:
            results = await trials.score(trials_of(rung))
        except BudgetExceeded:
            if seen:
                break
            for (arm, example), score in zip(rung, trials.known(trials_of(rung)), strict=True):
                scores[arm, example] = score
            if not np.isfinite(scores).any():
                raise
            return RaceResult(scores, _most_seen_first(scores))
        for (arm, example), score in zip(rung, results, strict=True):
            scores[arm, example] = score
        left -= cost(trials_of(rung))
        seen = upto
        if first_look:
            continue
        if len(alive) == 1:
            break
        kept = _not_beaten(scores, alive, order[:seen], confidence)[: math.ceil(len(alive) / 2)]
        left_behind = [arm for arm in _best_first(scores, alive) if arm not in kept] + left_behind
        alive = kept
        if len(alive) == 1:
            break
    ranking = _best_first(scores, alive) + left_behind
    return RaceResult(scores, tuple(ranking))


def _most_seen_first(scores: NDArray[np.float64]) -> tuple[int, ...]:
    """Return the arms of a race that a cap ended in its first rung: means over fewer examples count less."""
    seen = np.isfinite(scores).sum(axis=1)
    means = np.where(seen > 0, np.nansum(scores, axis=1) / np.maximum(1, seen), -1.0)
    return tuple(sorted(range(len(scores)), key=lambda arm: (-seen[arm], -means[arm], arm)))


def _best_first(scores: NDArray[np.float64], alive: Sequence[int]) -> list[int]:
    means = {arm: mean_seen(scores[arm]) for arm in alive}
    return sorted(alive, key=lambda arm: (-(-1.0 if (mean := means[arm]) is None else mean), arm))


def _not_beaten(
    scores: NDArray[np.float64], alive: Sequence[int], seen: NDArray[np.intp], confidence: float
) -> list[int]:
    """Return the arms, best first, without those whose paired difference to the leader is below zero for sure."""
    ranked = _best_first(scores, alive)
    leader = ranked[0]
    return [
        arm for arm in ranked if arm == leader or lower_bound(scores[leader, seen] - scores[arm, seen], confidence) <= 0
    ]
