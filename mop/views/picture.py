"""Picture: a region map as places on paper, in the units of an SVG, with labels that don't cover each other.

Knows the plane only; colours and shapes are numbers here, which the style sheet and the template turn into ink.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mop.embeddings.encoders import Vectors
from mop.embeddings.region_map import RegionMap
from mop.embeddings.regions import Regions

WIDTH, HEIGHT = 720.0, 560.0
#: Room at the border for marks and labels.
_MARGIN = 56.0
#: How many colours and shapes there are; without a common factor, so that their pairs repeat late.
COLOURS, SHAPES = 8, 7
#: Size of a label's letters, and how wide one is on average.
_LETTER, _LINE = 7.2, 14.0
_MOST_LETTERS = 22
#: Beyond this many marks there is no room for words.
_MOST_LABELS = 300


@dataclass(frozen=True, slots=True)
class Label:
    """Words beside a mark; ``anchor`` is SVG's: start, middle or end."""

    text: str
    x: float
    y: float
    anchor: str


@dataclass(frozen=True, slots=True)
class Mark:
    """A region: where its number stands, how it looks, and its examples. ``label`` is None where none fits."""

    expert: int
    x: float
    y: float
    colour: int
    shape: int
    examples: tuple[tuple[float, float], ...]
    label: Label | None


class Picture:
    """The map of a mixture's regions, drawn.

    Args:
        region_map: The map.
        words: What is written beside each region.
    """

    def __init__(self, region_map: RegionMap, words: Sequence[str]) -> None:
        self._map = region_map
        drawn = np.vstack([region_map.places, region_map.sample]).astype(np.float64)
        self._low, high = drawn.min(axis=0), drawn.max(axis=0)
        self._size = np.where(high > self._low, high - self._low, 1.0)
        centres = self._on_paper(region_map.places)
        self.radius = _radius(centres)
        examples = self._on_paper(region_map.sample)
        nearest = Regions(centres.astype(np.float32)).assign(examples.astype(np.float32))
        #: The share of the drawn examples that lie nearest to their own region's mark; None if none are drawn.
        self.fidelity = float((nearest == region_map.regions).mean()) if len(examples) else None
        labels = _labels(centres, words, self.radius)
        colours = _apart(centres, COLOURS)
        shapes = _apart(centres, SHAPES)
        self.marks = tuple(
            Mark(
                expert,
                *_rounded(centre),
                colours[expert],
                shapes[expert],
                tuple(_rounded(place) for place in examples[region_map.regions == expert]),
                labels[expert],
            )
            for expert, centre in enumerate(centres)
        )

    def point(self, vector: Vectors, centroids: Vectors) -> tuple[float, float]:
        """Return where a text lies whose vector, shape (1, components), is in the space of the ``centroids``."""
        return self.points(vector, centroids)[0]

    def points(self, vectors: Vectors, centroids: Vectors) -> list[tuple[float, float]]:
        """Return where texts lie; ``vectors``, shape (texts, components), are in the space of the ``centroids``."""
        return [_rounded(place) for place in self._on_paper(self._map.place(vectors, centroids))]

    def _on_paper(self, places: Vectors) -> NDArray[np.float64]:
        """Return places in the SVG's units; the two directions are stretched to fill the paper."""
        room = np.array([WIDTH, HEIGHT]) - 2 * _MARGIN
        scaled = _MARGIN + (places.astype(np.float64) - self._low) / self._size * room
        edge = _MARGIN / 4
        # A query may lie beyond everything that was drawn, and a file may hold any numbers.
        return np.asarray(np.clip(np.nan_to_num(scaled, nan=0.0), edge, np.array([WIDTH, HEIGHT]) - edge))


def _rounded(place: NDArray[np.float64]) -> tuple[float, float]:
    return round(float(place[0]), 1), round(float(place[1]), 1)


def _radius(centres: NDArray[np.float64]) -> float:
    """Return the radius of marks that mostly don't touch each other."""
    return round(max(5.0, min(13.0, 0.28 * math.sqrt(WIDTH * HEIGHT / len(centres)))), 1)


def _apart(centres: NDArray[np.float64], kinds: int) -> list[int]:
    """Return a kind for each mark such that marks of one kind are far from each other."""
    chosen: list[int] = []
    for place, centre in enumerate(centres):
        nearest = np.full(kinds, math.inf)
        np.minimum.at(nearest, chosen, np.linalg.norm(centres[:place] - centre, axis=1))
        # Among kinds that are free, the next in turn: the same number of each.
        ways = np.flatnonzero(nearest == nearest.max()).tolist()
        chosen.append(min(ways, key=lambda kind: (kind - place) % kinds))
    return chosen


def _labels(centres: NDArray[np.float64], words: Sequence[str], radius: float) -> list[Label | None]:
    """Return the labels that fit without covering a mark or another label."""
    if len(centres) > _MOST_LABELS:
        return [None] * len(centres)
    taken = [(x - radius, y - radius, x + radius, y + radius) for x, y in centres]
    labels: list[Label | None] = []
    for (x, y), text in zip(centres, words, strict=True):
        shown = text if len(text) <= _MOST_LETTERS else text[: _MOST_LETTERS - 1].rstrip(" ,") + "…"
        label = None
        for candidate, box in _candidates(float(x), float(y), shown, radius) if shown else ():
            inside = box[0] >= 2 and box[2] <= WIDTH - 2 and box[1] >= 2 and box[3] <= HEIGHT - 2
            if inside and not any(_cover(box, other) for other in taken):
                label = candidate
                taken.append(box)
                break
        labels.append(label)
    return labels


_Box = tuple[float, float, float, float]


def _candidates(x: float, y: float, text: str, radius: float) -> list[tuple[Label, _Box]]:
    width = len(text) * _LETTER
    gap = radius + 4
    ways = [
        (x, y + gap + _LINE * 0.75, "middle", x - width / 2),
        (x, y - gap - _LINE * 0.1, "middle", x - width / 2),
        (x + gap, y + _LINE * 0.3, "start", x + gap),
        (x - gap, y + _LINE * 0.3, "end", x - gap - width),
    ]
    return [
        (Label(text, round(left, 1), round(base, 1), anchor), (start, base - _LINE * 0.8, start + width, base + 3))
        for left, base, anchor, start in ways
    ]


def _cover(one: _Box, other: _Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
