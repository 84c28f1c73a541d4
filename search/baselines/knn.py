"""``knn``: the labelled examples nearest to each query as its demos, from training and validation rows. No search.

`mop.search.mixture_search` retrieves from the same rows, so beside it this shows what retrieval alone gives.
``mop-fixed`` is the other half: the mixture without retrieval.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mop.mixture import Expert
from mop.prompts import Prompt
from mop.search import mixture_search
from mop.search.baselines.parts import given_instruction
from mop.search.experts import DemoPool, retrieval_from, with_answers
from mop.search.learning import Learned, Session

#: Most demos that a query gets; the user's limit may be lower.
MOST_DEMOS = 15


async def knn(session: Session) -> Learned:
    """Return one expert without demos of its own, under the given instruction or the default one.

    All answers are listed where they form a closed set. Nothing is asked of the model: no score is known.
    """
    problem = session.problem
    instruction = given_instruction(session)
    if problem.answers:
        instruction = with_answers(instruction, problem.answers)
    prompt = Prompt(instruction)
    vectors = np.concatenate([problem.train_vectors, problem.validation_vectors])
    pool = DemoPool((*problem.train, *problem.validation), vectors)
    # Not a fallback: where the single prompt answers, nothing is retrieved.
    expert = Expert(prompt=prompt, size=len(problem.train), validation=0, proposer="given")
    centroid = problem.train_vectors.mean(axis=0, keepdims=True)
    count = min(MOST_DEMOS, session.max_demos)
    retrieval = retrieval_from(pool, vectors, count, token_budget=session.token_budget)
    report = {"generalist": {"name": "given, retrieved demos", "score": None}}
    return Learned([expert], prompt, prompt, centroid, None, report, retrieval)


async def mop_fixed(session: Session) -> Learned:
    """Return what ``mop`` learns without retrieval, so that test queries see no more rows than with other methods."""
    return await mixture_search.learn(replace(session, retrieved=0))
