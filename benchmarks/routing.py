"""Routing: other ways to send test queries to a learned mixture's experts, and what routing can give at all.

Two of them bound it. A random expert shows what the experts are worth without a router; the oracle, the best expert for
each query in hindsight, what a perfect one could add. Knows nothing of how the mixture was learned.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mop.embeddings.encoders import Vectors
from mop.embeddings.projection import project
from mop.embeddings.regions import Regions
from mop.embeddings.routers import (
    NONE,
    Kernel,
    NearestCentroid,
    NearestDemo,
    RandomRegion,
    Router,
    SoftTopTwo,
    kernel_width,
    two_nearest,
)
from mop.evaluation import SystemScore, score_prompts
from mop.examples import Example, Splits
from mop.lm.client import ModelClient
from mop.mixture import Mixture
from mop.prompts import Demo, Prompt
from mop.scoring import Scorer
from mop.search.trials import Trials

#: The first is what every mixture does, with its limits (`mop.limits`); the others know of none.
ROUTINGS = ("nearest-centroid", "nearest-demo", "soft-top-2", "kernel", "random", "oracle")
#: Test examples for which every expert is asked, unless told otherwise.
BOUNDS = 10
#: Part of the learning examples that lie so near to a border that two experts have a say (soft top two).
NEAR_BORDERS = 0.25


class Routing:
    """Scores a mixture on examples under any routing.

    Args:
        mixture: What was learned.
        splits: What it was learned from; the learning inputs say how near to a border a query must lie.
        client: Answers.
        seed: Of the random router.
        scorer: Scores the answers.
    """

    def __init__(self, mixture: Mixture, splits: Splits, client: ModelClient, seed: int, scorer: Scorer) -> None:
        self.mixture = mixture
        self._splits = splits
        self._client = client
        self._seed = seed
        self._scorer = scorer

    @property
    def routes(self) -> bool:
        """Whether there is anything to route: two experts or more that answer in different ways."""
        return len({id(self.mixture.generalist) if one.fallback else one.prompt for one in self.mixture.experts}) > 1

    async def score(self, examples: Sequence[Example], routing: str = ROUTINGS[0]) -> SystemScore:
        """Return the scores under a routing: one call for each example, but for the oracle one for each expert too."""
        if routing == ROUTINGS[0]:
            prompts = await self._own_prompts(examples)
            return await score_prompts(routing, self.mixture, examples, prompts, self._client, self._scorer)
        vectors, retrieved = await self._encoded(examples)
        if routing == "oracle":
            matrix, _ = await self._matrix(examples, retrieved)
            # The first of the best: an expert that is never better than an earlier one is never chosen.
            prompts = [self._prompt(int(e), shown) for e, shown in zip(matrix.argmax(axis=1), retrieved, strict=True)]
        else:
            prompts = self._prompts(vectors, retrieved, routing)
        return await score_prompts(routing, self.mixture, examples, prompts, self._client, self._scorer)

    async def bounds(self, examples: Sequence[Example], count: int) -> dict[str, Any] | None:
        """Return what routing can give: the random router on all ``examples``, the oracle on the first ``count``.

        None if there is nothing to route, or if ``count`` is 0. ``routed`` is the mixture itself on the same few.
        ``calls`` counts the questions of both bounds.
        """
        if not (self.routes and count):
            return None
        vectors, retrieved = await self._encoded(examples)
        prompts = self._prompts(vectors, retrieved, "random")
        by_chance = await score_prompts("random", self.mixture, examples, prompts, self._client, self._scorer)
        few = examples[:count]
        matrix, calls = await self._matrix(few, retrieved[:count])
        own = await self._own_prompts(few)
        routed = await score_prompts("routed", self.mixture, few, own, self._client, self._scorer)
        return {
            "random": by_chance.accuracy,
            "random_examples": len(examples),
            "examples": len(few),
            "experts": matrix.shape[1],
            "routed": routed.accuracy,
            "any_expert": float(matrix.mean()),
            "oracle": float(matrix.max(axis=1).mean()),
            "calls": by_chance.calls + calls,
        }

    async def outcomes(self, examples: Sequence[Example]) -> NDArray[np.float64]:
        """Return every expert's score on every example, shape (examples, experts)."""
        _, retrieved = await self._encoded(examples)
        matrix, _ = await self._matrix(examples, retrieved)
        return matrix

    # -- parts

    async def _own_prompts(self, examples: Sequence[Example]) -> list[Prompt]:
        """Return the prompts with which the mixture answers, far queries and borders included."""
        routes = await asyncio.to_thread(self.mixture.route, [example.input for example in examples])
        return [self.mixture.prompt_of(route) for route in routes]

    async def _encoded(self, examples: Sequence[Example]) -> tuple[Vectors, list[tuple[Demo, ...]]]:
        mixture = self.mixture
        raw = await asyncio.to_thread(mixture.encoder.encode, [example.input for example in examples])
        vectors = project(raw, mixture.projection)
        retrieval = mixture.retrieval
        return vectors, [()] * len(vectors) if retrieval is None else retrieval.nearest(vectors)

    async def _matrix(
        self, examples: Sequence[Example], retrieved: Sequence[tuple[Demo, ...]]
    ) -> tuple[NDArray[np.float64], int]:
        trials = Trials(self._client, self.mixture.decoding, self._scorer)
        count = len(self.mixture.experts)
        asked = [
            (self._prompt(expert, shown), example)
            for expert in range(count)
            for example, shown in zip(examples, retrieved, strict=True)
        ]
        scores = np.asarray(await trials.score(asked)).reshape(count, len(examples)).T
        return scores, trials.done

    def _prompt(self, expert: int, retrieved: tuple[Demo, ...]) -> Prompt:
        one = self.mixture.experts[expert]
        return self.mixture.generalist if one.fallback else one.prompt.retrieving(retrieved)

    def _prompts(self, vectors: Vectors, retrieved: Sequence[tuple[Demo, ...]], routing: str) -> list[Prompt]:
        choice = self._router(routing).choose(vectors)
        prompts = []
        for expert, second, shown in zip(choice.expert, choice.second, retrieved, strict=True):
            prompt = self._prompt(int(expert), shown)
            if second != NONE:
                prompt = _with_demos_of(self._prompt(int(second), ()), prompt)
            prompts.append(prompt)
        return prompts

    def _router(self, routing: str) -> Router:
        centroids = self.mixture.centroids
        if routing == "random":
            return RandomRegion(len(centroids), self._seed)
        if routing == "soft-top-2":
            return SoftTopTwo(centroids, float(np.quantile(self._margins, NEAR_BORDERS)))
        if routing == "kernel":
            gains = [0.0 if expert.fallback else expert.gain for expert in self.mixture.experts]
            return Kernel(centroids, gains, kernel_width(self._margins))
        if routing == "nearest-demo" and (own := self._own_demos):
            vectors = self.mixture.encoder.encode([demo.input for demo, _ in own])
            regions = np.array([expert for _, expert in own], dtype=np.intp)
            return NearestDemo(project(vectors, self.mixture.projection), regions)
        return NearestCentroid(centroids)

    @cached_property
    def _own_demos(self) -> list[tuple[Demo, int]]:
        """The demos that one expert alone shows, with that expert."""
        shown: dict[Demo, set[int]] = {}
        for number, expert in enumerate(self.mixture.experts):
            for demo in expert.prompt.demos:
                shown.setdefault(demo, set()).add(number)
        return [(demo, next(iter(experts))) for demo, experts in shown.items() if len(experts) == 1]

    @cached_property
    def _margins(self) -> Vectors:
        """How much farther the second nearest region is, for each learning example."""
        inputs = [example.input for example in (*self._splits.train, *self._splits.validation)]
        vectors = project(self.mixture.encoder.encode(inputs), self.mixture.projection)
        return two_nearest(Regions(self.mixture.centroids).distances(vectors))[2]


def _with_demos_of(second: Prompt, first: Prompt) -> Prompt:
    """Return ``first`` with the demos of ``second`` before its own."""
    more = tuple(demo for demo in second.demos if demo not in set(first.demos))
    return Prompt(first.instruction, (*more, *first.demos), first.layout, first.retrieved)
