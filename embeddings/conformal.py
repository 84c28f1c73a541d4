"""Conformal thresholds: how far a query may lie before it counts as unlike everything seen. Knows only scores.

Split-conformal prediction (Vovk, Gammerman and Shafer 2005, chapter 4): the threshold is the k-th smallest of n scores
that had no part in the fit, k = ceil((n + 1) · coverage). A new score from the same distribution is above it with
probability 1 - coverage at most, whatever that distribution is. Too few scores give no threshold, never a guess.

>>> needed(0.99)
99
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
from numpy.typing import ArrayLike, NDArray

Thresholds = NDArray[np.float64]
#: A region has a threshold of its own if it can expect this many times the scores that one takes: at just enough, the
#: threshold is the largest score, which says little.
SPARE = 2


def needed(coverage: float) -> int:
    """Return the smallest number of scores that gives a threshold at this coverage."""
    share = _exact(coverage)
    return max(1, math.ceil(share / (1 - share)))


def threshold(scores: ArrayLike, coverage: float) -> float:
    """Return the threshold for ``scores``; infinite where they are too few.

    Raises ValueError for a coverage outside (0, 1) or scores that aren't numbers.
    """
    values = np.sort(np.asarray(scores, dtype=np.float64))
    if np.isnan(values).any():
        raise ValueError("Some scores aren't numbers.")
    rank = math.ceil((len(values) + 1) * _exact(coverage))
    return float(values[rank - 1]) if rank <= len(values) else math.inf


def thresholds(
    scores: ArrayLike, regions: NDArray[np.intp], coverage: float, *, shares: NDArray[np.float64]
) -> Thresholds:
    """Return a threshold for each region (Mondrian: the coverage then holds in each group of regions by itself).

    ``shares`` says how much of the data lies in each region, known without the scores (from training examples). A
    region that can expect `SPARE` times the scores that a threshold takes gets its own. All others share one. Were
    regions chosen by how many scores they happen to have, the coverage would hold less than exactly.
    """
    values = np.asarray(scores, dtype=np.float64)
    own = shares * len(values) >= SPARE * needed(coverage)
    others = ~own[regions]
    found = np.full(len(shares), threshold(values[others], coverage))
    for region in np.flatnonzero(own):
        found[region] = threshold(values[regions == region], coverage)
    return found


def _exact(coverage: float) -> Fraction:
    if not 0 < coverage < 1:
        raise ValueError(f"The coverage {coverage} isn't between 0 and 1.")
    # As it is written: 0.99 as a float is a little less or more, and (n + 1) · coverage is rounded up.
    return Fraction(repr(float(coverage)))
