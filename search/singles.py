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
#: Kinds of randomly drawn demos: as many as fit, or half as many in half the tokens.
DRAWN = ("random", "few")


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
    """Return at most ``arms`` single prompts, those that are likeliest to be best first; `kinds_raced` says which.

    A closed set of answers is listed in all prompts but one. With ``max_demos`` 0 no prompt has demos.
    """
    whole = _demos(problem, "random", 0, max_demos, token_budget) if max_demos else ()
    plan = kinds_raced(
        len(candidates) - 1,
        arms,
        described=problem.description is not None,
        closed=bool(problem.answers),
        wide={demo.output for demo in whole} < set(problem.answers),
        demos=max_demos > 0,
        halved=max_demos > 1 and bool(_demos(problem, "few", 0, max_demos, token_budget)),
    )
    chosen = [
        _single(problem, candidates[which], kind, draw, max_demos, token_budget)
        for draw, (which, kind) in enumerate(plan)
    ]
    found: dict[Prompt, SinglePrompt] = {}
    for single in chosen:
        found.setdefault(single.prompt, single)
    return list(found.values())


def kinds_raced(
    written: int, arms: int, *, described: bool, closed: bool, wide: bool, demos: bool, halved: bool
) -> list[tuple[int, str]]:
    """Return (which instruction, which kind of demos) for each single prompt; at most ``arms``.

    Instruction 0 is the user's own (``described``) or one that says nothing of the task; those after it are ``written``
    ones. The user's own is tried with every kind of demos before any written one. Otherwise the likeliest kinds of the
    plain one come first, then written ones. These are tried with demos, every other one with few, and some without any.
    Up to a fifth of the arms are kept for further draws of demos under the first instruction and the written ones in
    turn: sets of demos differ a lot.

    ``closed``: the answers are a closed set, which prompts list; ``wide``: an expert's demos don't show all of them;
    ``demos``: there may be demos at all; ``halved``: half as many in half the tokens are fewer, and not none.
    """
    others = range(1, written + 1)
    if not demos:
        return [(which, "no") for which in (0, *others)][:arms]
    drawn = DRAWN if halved else DRAWN[:1]
    # An instruction that says nothing of the task needs demos or the list of answers, unless it is all that there is.
    bare = ["no"] if described or closed or not written else []
    own = ["random", *(["wide"] if wide else []), *bare]
    later = [*drawn[1:], "spread", *(["unlisted"] if closed else [])]
    shown = [(which, drawn[(which - 1) % len(drawn)]) for which in others]
    unshown = [(which, "no") for which in others]
    # With a list of answers an instruction without demos has less to say than where it alone tells the task.
    first, second = (4, 2) if described else (6, 2 if closed else 4)
    plan = [*((0, kind) for kind in own), *((0, kind) for kind in later if described)]
    plan += [*shown[:first], *((0, kind) for kind in later[:1] if not described), *unshown[:second]]
    plan += [(0, kind) for kind in later[1:] if not described]
    plan = [*plan, *shown[first:], *unshown[second:]][: arms - arms // 5]
    instructions = [which for one in (others or (0,)) for which in (0, one)]
    draws = zip(cycle(instructions), cycle([kind for kind in reversed(drawn) for _ in range(2)]), strict=False)
    return [*plan, *islice(draws, arms - len(plan))]


def crossed_prompts(
    problem: Problem, ranked: Sequence[SinglePrompt], *, arms: int, turn: int, max_demos: int, token_budget: int
) -> list[SinglePrompt]:
    """Return at most ``arms`` new single prompts made from the best parts.

    ``ranked`` are prompts from best to worst. The best two instructions meet the best three sets of demos; what is left
    of ``arms`` is the best instruction with freshly drawn demos, few if the best prompt has few, other ones in each
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
