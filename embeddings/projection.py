"""A linear view of the embedding space in which examples with the same answer lie together.

Sentence encoders place texts by topic; which of several neighbouring answers a text needs can lie across that.
Linear discriminant analysis with strong shrinkage (Ledoit and Wolf's target: a scaled identity) turns and stretches
the space so that K-means and nearest-centroid routing see the answers too. It is used only for a closed set of
answers and only where held-out examples are answered better with it.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mop.embeddings.encoders import Vectors
from mop.embeddings.large import CHUNK

#: Weight of the identity in the within-answer covariance. 0.9 gave the best coverage of the help desk's messages
#: among 0.3, 0.6 and 0.9 (benchmarks/LOG.md, "Coverage").
SHRINKAGE = 0.9


def fit_projection(vectors: Vectors, answers: Sequence[str], *, shrinkage: float = SHRINKAGE) -> Vectors | None:
    """Return the projection as one matrix, float32, shape (dimension + 1, components); its last row is the offset.

    Returns ``None`` where there is nothing to learn from: one answer only, no answer that repeats, or examples of one
    answer that all have the same vector.
    """
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    classes = len(set(answers))
    if classes < 2 or classes >= len(answers):
        return None
    analysis = LinearDiscriminantAnalysis(solver="eigen", shrinkage=shrinkage)
    try:
        # One thread: the last bits of the eigenvectors, and so of a mixture's file, depend on how many there are.
        with warnings.catch_warnings(), threadpool_limits(1):
            # An answer with one example has no spread of its own; the shrinkage is there for such answers.
            warnings.filterwarnings("ignore", "Only one sample available")
            analysis.fit(vectors.astype(np.float64), list(answers))
            offset = analysis.transform(np.zeros((1, vectors.shape[1])))
            linear = analysis.transform(np.eye(vectors.shape[1])) - offset
    except np.linalg.LinAlgError:
        # No spread within any answer: the covariance is zero, and so is its shrinkage target.
        return None
    return np.vstack([linear, offset]).astype(np.float32)


def project(vectors: Vectors, projection: Vectors | NDArray[np.float64] | None) -> Vectors:
    """Return ``vectors`` in the projection, unit-norm again; unchanged if there is none."""
    if projection is None:
        return vectors
    # In double precision: after rounding, a row is the same whatever the number of rows and of threads, by which the
    # library splits its sums.
    exact = np.asarray(projection, np.float64)
    found = np.empty((len(vectors), projection.shape[1]), np.float32)
    for start in range(0, len(vectors), CHUNK):
        rows = vectors[start : start + CHUNK].astype(np.float64) @ exact[:-1] + exact[-1]
        found[start : start + CHUNK] = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return found
