"""A flat picture of regions: where each centroid lies in the plane, and where any text does. Knows no prompts.

Sentence vectors spread over dozens of directions, so a linear view shows regions on top of each other: it leaves 31 to
50 % of unseen texts nearest to their own region, this map 84 % (benchmarks/LOG.md, "A picture of the regions"). The
centroids are laid out by their distances (SMACOF, started at their principal components, so without chance), and a text
lies between the centroids that it is near to, weighted as they compete for it; what is left over, in its two main
directions, moves it a little. So a text whose route is clear lies at its region, and one with a small margin lies
between two. Any vector can be placed, not only those that the picture was made from.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mop.embeddings.encoders import Vectors
from mop.embeddings.regions import Regions
from mop.seeds import stream

#: Most examples that a map keeps.
SAMPLE = 800
#: Centroids that share in a text's place: three, so that texts fill areas and not lines.
_SHARING = 3
#: The weight of the nearest of two centroids at the median margin.
_MEDIAN_WEIGHT = 0.9
#: Root mean square of what residuals move a text, in distances between neighbouring centroids.
_SPREAD = 0.16
#: SMACOF takes some seconds beyond this many centroids; their principal components are used then.
_MOST_LAID_OUT = 400


@dataclass(frozen=True, eq=False)
class RegionMap:
    """Places in the plane, for regions and for texts.

    Attributes:
        places: Of the centroids; float32, shape (regions, 2), the farthest at distance 1 from the origin.
        spread: Moves a text by what its vector differs from the centroids around it; float32, shape (components, 2).
        temperature: Squared distance by which a centroid must be farther to have 1/e of the weight.
        sample: Places of examples; float32, shape (examples, 2).
        regions: The region of each example of the sample.
    """

    places: Vectors
    spread: Vectors
    temperature: float
    sample: Vectors
    regions: NDArray[np.intp]

    def place(self, vectors: Vectors, centroids: Vectors) -> Vectors:
        """Return the places of ``vectors``, shape (texts, 2); ``centroids`` are those that the map was made for."""
        weights, near = _weights(vectors, centroids, self.temperature)
        return _placed(vectors, centroids, weights, near, self.places, self.spread)

    def joined(self, vectors: Vectors, centroids: Vectors, *, seed: int = 0) -> RegionMap:
        """Return the same map with more examples in its sample; beyond `SAMPLE`, that many are drawn from all."""
        sample = np.vstack([self.sample, self.place(vectors, centroids)])
        regions = np.concatenate([self.regions, Regions(centroids).assign(vectors)])
        if len(sample) > SAMPLE:
            kept = np.sort(stream(seed, "region map", len(sample)).choice(len(sample), SAMPLE, replace=False))
            sample, regions = sample[kept], regions[kept]
        return replace(self, sample=sample, regions=regions)


def draw_map(centroids: Vectors, vectors: Vectors, *, seed: int = 0) -> RegionMap:
    """Return the map of regions from their ``centroids`` and examples' ``vectors``, shape (examples, components).

    There may be no examples: then texts are placed by distances alone. ``seed`` chooses which examples are kept where
    there are more than `SAMPLE`.
    """
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    # One thread: with several, sums are in the order in which they finish, and matrices of this size take longer.
    # Where all rows are alike, the libraries divide by a spread of zero for numbers that nobody asks for.
    with threadpool_limits(1), np.errstate(divide="ignore", invalid="ignore"):
        return _drawn(centroids, vectors, seed)


def _drawn(centroids: Vectors, vectors: Vectors, seed: int) -> RegionMap:
    if len(vectors) > SAMPLE:
        vectors = vectors[np.sort(stream(seed, "region map").choice(len(vectors), SAMPLE, replace=False))]
    places = _laid_out(centroids)
    temperature = _temperature(centroids, vectors)
    weights, near = _weights(vectors, centroids, temperature)
    spread = _spread(vectors - _mean(weights, near, centroids), places)
    return RegionMap(
        places=places,
        spread=spread,
        temperature=temperature,
        sample=_placed(vectors, centroids, weights, near, places, spread),
        regions=Regions(centroids).assign(vectors) if len(vectors) else np.zeros(0, np.intp),
    )


def _laid_out(centroids: Vectors) -> Vectors:
    """Return places of the centroids whose distances are as near to the true ones as a plane allows."""
    places = _main_directions(centroids.astype(np.float64))
    distances = np.sqrt(Regions(centroids).distances(centroids).astype(np.float64))
    if 3 <= len(centroids) <= _MOST_LAID_OUT and distances.any():
        from sklearn.manifold import smacof

        distances = (distances + distances.T) / 2
        np.fill_diagonal(distances, 0)
        places, _ = smacof(distances, init=places, n_init=1, eps=1e-5, normalized_stress=False)
    places = places - places.mean(axis=0)
    reach = float(np.linalg.norm(places, axis=1).max())
    return np.asarray(places / reach if reach > 0 else places, np.float32)


def _main_directions(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the coordinates of ``rows`` in their first two principal components, shape (rows, 2)."""
    from sklearn.decomposition import PCA

    found = np.zeros((len(rows), 2))
    count = min(2, *rows.shape)
    if len(rows) > 1 and np.ptp(rows, axis=0).any():
        found[:, :count] = PCA(count, svd_solver="full").fit_transform(rows)
    return found


def _temperature(centroids: Vectors, vectors: Vectors) -> float:
    """Return the temperature at which a text of median margin lies at `_MEDIAN_WEIGHT` of the way to its region."""
    distances = Regions(centroids).distances(vectors if len(vectors) else centroids)
    if len(centroids) > 1:
        nearest = np.partition(distances, 1, axis=1)
        margin = float(np.median(nearest[:, 1] - nearest[:, 0]))
        if margin > 0:
            return max(1e-12, margin / math.log(_MEDIAN_WEIGHT / (1 - _MEDIAN_WEIGHT)))
    return 1.0


def _weights(vectors: Vectors, centroids: Vectors, temperature: float) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Return the weights of the nearest centroids of each vector, and which those are; both (texts, sharing)."""
    distances = Regions(centroids).distances(vectors).astype(np.float64)
    near = distances.argsort(axis=1, kind="stable")[:, :_SHARING]
    there = np.take_along_axis(distances, near, axis=1)
    weights = np.exp((there[:, :1] - there) / temperature)
    return weights / weights.sum(axis=1, keepdims=True), near


def _mean(weights: NDArray[np.float64], near: NDArray[np.intp], rows: Vectors) -> NDArray[np.float64]:
    """Return the weighted means of the rows of the nearest centroids."""
    return np.asarray((weights[:, :, None] * rows[near].astype(np.float64)).sum(axis=1))


def _spread(residuals: NDArray[np.float64], places: Vectors) -> Vectors:
    """Return the linear map from residuals to the plane: their two main directions, at the size of `_SPREAD`."""
    spread = np.zeros((residuals.shape[1], 2))
    if len(residuals) > 1 and residuals.any() and len(places) > 1:
        from sklearn.decomposition import PCA

        found = PCA(min(2, *residuals.shape), svd_solver="full").fit(residuals)
        apart = np.partition(Regions(places).distances(places), 1, axis=1)[:, 1]
        size = np.sqrt(((residuals @ found.components_.T) ** 2).sum(axis=1).mean())
        if size > 0:
            spread[:, : len(found.components_)] = found.components_.T * (_SPREAD * math.sqrt(np.median(apart)) / size)
    return np.asarray(spread, np.float32)


def _placed(
    vectors: Vectors,
    centroids: Vectors,
    weights: NDArray[np.float64],
    near: NDArray[np.intp],
    places: Vectors,
    spread: Vectors,
) -> Vectors:
    residuals = vectors - _mean(weights, near, centroids)
    return np.asarray(_mean(weights, near, places) + residuals @ spread.astype(np.float64), np.float32)
