"""Answering: the question that is answered as a persona, and replies that are no answers. Sends nothing.

As in ExpertPrompting (arXiv 2305.14688) all is one user message: persona, a sentence that leads over, the instruction.
"""

from __future__ import annotations

from dataclasses import replace

from mop.lm.request import Reply, Request
from mop.lm.thoughts import without_thought
from mop.personas.records import Arm, Plan, Row
from mop.personas.refusing import why_dropped

_BRIDGE = "Now answer the request below as this person would, without speaking about yourself."


def answer_request(model: str, plan: Plan, arm: Arm, row: Row) -> Request:
    """Return the request for an arm's answer: bare, with the static persona, or with the instruction's own identity."""
    instruction, persona = row.instruction.text, row.persona(arm)
    content = instruction if not persona else f"{persona}\n\n{_BRIDGE}\n\n{instruction}"
    return Request(
        model=model,
        messages=(("user", content),),
        temperature=plan.temperature,
        max_tokens=plan.answer_tokens,
        seed=plan.seed if plan.temperature else None,
        role="execute",
    )


def answer_of(reply: Reply) -> Reply:
    """Return a reply without the thought before its answer; one that was cut off there stays as it is."""
    answer = without_thought(reply.text)
    cut_off = not answer and reply.finish_reason == "length"
    return reply if cut_off else replace(reply, text=answer)


def why_unusable(reply: Reply) -> str | None:
    """Return why a reply can't be kept as an answer, whoever wrote it, or None: empty, cut off, or a refusal."""
    text = reply.text.strip()
    if not text:
        return "empty"
    return "cut off" if reply.finish_reason == "length" else why_dropped(text)
