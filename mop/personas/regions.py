"""Regions: what the queries of a mixture's region ask for, as the request that an identity is written for.

Knows no models. A saved mixture has no training set; the examples nearest to a region's centroid are looked for among
those that its prompts can show.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mop.errors import DataError
from mop.personas.instructions import Instruction

if TYPE_CHECKING:
    from mop.mixture import Expert, Mixture

#: Examples nearest to a region's centroid from which its identity is written, and the characters of each.
MEDOIDS, MEDOID_CHARACTERS = 4, 300


def region_request(instruction: str, inputs: Sequence[str]) -> str:
    """Return what a region's queries ask for, as the request that an identity is written for."""
    cut = [" ".join(one.split()) for one in inputs]
    listed = "\n".join(f"- {one if len(one) <= MEDOID_CHARACTERS else one[:MEDOID_CHARACTERS] + ' …'}" for one in cut)
    return f"{instruction}\n\nRequests such as these:\n{listed}"


def region_instructions(mixture: Mixture) -> list[Instruction]:
    """Return the request of each region, with the number of its expert as the line.

    Raises DataError if the mixture shows no examples of a region, as one that was learned by rules doesn't, and
    EncoderMismatch if examples have to be encoded and can't be.
    """
    found = []
    for number, expert in enumerate(mixture.experts):
        inputs = _nearest(mixture, number)
        if not inputs:
            raise DataError(
                f"The mixture shows no examples of region {number}, so there is nothing to write its identity from. "
                "Give a file of instructions instead, such as the inputs that it was learned from."
            )
        found.append(Instruction(number, region_request(_instruction(mixture, expert), inputs)))
    return found


def _instruction(mixture: Mixture, expert: Expert) -> str:
    """Return what an expert is told to do, without what it is told to be."""
    told = mixture.generalist.instruction if expert.fallback else expert.prompt.instruction
    worn = expert.persona.text if expert.persona else ""
    return told.removeprefix(worn).lstrip("\n") if worn else told


def _nearest(mixture: Mixture, number: int) -> list[str]:
    """Return the inputs nearest to a region's centroid, of those that are retrieved in it or that its expert shows."""
    from mop.embeddings.projection import project
    from mop.embeddings.regions import Regions

    regions = Regions(mixture.centroids)
    if mixture.retrieval is not None:
        inputs, vectors = [demo.input for demo in mixture.retrieval.demos], mixture.retrieval.vectors
        here = np.flatnonzero(regions.assign(vectors) == number)
    else:
        expert = mixture.experts[number]
        # A role-play's first turn is no example.
        worn = expert.persona.text if expert.persona else ""
        inputs = [demo.input for demo in expert.prompt.demos if demo.input != worn]
        vectors = project(mixture.encoder.encode(inputs), mixture.projection) if inputs else mixture.centroids[:0]
        here = np.arange(len(inputs))
    if not len(here):
        return []
    distances = regions.distances(vectors[here])[:, number]
    near = here[np.argsort(distances, kind="stable")]
    return list(dict.fromkeys(inputs[int(i)] for i in near))[:MEDOIDS]
