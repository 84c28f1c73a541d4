"""Retrieval: the few labelled examples nearest to a query, shown right before it. Knows nothing of regions or models.

An expert's own demos are fixed and stand in a prefix that caches serve; retrieved demos come after it and cost fresh
tokens, so there are one or two of them, not fifteen.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from mop.prompts import Demo

if TYPE_CHECKING:
    from mop.embeddings.encoders import Vectors
    from mop.embeddings.index import NeighbourIndex


@dataclass(frozen=True, eq=False)
class Retrieval:
    """Demos to retrieve from, and how many of them a query gets.

    ``vectors`` is float32 with shape (demos, components), in the space in which queries are routed (the encoder's, or
    that of the mixture's projection).
    """

    demos: tuple[Demo, ...]
    vectors: Vectors
    count: int

    @cached_property
    def _index(self) -> NeighbourIndex:
        from mop.embeddings.index import NeighbourIndex

        return NeighbourIndex(self.vectors)

    def facts(self) -> dict[str, object]:
        """Return how demos are looked up, with the measured share of nearest ones that are found."""
        return {"demos": len(self.demos), "exact": self._index.exact, "recall": self._index.recall()}

    def nearest(self, vectors: Vectors) -> list[tuple[Demo, ...]]:
        """Return the demos of each row of ``vectors``, shape (queries, components); the nearest one is the last."""
        return self.search(vectors)[1]

    def search(self, vectors: Vectors) -> tuple[Vectors, list[tuple[Demo, ...]]]:
        """Return the squared distance of each row's nearest demo, and what `nearest` does."""
        distances, found = self._index.search(vectors, self.count)
        return distances[:, 0], [tuple(self.demos[int(position)] for position in row[::-1]) for row in found]
