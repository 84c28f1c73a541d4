"""The best single prompt: a mixture's generalist, and with one expert the whole result."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mop.prompts import Prompt
from mop.search import proposers
from mop.search.experts import with_answers
from mop.search.judging import Judging, race_report
from mop.search.learning import Session
from mop.search.plan import CROSSINGS
from mop.search.proposers import Candidate
from mop.search.race import Arm, mean_seen
from mop.search.singles import SinglePrompt, crossed_prompts, single_prompts

#: Used when the user gives no instruction of their own.
DEFAULT_INSTRUCTION = "Answer as the examples do. Give the answer only."


#: Trials of one prompt that a cap on tokens or money must have room for.
LEAST_TRIALS = 8


def check_room(session: Session, *, asks: bool = True) -> None:
    """Check that the caps have room for the smallest search: one prompt without demos on a few examples.

    ``asks``: the method asks a model at all. Raises BudgetExceeded; nothing has been sent then.
    """
    problem = session.problem
    prompt = Prompt(problem.description or DEFAULT_INSTRUCTION)
    least = [(prompt, problem.validation[int(place)]) for place in session.order[:LEAST_TRIALS]]
    if asks and session.allowance is not None:
        session.allowance.check(least, f"one prompt without demos on {len(least)} examples")


@dataclass(frozen=True)
class Generalist:
    """The winner with its scores, the best prompt without demos, and the candidates that raced from best to worst.

    ``untried`` are the candidates for which the race had no place.
    """

    single: SinglePrompt
    scores: NDArray[np.float64]
    zero_shot: Prompt
    candidates: tuple[Candidate, ...]
    untried: tuple[Candidate, ...]
    report: dict[str, object]


async def find_generalist(
    judging: Judging, promising: Callable[[SinglePrompt], Awaitable[bool]] | None = None
) -> Generalist:
    """Propose instructions and race single prompts; where no mixture follows, cross the best parts and race again.

    ``promising`` is told the winner of the first race and says whether a mixture is still worth its calls; without it
    there is none.
    """
    session, problem, plan = judging.session, judging.problem, judging.plan
    candidates = await propose_instructions(judging)
    session.listener.stage("racing single prompts")
    limits = {"max_demos": session.max_demos, "token_budget": session.token_budget}
    singles = _sendable(single_prompts(problem, candidates, arms=plan.single_arms, **limits), judging)
    first = await judging.race(_arms(singles, judging), plan.single_calls)
    ranked = [singles[arm] for arm in first.ranking]
    session.say_best(first.mean(first.winner))
    crossed: list[dict[str, object]] = []
    alone = promising is None or not await promising(ranked[0])
    for turn in range(CROSSINGS if alone else 0):
        found, report = await _crossed(judging, ranked, turn, limits)
        if not report:
            break
        # The best prompt of the race before runs in this one too.
        ranked, crossed = found, [*report, *crossed[1:]]
    winner = ranked[0]
    scores = await _scores(judging, winner)
    raced = tuple(dict.fromkeys([winner.candidate, *(single.candidate for single in ranked)]))
    zero_shot = next((single.prompt for single in ranked if not single.prompt.demos), None)
    return Generalist(
        single=winner,
        scores=scores,
        zero_shot=zero_shot or Prompt(with_answers(winner.candidate.instruction, problem.answers)),
        candidates=raced,
        untried=tuple(candidate for candidate in candidates if candidate not in raced),
        report={
            "singles": race_report([single.name for single in singles], first),
            "crossed": crossed,
            "candidates": [candidate.instruction for candidate in candidates],
            "generalist": {"name": winner.name, "score": mean_seen(scores)},
        },
    )


async def _crossed(
    judging: Judging, ranked: list[SinglePrompt], turn: int, limits: dict[str, int]
) -> tuple[list[SinglePrompt], list[dict[str, object]]]:
    """Race new prompts made from the best parts against the best one; return all from best to worst, and a report.

    A quarter of the judged examples stays free for judging the winner. Without calls for a race the report is empty.
    """
    best = _arms(ranked[:1], judging)[0]
    cells = judging.cells(best)
    allowance = judging.allowance
    calls = allowance.spare(judging.trials(cells)) - allowance.cost(judging.trials(cells[: len(cells) // 4]))
    fresh, known = judging.plan.crossed_race(calls)
    singles = crossed_prompts(judging.problem, ranked, arms=fresh, turn=turn, **limits) if fresh else []
    singles = [single for single in singles if judging.fits(_arms([single], judging)[0])]
    if not singles:
        return ranked, []
    judging.session.listener.stage("racing the best parts together")
    raced = [ranked[0], *singles]
    seen = int(np.isfinite(judging.known(best)).sum())
    result = await judging.race(_arms(raced, judging), calls, known=min(known, seen))
    judging.session.say_best(result.mean(result.winner))
    return (
        [*(raced[arm] for arm in result.ranking), *ranked[1:]],
        race_report([single.name for single in raced], result),
    )


async def propose_instructions(judging: Judging) -> list[Candidate]:
    """Return the user's own instruction, or the plain one, and after it those that the model writes from demos."""
    judging.session.listener.stage("proposing instructions")
    problem = judging.problem
    given = Candidate(problem.description or DEFAULT_INSTRUCTION, "given")
    samples = [proposers.sample(problem.train, 8, problem.seed, "demos", i) for i in range(judging.plan.proposals)]
    questions = [("demos", proposers.after_worked(examples)) for examples in samples]
    written = await judging.propose(questions, before=proposers.WORKED)
    return [given, *(candidate for candidate in written if candidate.instruction != given.instruction)]


async def _scores(judging: Judging, winner: SinglePrompt) -> NDArray[np.float64]:
    """Judge the winner on all examples that take part, or on as many as there are calls left for."""
    arm = Arm.single("generalist", winner.prompt, len(judging.problem.validation))
    cells = judging.cells(arm)
    unknown = judging.unknown(cells)
    if judging.affords(unknown):
        return await judging.settle(arm)
    known = judging.allowance.cost(judging.trials(cells)) - judging.allowance.cost(judging.trials(unknown))
    await judging.race([arm], judging.plan.calls, known=known)
    return judging.narrow(judging.known(arm))


def _sendable(singles: Sequence[SinglePrompt], judging: Judging) -> list[SinglePrompt]:
    """Return the prompts that the caps are large enough for; at least the shortest one."""
    arms = _arms(singles, judging)
    found = [single for single, arm in zip(singles, arms, strict=True) if judging.fits(arm)]
    return found or [min(singles, key=lambda single: single.prompt.tokens)]


def _arms(singles: Sequence[SinglePrompt], judging: Judging) -> list[Arm]:
    return [Arm.single(single.name, single.prompt, len(judging.problem.validation)) for single in singles]
