"""Answering: the question that is answered as a persona, and replies that are no answers. Sends nothing.

As in ExpertPrompting (arXiv 2305.14688) all is one user message: persona, a sentence that leads over, the instruction.
"""

from __future__ import annotations

import re
from dataclasses import replace

from mop.lm.request import Reply, Request
from mop.personas.records import Arm, Plan, Row
from mop.personas.refusing import why_dropped

_BRIDGE = "Now answer the request below as this person would, without speaking about yourself."
#: What a reasoning model writes before its answer: between its marks, or, where the prompt opened it, up to the second.
_THOUGHT = re.compile(r"\s*<think(?:ing)?>.*?(?:</think(?:ing)?>|\Z)", re.DOTALL | re.IGNORECASE)
_END_OF_THOUGHT = re.compile(r"\A(?:(?!<think).)*?^\s*</think(?:ing)?>\s*$", re.DOTALL | re.IGNORECASE | re.MULTILINE)


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


def without_thought(reply: Reply) -> Reply:
    """Return a reply without the thought before its answer; one that was cut off there stays as it is."""
    found = _THOUGHT.match(reply.text) or _END_OF_THOUGHT.match(reply.text)
    if found is None or (found.end() == len(reply.text) and reply.finish_reason == "length"):
        return reply
    return replace(reply, text=reply.text[found.end() :].lstrip())


def why_unusable(reply: Reply) -> str | None:
    """Return why a reply can't be kept as an answer, whoever wrote it, or None: empty, cut off, or a refusal."""
    text = reply.text.strip()
    if not text:
        return "empty"
    return "cut off" if reply.finish_reason == "length" else why_dropped(text)
