"""What the export targets share: a prompt cut at the place of the query, and routing as plain data."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mop.limits import Limits
from mop.mixture import Mixture
from mop.prompts import Message, Prompt

if TYPE_CHECKING:
    from mop.embeddings.encoders import Vectors


@dataclass(frozen=True)
class Exported:
    """Texts by file name, and what the target cannot express.

    One text is a file of its own; several belong into one folder. ``lost`` are sentences for people.
    """

    files: Mapping[str, str]
    lost: tuple[str, ...] = ()


@dataclass(frozen=True)
class Frame:
    """A prompt cut at the query: ``head``, then a user message of ``before`` + query + ``after``."""

    head: tuple[Message, ...]
    before: str
    after: str

    @classmethod
    def of(cls, prompt: Prompt) -> Frame:
        """Return the frame of a prompt."""
        *head, (_, empty) = prompt.messages("")
        _, filled = prompt.messages("x")[-1]
        start = next(place for place, pair in enumerate(zip(filled, empty + "\0", strict=False)) if pair[0] != pair[1])
        return cls(tuple(head), empty[:start], empty[start:])


def name_of(number: int | None) -> str:
    """Return the name of an expert in exports, or of the generalist (None)."""
    return "generalist" if number is None else f"expert-{number:03d}"


def prompts_by_name(mixture: Mixture) -> dict[str, Prompt]:
    """Return the generalist's and every expert's prompt, those that fell back included."""
    experts = {name_of(number): expert.prompt for number, expert in enumerate(mixture.experts)}
    return {name_of(None): mixture.generalist, **experts}


def rows(vectors: Vectors) -> list[list[float]]:
    """Return float32 vectors as the shortest decimal numbers that give the same float32 again."""
    return [[float(str(value)) for value in row] for row in vectors]


def limits_of(mixture: Mixture) -> dict[str, Any]:
    """Return where routing departs from the nearest centroid; None stands for what a mixture doesn't do."""
    limits = mixture.limits or Limits((math.inf,) * len(mixture))
    return {
        "thresholds": [value if math.isfinite(value) else None for value in limits.thresholds],
        "measure": limits.measure,
        "margin": limits.margin,
        "width": limits.width,
    }


def demo_regions(mixture: Mixture) -> list[int]:
    """Return the region of each demo to retrieve, where a route depends on it; else nothing."""
    near_borders = mixture.limits is not None and mixture.limits.margin is not None
    return mixture.router.demo_regions.tolist() if near_borders else []


def routing(mixture: Mixture) -> dict[str, Any]:
    """Return all that routing needs, as plain data with the rule in words."""
    retrieval = mixture.retrieval
    return {
        "rule": " ".join(_rule(mixture)),
        "encoder": {"name": mixture.encoder_record.name, "identity": mixture.encoder_record.identity},
        "fallback": [number for number, expert in enumerate(mixture.experts) if expert.fallback],
        "gains": [expert.gain for expert in mixture.experts],
        "limits": limits_of(mixture),
        "centroids": rows(mixture.centroids),
        "projection": None if mixture.projection is None else rows(mixture.projection),
        "retrieval": None
        if retrieval is None
        else {
            "count": retrieval.count,
            "demos": [{"input": demo.input, "output": demo.output} for demo in retrieval.demos],
            "regions": demo_regions(mixture),
            "vectors": rows(retrieval.vectors),
        },
    }


def encoder_lost(mixture: Mixture) -> list[str]:
    """Return what a target that routes lacks of the encoder."""
    record = mixture.encoder_record
    if record.state is None:
        return []
    return [
        f"The encoder {record.name} was fitted on the examples, and what it learned is left out: vectors of queries "
        "must come from mop (mop.load(FILE).encoder)."
    ]


def _rule(mixture: Mixture) -> Iterator[str]:
    limits = mixture.limits
    yield (
        "Encode the query to a unit vector v. With a projection (its last row is the offset), v becomes "
        "v @ projection[:-1] + projection[-1], scaled to unit length. Distances are squared Euclidean distances to v."
    )
    if limits is not None and limits.width is not None:
        yield (
            "A centroid at distance d weighs exp(-d / (2 * width)) times its expert's gain, or 0 where that is "
            "negative or the expert is in fallback. The expert is the one whose centroid weighs most; the nearest one "
            "if none weighs anything."
        )
    else:
        yield "The expert is the one whose centroid is nearest."
    yield "The generalist answers for experts in fallback."
    if limits is not None and any(map(math.isfinite, limits.thresholds)):
        nearest = "the nearest demo to retrieve" if limits.measure == "demo" else "the expert's centroid"
        yield (
            f"It also answers where the distance of {nearest} is more than the expert's number in thresholds (null: no "
            "threshold)."
        )
    yield "An expert that answers also shows the retrieved demos nearest to v, after its own, the nearest one last."
    if limits is not None and limits.margin is not None:
        yield (
            "Where the second nearest centroid is farther than the nearest by margin at most, the nearest demo of its "
            "region (regions has that of each demo) comes before the other retrieved ones, unless it is among them."
        )


def calling(mixture: Mixture) -> dict[str, Any]:
    """Return the model and how it decodes, by the names of OpenAI's API."""
    decoding = mixture.decoding
    return {
        "model": mixture.model,
        "max_tokens": decoding.max_tokens,
        "stop": list(decoding.stop),
        "temperature": decoding.temperature,
    }
