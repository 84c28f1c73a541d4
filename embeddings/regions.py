"""Regions: K-means cells of the input space. Knows nothing of prompts; inputs are unit vectors.

The paper (arXiv 2407.00256, section 4.1) clusters demos in embedding space and takes the number of clusters from
scaled inertia. That rule returns its maximum on pure noise when examples are few, so here the caller tries several
numbers and keeps the one with the best held-out score; this module only guarantees that every region is big enough
to show demos and to be judged.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mop.embeddings.encoders import Vectors
from mop.embeddings.large import CHUNK, Progress, cluster, silent
from mop.seeds import stream

#: Up to so many vectors all of them are clustered, several times over.
LARGE = 50_000


@dataclass(frozen=True)
class Regions:
    """Centroids of regions: float32, shape (regions, dimension).

    ``given`` is the region of each of the vectors that were divided, where that isn't the nearest centroid's
    (`mop.embeddings.assignment`).
    """

    centroids: Vectors
    given: NDArray[np.intp] | None = None

    def __len__(self) -> int:
        return len(self.centroids)

    def distances(self, vectors: Vectors) -> Vectors:
        """Return squared Euclidean distances, shape (len(vectors), regions)."""
        cross = vectors @ self.centroids.T
        squares = (vectors**2).sum(1)[:, None] + (self.centroids**2).sum(1)[None, :]
        return np.asarray(np.maximum(squares - 2 * cross, 0), dtype=np.float32)

    def assign(self, vectors: Vectors) -> NDArray[np.intp]:
        """Return the nearest region of each vector; ties go to the lowest index."""
        # In parts, so that distances of a million vectors are never all in memory.
        parts = [vectors[start : start + CHUNK] for start in range(0, len(vectors), CHUNK)] or [vectors]
        return np.concatenate([self.distances(part).argmin(axis=1) for part in parts])

    def members(self, vectors: Vectors) -> NDArray[np.intp]:
        """Return the region of each of the ``vectors`` that were divided; other ones go to the nearest region."""
        return self.assign(vectors) if self.given is None else self.given


def find_regions(
    vectors: Vectors,
    count: int,
    *,
    seed: int,
    held_out: Vectors | None = None,
    min_demos: int = 3,
    min_held_out: int = 2,
    restarts: int = 8,
    progress: Progress = silent,
) -> Regions:
    """Cluster ``vectors`` into at most ``count`` regions.

    A region with fewer than ``min_demos`` vectors, or fewer than ``min_held_out`` rows of ``held_out``, is dissolved
    into its neighbours, smallest first, so the result can have fewer regions than asked for, and at least one.
    Beyond `LARGE` vectors the clusters are those of a sample (`mop.embeddings.large`); ``progress`` hears its rounds.
    """
    count = max(1, min(count, len(vectors)))
    if len(vectors) > LARGE:
        centroids = cluster(vectors, count, seed=seed, progress=progress)
    else:
        centroids = _exact_centroids(vectors, count, seed, restarts)
    regions = Regions(centroids)
    while len(regions) > 1:
        demos = np.bincount(regions.assign(vectors), minlength=len(regions))
        shortfall = np.maximum(min_demos - demos, 0)
        if held_out is not None:
            judged = np.bincount(regions.assign(held_out), minlength=len(regions))
            shortfall = shortfall + np.maximum(min_held_out - judged, 0)
        if not shortfall.any():
            break
        worst = int(np.lexsort((np.arange(len(regions)), demos, -shortfall))[0])
        regions = Regions(np.delete(regions.centroids, worst, axis=0))
    return regions


def _exact_centroids(vectors: Vectors, count: int, seed: int, restarts: int) -> Vectors:
    """Return the best of several K-means clusterings of all vectors."""
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    random_state = int(stream(seed, "regions", count).integers(2**31))
    # One thread: with several, sums are in the order in which they finish. It is also faster at these sizes.
    with warnings.catch_warnings(), threadpool_limits(1, "openmp"):
        # Fewer distinct vectors than clusters: the surplus cells are empty and dissolved below.
        warnings.simplefilter("ignore", ConvergenceWarning)
        fitted = KMeans(count, n_init=restarts, random_state=random_state).fit(vectors.astype(np.float64))
    return np.asarray(fitted.cluster_centers_, dtype=np.float32)
