"""Parts of the published mixture that its ablations exchange: how regions are found, and what the proposer sees.

The paper (arXiv 2407.00256, sections 4 and 5.3) compares demos assigned at random with clusters, numbers of experts,
and ways to choose instructions; the released code can run only its default.
"""

from __future__ import annotations

import numpy as np

from mop.embeddings.assignment import limited_regions, random_regions
from mop.embeddings.regions import Regions
from mop.examples import Example
from mop.prompts import Demo, Prompt
from mop.search import proposers
from mop.search.baselines.paper_regions import MOST_EXPERTS, paper_regions
from mop.search.baselines.parts import by_size, fitting_demos, given_instruction, published_demo_count
from mop.search.learning import Session
from mop.search.proposers import Failure
from mop.search.race import Arm, race
from mop.seeds import stream

#: Examples in a question for an instruction.
SHOWN = 5
#: Part of the calls that held-out examples take to choose the number of experts, and numbers that are tried.
COUNTING = 0.25
COUNTS = (1, 2, 3, 4, 6, 8, 10)
#: Part of the calls that look for failures to show to the proposer.
LOOKING = 0.1


async def find_paper_regions(session: Session, *, chance: bool) -> Regions:
    """Return the regions as the session's ablations have them found; asks the model only for a held-out count."""
    count = session.experts
    if count is None and session.ablations.counting == "held-out":
        return await _held_out(session)
    if session.ablations.assignment in (None, "kmeans"):
        problem = session.problem
        return paper_regions(problem.train_vectors, seed=problem.seed, most=MOST_EXPERTS, count=count, chance=chance)
    if count is None:
        count = len(paper_regions(session.problem.train_vectors, seed=session.problem.seed, chance=chance))
    return _divided(session, count)


def _divided(session: Session, count: int) -> Regions:
    problem, assignment = session.problem, session.ablations.assignment
    if assignment in ("random", "kmeans-limited"):
        divide = random_regions if assignment == "random" else limited_regions
        return divide(problem.train_vectors, count, seed=problem.seed)
    return paper_regions(problem.train_vectors, seed=problem.seed, count=count)


async def _held_out(session: Session) -> Regions:
    """Return the regions that answer most validation examples, under the given instruction and each with its demos."""
    session.listener.stage("racing numbers of experts")
    problem = session.problem
    options: list[Regions] = []
    for count in COUNTS:
        regions = _divided(session, count)
        if all(len(regions) != len(other) for other in options):
            options.append(regions)
    arms = []
    for regions in options:
        prompts = [Prompt(given_instruction(session), demos) for demos in expert_demos(session, regions)]
        routed = regions.assign(problem.validation_vectors)
        arms.append(Arm(f"{len(regions)} experts", tuple(prompts[region] for region in routed)))
    calls = int(session.plan.calls * COUNTING)
    allowance = session.allowance if by_size(session) else None
    result = await race(arms, problem.validation, session.order, session.trials, calls=calls, allowance=allowance)
    return options[result.winner]


def expert_demos(session: Session, regions: Regions) -> list[tuple[Demo, ...]]:
    """Return each expert's demos: a random part of its cluster, as many as the paper's one-prompt baselines show.

    A smaller cluster shows what it has; nothing is repeated.
    """
    problem, count = session.problem, published_demo_count(session)
    assigned = regions.members(problem.train_vectors)
    demos = []
    for region in range(len(regions)):
        order = stream(problem.seed, "paper demos", region).permutation(np.flatnonzero(assigned == region))
        demos.append(fitting_demos(session, order.tolist(), count))
    return demos


def complement(session: Session, demos: tuple[Demo, ...]) -> list[Example]:
    """Return the training examples that an expert with ``demos`` does not show."""
    shown = {demo.input for demo in demos}
    return [example for example in session.problem.train if example.input not in shown]


async def paper_questions(
    session: Session, regions: Regions, demos: list[tuple[Demo, ...]], count: int
) -> list[tuple[str, str]]:
    """Return ``count`` questions for an instruction, as equally many for each expert as can be.

    They are APE's, over each expert's complement; by ablation over the whole pool, or over what the expert with the
    given instruction answers wrongly (its complement, if nothing).
    """
    problem, view = session.problem, session.ablations.view
    failures = await _failures(session, regions, demos) if view == "failures" else [()] * len(demos)
    questions = []
    for number in range(count):
        expert, draw = number % len(demos), number // len(demos)
        if failed := failures[expert]:
            text = proposers.from_failures(given_instruction(session), failed)
            questions.append(("failures", text))
            continue
        pool = problem.train if view == "pool" else complement(session, demos[expert]) or problem.train
        shown = proposers.sample(pool, SHOWN, problem.seed, "paper", expert, draw)
        questions.append(("pool" if view == "pool" else "complement", proposers.from_demos(shown)))
    return questions


async def _failures(session: Session, regions: Regions, demos: list[tuple[Demo, ...]]) -> list[tuple[Failure, ...]]:
    """Return what each expert under the given instruction answers wrongly, of a few of its validation examples."""
    problem = session.problem
    routed = regions.assign(problem.validation_vectors)
    looking = int(session.plan.calls * LOOKING)
    found = []
    for expert, shown in enumerate(demos):
        places = [int(place) for place in session.order if routed[place] == expert]
        trials = [(Prompt(given_instruction(session), shown), problem.validation[place]) for place in places]
        if session.allowance is not None and by_size(session):
            each = session.allowance.worth(looking / len(demos), trials)
        else:
            each = looking // len(demos)
        places, trials = places[:each], trials[:each]
        scores, answers = await session.trials.score(trials), await session.trials.answers(trials)
        wrong = [
            Failure(problem.validation[place], answer)
            for place, score, answer in zip(places, scores, answers, strict=True)
            if score < 0.5
        ]
        found.append(tuple(wrong[:SHOWN]))
    return found
