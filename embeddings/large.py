"""Clustering that grows with a sample, not with the data: FAISS k-means where scikit-learn's would take long.

K-means needs some hundred points for each centre, however many there are; all points are then assigned in chunks, so
that memory beyond the vectors stays small. Knows nothing of what is clustered.
"""

from __future__ import annotations

from collections.abc import Callable

import faiss
import numpy as np
from numpy.typing import NDArray

from mop.embeddings.encoders import Vectors
from mop.seeds import stream

#: Hears how far the work is: what is done, of how much.
Progress = Callable[[int, int], None]
#: Points for each centre; FAISS's own advice is 39 at least and 256 at most.
SAMPLE_PER_CENTRE = 256
ROUNDS = 20
#: Rows worked on at once: 64 MB of distances to 256 centres.
CHUNK = 65_536


def silent(_done: int, _total: int) -> None:
    """Hear nothing."""


def cluster(
    vectors: Vectors,
    count: int,
    *,
    seed: int,
    rounds: int = ROUNDS,
    per_centre: int = SAMPLE_PER_CENTRE,
    progress: Progress = silent,
) -> Vectors:
    """Return ``count`` centres of ``vectors``: float32, shape (count, dimension).

    Args:
        vectors: One row for each point; a memory map will do, only the sample is copied.
        count: Number of centres, at most that of the vectors.
        seed: Of the sample and the first centres.
        rounds: Of Lloyd's algorithm.
        per_centre: Points of the sample for each centre.
        progress: Is told each round.
    """
    rng = stream(seed, "large regions", count)
    size = min(len(vectors), count * per_centre)
    # Sorted, because a memory map is read faster from front to back.
    sample = np.ascontiguousarray(vectors[np.sort(rng.choice(len(vectors), size, replace=False))], np.float32)
    centres = sample[rng.choice(size, count, replace=False)]
    for done in range(rounds):
        # One round at a time, so that progress can be told.
        means = faiss.Kmeans(
            vectors.shape[1],
            count,
            niter=1,
            seed=int(rng.integers(2**31)),
            min_points_per_centroid=1,
            max_points_per_centroid=size,
        )
        means.train(sample, init_centroids=centres)
        centres = np.asarray(means.centroids, np.float32)
        progress(done + 1, rounds)
    return centres


def assign(vectors: Vectors, centres: Vectors, *, progress: Progress = silent) -> NDArray[np.intp]:
    """Return the nearest centre of each row, chunk by chunk."""
    index = faiss.IndexFlatL2(centres.shape[1])
    index.add(np.ascontiguousarray(centres, np.float32))
    found = np.empty(len(vectors), dtype=np.intp)
    for start in range(0, len(vectors), CHUNK):
        rows = np.ascontiguousarray(vectors[start : start + CHUNK], np.float32)
        found[start : start + CHUNK] = index.search(rows, 1)[1][:, 0]
        progress(min(start + CHUNK, len(vectors)), len(vectors))
    return found
