"""Parts that the baselines share: how many instructions are asked for, how demos fit, how one prompt is handed over.

Knows nothing of any single baseline.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from mop.mixture import Expert
from mop.prompts import Demo, Prompt
from mop.search import proposers
from mop.search.allowance import Allowance
from mop.search.generalist import DEFAULT_INSTRUCTION
from mop.search.learning import Learned, Session
from mop.search.proposers import Candidate
from mop.search.race import Arm, RaceResult, mean_seen, race
from mop.search.trials import Trial
from mop.seeds import stream

#: APE and the mixture of the paper ask for twenty instructions a task; small budgets ask for fewer.
MOST_PROPOSALS = 20
#: One instruction is asked for per this many calls, so that each can be tried on some ten examples.
CALLS_PER_PROPOSAL = 30
#: The published baselines and experts all show one demo for every ten of the pool.
POOL_PER_DEMO = 10


@dataclass(frozen=True)
class Contender:
    """A prompt that takes part in a race, and who wrote its instruction."""

    prompt: Prompt
    proposer: str
    name: str


def by_size(session: Session) -> bool:
    """Return whether a plan in calls isn't enough, because tokens or money are capped."""
    return session.allowance is not None and session.allowance.by_size


def given_instruction(session: Session) -> str:
    """Return the user's instruction, or the default one."""
    return session.problem.description or DEFAULT_INSTRUCTION


def proposal_count(session: Session) -> int:
    """Return how many instructions the model is asked for: what the settings say, or what the budget bears."""
    return proposals_for(session.plan.calls, session.proposals)


def proposals_for(calls: int, wanted: int | None) -> int:
    """Return how many instructions are asked for in a budget of ``calls``, if the user ``wanted`` so many or any."""
    if wanted is not None:
        return min(wanted, calls // 3)
    return max(1, min(MOST_PROPOSALS, calls // CALLS_PER_PROPOSAL))


async def propose(session: Session, questions: Sequence[tuple[str, str]]) -> list[Candidate]:
    """Ask every (proposer name, question), one call each; the user's own instruction comes first if there is one.

    Where tokens or money are capped, only as many are asked as leave room to judge what comes back.
    If nothing usable comes back and the user gave none, the default instruction is the only candidate.
    """
    session.listener.stage("proposing instructions")
    if session.allowance is not None:
        questions = questions[: session.allowance.askable([question for _, question in questions])]
    written = await proposers.ask(session.proposer, questions, seed=session.problem.seed)
    own = session.problem.description
    if own is not None:
        return [Candidate(own, "given"), *(one for one in written if one.instruction != own)]
    return written or [Candidate(DEFAULT_INSTRUCTION, "given")]


def forward_questions(session: Session, count: int, *, shown: int = 10) -> list[tuple[str, str]]:
    """Return APE's forward question (arXiv 2211.01910) over ``count`` random samples of ``shown`` examples."""
    problem = session.problem
    return [
        ("demos", proposers.from_demos(proposers.sample(problem.train, shown, problem.seed, "ape", draw)))
        for draw in range(count)
    ]


def published_demo_count(session: Session) -> int:
    """Return how many demos the paper's prompts show: a tenth of the pool, one at least, within the user's limit."""
    return min(session.max_demos, max(1, len(session.problem.train) // POOL_PER_DEMO))


def fitting_demos(session: Session, order: Iterable[int], count: int) -> tuple[Demo, ...]:
    """Return at most ``count`` demos of training examples in ``order``, no input twice, within the token budget."""
    chosen: dict[str, Demo] = {}
    left = session.token_budget
    for position in order:
        if len(chosen) == count:
            break
        demo = Demo.of(session.problem.train[int(position)])
        if demo.input not in chosen and demo.tokens <= left:
            chosen[demo.input] = demo
            left -= demo.tokens
    return tuple(chosen.values())


def random_demos(session: Session, count: int, *names: str | int) -> tuple[Demo, ...]:
    """Return at most ``count`` demos in the random order of the stream ``names``."""
    order = stream(session.problem.seed, *names).permutation(len(session.problem.train))
    return fitting_demos(session, order, count)


async def select(session: Session, contenders: Sequence[Contender], calls: int) -> RaceResult:
    """Race ``contenders`` on the same validation examples in at most ``calls`` calls, or what the caps leave of them.

    If the calls don't give every contender an example in every rung, the last ones stay out, and so do prompts that are
    too long for the caps.
    """
    session.listener.stage("racing single prompts")
    problem = session.problem
    examples = [problem.validation[place] for place in session.order]
    allowance = session.allowance or Allowance(calls)

    def trials_of(places: Sequence[int]) -> list[Trial]:
        return [(contenders[place].prompt, example) for place in places for example in examples]

    kept = [place for place in range(len(contenders)) if allowance.fits(trials_of([place]))]
    kept = kept or [min(range(len(contenders)), key=lambda place: contenders[place].prompt.tokens)]
    trials = trials_of(kept)
    left = calls if allowance.in_calls else max(0.0, allowance.spare(trials))
    count = len(kept)
    while count > 1 and count * math.ceil(math.log2(count)) > allowance.worth(left, trials):
        count -= 1
    kept = kept[:count]
    arms = [Arm.single(contenders[one].name, contenders[one].prompt, len(problem.validation)) for one in kept]
    raced = await race(arms, problem.validation, session.order, session.trials, calls=left, allowance=allowance)
    scores = np.full((len(contenders), len(problem.validation)), np.nan)
    scores[kept] = raced.scores
    result = RaceResult(scores, tuple(kept[arm] for arm in raced.ranking))
    session.say_best(result.mean(result.winner))
    return result


def one_prompt(
    session: Session,
    contenders: Sequence[Contender],
    result: RaceResult,
    *,
    zero_shot: Prompt,
    demos: tuple[Demo, ...] | None = None,
) -> Learned:
    """Return the mixture of the one prompt that won ``result``, with ``demos`` attached if some are given.

    The score in it is that of the prompt that raced: where demos are attached afterwards, of the prompt without them.
    """
    problem = session.problem
    winner = contenders[result.winner]
    prompt = winner.prompt if demos is None else Prompt(winner.prompt.instruction, demos)
    score = mean_seen(result.scores[result.winner])
    expert = Expert(
        prompt=prompt,
        size=len(problem.train),
        validation=_examples(result, result.winner),
        proposer=winner.proposer,
        score=score,
        generalist_score=score,
        fallback=True,
    )
    singles = [
        {
            "name": contenders[arm].name,
            "examples": _examples(result, arm),
            "score": mean_seen(result.scores[arm]),
        }
        for arm in result.ranking
    ]
    generalist: dict[str, object] = {"name": winner.name, "score": score}
    if prompt != winner.prompt:
        generalist["demos"] = "attached after the race"
    report = {"singles": singles, "generalist": generalist}
    centroid = problem.train_vectors.mean(axis=0, keepdims=True)
    return Learned([expert], prompt, zero_shot, centroid, None, report)


def _examples(result: RaceResult, arm: int) -> int:
    return int((result.scores[arm] >= 0).sum())
