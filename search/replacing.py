"""Replacing: races the candidates for a region's expert, and makes the expert of the one that has won.

What answers now is replaced only by what beats it with confidence. Where a kernel chooses the expert by its gain, gains
do not grow: that would draw queries from other regions, which nothing here has tried.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mop.mixture import Expert, Mixture
from mop.search.adding import GENERALIST, RegionTask
from mop.search.race import race
from mop.search.trials import Trials
from mop.stats import lower_bound, paired_difference


@dataclass(frozen=True)
class RegionResult:
    """What a race showed: the candidates' mean scores (None where one left early), and who answers from now on.

    ``low`` bounds from below what the best candidate gains over what answered before.
    """

    task: RegionTask
    scores: tuple[float | None, ...]
    winner: int
    low: float
    expert: Expert

    @property
    def changed(self) -> bool:
        """Whether another candidate than before answers."""
        return self.winner != 0


async def run_region(mixture: Mixture, task: RegionTask, trials: Trials, *, confidence: float) -> RegionResult:
    """Race the candidates of one region and make its expert; ``confidence`` is one-sided."""
    order = np.arange(len(task.judged), dtype=np.intp)
    raced = await race(task.arms, task.judged, order, trials, calls=task.calls)
    scores = raced.scores.copy()
    # A paired verdict on all judged examples, not on those that the race happened to show to both.
    generalist = task.names.index(GENERALIST) if GENERALIST in task.names else 0
    for arm in dict.fromkeys((0, raced.winner, generalist)):
        cells = zip(task.arms[arm].prompts, task.judged, strict=True)
        scores[arm] = await trials.score(list(cells))
    best = raced.winner
    low = lower_bound(scores[best] - scores[0], confidence) if best else 0.0
    winner = best if best and low > 0 else 0
    expert = mixture.experts[task.region]
    if winner:
        expert = _replaced(expert, task, scores, winner, generalist)
        if mixture.limits is not None and mixture.limits.width is not None:
            expert = _without_more_gain(expert, mixture.experts[task.region])
    means = tuple(float(np.nanmean(row)) if np.isfinite(row).any() else None for row in scores)
    return RegionResult(task, means, winner, float(low), expert)


def _replaced(expert: Expert, task: RegionTask, scores: NDArray[np.float64], winner: int, generalist: int) -> Expert:
    """Return the region's expert after another candidate has won."""
    back = task.names[winner] == GENERALIST
    # What the expert itself scored: where the generalist answers, that is the one it was better than.
    own = 0 if back else winner
    gain = paired_difference(scores[own], scores[generalist])
    return replace(
        expert,
        prompt=expert.prompt if back else task.prompts[winner],
        size=expert.size + task.new,
        validation=len(task.judged),
        score=float(scores[own].mean()),
        generalist_score=float(scores[generalist].mean()),
        gain=gain.mean,
        gain_low=gain.low,
        gain_high=gain.high,
        fallback=back,
        persona=expert.persona if back or expert.persona is None else replace(expert.persona, demos=True),
    )


def _without_more_gain(expert: Expert, before: Expert) -> Expert:
    if expert.gain <= before.gain:
        return expert
    return replace(expert, gain=before.gain, gain_low=before.gain_low, gain_high=before.gain_high)
