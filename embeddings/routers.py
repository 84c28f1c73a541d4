"""Routers: ways to choose an expert for a query vector. Know nothing of prompts, answers or models.

One interface for the product and for comparisons: ``choose`` takes vectors in the space of the centroids and says which
region each goes to, and which second one, if any, has a say as well.

>>> centroids = np.eye(3, dtype=np.float32)
>>> NearestCentroid(centroids).choose(centroids[[2, 0]]).expert.tolist()
[2, 0]
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mop.embeddings.encoders import Vectors
from mop.embeddings.regions import Regions
from mop.seeds import stream

Experts = NDArray[np.intp]
#: In `Choice.second`: no second region has a say.
NONE = -1
#: Squared distances of unit vectors differ by less than this by rounding alone.
SMALLEST = 1e-4


@dataclass(frozen=True, eq=False)
class Choice:
    """The regions of a batch of queries; two arrays with one entry for each query.

    ``expert`` is the region whose expert answers, ``second`` the one that has a say as well, or `NONE`.
    """

    expert: Experts
    second: Experts

    @classmethod
    def of(cls, expert: ArrayLike) -> Choice:
        """Return the choice without any second region."""
        chosen = np.asarray(expert, dtype=np.intp)
        return cls(chosen, np.full(chosen.shape, NONE, dtype=np.intp))


class Router(Protocol):
    """Anything that chooses regions for vectors of shape (queries, components)."""

    def choose(self, vectors: Vectors) -> Choice:
        """Return the choice for each row."""


class NearestCentroid:
    """The region with the nearest centroid: the default."""

    def __init__(self, centroids: Vectors) -> None:
        self._regions = Regions(centroids)

    def choose(self, vectors: Vectors) -> Choice:
        """Return the nearest region of each row; ties go to the lowest."""
        return Choice.of(self._regions.assign(vectors))


class NearestDemo:
    """The region of the nearest labelled example, which can lie across a border that centroids draw.

    Args:
        vectors: Of the examples, shape (examples, components).
        regions: The region of each example.
    """

    def __init__(self, vectors: Vectors, regions: Experts) -> None:
        from mop.embeddings.index import NeighbourIndex

        self._index = NeighbourIndex(vectors)
        self._of = regions

    def choose(self, vectors: Vectors) -> Choice:
        """Return the region of the example nearest to each row."""
        return Choice.of(self._of[self._index.nearest(vectors, 1)[:, 0]])


class SoftTopTwo:
    """The nearest centroid, and the second nearest as well where it is hardly farther.

    Args:
        centroids: Of the regions.
        margin: The second has a say where its squared distance is at most this much larger.
    """

    def __init__(self, centroids: Vectors, margin: float) -> None:
        self._regions = Regions(centroids)
        self._margin = margin

    def choose(self, vectors: Vectors) -> Choice:
        """Return the nearest region of each row and, within the margin, the second nearest."""
        first, second, margin = two_nearest(self._regions.distances(vectors))
        return Choice(first, np.where(margin <= self._margin, second, NONE))


class Kernel:
    """Soft assignment: nearby regions count with weight exp(-d² / 2h²), and the largest weighted gain chooses.

    Args:
        centroids: Of the regions.
        gains: What each region's expert gained on validation; one that gained nothing is never moved to.
        width: h², in units of squared distance.
    """

    def __init__(self, centroids: Vectors, gains: ArrayLike, width: float) -> None:
        self._regions = Regions(centroids)
        self._gains = np.asarray(gains, dtype=np.float64)
        self._width = width

    def choose(self, vectors: Vectors) -> Choice:
        """Return the region with the largest weighted gain; the nearest one where none gained anything."""
        distances = self._regions.distances(vectors)
        weighted = kernel_weights(distances, self._width) * np.maximum(self._gains, 0.0)
        return Choice.of(np.where(weighted.max(axis=1) > 0, weighted.argmax(axis=1), distances.argmin(axis=1)))


class RandomRegion:
    """A region by chance, the same for the same vector and seed however queries are batched: what routing is worth."""

    def __init__(self, regions: int, seed: int = 0) -> None:
        self._count = regions
        self._seed = seed

    def choose(self, vectors: Vectors) -> Choice:
        """Return a region for each row."""
        keys = (hashlib.sha256(np.ascontiguousarray(row, np.float32).tobytes()).hexdigest() for row in vectors)
        drawn = [int(stream(self._seed, "random router", key).integers(self._count)) for key in keys]
        return Choice.of(np.asarray(drawn, dtype=np.intp))


def two_nearest(distances: Vectors) -> tuple[Experts, Experts, Vectors]:
    """Return the nearest and the second nearest region of each row of ``distances``, and how much farther it is.

    With one region there is no second: `NONE`, and an infinite margin. Ties go to the lowest region.
    """
    rows, count = distances.shape
    if count == 1:
        return np.zeros(rows, np.intp), np.full(rows, NONE, np.intp), np.full(rows, np.inf, np.float32)
    order = np.argsort(distances, axis=1, kind="stable")[:, :2]
    near = np.take_along_axis(distances, order, axis=1)
    return order[:, 0].astype(np.intp), order[:, 1].astype(np.intp), np.asarray(near[:, 1] - near[:, 0], np.float32)


def kernel_width(margins: ArrayLike) -> float:
    """Return the h² at which the second nearest region weighs half of the nearest, at the median of ``margins``.

    Margins are differences of squared distances, as `two_nearest` gives them.
    """
    return max(float(np.median(np.asarray(margins))), SMALLEST) / (2 * math.log(2))


def kernel_weights(distances: Vectors, width: float) -> NDArray[np.float64]:
    """Return exp(-d² / 2h²) of squared ``distances``, each row scaled to a sum of one; ``width`` is h²."""
    # The nearest distance is taken off first: the weights stay the same and none vanishes for a far query.
    exponent = (distances - distances.min(axis=1, keepdims=True)).astype(np.float64) / (2 * width)
    weights = np.exp(-exponent)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))
