"""Mixture: expert prompts and the router that picks one for each query. Knows nothing of how they were learned.

Routing (`mop.routing`) needs the encoder and the centroids; answering needs a model as well. Neither needs the search.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from mop.decoding import Decoding
from mop.drift import Reference
from mop.errors import DataError, EncoderMismatch
from mop.limits import Limits
from mop.own_personas import the_one
from mop.persona import Persona
from mop.prompts import Prompt
from mop.retrieval import Retrieval
from mop.routing import Route, Router

__all__ = [
    "PROBES",
    "PROBE_COSINE",
    "Answer",
    "EncoderRecord",
    "Expert",
    "Mixture",
    "Route",
    "check_encoder",
    "checked_queries",
]

if TYPE_CHECKING:
    from mop.embeddings.encoders import Encoder, Vectors
    from mop.embeddings.region_map import RegionMap
    from mop.lm.client import ModelClient
    from mop.lm.request import Usage

#: Encoded when a mixture is learned and again before it first routes: another encoder, or other weights under the
#: same name, give other vectors.
PROBES = (
    "How do I reset my password?",
    "The quick brown fox jumps over the lazy dog.",
    "12 + 30 = 42",
    "Ich hätte gern ein Glas Wasser.",
    "def area(radius): return 3.14159 * radius ** 2",
    "refund",
)
#: Lowest cosine between a stored probe vector and today's. Different hardware and batch sizes stay above 0.9999;
#: the nearest relatives of MiniLM are below 0.9.
PROBE_COSINE = 0.999


@dataclass(frozen=True, slots=True)
class Answer:
    """A model's answer, the expert that was asked, and the tokens it took."""

    text: str
    expert: int
    usage: Usage


@dataclass(frozen=True, slots=True)
class Expert:
    """The prompt of one region and what validation showed about it.

    ``size`` and ``validation`` count training and validation examples in the region; ``words`` mark it. ``score``
    and ``generalist_score`` are means over its validation examples; ``gain`` is their difference, shrunk toward the
    gain of the whole mixture, with its 95 % interval. ``fallback``: the region showed no gain, the generalist answers.
    ``persona`` is what the expert is told to be and what that gained; None where personas weren't tried.
    """

    prompt: Prompt
    size: int
    validation: int
    words: tuple[str, ...] = ()
    proposer: str = "given"
    score: float | None = None
    generalist_score: float | None = None
    gain: float = 0.0
    gain_low: float = 0.0
    gain_high: float = 0.0
    fallback: bool = False
    persona: Persona | None = None


@dataclass(frozen=True, eq=False)
class EncoderRecord:
    """The encoder that a mixture was learned with: how to get it, what it is, and its vectors of `PROBES`.

    ``state`` is what an encoder that was fitted has learned (`mop.embeddings.tfidf`): float32, shape (1, dimension).
    """

    name: str
    identity: str
    probes: Vectors
    state: Vectors | None = None


@dataclass(frozen=True, eq=False)
class Mixture:
    """Experts, their centroids, and the generalist that answers wherever no expert is better.

    ``centroids`` is float32 with shape (experts, components); components is the encoder's dimension, or that of
    ``projection`` (see `mop.embeddings.projection`) where one was learned. ``retrieval`` says which demos a query
    gets after those of its expert, if any; ``limits`` where routing departs from the nearest centroid. ``region_map``
    is a flat picture of the regions, for people; None where there is one expert, and in older files. ``reference``
    is what held-out examples looked like to the router, for `mop.drift`. ``report`` holds what the search saw;
    ``provenance`` where the mixture comes from (data hash, seed, versions, calls).
    """

    experts: tuple[Expert, ...]
    generalist: Prompt
    centroids: Vectors
    encoder_record: EncoderRecord
    model: str
    decoding: Decoding
    metric: str
    projection: Vectors | None = None
    retrieval: Retrieval | None = None
    limits: Limits | None = None
    region_map: RegionMap | None = None
    reference: Reference | None = None
    report: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.experts)

    # -- routing

    def use_encoder(self, encoder: Encoder) -> Mixture:
        """Route with ``encoder`` from now on; it must be the one that the mixture was learned with.

        Raises EncoderMismatch if its vectors of the probe texts differ.
        """
        check_encoder(self.encoder_record, encoder)
        return self.with_known_encoder(encoder)

    def with_known_encoder(self, encoder: Encoder) -> Mixture:
        """Route with the encoder that has just made this mixture's vectors, without checking it again."""
        self.__dict__["encoder"] = encoder
        return self

    @cached_property
    def encoder(self) -> Encoder:
        """The encoder, loaded and checked when first needed."""
        from mop.encoding import resolve_recorded_encoder

        encoder = resolve_recorded_encoder(self.encoder_record.name, state=self.encoder_record.state)
        check_encoder(self.encoder_record, encoder)
        return encoder

    @cached_property
    def router(self) -> Router:
        """What chooses the experts of encoded queries."""
        return Router(
            centroids=self.centroids,
            fallback=tuple(expert.fallback for expert in self.experts),
            gains=tuple(expert.gain for expert in self.experts),
            projection=self.projection,
            retrieval=self.retrieval,
            limits=self.limits,
        )

    @overload
    def route(self, query: str) -> Route: ...  # type: ignore[overload-overlap]  # a str is a Sequence[str] too
    @overload
    def route(self, query: Sequence[str]) -> list[Route]: ...
    def route(self, query: str | Sequence[str]) -> Route | list[Route]:
        """Return the route of one query, or of each query of a list."""
        queries = checked_queries([query] if isinstance(query, str) else query)
        if not queries:
            return []
        routes = self.route_vectors(self.encoder.encode(queries))
        return routes[0] if isinstance(query, str) else routes

    def route_vectors(self, vectors: Vectors) -> list[Route]:
        """Return the route of each row of ``vectors`` (queries that are encoded already)."""
        return self.router.route(vectors)

    def prompt_of(self, route: Route, persona: str | None = None) -> Prompt:
        """Return the prompt that answers a query with this route, told to be ``persona`` in place of a learned one."""
        expert = self.experts[route.expert]
        prompt = self.generalist if route.fallback else expert.prompt.retrieving(route.retrieved)
        if persona is None:
            return prompt
        bare = prompt if route.fallback or expert.persona is None else expert.persona.taken_off(prompt)
        return bare.told(persona)

    # -- answering

    async def apredict(
        self,
        queries: Sequence[str],
        client: ModelClient | None = None,
        *,
        replay: bool = False,
        persona: str | None = None,
    ) -> list[Answer]:
        """Route and answer each query; the async form of `predict`."""
        checked = checked_queries(queries)
        if not checked:
            return []
        # Encoding is work for a processor, and an endpoint's encoder waits for its own loop.
        routes = await asyncio.to_thread(self.route, checked)
        return await self.answer_routed(checked, routes, client, replay=replay, persona=persona)

    async def answer_routed(
        self,
        queries: Sequence[str],
        routes: Sequence[Route],
        client: ModelClient | None = None,
        *,
        replay: bool = False,
        persona: str | None = None,
    ) -> list[Answer]:
        """Answer queries whose routes are known, expert by expert, so that prefix caches serve each prompt."""
        from mop.connect import connected

        told = None if persona is None else the_one(persona).text
        order = sorted(range(len(queries)), key=lambda i: (routes[i].fallback, routes[i].expert, i))
        async with connected(client, self.model, self.provenance, replay=replay) as live:
            prompts = {i: self.prompt_of(routes[i], told) for i in order}
            requests = [self.decoding.request(live.model, prompts[i], queries[i]) for i in order]
            replies = await live.complete_many(requests)
        answers: dict[int, Answer] = {
            i: Answer(reply.text.strip(), routes[i].expert, reply.usage)
            for i, reply in zip(order, replies, strict=True)
        }
        return [answers[i] for i in range(len(queries))]

    def predict(
        self,
        queries: Sequence[str],
        client: ModelClient | None = None,
        *,
        replay: bool = False,
        persona: str | None = None,
    ) -> list[Answer]:
        """Route and answer each query with the model that the mixture was learned for, or with ``client``.

        One model call for each query; with ``replay`` none, every answer comes from the ledger. ``persona`` is told to
        every expert before its instruction, in place of a persona that it learned: who is to answer, and how. Nothing
        was measured with it, and demos and the length of answers stay as learned. It is a text, or ``@FILE``. Raises
        DataError for an empty query, SettingsError for an empty persona or a file that can't be read, ModelError if the
        model can't answer, NotRecorded if a replay doesn't find a call.
        """
        from mop.sync import run

        return run(self.apredict(queries, client, replay=replay, persona=persona))

    # -- files

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the mixture to one file (see `mop.artifact`); an old file of that name is replaced at once."""
        from mop.artifact import save

        save(self, path)

    @property
    def kept(self) -> int:
        """Number of experts that answer themselves, without the generalist."""
        return sum(not expert.fallback for expert in self.experts)


def checked_queries(queries: Sequence[str]) -> list[str]:
    """Return the queries as a list; raise DataError for anything that isn't a text with content."""
    if isinstance(queries, str):
        raise DataError("Expected a list of queries, got one string. Put it in a list: predict([query]).")
    checked = list(queries)
    for position, query in enumerate(checked):
        if not isinstance(query, str) or not query.strip():
            raise DataError(f"Query {position + 1} is {query!r}; a query is a text that isn't empty.")
        try:
            query.encode()
        except UnicodeEncodeError as error:
            raise DataError(
                f"Query {position + 1} ({query!a:.60}) cannot be written as UTF-8: {error.reason}."
            ) from None
    return checked


def check_encoder(record: EncoderRecord, encoder: Encoder) -> None:
    """Raise EncoderMismatch unless ``encoder`` gives the vectors of the probe texts that ``record`` holds."""
    vectors = encoder.encode(PROBES)
    same_shape = vectors.shape == record.probes.shape
    closest = float((vectors * record.probes).sum(axis=1).min()) if same_shape else float("nan")
    if not same_shape or not np.isfinite(closest) or closest < PROBE_COSINE:
        found = f"cosine {closest:.4f} to its probe vectors" if same_shape else f"dimension {vectors.shape[1]}"
        raise EncoderMismatch(
            f"This mixture was learned with the encoder {record.identity} (dimension {record.probes.shape[1]}); "
            f"the encoder at hand is {encoder.identity} ({found}), and its vectors mean something else. "
            f"Use {record.name!r}, or learn the mixture again with this encoder."
        )
