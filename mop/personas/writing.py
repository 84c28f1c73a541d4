"""Writing: the question that asks for an identity, and what is read from the reply. Sends nothing.

An identity is asked for as ExpertPrompting does (arXiv 2305.14688), by in-context learning from exemplars; here the
exemplars are turns of a chat.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from mop.lm.request import Request
from mop.lm.thoughts import without_thought
from mop.personas.exemplars import Exemplar
from mop.prompts import Message

#: Most tokens of an identity; the longest of the exemplars takes about 110.
IDENTITY_TOKENS = 220
#: Sampling temperature of an identity that is asked for again; the first is greedy.
AGAIN_TEMPERATURE = 0.8

_HEADER = (
    "For each request, describe the person who would answer it best: profession, experience, knowledge and way of "
    "working, as they bear on this very request. Write one paragraph of three to five sentences in the second person, "
    'beginning with "You are". Do not answer the request, and do not reuse the wording of earlier descriptions.'
)
_LABEL = re.compile(r"^\s*(?:\[?(?:agent |expert )?(?:description|identity|persona)\]?\s*[:\-–]\s*)", re.IGNORECASE)
_ASKED_AGAIN = "Describe the person who would answer this request best."


def identity_request(
    model: str, instruction: str, exemplars: Sequence[Exemplar], *, attempt: int = 0, problem: str = "", seed: int = 0
) -> Request:
    """Return the request for an identity; from the second attempt on it is sampled and says what was wrong before."""
    messages: list[Message] = [("system", _HEADER)]
    for exemplar in exemplars:
        messages += [("user", exemplar.instruction), ("assistant", exemplar.identity)]
    question = instruction
    if attempt:
        question = f"{instruction}\n\n({_ASKED_AGAIN} An earlier description was refused: {problem}.)"
    return Request(
        model=model,
        messages=(*messages, ("user", question)),
        temperature=AGAIN_TEMPERATURE if attempt else 0.0,
        max_tokens=IDENTITY_TOKENS,
        seed=seed if attempt else None,
        sample=attempt,
        role="propose",
    )


def read_identity(text: str) -> str:
    """Return the identity in a reply: one paragraph, without thought, label and quotation marks."""
    paragraph = _LABEL.sub("", without_thought(text).strip()).strip().split("\n\n")[0]
    return " ".join(paragraph.split()).strip("\"“”'* ")
