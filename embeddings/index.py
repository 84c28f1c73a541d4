"""FAISS indexes: which centroid is nearest to a query vector, and how clearly; which demos are nearest."""

from __future__ import annotations

from dataclasses import dataclass

import faiss
import numpy as np
from numpy.typing import NDArray

from mop.embeddings.encoders import Vectors
from mop.embeddings.large import CHUNK, Progress, cluster, silent
from mop.seeds import stream

#: Up to so many vectors everything is compared: 1.3 ms for a query of 384 dimensions on one core, under its encoding.
EXACT_MOST = 20_000
#: Cells looked into for a query: recall 0.998 from 20,000 to 100,000 vectors (benchmarks/LOG.md, "Large pools").
PROBED = 32
CELL_ROUNDS = 8
CELL_SAMPLE = 64


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
    """Search for the nearest of many vectors: exact up to `EXACT_MOST` of them, beyond that by cells (IVF).

    The cells are found anew whenever the index is made, which takes about the time of reading the vectors: 0.4 s for
    50,000 of 384 dimensions. A graph (HNSW) answers as fast and takes many times as long to make (benchmarks/LOG.md,
    "Large pools").

    Args:
        vectors: float32, one row for each.
        exact_most: Up to this many rows everything is compared.
        progress: Is told how many rows have been added.
    """

    def __init__(self, vectors: Vectors, *, exact_most: int = EXACT_MOST, progress: Progress = silent) -> None:
        self._index: faiss.IndexFlatL2 | faiss.IndexIVFFlat
        self._vectors = np.ascontiguousarray(vectors, dtype=np.float32)
        self.exact = len(self._vectors) <= exact_most
        dimension = self._vectors.shape[1]
        flat = faiss.IndexFlatL2(dimension)
        if self.exact:
            flat.add(self._vectors)
            self._index = flat
            return
        cells = round(len(self._vectors) ** 0.5)
        flat.add(cluster(self._vectors, cells, seed=0, rounds=CELL_ROUNDS, per_centre=CELL_SAMPLE))
        index = faiss.IndexIVFFlat(flat, dimension, cells)
        index.nprobe = min(cells, PROBED)
        for start in range(0, len(self._vectors), CHUNK):
            index.add(self._vectors[start : start + CHUNK])
            progress(index.ntotal, len(self._vectors))
        # The index has only a bare pointer to the cells' centres.
        self._index, self._cells = index, flat

    def nearest(self, vectors: Vectors, count: int) -> NDArray[np.intp]:
        """Return the positions of the ``count`` nearest (or all there are), nearest first, for each row."""
        return self.search(vectors, count)[1]

    def search(self, vectors: Vectors, count: int) -> tuple[Vectors, NDArray[np.intp]]:
        """Return the squared distances and the positions of the ``count`` nearest, as `nearest` does."""
        count = min(count, self._index.ntotal)
        asked = np.ascontiguousarray(vectors, np.float32)
        distances, positions = self._index.search(asked, count)
        if not self.exact and (short := (positions < 0).any(axis=1)).any():
            # The cells that were looked into hold fewer than asked for.
            distances[short], positions[short] = faiss.knn(asked[short], self._vectors, count)
        return np.maximum(distances, 0), np.asarray(positions, dtype=np.intp)

    def recall(self, *, sample: int = 200, seed: int = 0) -> float:
        """Return how often the nearest other vector of a stored one is found, over a sample of them; 1 if exact."""
        if self.exact:
            return 1.0
        rows = stream(seed, "recall").choice(len(self._vectors), min(sample, len(self._vectors)), replace=False)
        # The first neighbour of a stored vector is itself.
        truth, _ = faiss.knn(self._vectors[rows], self._vectors, 2)
        found, _ = self.search(self._vectors[rows], 2)
        # By distance, so that of several equal ones each counts.
        return float((found[:, 1] <= np.maximum(truth[:, 1], 0) + 1e-5).mean())
