"""Layouts: which mixtures are worth racing: how many regions, in which space, with which demos. Asks no model."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from mop.embeddings.assignment import limited_regions, random_regions
from mop.embeddings.projection import fit_projection, project
from mop.embeddings.regions import Regions, find_regions
from mop.prompts import Demo
from mop.search.experts import DemoPool, Layout, Recipe
from mop.search.judging import Judging

#: With this many answers or fewer, their projection has so few components that it tells answers apart and nothing else:
#: with two, every example of one answer is at the same place.
FEW_ANSWERS = 8


class Layouts:
    """Makes the layouts of a search, whose demos come from ``pool``."""

    def __init__(self, judging: Judging, pool: DemoPool) -> None:
        self.judging = judging
        self.session, self.problem, self.plan = judging.session, judging.problem, judging.plan
        self.pool = pool

    def to_race(self, head: tuple[Demo, ...]) -> list[Layout]:
        """Return the layouts to race, without those that turn out equal; ``head`` are the generalist's demos."""
        answers = self.problem.answers
        projection = (
            fit_projection(self.problem.train_vectors, [example.output for example in self.problem.train])
            if len(answers) > FEW_ANSWERS
            else None
        )
        layouts: list[Layout] = []
        for recipe in self._recipes(projected=projection is not None, stacked=bool(head)):
            view = projection if recipe.projected else None
            layout = Layout.build(recipe, self._regions(recipe.regions, view), view, self.pool, answers, head)
            if not any(_same(layout, other) for other in layouts):
                layouts.append(layout)
            if len(layouts) == self.plan.layout_arms:
                break
        return layouts

    def _recipes(self, *, projected: bool, stacked: bool) -> Iterator[Recipe]:
        """Yield the recipes worth trying, the most promising first (benchmarks/LOG.md has why)."""
        demos, tokens, retrieved = self.session.max_demos, self.session.token_budget, self.session.retrieved
        lent = demos * 3 // 10
        counts = self._counts()
        for place, count in enumerate(counts):
            recipes = [Recipe(count, demos, 0, tokens, retrieved=retrieved)] if retrieved else []
            by_answer = Recipe(count, demos, 0, tokens, projected=True, retrieved=retrieved)
            on_head = Recipe(count, demos, 0, tokens, "all", projected, stacked=True, retrieved=retrieved)
            if projected:
                recipes = [by_answer, *recipes, *([on_head] if stacked else [])]
                recipes.append(Recipe(count, demos - lent, lent, tokens, projected=True, retrieved=retrieved))
            elif stacked:
                recipes = [on_head, *recipes]
            recipes.append(Recipe(count, demos, 0, tokens))
            if retrieved and not place and self.session.experts is None and not self.session.personas:
                # The generalist itself with retrieved demos: regions must be worth more than that. It isn't the first,
                # which a small budget may race alone. With one region a persona could only be used for all queries or
                # for none.
                recipes.insert(1, Recipe(1, 0, 0, tokens, "all", projected, stacked=stacked, retrieved=retrieved))
            yield from recipes
        if self.problem.answers:
            for count in counts:
                yield Recipe(count, demos - lent, lent, tokens, "all", projected, retrieved=retrieved)

    def _counts(self) -> tuple[int, ...]:
        """Return the numbers of regions to try, best guess first."""
        if self.session.ablations.counting != "scaled-inertia":
            return self.plan.region_counts
        from mop.search.baselines.paper_regions import MOST_EXPERTS, paper_regions

        return (len(paper_regions(self.problem.train_vectors, seed=self.problem.seed, most=MOST_EXPERTS)),)

    def _regions(self, count: int, projection: NDArray[np.float32] | None) -> Regions:
        assignment = self.session.ablations.assignment
        if assignment in ("random", "kmeans-limited"):
            divide = random_regions if assignment == "random" else limited_regions
            return divide(project(self.problem.train_vectors, projection), count, seed=self.problem.seed)
        return find_regions(
            project(self.problem.train_vectors, projection),
            count,
            seed=self.problem.seed,
            held_out=project(self.problem.validation_vectors, projection)[self.judging.order],
        )


def _same(one: Layout, other: Layout) -> bool:
    """Whether two layouts differ in name only (regions that were dissolved can leave the same ones)."""
    return (
        one.demos == other.demos
        and one.head == other.head
        and one.recipe.answers == other.recipe.answers
        and one.recipe.retrieved == other.recipe.retrieved
        and np.array_equal(one.regions.centroids, other.regions.centroids)
    )


def layout_name(layout: Layout) -> str:
    """Return what a layout is, in words."""
    space = "by topic and answer" if layout.recipe.projected else "by topic"
    stacked = " on the generalist's demos" if layout.head else ""
    borrowed = f", {layout.recipe.borrowed} demos borrowed" if layout.answers and layout.recipe.borrowed else ""
    listed = f", {layout.recipe.answers} answers listed" if layout.answers else ""
    retrieved = f", {layout.recipe.retrieved} retrieved" if layout.retrieval else ""
    experts = f"{len(layout.regions)} experts {space}" if len(layout.regions) > 1 else "one expert"
    return f"{experts}{stacked}{borrowed}{retrieved}{listed}"
