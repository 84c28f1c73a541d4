"""Recipes: how the prompts of a mixture's regions are put together from an instruction and nearby demos.

>>> Recipe(regions=40).borrowed
6
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mop.embeddings.encoders import Vectors
from mop.embeddings.projection import project
from mop.embeddings.regions import Regions
from mop.examples import Example
from mop.prompts import Demo, Prompt
from mop.retrieval import Retrieval
from mop.search.demos import nearest_demos, one_for_each_answer
from mop.search.race import Arm


@dataclass(frozen=True)
class Recipe:
    """How many regions are asked for, and what each expert shows.

    An expert shows at most ``max_demos`` of its own region's examples, nearest to the centroid first, and then at
    most ``borrowed`` examples from beyond its border, one for each answer that it doesn't show yet. ``token_budget``
    bounds the demos in estimated tokens. Where answers form a closed set, ``answers`` says which of them the
    instruction lists (those that the expert shows, or all), and ``projected`` whether regions are found in
    the answers' projection of the embedding space (`mop.embeddings.projection`). ``stacked`` experts begin with the
    generalist's demos and add their region's after them, so that all experts share one long prefix. ``retrieved``
    demos, those nearest to the query, follow the expert's own; they are the only ones that no cache can serve.
    """

    regions: int
    max_demos: int = 14
    borrowed: int = 6
    token_budget: int = 600
    answers: Literal["shown", "all"] = "shown"
    projected: bool = False
    stacked: bool = False
    retrieved: int = 0


@dataclass(frozen=True)
class DemoPool:
    """Labelled examples and their vectors, from which demos are taken."""

    examples: tuple[Example, ...]
    vectors: Vectors


@dataclass(frozen=True)
class Layout:
    """Regions with the demos of their experts; `prompt` adds an instruction.

    ``answers`` is the closed set of all answers or ``()``. ``projection`` is ``None`` or the matrix that vectors go
    through before they are compared with the centroids. ``retrieval`` is there if the recipe asks for it.
    """

    recipe: Recipe
    regions: Regions
    projection: Vectors | None
    demos: tuple[tuple[Demo, ...], ...]
    answers: tuple[str, ...]
    head: tuple[Demo, ...] = ()
    retrieval: Retrieval | None = None

    @classmethod
    def build(
        cls,
        recipe: Recipe,
        regions: Regions,
        projection: Vectors | None,
        pool: DemoPool,
        answers: tuple[str, ...],
        head: tuple[Demo, ...] = (),
    ) -> Layout:
        """Choose the demos of every region from ``pool``; ``head`` are the demos with which stacked experts begin."""
        vectors = project(pool.vectors, projection)
        assigned = regions.members(vectors)
        distances = regions.distances(vectors)
        demos = tuple(
            expert_demos(pool.examples, distances[:, region], assigned == region, recipe, closed=bool(answers))
            for region in range(len(regions))
        )
        retrieval = retrieval_from(pool, vectors, recipe.retrieved, token_budget=recipe.token_budget)
        return cls(recipe, regions, projection, demos, answers, head if recipe.stacked else (), retrieval)

    def refitted(self, pool: DemoPool) -> Layout:
        """Return the layout with the same regions and demos chosen anew from a larger pool."""
        # Only rows that were divided have a region of their own; a larger pool goes to the nearest ones.
        regions = Regions(self.regions.centroids)
        return Layout.build(self.recipe, regions, self.projection, pool, self.answers, self.head)

    def retrieval_of(self, pool: DemoPool) -> Retrieval | None:
        """Return what the layout retrieves, from another pool."""
        recipe, vectors = self.recipe, project(pool.vectors, self.projection)
        return retrieval_from(pool, vectors, recipe.retrieved, token_budget=recipe.token_budget)

    def assign(self, vectors: Vectors) -> NDArray[np.intp]:
        """Return the region of each row of ``vectors`` (as the encoder gives them)."""
        return self.regions.assign(project(vectors, self.projection))

    def members(self, train: Vectors) -> NDArray[np.intp]:
        """Return the region of each of the training examples, whose vectors are ``train``."""
        return self.regions.members(project(train, self.projection))

    def prompt(self, region: int, instruction: str) -> Prompt:
        """Return the prompt of a region's expert under ``instruction``."""
        known = set(self.head)
        demos = (*self.head, *(demo for demo in self.demos[region] if demo not in known))
        if self.answers:
            shown = [demo.output for demo in demos]
            instruction = with_answers(instruction, shown if self.recipe.answers == "shown" else self.answers)
        return Prompt(instruction, demos)

    def arm(self, name: str, instruction: str, vectors: Vectors) -> Arm:
        """Return the arm that sends ``vectors`` (the validation examples) to this layout's experts."""
        prompts = [self.prompt(region, instruction) for region in range(len(self.regions))]
        pairs = zip(self.assign(vectors), self.retrieved(vectors), strict=True)
        return Arm(name, tuple(prompts[region].retrieving(demos) for region, demos in pairs))

    def retrieved(self, vectors: Vectors) -> list[tuple[Demo, ...]]:
        """Return the demos that each row of ``vectors`` retrieves."""
        if self.retrieval is None:
            return [()] * len(vectors)
        return self.retrieval.nearest(project(vectors, self.projection))


def retrieval_from(pool: DemoPool, vectors: Vectors, count: int, *, token_budget: int) -> Retrieval | None:
    """Return the retrieval of ``count`` demos from ``pool``, whose ``vectors`` are given in the space to search.

    None if ``count`` is 0, or if no demo keeps to ``token_budget`` estimated tokens.
    """
    # The same message labelled twice would fill two places, and one demo that breaks the limit would lengthen a prompt
    # that no estimate has seen.
    demos = [Demo.of(example) for example in pool.examples]
    first = {demo.input: position for position, demo in reversed(list(enumerate(demos)))}
    kept = [position for position in sorted(first.values()) if demos[position].tokens <= token_budget]
    if not (count and kept):
        return None
    return Retrieval(tuple(demos[position] for position in kept), vectors[kept], count)


def with_answers(instruction: str, answers: Sequence[str]) -> str:
    """Return ``instruction`` followed by the distinct ``answers``, sorted, as the ones to choose from."""
    listed = ", ".join(sorted(set(answers)))
    return f"{instruction} Answer with one of: {listed}." if listed else instruction


def expert_demos(
    examples: Sequence[Example],
    distances: Vectors,
    own: NDArray[np.bool_],
    recipe: Recipe,
    *,
    closed: bool,
) -> tuple[Demo, ...]:
    """Return the demos of one expert, farthest first, so that the most typical ones stand next to the query.

    ``distances`` are the examples' distances to the centroid; ``own`` marks the examples of the region.
    Borrowing needs a closed set of answers: elsewhere nearly every answer is new, and it would only add distance.
    """
    order = np.argsort(distances, kind="stable")
    # Room is kept for borrowed demos; what the region itself leaves over goes to them as well.
    lent = recipe.borrowed / (recipe.borrowed + recipe.max_demos) if closed and recipe.borrowed else 0.0
    inside = nearest_demos(
        examples,
        order[own[order]],
        token_budget=round(recipe.token_budget * (1 - lent)),
        max_demos=recipe.max_demos,
        per_answer=None,
    )
    if not (closed and recipe.borrowed):
        return tuple(reversed(inside))
    left = recipe.token_budget - sum(demo.tokens for demo in inside)
    shown = {demo.output for demo in inside}
    outside = one_for_each_answer(
        examples,
        [int(position) for position in order if examples[int(position)].output not in shown],
        token_budget=left,
        max_demos=recipe.borrowed,
    )
    return (*reversed(outside), *reversed(inside))
