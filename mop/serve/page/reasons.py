"""Reasons: why a query goes where it goes, in words. Knows routes and mixtures, nothing of pages or networks."""

from __future__ import annotations

from mop.embeddings.encoders import Vectors
from mop.limits import FAR
from mop.mixture import Mixture, Route
from mop.views.view import words_of


def who_answers(mixture: Mixture, route: Route, vector: Vectors) -> str:
    """Return who answers and, where it is the generalist, why; ``vector`` is the query's in the centroids' space."""
    if not route.fallback:
        return "the region's own prompt"
    limits, retrieval = mixture.limits, mixture.retrieval
    if route.reason != FAR or limits is None:
        return "the generalist: this region's own prompt showed no gain on validation examples"
    distance, place = route.distance, "the region's centroid"
    if limits.measure == "demo" and retrieval is not None:
        distance, place = float(retrieval.search(vector)[0][0]), "the nearest labelled example"
    return (
        f"the generalist: the query is far from all examples; {place} is at distance {distance:.3f}, and this region's "
        f"prompt answers up to {limits.thresholds[route.expert]:.3f}"
    )


def departure(mixture: Mixture, route: Route, distances: Vectors) -> str | None:
    """Return how the route departs from the prompt of the nearest region, if it does.

    ``distances`` are those of the query to every centroid.
    """
    limits = mixture.limits
    if limits is None:
        return None
    nearest = int(distances.argmin())
    if limits.width is not None and distances[nearest] < distances[route.expert]:
        return (
            f"region {nearest} ({words_of(mixture.experts[nearest], 4)}) is nearer, but gains count as well: weighed "
            f"by nearness, the gain of region {route.expert} is the largest"
        )
    if limits.margin is None or mixture.retrieval is None or len(route.retrieved) <= mixture.retrieval.count:
        return None
    return (
        f"the second region is hardly farther (margin {route.margin:.3f}, up to {limits.margin:.3f} counts), so its "
        "nearest demo is shown as well, before the others"
    )
