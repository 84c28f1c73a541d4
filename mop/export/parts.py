"""What the export targets share: a prompt cut at the place of the query, and routing as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

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


def routing(mixture: Mixture) -> dict[str, Any]:
    """Return all that routing needs, as plain data with the rule in words."""
    retrieval = mixture.retrieval
    return {
        "rule": (
            "Encode the query to a unit vector v. With a projection (its last row is the offset), v becomes "
            "v @ projection[:-1] + projection[-1], scaled to unit length. The expert is the one whose centroid has "
            "the smallest squared Euclidean distance to v; the generalist answers for experts in fallback. An expert "
            "that answers also shows the retrieved demos nearest to v, after its own, the nearest one last."
        ),
        "encoder": {"name": mixture.encoder_record.name, "identity": mixture.encoder_record.identity},
        "fallback": [number for number, expert in enumerate(mixture.experts) if expert.fallback],
        "centroids": rows(mixture.centroids),
        "projection": None if mixture.projection is None else rows(mixture.projection),
        "retrieval": None
        if retrieval is None
        else {
            "count": retrieval.count,
            "demos": [{"input": demo.input, "output": demo.output} for demo in retrieval.demos],
            "vectors": rows(retrieval.vectors),
        },
    }


def calling(mixture: Mixture) -> dict[str, Any]:
    """Return the model and how it decodes, by the names of OpenAI's API."""
    decoding = mixture.decoding
    return {
        "model": mixture.model,
        "max_tokens": decoding.max_tokens,
        "stop": list(decoding.stop),
        "temperature": decoding.temperature,
    }
