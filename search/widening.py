"""Widening: thresholds of a mixture whose examples grow. Knows nothing of prompts or models; see `mop.limits`.

Thresholds were calibrated on validation examples, of which a mixture keeps no vectors, so they cannot be computed anew.
They still hold: centroids never move, and where distances are those of the nearest demo, more demos only make them
smaller. Of queries like the old examples, at most as many go to the generalist for being far as before.

Queries like the new examples may be farther. The new examples say by how much: each one's distance to its region's
centroid, or to the nearest demo of the grown pool other than itself. With itself and the query in the pool, all these
distances would be exchangeable; leaving them out makes the examples' distances larger and not the query's, so that the
conformal threshold of the new examples covers queries like them at the same coverage (or more). A threshold becomes the
larger of the old and the new one: then it holds for queries like either, and for any blend of both. Where the new
examples are too few for a threshold of their own (99 at a coverage of 0.99), and where there was none, nothing changes.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mop.embeddings.conformal import threshold
from mop.embeddings.encoders import Vectors
from mop.embeddings.index import NeighbourIndex
from mop.limits import Limits
from mop.retrieval import Retrieval


def widened(
    limits: Limits | None,
    centroids: Vectors,
    regions: NDArray[np.intp],
    vectors: Vectors,
    pool: Retrieval | None,
    places: NDArray[np.intp],
) -> Limits | None:
    """Return the limits that cover queries like the new examples too, as far as these can tell.

    Args:
        limits: As they were.
        centroids: Float32, shape (regions, components).
        regions: The region of the centroid that is nearest to each new example.
        vectors: Of the new examples, shape (examples, components).
        pool: The retrieval with the new examples among its demos.
        places: The position of each new example in the pool, -1 for one that isn't there.
    """
    if limits is None or limits.coverage is None or not len(vectors):
        return limits
    if limits.measure == "demo" and pool is not None:
        scores = _nearest_others(pool.vectors, vectors, places)
    else:
        scores = ((vectors - centroids[regions]) ** 2).sum(axis=1).astype(np.float64)
    old = np.asarray(limits.thresholds)
    found = old.copy()
    for value in np.unique(old[np.isfinite(old)]):
        # Regions without enough validation examples share one threshold and go on to do so.
        group = np.flatnonzero(old == value)
        new = threshold(scores[np.isin(regions, group)], limits.coverage)
        if np.isfinite(new):
            found[group] = max(value, new)
    return replace(limits, thresholds=tuple(map(float, found)))


def _nearest_others(pool: Vectors, vectors: Vectors, places: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return the squared distance of each row to the nearest of the pool that isn't the row itself."""
    distances, found = NeighbourIndex(pool).search(vectors, 2)
    itself = found[:, 0] == places
    if distances.shape[1] == 1:
        return np.where(itself, np.inf, distances[:, 0]).astype(np.float64)
    return np.where(itself, distances[:, 1], distances[:, 0]).astype(np.float64)
