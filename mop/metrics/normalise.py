"""Answers as comparable tokens. Knows nothing of scores: it only says which answers are the same answer.

Instruction Induction normalises by cutting at the first ".", and dropping every "-" and all punctuation. That suits
words and breaks everything else: 3.5 becomes 3.9's equal, -3 becomes 3, "[1, 2]" becomes "12", "] ]" becomes "".
So there are two ways to read an answer, and the accepted output decides which one applies:

>>> tokens("Ninety-Four, and a half.", formula=False)
('ninety', 'four', 'a', 'half')
>>> tokens("[1, -2]", formula=True)
('1', '-2')
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

_TYPOGRAPHY = str.maketrans(
    {"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "\u00a0": " "}
    | dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2212", "-")
)
#: An unsigned number: "1,234.5", "12", ".5". Elsewhere "." and "," are punctuation.
NUMBER = r"(?:(?<![\d.])\d{1,3}(?:,\d{3})+(?![\d,])|\d+)(?:\.\d+)?|(?<!\d)\.\d+"
_THOUSANDS = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?![\d,])")
_WORD = re.compile(r"[^\W\d_]{2,}")
_OPERATOR = re.compile(r"[+*/=<>^|~\\%#]|(?<![^\W\d_])-|-(?!\w)")
_SENTENCE_LABEL = re.compile(r"\bsentence [12]:", re.IGNORECASE)
_WRAPPERS = ("**", "__", "*", "`", '"', "'", "$")
_BRACKETS = {"[": "]", "(": ")", "{": "}"}
_CLOSING = frozenset(_BRACKETS.values())
_FORMULA_TOKEN = re.compile(rf"(?P<sign>(?<![\w)\]}}])[-+])?(?P<number>{NUMBER})|[^\W\d_]+|[^\w\s]|_")
_MARK = re.compile(r"(?P<name>(?<=\b[^\W\d_])(?:\+\+|#)(?!\w))|[^\w\s]|_")


def readings(prediction: str) -> tuple[str, ...]:
    """Return what may be meant as the answer in a reply: all of it, its first line, that line's first sentence.

    A reply that explains itself after the answer is still right, and so is one that gives a list line by line.
    A "." inside a number or an abbreviation does not end a sentence.
    """
    text = prediction.strip()
    line = first_line(text)
    sentence = re.split(r"\.(?!\w)", line, maxsplit=1)[0]
    return tuple(dict.fromkeys(reading for reading in (text, line, sentence) if reading.strip()))


def first_line(prediction: str) -> str:
    """Return the first line that isn't blank, or the empty string."""
    return prediction.strip().partition("\n")[0].strip()


def is_formula(output: str) -> bool:
    """Return whether an accepted output is to be read as a number, list or formula rather than as words.

    It is one when it has no word of two letters or more, and has a digit or an operator, or has no letter at all.
    """
    text = output.translate(_TYPOGRAPHY)
    if _WORD.search(text):
        return False
    inner = _unwrap(text)
    return any(c.isdigit() for c in inner) or bool(_OPERATOR.search(inner)) or not any(c.isalpha() for c in inner)


def tokens(text: str, *, formula: bool) -> tuple[str, ...]:
    """Return the tokens by which two answers are compared; equal tokens mean the same answer.

    Args:
        text: A reading of a reply, or an accepted output.
        formula: As `is_formula` says of the accepted output; the reply is read in the same way.

    Returns:
        With ``formula``: signed numbers, names and symbols, without list commas, without one pair of brackets round
        the whole and without a closing full stop. Else: lower-case words without punctuation, where "-", "_", "/"
        separate words as a space does, "and" is left out (as in the benchmark), and numbers keep sign and point.
    """
    plain = unicodedata.normalize("NFC", text).translate(_TYPOGRAPHY).lower()
    return _formula_tokens(_unwrap(plain)) if formula else _prose_tokens(plain)


def readings_as(output: str, prediction: str) -> Iterator[tuple[str, ...]]:
    """Yield the tokens of each reading of a reply, read as the output is; A+ and -x don't read as words."""
    formula = is_formula(output)
    for reading in readings(prediction):
        if formula or not is_formula(reading):
            yield tokens(reading, formula=formula)


def is_same(prediction: str, output: str) -> bool:
    """Return whether a reading of the reply has the tokens of the output."""
    return tokens(output, formula=is_formula(output)) in readings_as(output, prediction)


def _unwrap(text: str) -> str:
    """Take quotes, emphasis and a closing full stop off both ends."""
    while True:
        inner = text.strip().removesuffix(".").strip() or text.strip()
        for mark in _WRAPPERS:
            if len(inner) > 2 * len(mark) and inner.startswith(mark) and inner.endswith(mark):
                inner = inner[len(mark) : -len(mark)]
                break
        if inner == text:
            return text
        text = inner


def _prose_tokens(text: str) -> tuple[str, ...]:
    text = _SENTENCE_LABEL.sub(" ", text)
    text = _THOUSANDS.sub(lambda match: match[0].replace(",", ""), text)
    words = [word for word in _MARK.sub(_kept_in_prose, text).split() if word != "and"]
    return tuple(words or text.split())


def _kept_in_prose(mark: re.Match[str]) -> str:
    """Return what stands for a punctuation mark between words: itself, nothing, or a space."""
    text, start, end = mark.string, mark.start(), mark.end()
    left, right = text[max(0, start - 1) : start], text[end : end + 1]
    if mark["name"] or unicodedata.category(mark[0])[0] == "M":
        return mark[0]  # C++ and C# are not C; a vowel sign of Devanagari is part of its word
    if mark[0] in "'." and left.isalpha() and right.isalpha():
        return ""  # don't, U.S.
    sign_or_point = mark[0] in ".-" and not left.isalnum() and left not in _CLOSING
    if right.isdigit() and (sign_or_point or (mark[0] in ".-+*/^" and left.isdigit())):
        return mark[0]  # the sign or point of a number, or an operation on two
    return " "


def _formula_tokens(text: str) -> tuple[str, ...]:
    found: list[str] = []
    listed = "[" in text  # in a list, "100,200" is two numbers
    for match in _FORMULA_TOKEN.finditer(text.replace(",", ", ") if listed else text):
        sign, number = match["sign"], match["number"]
        if number:
            found.append(("-" if sign == "-" else "") + number.replace(",", ""))
        else:
            found.append(match[0])
    plain = [token for token in found if token not in {",", ";", '"', "'", "`", "$"}] or found
    if len(plain) > 2 and _BRACKETS.get(plain[0]) == plain[-1] and _closes_at_end(plain):
        plain = plain[1:-1]
    return tuple(plain)


def _closes_at_end(symbols: list[str]) -> bool:
    """Whether the first bracket is closed by the last one, so that taking both off leaves a balanced rest."""
    depth = 0
    for position, symbol in enumerate(symbols):
        depth += (symbol in _BRACKETS) - (symbol in _CLOSING)
        if depth == 0:
            return position == len(symbols) - 1
    return False
