"""Dots: the examples and queries on the region map, each with its text, its expert, and whether it was right.

Knows places and texts; shapes and colours are the picture's, and the page turns them into ink.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mop.embeddings.projection import project
from mop.embeddings.regions import Regions
from mop.mixture import Mixture
from mop.report.measuring import MIXTURE, Measured
from mop.report.texts import cut
from mop.views.picture import Picture

Kind = Literal["example", "validation", "right", "wrong"]
#: From this score on an answer counts as right; metrics that give parts of a point exist.
RIGHT = 0.5


@dataclass(frozen=True, slots=True)
class Dot:
    """One text on the map; ``title`` is what hovering shows."""

    x: float
    y: float
    region: int
    kind: Kind
    colour: int
    shape: int
    title: str


def dots(
    mixture: Mixture,
    picture: Picture,
    measured: Measured | None,
    *,
    validation: Collection[str] = (),
    most: int = 800,
    letters: int = 200,
) -> tuple[Dot, ...]:
    """Return at most ``most`` labelled examples of the file and as many measured queries, evenly chosen.

    ``validation`` are the inputs of examples that are known to be validation examples.
    """
    found = _examples(mixture, picture, frozenset(validation), most, letters)
    if measured is not None:
        found += _queries(mixture, picture, measured, most, letters)
    return tuple(found)


def _examples(mixture: Mixture, picture: Picture, validation: frozenset[str], most: int, letters: int) -> list[Dot]:
    if mixture.retrieval is None:
        # The file keeps where examples lie, and no texts of them.
        return [
            Dot(x, y, mark.expert, "example", mark.colour, mark.shape, f"An example of region {mark.expert}.")
            for mark in picture.marks
            for x, y in mark.examples
        ]
    demos, vectors = mixture.retrieval.demos, mixture.retrieval.vectors
    chosen = _evenly(len(demos), most)
    regions = Regions(mixture.centroids).assign(vectors[chosen])
    found = []
    for place, (x, y), region in zip(chosen, picture.points(vectors[chosen], mixture.centroids), regions, strict=True):
        demo, mark = demos[place], picture.marks[int(region)]
        kind: Kind = "validation" if demo.input in validation else "example"
        name = "Validation example" if kind == "validation" else "Example"
        title = f"{name} of region {mark.expert}: {cut(demo.input, letters)} → {cut(demo.output, letters)}"
        found.append(Dot(x, y, mark.expert, kind, mark.colour, mark.shape, title))
    return found


def _queries(mixture: Mixture, picture: Picture, measured: Measured, most: int, letters: int) -> list[Dot]:
    plan, scores = measured.plan, measured.by_place(MIXTURE)
    ours = measured.find(MIXTURE)
    if ours is None:
        return []
    chosen = _evenly(len(plan.examples), most)
    vectors = project(plan.vectors[chosen], mixture.projection)
    found = []
    for place, (x, y) in zip(chosen, picture.points(vectors, mixture.centroids), strict=True):
        example, route = plan.examples[place], plan.routes[place]
        mark = picture.marks[route.expert]
        right = bool(scores[place] >= RIGHT)
        by = "the generalist" if route.fallback else f"expert {route.expert}"
        answer = cut(ours.answers[place], letters) or "nothing"
        told = "Right" if right else f"Wrong, expected {cut(' or '.join(example.outputs), letters)}"
        title = f"Query in region {route.expert}: {cut(example.input, letters)} → {by} says {answer}. {told}."
        found.append(Dot(x, y, route.expert, "right" if right else "wrong", mark.colour, mark.shape, title))
    return found


def _evenly(count: int, most: int) -> list[int]:
    """Return at most ``most`` of the positions below ``count``, at even distances."""
    if count <= most:
        return list(range(count))
    return [int(place) for place in np.linspace(0, count - 1, most).round()]
