"""Single prompts: the arms among which the best one-prompt answer to a task is found.

This is the mixture's generalist and its opponent, so it gets every kind of prompt that a careful person would try:
with and without demos, many and few of them, random and spread ones, the list of answers, and one wide prompt that
shows an example of every answer, if an expert's tokens don't do for that and four times as many do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice

import numpy as np

from mop.embeddings.regions import find_regions
from mop.examples import Example
from mop.prompts import Demo, Prompt
from mop.search.demos import each_answer_first, nearest_demos
from mop.search.experts import with_answers
from mop.search.problem import Problem
from mop.search.proposers import Candidate
from mop.seeds import stream

#: The wide prompt may take this many times an expert's tokens, whatever the limit on its number of demos: it is cached
#: as well, so length is cheap for it.
WIDE_FACTOR = 4
#: Kinds of randomly drawn demos: as many as fit, or half as many in half the tokens. On some tasks more demos help, on
#: others they drown the instruction (benchmarks/LOG.md, "More instructions, fewer demos").
DRAWN = ("few", "random")
#: So many written instructions are tried with demos before anything else is, and so many of them without any as well.
SHOWN = 6
BARE = 4


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
    """Return at most ``arms`` single prompts, those that are likeliest to be best first.

    The user's own instruction comes first, with every kind of demos. Where the user gave none, `candidates` begin with
    one that says nothing of the task: the written ones come right after its best kinds. Each written one is tried with
    demos, every other time with half as many, and the first without any. A fifth of the arms at least are further
    random demos, under the user's instruction (or that one) and the written ones in turn: sets of demos differ a lot.
    A closed set of answers is listed in all prompts but one. With ``max_demos`` 0 no prompt has demos.
    """
    described, labels = problem.description is not None, len(problem.answers)
    shown = {demo.output for demo in _demos(problem, "random", 0, max_demos, token_budget)} if max_demos else set()
    plan = kinds_raced(
        len(candidates) - 1,
        arms,
        described=described,
        closed=labels > 0,
        wide=len(shown) < labels,
        demos=max_demos > 0,
    )
    chosen = [
        _single(problem, candidates[which], kind, draw, max_demos, token_budget)
        for draw, (which, kind) in enumerate(plan)
    ]
    return list({single.prompt: single for single in chosen}.values())


def kinds_raced(
    written: int, arms: int, *, described: bool, closed: bool, wide: bool, demos: bool
) -> list[tuple[int, str]]:
    """Return (which instruction, which kind of demos) for each of ``arms`` single prompts.

    Instruction 0 is the user's own (``described``) or one that says nothing of the task; those after it are ``written``
    ones. ``closed``: the answers are a closed set; ``wide``: an expert's demos don't show all of them; ``demos``: there
    may be demos at all.
    """
    others = range(1, written + 1)
    if not demos:
        return [(which, "no") for which in (0, *others)][:arms]
    likely = ["random", *(["wide"] if wide else [])]
    rest = ["few", "spread", *(["unlisted"] if closed else [])]
    # Without demos, an instruction that says nothing of the task is hopeless.
    first, later = ([*likely, "no", *rest], []) if described else (likely, rest)
    shown = [(which, DRAWN[which % 2]) for which in others]
    plan = [*((0, kind) for kind in first), *shown[:SHOWN], *((which, "no") for which in others[:BARE])]
    plan += [*((0, kind) for kind in later), *shown[SHOWN:]]
    plan = plan[: arms - arms // 5]
    instructions = [which for one in (others or (0,)) for which in (0, one)]
    draws = zip(cycle(instructions), cycle([kind for kind in DRAWN for _ in range(2)]), strict=False)
    return [*plan, *islice(draws, arms - len(plan))]


def crossed_prompts(
    problem: Problem, ranked: Sequence[SinglePrompt], *, arms: int, turn: int, max_demos: int, token_budget: int
) -> list[SinglePrompt]:
    """Return at most ``arms`` new single prompts made from the best parts.

    ``ranked`` are prompts from best to worst. The best two instructions meet the best three sets of demos; what is left
    of ``arms`` is the best instruction with freshly drawn demos, as few as the best prompt has, other ones in each
    ``turn``.
    """
    candidates = list(dict.fromkeys(single.candidate for single in ranked))[:2]
    demo_sets = list(dict.fromkeys((single.demos, single.prompt.demos) for single in ranked if single.prompt.demos))[:3]
    crossed = [
        SinglePrompt(Prompt(with_answers(candidate.instruction, problem.answers), demos), candidate, kind)
        for candidate in candidates
        for kind, demos in demo_sets
    ]
    if max_demos:
        draws = range(1000 + 100 * turn, 1000 + 100 * turn + arms)
        kind = "few" if ranked[0].demos == "few" else "random"
        crossed += [_single(problem, candidates[0], kind, draw, max_demos, token_budget) for draw in draws]
    known = {single.prompt for single in ranked}
    return list({single.prompt: single for single in crossed if single.prompt not in known}.values())[:arms]


def _single(
    problem: Problem, candidate: Candidate, kind: str, draw: int, max_demos: int, token_budget: int
) -> SinglePrompt:
    demos = () if kind == "no" else _demos(problem, kind, draw, max_demos, token_budget)
    text = candidate.instruction if kind == "unlisted" else with_answers(candidate.instruction, problem.answers)
    return SinglePrompt(Prompt(text, demos), candidate, kind)


def _demos(problem: Problem, kind: str, draw: int, max_demos: int, token_budget: int) -> tuple[Demo, ...]:
    rng = stream(problem.seed, "single demos", draw)
    if kind == "few":
        max_demos, token_budget = max(1, max_demos // 2), token_budget // 2
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
    order = rng.permutation(len(problem.train))
    if not problem.answers:
        return nearest_demos(problem.train, order, token_budget=token_budget, max_demos=max_demos, per_answer=None)
    first = nearest_demos(problem.train, order, token_budget=token_budget, max_demos=max_demos, per_answer=1)
    if len(first) < len(problem.answers):
        return first
    # Every answer is shown: what room is left goes to second examples of each, then third ones.
    shown = {demo.input for demo in first}
    rest = each_answer_first(
        problem.train, [int(place) for place in order if problem.train[int(place)].input not in shown]
    )
    left = token_budget - sum(demo.tokens for demo in first)
    more = nearest_demos(problem.train, rest, token_budget=left, max_demos=max_demos - len(first), per_answer=None)
    return (*first, *more)


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
