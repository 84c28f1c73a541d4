"""Routing: which region's expert answers an encoded query, which demos it shows, or why the generalist answers.

The region is that of the nearest centroid; `mop.limits` says where a mixture departs from that. Knows vectors and
demos, nothing of texts, prompts or models.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mop.limits import FAR, NO_GAIN, Limits, Reason, RegionDemos
from mop.prompts import Demo
from mop.retrieval import Retrieval

if TYPE_CHECKING:
    from mop.embeddings.encoders import Vectors
    from mop.embeddings.index import Nearest, RoutingIndex


@dataclass(frozen=True, slots=True)
class Route:
    """Where a query goes.

    ``expert`` is the region's number, ``distance`` the squared Euclidean distance to its centroid, ``margin`` how
    much farther the second nearest centroid is. ``fallback`` says that the generalist's prompt answers. ``retrieved``
    are the demos nearest to the query, the nearest last, where the mixture retrieves any. ``reason`` says why the
    generalist answers: "no gain" in this region, or the query is "far from all examples".
    """

    expert: int
    distance: float
    margin: float
    fallback: bool
    retrieved: tuple[Demo, ...] = ()
    reason: Reason | None = None


@dataclass(frozen=True, eq=False)
class Router:
    """All that chooses an expert for a vector.

    ``centroids`` is float32, shape (experts, components). ``fallback`` and ``gains`` have an entry for each expert:
    whether the generalist answers in its place, and what it gained. The rest is as in `mop.mixture.Mixture`.
    """

    centroids: Vectors
    fallback: tuple[bool, ...]
    gains: tuple[float, ...]
    projection: Vectors | None = None
    retrieval: Retrieval | None = None
    limits: Limits | None = None

    @cached_property
    def _index(self) -> RoutingIndex:
        from mop.embeddings.index import RoutingIndex

        return RoutingIndex(self.centroids)

    @cached_property
    def _exact_projection(self) -> NDArray[np.float64] | None:
        # `project` needs it in double precision: to convert it takes longer than to project one vector.
        return None if self.projection is None else self.projection.astype(np.float64)

    def route(self, vectors: Vectors) -> list[Route]:
        """Return the route of each row of ``vectors``, which are the encoder's: shape (queries, dimension)."""
        from mop.embeddings.projection import project

        projected = project(vectors, self._exact_projection)
        closest_centroid = self._index.nearest(projected)
        nearest = self._chosen(projected, closest_centroid)
        retrieved: list[tuple[Demo, ...]]
        if self.retrieval is None:
            closest, retrieved = closest_centroid.distance, [()] * len(vectors)
        else:
            closest, retrieved = self.retrieval.search(projected)
        limits = self.limits
        far = None
        if limits is not None:
            # By the nearest centroid, whatever the kernel chooses: that is how thresholds were calibrated.
            distance = closest if limits.measure == "demo" else closest_centroid.distance
            far = limits.far(closest_centroid.expert, distance)
            if limits.margin is not None and self._by_region is not None:
                for row in np.flatnonzero(nearest.margin <= limits.margin):
                    retrieved[row] = self._by_region.beside(retrieved[row], projected[row], int(nearest.second[row]))
        routes = []
        # As lists: taking single numbers out of arrays costs more than the search for them.
        found = (nearest.expert.tolist(), nearest.distance.tolist(), nearest.margin.tolist())
        outside = [False] * len(vectors) if far is None else far.tolist()
        for expert, distance, margin, demos, beyond in zip(*found, retrieved, outside, strict=True):
            reason: Reason | None = NO_GAIN if self.fallback[expert] else FAR if beyond else None
            shown = () if reason else demos
            routes.append(Route(expert, distance, margin, reason is not None, shown, reason))
        return routes

    def regions(self, projected: Vectors) -> NDArray[np.intp]:
        """Return the region of each row; ``projected`` are in the space of the centroids."""
        return self._chosen(projected, self._index.nearest(projected)).expert

    def nearest_regions(self, projected: Vectors) -> NDArray[np.intp]:
        """Return the region of the nearest centroid to each row, whatever a kernel chooses: its threshold holds."""
        return self._index.nearest(projected).expert

    @cached_property
    def demo_regions(self) -> NDArray[np.intp]:
        """The region in which each demo to retrieve lies, by the nearest centroid; empty where there are none."""
        if self.retrieval is None:
            return np.zeros(0, np.intp)
        return self.nearest_regions(self.retrieval.vectors)

    def _chosen(self, projected: Vectors, nearest: Nearest) -> Nearest:
        """Return ``nearest``, the centroids nearest to ``projected``, or those that the kernel weighs most."""
        if self.limits is None or self.limits.width is None:
            return nearest
        from mop.embeddings.index import Nearest
        from mop.embeddings.routers import Kernel

        gains = [0.0 if fallen else gain for fallen, gain in zip(self.fallback, self.gains, strict=True)]
        expert = Kernel(self.centroids, gains, self.limits.width).choose(projected).expert
        distance = ((projected - self.centroids[expert]) ** 2).sum(axis=1)
        return Nearest(expert, distance, nearest.margin, nearest.second)

    @cached_property
    def _by_region(self) -> RegionDemos | None:
        return None if self.retrieval is None else RegionDemos(self.retrieval, self.demo_regions)
