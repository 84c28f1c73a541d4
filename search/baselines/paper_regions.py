"""Regions as the paper finds them: K-means, the number of clusters by scaled inertia (arXiv 2407.00256, section 4.1).

Knows nothing of prompts. The rule adds a fixed penalty per cluster, 0.02, to the share of variance that is left within
clusters. By chance alone each further cluster removes about 1/(n - 1) of the variance, and the best of all partitions
more; below a hundred examples that exceeds the penalty, and the rule returns its maximum on pure noise. On request
(``chance``) the penalty is never below twice that share; the published rule has no such bound.
"""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray

from mop.embeddings.encoders import Vectors
from mop.embeddings.regions import Regions
from mop.seeds import stream

#: The paper's most experts.
MOST_EXPERTS = 10
#: The published penalty per cluster, and how often it must cover the share of chance if that is asked for.
PENALTY = 0.02
TIMES_CHANCE = 2.0


def paper_regions(
    vectors: Vectors, *, seed: int, most: int = MOST_EXPERTS, count: int | None = None, chance: bool = False
) -> Regions:
    """Cluster ``vectors`` into ``count`` regions, or into as many as scaled inertia says, two to ``most``.

    ``chance`` raises the published penalty to what chance explains in few examples. No region is empty; fewer
    distinct vectors than clusters give fewer regions.
    """
    distinct = len(np.unique(vectors, axis=0))
    if count is not None:
        return _fit(vectors, max(1, min(count, distinct)), seed)[0]
    fits = [_fit(vectors, k, seed) for k in range(2, min(most, distinct) + 1)]
    if not fits:
        return _fit(vectors, 1, seed)[0]
    total = float(((vectors - vectors.mean(axis=0)) ** 2).sum())
    penalty = max(PENALTY, TIMES_CHANCE / (len(vectors) - 1)) if chance else PENALTY
    return min(fits, key=lambda fit: (fit[1] / total + penalty * len(fit[0]), len(fit[0])))[0]


def _fit(vectors: Vectors, count: int, seed: int) -> tuple[Regions, float]:
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    random_state = int(stream(seed, "paper regions", count).integers(2**31))
    # One thread, so that sums don't depend on which thread ends first.
    with warnings.catch_warnings(), threadpool_limits(1, "openmp"):
        warnings.simplefilter("ignore", ConvergenceWarning)
        fitted = KMeans(count, n_init=1, random_state=random_state).fit(vectors.astype(np.float64))
    regions = Regions(np.asarray(fitted.cluster_centers_, dtype=np.float32))
    filled = np.unique(regions.assign(vectors))
    return Regions(regions.centroids[filled]), float(fitted.inertia_)


def nearest_members(distances: NDArray[np.floating], members: NDArray[np.intp], least: int) -> NDArray[np.intp]:
    """Return ``members`` and, if there are fewer than ``least``, the nearest other rows of ``distances`` as well."""
    if len(members) >= least:
        return members
    order = np.argsort(distances, kind="stable")
    others = order[~np.isin(order, members)]
    return np.concatenate([members, others[: least - len(members)]])
