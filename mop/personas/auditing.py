"""Auditing: a model reads answers after the rules and names the sentences in which the writer still speaks of who they
are. Knows no files.

What the model says is a hint. A sentence is removed only if it stands in the answer, the writer speaks in it ("I",
"my"), and it shares a long word with the identity; anything else that the model names is left alone and counted. Where
the instruction asks for a text in which somebody speaks, such as a nurse's letter, it must name what the identity is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mop.data.normal_form import normal_form
from mop.lm.request import Reply, Request
from mop.personas.checking import words_of
from mop.personas.mentions import without
from mop.personas.roles import OCCUPATIONS, Roles, content_words
from mop.personas.sentences import Sentence, sentences

if TYPE_CHECKING:
    from mop.lm.client import ModelClient

#: An answer of which more than this share of sentences would go isn't worth keeping.
MOST_REMOVED = 0.5
_AUDIT_TOKENS = 200
_SPEAKS = re.compile(r"\b(?:I|I['’](?:m|ve|d|ll)|me|[Mm]y|myself|[Ww]e|[Oo]ur)\b")
_MARK = re.compile(r"^[\s\-*•\d.)\"“'>]+|[\s\"”']+$")
_SYSTEM = "You check texts. You copy sentences exactly as they stand and add nothing."


@dataclass(frozen=True, slots=True)
class Audit:
    """An answer after the audit. ``ignored`` are named sentences that were innocent, or stand nowhere in the answer."""

    text: str
    removed: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    too_much: bool = False


def audit_request(model: str, answer: str, identity: str) -> Request:
    """Return the request for the sentences of an answer in which its writer speaks of being this person."""
    who = f"[Person]\n{identity}\n[End of person]\n\n" if identity else ""
    question = (
        f"{who}[Text]\n{answer}\n[End of text]\n\nCopy every sentence of the text in which the writer speaks about "
        'their own profession, title, experience or expertise, one on each line. Phrases such as "as a result" are '
        "no such mention. If there is none, reply NONE."
    )
    return Request(
        model=model, messages=(("system", _SYSTEM), ("user", question)), max_tokens=_AUDIT_TOKENS, role="judge"
    )


def apply_audit(reply: str, answer: str, identity: str, instruction: str = "") -> Audit:
    """Return the answer without the sentences that the model names rightly."""
    roles = Roles(identity, instruction)
    there = [one for one in sentences(answer) if not one.quoted]
    words = content_words(identity) | OCCUPATIONS
    named = [line for raw in reply.splitlines() if (line := _MARK.sub("", raw)) and normal_form(line) != "none"]
    dropped: dict[int, Sentence] = {}
    ignored = []
    for line in named:
        form = normal_form(line)
        match = next((one for one in there if normal_form(answer[one.start : one.end]) == form), None)
        text = answer[match.start : match.end] if match else ""
        known = any(map(roles.own, words_of(text))) if roles.speaker_wanted else content_words(text) & words
        if match and _SPEAKS.search(text) and known:
            dropped[match.start] = match
        else:
            ignored.append(line)
    if not dropped:
        return Audit(answer, ignored=tuple(ignored))
    removed = tuple(answer[one.start : one.end] for one in dropped.values())
    too_much = len(dropped) > MOST_REMOVED * len(there)
    return Audit(without(answer, list(dropped.values())), removed, tuple(ignored), too_much)


async def audit_all(
    client: ModelClient,
    answers: Sequence[str],
    identities: Sequence[str],
    instructions: Sequence[str],
    told: Callable[[str], None],
) -> list[Audit]:
    """Audit answers to instructions, one call each; ``told`` hears "auditing" at every reply.

    Raises as `mop.lm.client.ModelClient.complete_many` does.
    """

    def tell(_place: int, _reply: Reply) -> None:
        told("auditing")

    requests = [audit_request(client.model, *pair) for pair in zip(answers, identities, strict=True)]
    replies = await client.complete_many(requests, tell)
    return [
        apply_audit(reply.text, *one) for reply, *one in zip(replies, answers, identities, instructions, strict=True)
    ]
