"""Refusing: answers that refuse, or that say that a model wrote them. The rule by which they are dropped; no models.

The rule: an answer is dropped if one of its first three sentences says that the writer can't or won't help, or if the
writer says in any sentence, outside quotations and code, to be an AI, a language model or a chatbot, to have no
personal experiences, or not to be a real person. Sentences about AI in which the writer doesn't speak are innocent.
Only English is read.

>>> why_dropped("I'm sorry, but I can't help with that.")
'refuses'
"""

from __future__ import annotations

import re
from typing import Literal

from mop.personas.sentences import sentences, without_quotations

_DOES = (
    r"(?:help(?! but| \w+ing)|assist|provide|answer|comply|fulfil\w*|do (?:that|this)(?! justice)|discuss|offer|give|"
    r"write|create|complete|generate|engage|participate|support(?! the (?:view|idea|claim)\b)|share|advise|"
    r"satisfy|continue|respond|process|access|browse|proceed)"
)
_NOT = (
    r"(?:can(?:not|['’]t)|can not|won['’]t|will not|(?:am|['’]m) (?:not able|unable) to|"
    r"(?:won['’]t|will not|would not|wouldn['’]t) be able to)"
)
#: What a group can't do for the reader; "we cannot access the summit" tells of the world.
_OFFERS = (
    r"(?:(?:help(?! but)|assist|provide|comply|fulfil\w*|do (?:that|this)|discuss|offer|generate|engage|support)\b|"
    r"(?:answer|give|write|share|create|complete|advise|process) (?:that|this|these|those|you|your|such)\b)"
)
#: "I can't give you a single answer: it depends" is the beginning of one, as is "no legal advice, but generally yes".
_GOES_ON = (
    r"(?! (?:you )?(?:an? |any |the |one )?(?:(?:single|exact|precise|definite|definitive|simple|universal) (?:answer|"
    r"numbers?|figures?|rule|recipe|date|price|time|amount)|guarantees?|diagnos[ie]s)\b|"
    r" (?:you )?(?:legal|medical|financial|tax) advice,? but (?:generally|in general|usually|broadly|in most|here)\b|"
    r"[^.!?]*\bbut here goes\b)"
)
_REFUSES = re.compile(
    rf"\bI ?{_NOT}(?: \w+)? {_DOES}\b{_GOES_ON}|\bwe ?{_NOT}(?: \w+)? {_OFFERS}|"
    r"\bI(?: must|['’]ll have to| have to) (?:\w+ )?(?:decline|refuse)\b|"
    r"^(?:I['’]m|I am) (?:very |so |really )?sorry,? but I\b[^.!?]*(?:n['’]t|\bnot|\bunable)\b|"
    r"^(?:I['’]m|I am) (?:very |so |really )?sorry,? but (?:that|this)\b[^.!?:]*(?:n['’]t|\bnot)\b[^.!?:]*"
    r"\b(?:something|possible|I|we|allowed|appropriate)\b|"
    r"^I apologi[sz]e,? but I\b|\bnot something (?:that )?I(?: can|['’]m able to| am able to)\b|"
    r"\bI(?: do(?:n['’]t| not) feel|['’]m not| am not) comfortable(?! (?!with (?:this|that|your)\b)with\b)\b",
    re.IGNORECASE,
)
_MODEL = (
    r"(?:(?:large |AI )?language model|(?:AI|artificial intelligence)(?: model| assistant| chatbot| system)?|"
    r"chatbot|virtual assistant|computer program)"
)
_BREAKS = re.compile(
    rf"\bas an? {_MODEL}\b(?!\s+\w+(?:er|or|ist)\b)[^.!?]*\b(?:I|my|me)\b|"
    rf"\bI(?:['’]m| am)(?: (?:just|only|actually|merely|still))? an? {_MODEL}\b(?!\s+\w+(?:er|or|ist)\b)|"
    r"\bI(?:['’]m| am) not (?:actually |really )?an? (?:real|human|actual|licensed)\b|"
    r"\bI do(?:n['’]t| not) (?:actually |really )?have (?:any )?personal (?:experiences?|opinions?|feelings?)\b|"
    r"\bmy (?:training data(?! set)|knowledge cutoff)\b",
    re.IGNORECASE,
)
_FIRST_SENTENCES = 3


def why_dropped(answer: str) -> Literal["refuses", "breaks persona"] | None:
    """Return why an answer is dropped, or None."""
    if any(_BREAKS.search(sentence) for sentence in _spoken(answer)):
        return "breaks persona"
    return "refuses" if refuses(answer) else None


def refuses(answer: str) -> bool:
    """Whether one of an answer's first three sentences says that the writer can't or won't help, whoever speaks."""
    return any(_REFUSES.search(sentence) for sentence in _spoken(answer)[:_FIRST_SENTENCES])


def _spoken(answer: str) -> list[str]:
    """Return the sentences of an answer, code and quotations left out."""
    return [without_quotations(answer[one.start : one.end]) for one in sentences(answer) if not one.quoted]
