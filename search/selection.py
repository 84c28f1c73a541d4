"""Selection: what a region's few validation examples may decide, given what all of them say.

A region sees only a handful of validation examples, so nothing is decided on its own mean. Gains are shrunk toward
the gain over all regions (empirical Bayes), as far as the spread between regions is no more than chance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mop.stats import Shrunk, lower_bound, shrink

Scores = NDArray[np.float64]

#: Fewer validation examples than this prove nothing about a mixture.
MIN_JUDGED = 20
#: A two-sided interval of this level has a one-sided lower bound of 80 % confidence.
TWO_SIDED_FOR_80 = 0.6


@dataclass(frozen=True)
class Gate:
    """Which regions keep their expert.

    ``gains`` holds each region's gain over the generalist after shrinkage; ``gain`` the mean over all validation
    examples and ``low`` its one-sided lower bound. ``open`` is false where the mixture as a whole showed no gain.
    """

    gains: tuple[Shrunk, ...]
    gain: float
    low: float
    open: bool

    def falls_back(self, region: int) -> bool:
        """Whether the generalist answers for this region."""
        return not self.open or bool(self.gains[region].mean <= 0)


def gate(experts: Scores, generalist: Scores, regions: NDArray[np.intp], count: int, *, confidence: float) -> Gate:
    """Compare paired scores of experts and generalist (one entry per validation example) in each region.

    The whole mixture must beat its generalist with ``confidence`` (one-sided) on at least `MIN_JUDGED` examples, and a
    region must show a positive gain after shrinkage; else the generalist answers. Layout and instructions were chosen
    on the same examples, so gains are somewhat optimistic; only a test set that chose nothing says what they are.
    """
    differences = experts - generalist
    gains = shrink([differences[regions == region] for region in range(count)])
    low = lower_bound(differences, confidence)
    enough = len(differences) >= MIN_JUDGED
    return Gate(tuple(gains), float(differences.mean()), float(low), bool(enough and low > 0))


def choose_candidates(scores: Scores, regions: NDArray[np.intp], count: int) -> list[int]:
    """Choose an instruction for each region.

    ``scores`` has a row for each candidate and a column for each validation example, NaN where a trial wasn't run;
    row 0 is the incumbent. A candidate replaces it in a region where it was tried and its gain, paired and shrunk
    toward its gain over all regions, is above zero with 80 % confidence and the largest. A candidate tried in one
    region only is not shrunk and needs 90 %.
    """
    choice = [0] * count
    best = [0.0] * count
    for candidate in range(1, len(scores)):
        differences = scores[candidate] - scores[0]
        tried = np.isfinite(differences)
        groups = [differences[tried & (regions == region)] for region in range(count)]
        filled = [region for region in range(count) if groups[region].size]
        if len(filled) == 1:
            # Written for this region: nothing is known of it elsewhere, so it must prove itself here alone.
            (region,) = filled
            gain = float(groups[region].mean())
            if lower_bound(groups[region], 0.9) > 0 and gain > best[region]:
                choice[region], best[region] = candidate, gain
        elif filled:
            shrunk = shrink(groups, level=TWO_SIDED_FOR_80)
            for region in filled:
                if shrunk[region].low > 0 and shrunk[region].mean > best[region]:
                    choice[region], best[region] = candidate, shrunk[region].mean
    return choice


def hardest(scores: Scores, regions: NDArray[np.intp], count: int) -> Sequence[int]:
    """Return the regions with failures, those with the most failed validation examples first."""
    failed = [int(np.nansum(1 - scores[regions == region])) for region in range(count)]
    return [region for region in sorted(range(count), key=lambda r: (-failed[r], r)) if failed[region] > 0]
