"""Limits: what a mixture's router does where its regions end, and what validation showed about that.

Three things, each off without evidence: a query unlike every example goes to the generalist (conformal thresholds, see
`mop.embeddings.conformal`); a query near a border also gets the second region's nearest demo; a kernel over regions
chooses the expert in place of the nearest centroid. Knows nothing of prompts or models.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from mop.prompts import Demo

if TYPE_CHECKING:
    from mop.embeddings.encoders import Vectors
    from mop.retrieval import Retrieval

#: Why the generalist answers: the region's expert gained nothing on validation examples, or the query is farther away
#: than the threshold.
NO_GAIN: Literal["no gain"] = "no gain"
FAR: Literal["far from all examples"] = "far from all examples"
Reason = Literal["no gain", "far from all examples"]
#: What is compared with a threshold: the squared distance to the nearest example that can be retrieved, or to the
#: nearest centroid where nothing is retrieved. The first tells foreign queries apart better (benchmarks/LOG.md, "Out of
#: distribution").
Measure = Literal["demo", "centroid"]


@dataclass(frozen=True, eq=False)
class Limits:
    """Where and how routing departs from "the expert of the nearest centroid".

    ``thresholds`` has a squared distance for each region, infinite where there is none: a query farther away goes to
    the generalist. At most 1 - ``coverage`` of queries like the validation examples do. ``margin``: a query whose
    second nearest centroid is farther by this much at most also gets that region's nearest demo. ``width``: h² of the
    kernel exp(-d² / 2h²) by which regions weigh. ``measured`` holds what was tried and what it showed, as plain data.
    """

    thresholds: tuple[float, ...]
    coverage: float | None = None
    measure: Measure = "centroid"
    margin: float | None = None
    width: float | None = None
    measured: Mapping[str, Any] = field(default_factory=dict)

    def far(self, regions: NDArray[np.intp], distances: Vectors) -> NDArray[np.bool_]:
        """Return which queries are beyond the threshold of their region; ``distances`` are those of `measure`."""
        return np.asarray(distances > np.asarray(self.thresholds)[regions])

    def sentences(self) -> list[tuple[str, str]]:
        """Return what happens to queries where the regions end, in words; each with what it is about."""
        from mop.embeddings.conformal import needed

        found = []
        have = sum(map(math.isfinite, self.thresholds))
        if self.coverage is not None and have:
            where = "" if have == len(self.thresholds) else f", in {have} of {len(self.thresholds)} regions"
            nearest = "the nearest example" if self.measure == "demo" else "their region's centroid"
            found.append(
                (
                    "Far",
                    f"queries farther from {nearest} than a threshold go to the generalist{where}; at most "
                    f"{1 - self.coverage:.2g} of queries like the examples do",
                )
            )
        elif self.coverage is not None:
            count = needed(self.coverage)
            found.append(("Far", f"no threshold for far queries: it takes {count} validation examples"))
        if self.margin is not None:
            found.append(
                (
                    "Borders",
                    f"a query whose second nearest region is farther by {self.margin:.3g} at most also gets that "
                    "region's nearest demo",
                )
            )
        if self.width is not None:
            found.append(("Borders", "regions weigh by nearness and gain, and the heaviest answers, not the nearest"))
        return found


class RegionDemos:
    """The demos of a retrieval by region, for queries near a border.

    Args:
        retrieval: The demos and their vectors.
        regions: The region of each demo.
    """

    def __init__(self, retrieval: Retrieval, regions: NDArray[np.intp]) -> None:
        self._retrieval = retrieval
        self._members = {int(region): np.flatnonzero(regions == region) for region in np.unique(regions)}

    def beside(self, shown: Sequence[Demo], vector: Vectors, second: int) -> tuple[Demo, ...]:
        """Return ``shown`` with the nearest demo of region ``second`` before them, unless they are from there already.

        The last of ``shown`` stays next to the query: it is the nearest of all.
        """
        members = self._members.get(second)
        if members is None:
            return tuple(shown)
        distances = ((self._retrieval.vectors[members] - vector) ** 2).sum(axis=1)
        nearest = self._retrieval.demos[int(members[int(distances.argmin())])]
        return tuple(shown) if nearest in shown else (nearest, *shown)
