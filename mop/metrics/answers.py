"""What a free-form reply answers: its number, its option letter. Knows nothing of scores or accepted outputs.

>>> read_number("3 hens lay 2 eggs each, so the answer is -1,250.50.")
Decimal('-1250.50')
>>> read_choice("(B) because (A) is wrong")
'B'
"""

from __future__ import annotations

import re
from decimal import Context, Decimal

from mop.metrics.lexing import fold

#: Enough digits for any answer; a context of our own, so that a caller's settings and traps do not matter.
ARITHMETIC = Context(prec=60, Emax=999_999, Emin=-999_999, traps=[])

_DIGITS = (
    r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])(?:\.[0-9]+)?|[0-9]+(?:\.[0-9]+)?|\.[0-9]+)(?:e[+-]?[0-9]{1,3}(?![0-9a-z]))?"
)
# A sign counts where nothing precedes it that could be subtracted from; see lexing.
_NUMBER = re.compile(
    rf"(?P<sign>(?<![\w)\]])-\s?(?=[$€£¥.0-9])(?<!^- )|\b(?:minus|negative) )?[$€£¥]?(?P<top>{_DIGITS})"
    rf"(?:/(?P<bottom>[0-9]+(?:\.[0-9]+)?)(?!/?[0-9]))?"
)
_STATED = re.compile(r"####|\\boxed\{|\banswer(?:\s+is\b|\s*[:=])(?:\s*:)?", re.IGNORECASE)
_STATEMENT_END = re.compile(r"[.!?](?=\s|$)|\n|\b(?:because|since)\b")


def read_numbers(text: str) -> list[Decimal]:
    """Return every number in ``text``, in order: signs, decimals, 1,234, $5, 1e5 and fractions (3/4) are read."""
    numbers = []
    for found in _NUMBER.finditer(fold(text)):
        value = Decimal(found["top"].replace(",", ""))
        bottom = Decimal(found["bottom"] or 1)
        if found["bottom"] and not bottom:
            continue
        if found["bottom"]:
            value = ARITHMETIC.divide(value, bottom)
        numbers.append(value.copy_negate() if found["sign"] else value)
    return numbers


def answer_numbers(reply: str) -> list[Decimal]:
    """Return the numbers of the part of ``reply`` that states its answer, or of all of it where none does.

    That part follows the last "answer is", "answer:", ``####`` or ``\\boxed{`` and ends with its sentence.
    """
    for found in reversed(list(_STATED.finditer(reply))):
        statement = _STATEMENT_END.split(reply[found.end() :].lstrip(), maxsplit=1)[0]
        numbers = read_numbers(statement)
        if numbers:
            return numbers
    return read_numbers(reply)


def read_number(reply: str) -> Decimal | None:
    """Return the number that ``reply`` answers: the last one of its answer, or None if there is none."""
    numbers = answer_numbers(reply)
    return numbers[-1] if numbers else None


_OPEN = r"[\s*_\"'`“:]*"
# An option letter in brackets, or a bare one that is plainly not the article "a" or the pronoun "I".
_LETTER = (
    r"(?:[(\[{]\s*(?P<boxed>[A-Za-z])\s*[)\]}]"
    r"|(?P<bare>[A-Za-z])(?=\s*(?:[)\]*\"'`”]|[.:,;!?](?!\w)|$|\n)|\s+(?:because|since)\b|\s+[-–—]\s)(?!'\w)"
    r"|(?P<capital>[B-HJ-Z])(?=\s))"
)
_HEDGE = re.compile(r"[)\]*\s]*(?:,|/|\bor\b|\band\b|&)+[(\[\s]*(?:or\b|and\b)?[(\[\s]*[A-Z](?![\w'])", re.IGNORECASE)
_ALONE = re.compile(r"[\W_]*([A-Za-z])[\W_]*")
_LEADING = re.compile(rf"{_OPEN}(?:(?:option|choice)\s+)?{_LETTER}", re.IGNORECASE)
_MARKED = re.compile(
    r"(?:\b(?i:answer|choice|option)(?:\s+(?i:is|must be|would be|should be)\b|\s*[:=])"
    r"|\b(?i:choose|pick|select|go with)\b|\\boxed|\b(?i:therefore|thus|hence),?)"
    rf"{_OPEN}(?:(?i:the|correct|answer|option|choice|it|is|text)\b[\s:{{*]*)*{_LETTER}"
)
_BOXED = re.compile(r"[(\[]\s*([A-Za-z])\s*[)\]]")
_REJECTED = re.compile(
    r"\b(?:not|isn't|neither|nor|rather than|instead of|over|than)\s+(?:option\s+|choice\s+)?[(\[]\s*[a-z]\s*[)\]]"
    r"|[(\[]\s*[a-z]\s*[)\]]\s+(?:is|are|was|would be|seems)\s+(?:\w+\s+)?(?:not|wrong|incorrect|false|untrue|invalid|ruled)\b"
    r"|[(\[]\s*[a-z]\s*[)\]]\s+(?:isn't|cannot|can't|does not|doesn't)\b",
    re.IGNORECASE,
)
_LONE_CAPITAL = re.compile(r"(?<![\w'])([A-Z])(?![\w'])")


def _letter(found: re.Match[str], text: str) -> str | None:
    if _HEDGE.match(text, found.end()):
        return None
    return (found["boxed"] or found["bare"] or found["capital"]).upper()


def read_choice(reply: str) -> str | None:
    """Return the option letter (upper case) that ``reply`` answers, or None where it names none or several.

    In this order: the reply is a letter; the reply opens with one; the last "answer is", "choose", "therefore"
    and the like is followed by one; one bracketed letter is left once the rejected ones ("not (A)", "(A) is
    wrong") are gone; one capital stands alone. "(A) or (B)" answers nothing.
    """
    alone = _ALONE.fullmatch(reply)
    if alone:
        return alone[1].upper()
    # Capitals matter after the bracket forms: an opening "a" or "i" is a word unless something closes it.
    leading = _LEADING.match(reply)
    if leading and (leading["capital"] is None or leading["capital"].isupper()):
        return _letter(leading, reply)
    marked = list(_MARKED.finditer(reply))
    if marked:
        return _letter(marked[-1], reply)
    for pattern in (_BOXED, _LONE_CAPITAL):
        letters = {letter.upper() for letter in pattern.findall(_REJECTED.sub(" ", reply))}
        if pattern is _LONE_CAPITAL:
            letters -= {"A", "I"}
        if letters:
            return letters.pop() if len(letters) == 1 else None
    return None
