"""APE (arXiv 2211.01910) and its few-shot variants as the paper compares them (arXiv 2407.00256, section 5).

The instruction is selected among the model's proposals on validation examples. The paper scores every candidate on 20
random examples of its own and attaches demos only after the selection. Here candidates race (successive halving): all
of them see the same few examples, and the better half goes on to more of them. The budget thus goes to the candidates
that may win, and the first rungs may drop one by bad luck. The ``fair`` variants race with the demos in place.
"""

from __future__ import annotations

import numpy as np

from mop.embeddings.regions import find_regions
from mop.prompts import Demo, Prompt
from mop.search.baselines.parts import (
    Contender,
    fitting_demos,
    forward_questions,
    one_prompt,
    proposal_count,
    propose,
    published_demo_count,
    random_demos,
    select,
)
from mop.search.learning import Learned, Session
from mop.seeds import stream


async def ape(session: Session) -> Learned:
    """Select the best instruction; no demos."""
    return await _ape(session)


async def ape_random(session: Session) -> Learned:
    """Select the best instruction without demos, then attach random ones."""
    return await _ape(session, after=_random(session))


async def ape_random_fair(session: Session) -> Learned:
    """Select the best instruction with random demos in place."""
    return await _ape(session, during=_random(session))


async def ape_kcentroids(session: Session) -> Learned:
    """Select the best instruction without demos, then attach the demos nearest to K centroids."""
    return await _ape(session, after=centroid_demos(session))


async def ape_kcentroids_fair(session: Session) -> Learned:
    """Select the best instruction with the demos nearest to K centroids in place."""
    return await _ape(session, during=centroid_demos(session))


def centroid_demos(session: Session) -> tuple[Demo, ...]:
    """Return the training example nearest to each of K centroids, K being the published number of demos."""
    problem, count = session.problem, published_demo_count(session)
    if count == 0:
        return ()
    seed = int(stream(problem.seed, "k centroids").integers(2**31))
    regions = find_regions(problem.train_vectors, count, seed=seed, min_demos=1, min_held_out=0, restarts=1)
    nearest = regions.distances(problem.train_vectors).argmin(axis=0)
    return fitting_demos(session, np.unique(nearest).tolist(), count)


def _random(session: Session) -> tuple[Demo, ...]:
    return random_demos(session, published_demo_count(session), "ape random")


async def _ape(session: Session, *, during: tuple[Demo, ...] = (), after: tuple[Demo, ...] | None = None) -> Learned:
    asked = proposal_count(session)
    candidates = await propose(session, forward_questions(session, asked))
    contenders = [Contender(Prompt(one.instruction, during), one.proposer, one.instruction) for one in candidates]
    result = await select(session, contenders, session.plan.calls - asked)
    instruction = contenders[result.winner].prompt.instruction
    return one_prompt(session, contenders, result, zero_shot=Prompt(instruction), demos=after)
