"""Single prompts: the arms among which the best one-prompt answer to a task is found.

This is the mixture's generalist and its opponent, so it gets every kind of prompt that a careful person would try:
with and without demos, random and spread demos, the list of answers, and one wide prompt that shows an example of
every answer if it fits into four times an expert's tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mop.embeddings.regions import find_regions
from mop.examples import Example
from mop.prompts import Demo, Prompt
from mop.search.demos import nearest_demos
from mop.search.experts import with_answers
from mop.search.problem import Problem
from mop.search.proposers import Candidate
from mop.seeds import stream

#: The wide prompt may take this many times an expert's tokens: it is cached as well, so length is cheap for it.
WIDE_FACTOR = 4


@dataclass(frozen=True)
class SinglePrompt:
    """A single prompt, the candidate whose instruction it carries, and how its demos were chosen."""

    prompt: Prompt
    candidate: Candidate
    demos: str

    @property
    def name(self) -> str:
        """Name of the arm in reports."""
        return f"{self.candidate.proposer}, {self.demos} demos"


def single_prompts(
    problem: Problem, candidates: Sequence[Candidate], *, arms: int, max_demos: int, token_budget: int
) -> list[SinglePrompt]:
    """Return ``arms`` different single prompts, the most promising kinds first.

    A third of them have no demos, so that the best zero-shot instruction is known as well; the others share out the
    candidates over demo sets. A closed set of answers is listed in all but one of the prompts with demos.
    """
    listed = [with_answers(candidate.instruction, problem.answers) for candidate in candidates]
    bare = [SinglePrompt(Prompt(text), candidate, "no") for text, candidate in zip(listed, candidates, strict=True)]
    shown: list[SinglePrompt] = []
    for draw in range(arms):
        which = draw % len(candidates)
        kind = "spread" if draw % 3 == 1 else "wide" if draw == 2 and problem.answers else "random"
        demos = _demos(problem, kind, draw, max_demos, token_budget)
        text = candidates[which].instruction if draw == 3 and problem.answers else listed[which]
        shown.append(SinglePrompt(Prompt(text, demos), candidates[which], kind))
    zero = bare[: max(1, arms // 3)]
    chosen = [*zero, *shown][:arms]
    return list({arm.prompt: arm for arm in chosen}.values())


def _demos(problem: Problem, kind: str, draw: int, max_demos: int, token_budget: int) -> tuple[Demo, ...]:
    rng = stream(problem.seed, "single demos", draw)
    if kind == "wide":
        return nearest_demos(
            problem.train,
            rng.permutation(len(problem.train)),
            token_budget=WIDE_FACTOR * token_budget,
            max_demos=len(problem.answers),
            per_answer=1,
        )
    if kind == "spread":
        return tuple(Demo.of(example) for example in _spread(problem, draw, max_demos, token_budget))
    return nearest_demos(
        problem.train,
        rng.permutation(len(problem.train)),
        token_budget=token_budget,
        max_demos=max_demos,
        per_answer=1 if problem.answers else None,
    )


def _spread(problem: Problem, draw: int, count: int, token_budget: int) -> list[Example]:
    """Return the training examples nearest to ``count`` K-means centroids, as long as the tokens last."""
    seed = int(stream(problem.seed, "spread", draw).integers(2**31))
    regions = find_regions(problem.train_vectors, count, seed=seed, min_demos=1, min_held_out=0, restarts=1)
    nearest = regions.distances(problem.train_vectors).argmin(axis=0)
    chosen = []
    for position in np.unique(nearest):
        demo = Demo.of(problem.train[int(position)])
        if demo.tokens <= token_budget:
            chosen.append(problem.train[int(position)])
            token_budget -= demo.tokens
    return chosen
