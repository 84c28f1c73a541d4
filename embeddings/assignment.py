"""Other ways to divide vectors into regions than plain K-means, for comparison. Knows nothing of prompts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mop.embeddings.encoders import Vectors
from mop.embeddings.regions import Regions, find_regions
from mop.seeds import stream

#: Rounds of K-means with size limits; it has settled long before in all but odd cases.
MOST_ROUNDS = 50


def random_regions(vectors: Vectors, count: int, *, seed: int) -> Regions:
    """Divide ``vectors`` at random into ``count`` regions whose sizes differ by one at most."""
    count = max(1, min(count, len(vectors)))
    members = np.empty(len(vectors), dtype=np.intp)
    members[stream(seed, "random regions", count).permutation(len(vectors))] = np.arange(len(vectors)) % count
    return Regions(_means(vectors, members, count), members)


def limited_regions(vectors: Vectors, count: int, *, seed: int) -> Regions:
    """Divide ``vectors`` into ``count`` regions by K-means with sizes that differ by one at most.

    Each round assigns all vectors at once, at the least sum of squared distances that the sizes allow (a linear
    assignment problem), and moves the centroids to the means; it ends when nothing changes.
    """
    from scipy.optimize import linear_sum_assignment

    count = max(1, min(count, len(vectors)))
    start = find_regions(vectors, count, seed=seed, min_demos=0, min_held_out=0)
    centroids = start.centroids
    places = np.arange(len(vectors)) % count  # the region of each place that is to be filled
    members = np.full(len(vectors), -1, dtype=np.intp)
    for _ in range(MOST_ROUNDS):
        cost = Regions(centroids).distances(vectors)[:, places]
        rows, columns = linear_sum_assignment(cost)
        fresh = np.empty_like(members)
        fresh[rows] = places[columns]
        if np.array_equal(fresh, members):
            break
        members, centroids = fresh, _means(vectors, fresh, count)
    return Regions(centroids, members)


def _means(vectors: Vectors, members: NDArray[np.intp], count: int) -> Vectors:
    return np.asarray([vectors[members == region].mean(axis=0) for region in range(count)], dtype=np.float32)
