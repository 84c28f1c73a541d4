"""Expected: what making a data set will take, before anything is sent. Knows prompts' sizes, not the models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mop.connect import is_local
from mop.lm.prices import Prices
from mop.lm.request import Usage
from mop.personas.answering import answer_request
from mop.personas.checking import Nearness
from mop.personas.exemplars import chosen
from mop.personas.identities import ATTEMPTS, Identity
from mop.personas.instructions import Instruction
from mop.personas.records import Plan, Row
from mop.personas.writing import identity_request
from mop.prompts import TOKENS_PER_MESSAGE, Message, estimate_tokens

#: Tokens of an identity, for the estimate.
IDENTITY = 120
#: Tokens around an answer in the questions of an audit and of a judge, and of their replies.
_AUDIT, _GRADE = (110, 40), (120, 4)


@dataclass(frozen=True, slots=True)
class Expected:
    """What is expected if no identity is refused, with every answer as long as it may be.

    ``most_calls`` is with all repeats; ``usd`` is None where a model's price isn't known, 0 for models on this machine.
    """

    calls: int
    most_calls: int
    prompt_tokens: int
    completion_tokens: int
    usd: float | None


def expect(
    instructions: Sequence[Instruction], plan: Plan, *, model: str, writer: str, judge: str, at_endpoint: bool = False
) -> Expected:
    """Return what `mop.personas.curate` is expected to take.

    Args:
        instructions: What is to be answered, repeats included.
        plan: How.
        model: Name of the model that answers.
        writer: Name of the model that writes identities.
        judge: Name of the model that audits and grades.
        at_endpoint: Whether names of local models are names at an endpoint.
    """
    count, most = 0, 0
    usage: dict[str, Usage] = {}

    def add(name: str, prompt: int, completion: int) -> None:
        nonlocal count
        count += 1
        usage[name] = usage.get(name, Usage()) + Usage(prompt, 0, completion)

    filler = Identity("You are an expert. " * (IDENTITY // 5), Nearness(1.0, 0.0))
    for one in instructions:
        if "expert" in plan.arms:
            question = identity_request(writer, one.text, chosen(plan.k, plan.design))
            add(writer, _tokens(question.messages), IDENTITY)
            most += ATTEMPTS - 1
        for arm in plan.arms:
            asked = answer_request(model, plan, arm, Row(one, filler, {}))
            add(model, _tokens(asked.messages), plan.answer_tokens)
            if plan.removal == "audit":
                add(judge, _AUDIT[0] + IDENTITY + plan.answer_tokens, _AUDIT[1])
            if plan.min_grade is not None:
                add(judge, _GRADE[0] + estimate_tokens(one.text) + plan.answer_tokens, _GRADE[1])
                most += ATTEMPTS - 1
    total = sum(usage.values(), Usage())
    usd = _cost(usage, at_endpoint)
    return Expected(count, count + most, total.prompt_tokens, total.completion_tokens, usd)


def _tokens(messages: Sequence[Message]) -> int:
    return sum(estimate_tokens(content) + TOKENS_PER_MESSAGE for _, content in messages)


def _cost(usage: dict[str, Usage], at_endpoint: bool) -> float | None:
    prices = Prices()
    total = 0.0
    for name, used in usage.items():
        if is_local(name) and not at_endpoint:
            continue
        if prices.find(name) is None:
            return None
        total += prices.cost(used, name)
    return total
