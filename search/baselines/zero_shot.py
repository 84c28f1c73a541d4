"""``zero-shot``: the best instruction without demos, from everything that is known of how to write one."""

from __future__ import annotations

from mop.prompts import Prompt
from mop.search.baselines.parts import (
    Contender,
    forward_questions,
    given_instruction,
    one_prompt,
    proposal_count,
    propose,
    select,
)
from mop.search.experts import with_answers
from mop.search.learning import Learned, Session
from mop.search.proposers import Candidate


async def zero_shot(session: Session) -> Learned:
    """Race the given instruction and the model's, each with the list of answers where answers form a closed set.

    The given instruction races without that list as well. `mop.search.baselines.ape.ape` never lists answers.
    """
    asked = proposal_count(session)
    written = await propose(session, forward_questions(session, asked))
    given = Candidate(given_instruction(session), "given")
    authors: dict[str, str] = {}
    for candidate in (given, *written):
        authors.setdefault(with_answers(candidate.instruction, session.problem.answers), candidate.proposer)
    authors.setdefault(given.instruction, given.proposer)
    contenders = [Contender(Prompt(text), author, f"{author}, no demos") for text, author in authors.items()]
    result = await select(session, contenders, session.plan.calls - asked)
    return one_prompt(session, contenders, result, zero_shot=contenders[result.winner].prompt)
