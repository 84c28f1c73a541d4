"""``random-demos``: the best of several random few-shot prompts under one instruction. The sceptic's opponent."""

from __future__ import annotations

from mop.prompts import Prompt
from mop.search.baselines.parts import Contender, given_instruction, one_prompt, random_demos, select
from mop.search.experts import with_answers
from mop.search.learning import Learned, Session

#: Draws that race, if the budget gives each of them this many calls.
MOST_DRAWS = 16
CALLS_PER_DRAW = 25


def draws_for(calls: int) -> int:
    """Return how many sets of demos race in a budget of ``calls``."""
    return max(2, min(MOST_DRAWS, calls // CALLS_PER_DRAW))


async def best_random_demos(session: Session) -> Learned:
    """Race random sets of as many demos as a prompt may show; the answers are listed if they form a closed set."""
    problem, calls = session.problem, session.plan.calls
    instruction = with_answers(given_instruction(session), problem.answers)
    draws = draws_for(calls)
    prompts = [
        Prompt(instruction, random_demos(session, session.max_demos, "random demos", draw)) for draw in range(draws)
    ]
    contenders = [
        Contender(prompt, "given", f"random demos {draw}") for draw, prompt in enumerate(dict.fromkeys(prompts))
    ]
    result = await select(session, contenders, calls)
    return one_prompt(session, contenders, result, zero_shot=Prompt(instruction))
