"""Exact FAISS indexes: which centroid is nearest to a query vector, and how clearly; which demos are nearest."""

from __future__ import annotations

from dataclasses import dataclass

import faiss
import numpy as np
from numpy.typing import NDArray

from mop.embeddings.encoders import Vectors


@dataclass(frozen=True)
class Nearest:
    """Nearest centroids of a batch of queries; four arrays of one length.

    ``distance`` is the squared Euclidean distance to the nearest centroid, ``margin`` how much farther the ``second``
    nearest is (infinite, and -1, when there is one centroid only).
    """

    expert: NDArray[np.intp]
    distance: Vectors
    margin: Vectors
    second: NDArray[np.intp]


class RoutingIndex:
    """Exact nearest-centroid search."""

    def __init__(self, centroids: Vectors) -> None:
        self._index = faiss.IndexFlatL2(centroids.shape[1])
        self._index.add(np.ascontiguousarray(centroids, dtype=np.float32))
        self._neighbours = min(2, len(centroids))

    def nearest(self, vectors: Vectors) -> Nearest:
        """Return the nearest centroid of each row of ``vectors``."""
        distances, experts = self._index.search(np.ascontiguousarray(vectors, np.float32), self._neighbours)
        distances = np.maximum(distances, 0)
        if self._neighbours == 1:
            margin, second = np.full(len(vectors), np.inf, dtype=np.float32), np.full(len(vectors), -1, dtype=np.intp)
        else:
            margin, second = distances[:, 1] - distances[:, 0], experts[:, 1].astype(np.intp)
        return Nearest(experts[:, 0].astype(np.intp), distances[:, 0], margin, second)


class NeighbourIndex:
    """Exact search for the nearest of many vectors."""

    def __init__(self, vectors: Vectors) -> None:
        self._index = faiss.IndexFlatL2(vectors.shape[1])
        self._index.add(np.ascontiguousarray(vectors, dtype=np.float32))

    def nearest(self, vectors: Vectors, count: int) -> NDArray[np.intp]:
        """Return the positions of the ``count`` nearest (or all there are), nearest first, for each row."""
        return self.search(vectors, count)[1]

    def search(self, vectors: Vectors, count: int) -> tuple[Vectors, NDArray[np.intp]]:
        """Return the squared distances and the positions of the ``count`` nearest, as `nearest` does."""
        count = min(count, self._index.ntotal)
        distances, positions = self._index.search(np.ascontiguousarray(vectors, np.float32), count)
        return np.maximum(distances, 0), np.asarray(positions, dtype=np.intp)
