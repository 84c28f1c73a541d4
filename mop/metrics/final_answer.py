"""Metrics on the answer that a reply arrives at: its last number, or the option that it chooses.

Knows nothing of how close two wordings are: an output that is neither is only compared for being the same.
"""

from __future__ import annotations

import re
from decimal import Context, Decimal

from mop.metrics.normalise import NUMBER, is_same

_ARITHMETIC = Context(prec=50, traps=[])
_FINAL = re.compile(r"####|\\boxed\s*\{")
_LATEX_FRACTION = re.compile(r"\\[dt]?frac\s*\{\s*(\d+)\s*\}\s*\{\s*(\d+)\s*\}")
_NUMBER = re.compile(
    rf"(?P<sign>(?<![\w)\]}}])-|(?<==)\s*-\s*)?[$€£]?"
    rf"(?:(?P<whole>\d+)\s+(?=\d+/\d))?(?P<number>{NUMBER})"
    r"(?:(?P<exponent>e[-+]?\d{1,3})(?![\w.])|\s?/\s?(?P<divisor>\d+)(?!\d*[/.]\d))?",
    re.IGNORECASE,
)


def numbers(text: str) -> list[Decimal]:
    r"""Return the numbers in a text, in order; only those after the last ``####`` or ``\boxed{`` if there is one.

    Reads signs, decimal points, thousands commas, fractions ("2/3", "1 1/2"), exponents and currency signs. A "-"
    after an operand is a subtraction and not a sign; a "%" is left aside, so 50% is 50. A division by zero
    is no number.

    >>> numbers("5-3 is 2, and -$1,200.50 is 1/2 of -2401")
    [Decimal('5'), Decimal('3'), Decimal('2'), Decimal('-1200.50'), Decimal('0.5'), Decimal('-2401')]
    """
    text = _LATEX_FRACTION.sub(r"\1/\2", text.replace("\u2212", "-"))
    markers = list(_FINAL.finditer(text))
    if markers:
        text = text[markers[-1].end() :]
        if markers[-1][0] != "####":
            text = text.partition("}")[0]
    return [value for match in _NUMBER.finditer(text) if (value := _value(match)).is_finite()]


def _value(match: re.Match[str]) -> Decimal:
    value = Decimal(match["number"].replace(",", "") + (match["exponent"] or ""))
    if match["divisor"]:
        value = _ARITHMETIC.divide(value, Decimal(match["divisor"]))
    value = _ARITHMETIC.add(value, Decimal(match["whole"] or 0))
    return _ARITHMETIC.minus(value) if match["sign"] else value


def numeric(prediction: str, output: str, *, absolute: str = "0", relative: str = "0") -> float:
    """Return 1 if the last number of the reply is the output's number, else 0.

    An output of several numbers asks for the same last numbers in the same order, and one without any number, as some
    word problems have, for an exact match.

    Args:
        prediction: The reply.
        output: An accepted output.
        absolute: Largest allowed difference, as a decimal numeral.
        relative: Largest allowed difference as a share of the output's absolute value, as a decimal numeral.
    """
    wanted = numbers(output)
    if not wanted:
        return float(is_same(prediction, output))
    given = numbers(prediction)[-len(wanted) :]
    if len(given) < len(wanted):
        return 0.0
    return float(
        all(
            _ARITHMETIC.abs(_ARITHMETIC.subtract(a, b))
            <= max(Decimal(absolute), _ARITHMETIC.multiply(Decimal(relative), _ARITHMETIC.abs(b)))
            for a, b in zip(given, wanted, strict=True)
        )
    )


_BOXED = re.compile(r"\\boxed\s*\{\s*(?:\\text\w*\s*\{)?\W*([A-Za-z])\W*\}")
_ONLY = re.compile(r"\W*([A-Za-z])\W*")
_HEADED = re.compile(r"\W*(?:\(([A-Za-z])\)|([A-Z])[).:])\s.+", re.DOTALL)
# A bare capital is no option where it is the article or the pronoun, as in "A good answer" or "I think".
_OPTION = re.compile(
    r"\(\s*([A-Za-z])\s*\)|\[\s*([A-Z])\s*\]|(?<![\w'])([a-z])(?=\s*(?:[).:]|$))"
    r"|(?<![\w'])(A(?!\s+(?!because|since|as\b|for\b|is\b)[a-z])|I(?=\s*(?:[).:]|$))|[B-HJ-Z])(?![\w'])"
)
_LEAD = re.compile(r"\W*(?:(?:option|choice)\s+)?\W*", re.IGNORECASE)
_ANNOUNCEMENT = re.compile(
    r"(?:\b(?:answer|choice|option)\b\s*(?:(?:is|would\s+be|must\s+be|should\s+be)\b\s*:?|[:=])"
    r"|\b(?:it\s+(?:is|must\s+be)|it's|choose|pick|select|go\s+with)\b|\b(?:so|thus|hence|therefore)\b,?|####)"
    r"\s*(?:the\s+)?(?:option|choice|letter)?\s*$",
    re.IGNORECASE,
)
_OTHER = r"[(\[]?[A-HJ-Z]\b(?!\s+(?!and\b|or\b)[a-z])"
_REJECTED_BEFORE = re.compile(
    r"(?:\b(?:[Nn]ot|than|instead\s+of|except|unlike)\b|(?<!\w)[A-Z][)\]]?\s*(?:\bor\b|\band\b|,))\s*(?:option\s*)?$"
)
_REJECTED_AFTER = re.compile(
    r"\s*(?:(?:(?:is|are|was)\s+)?(?:not|wrong|incorrect|false)\b|(?:isn't|aren't|cannot|can't)\b"
    rf"|(?:\bor\b|\band\b|,)\s*{_OTHER})"
)
#: Characters on each side of a letter in which words can announce or reject it.
_WINDOW = 60


def multiple_choice(prediction: str, output: str) -> float:
    """Return 1 if the reply chooses the option letter of the output, else 0.

    An output names its option as "B", "(B)", "B." or "B. Paris". The reply chooses, in this order of precedence,
    the letter that is all of it, the last letter that it announces ("the answer is B"), the letter that it starts
    with, or the only letter in brackets. Letters that it rejects ("(A) is wrong") don't count, and a reply that
    names several or none chooses nothing: it is never given a letter by guess. An output that names no option, such
    as the option's text as a second accepted output, asks for an exact match.
    """
    named = _ONLY.fullmatch(output) or _HEADED.fullmatch(output)
    if named is None:
        return float(is_same(prediction, output))
    return float(_chosen(prediction) == _letter(named))


def _chosen(reply: str) -> str | None:
    """Return the capital letter of the option that a reply chooses, or None."""
    text = _BOXED.sub(r"answer: (\1)", reply).replace("*", "").replace("`", "").strip()
    if only := _ONLY.fullmatch(text):
        return _letter(only)
    mentions = [mention for mention in _OPTION.finditer(text) if not _rejected(mention)]
    announced = [mention for mention in mentions if _ANNOUNCEMENT.search(_before(mention))]
    if announced:
        return _letter(announced[-1])
    if mentions and _LEAD.fullmatch(text[: mentions[0].start()]):
        return _letter(mentions[0])
    bracketed = {_letter(mention) for mention in mentions if mention[0][0] in "(["}
    return bracketed.pop() if len(bracketed) == 1 else None


def _rejected(mention: re.Match[str]) -> bool:
    after = mention.string[mention.end() : mention.end() + _WINDOW]
    return bool(_REJECTED_BEFORE.search(_before(mention)) or _REJECTED_AFTER.match(after))


def _before(mention: re.Match[str]) -> str:
    return mention.string[max(0, mention.start() - _WINDOW) : mention.start()]


def _letter(match: re.Match[str]) -> str:
    return next(group for group in match.groups() if group).upper()
