"""Metrics on the answer that a reply arrives at: its last number, or the option that it chooses.

Knows nothing of words: an output that is neither a number nor an option letter is not for here.
"""

from __future__ import annotations

import re
from decimal import Context, Decimal

from mop.errors import DataError
from mop.metrics.normalise import NUMBER

_ARITHMETIC = Context(prec=50, traps=[])
_FINAL = re.compile(r"####|\\boxed\s*\{")
_NUMBER = re.compile(
    rf"(?P<sign>(?<![\w)\]}}])-\s?(?=[$€£\d.])|(?<==)\s*-\s*|(?<=\s)-(?=[$€£\d.]))?[$€£]?"
    rf"(?:(?P<whole>\d+)\s+(?=\d+/\d))?(?P<number>{NUMBER})"
    r"(?:(?P<exponent>e[-+]?\d{1,3})(?![\w.])|\s?/\s?(?P<divisor>\d+)(?!\d*[/.]\d))?",
    re.IGNORECASE,
)


def numbers(text: str) -> list[Decimal]:
    r"""Return the numbers in a text, in order; only those after the last ``####`` or ``\boxed{`` if there is one.

    Reads signs, decimal points, thousands commas, fractions ("2/3", "1 1/2"), exponents and currency signs. A "-"
    after an operand is a subtraction and not a sign; a "%" is left aside, so 50% is 50.

    >>> numbers("5-3 is 2, and -$1,200.50 is 1/2 of -2401")
    [Decimal('5'), Decimal('3'), Decimal('2'), Decimal('-1200.50'), Decimal('0.5'), Decimal('-2401')]
    """
    text = text.replace("\u2212", "-")
    markers = list(_FINAL.finditer(text))
    if markers:
        text = text[markers[-1].end() :]
        if markers[-1][0] != "####":
            text = text.partition("}")[0]
    return [_value(match) for match in _NUMBER.finditer(text)]


def _value(match: re.Match[str]) -> Decimal:
    value = Decimal(match["number"].replace(",", "") + (match["exponent"] or ""))
    if match["divisor"] and int(match["divisor"][:400]):
        value = _ARITHMETIC.divide(value, Decimal(match["divisor"]))
    value = _ARITHMETIC.add(value, Decimal(match["whole"] or 0))
    return _ARITHMETIC.minus(value) if match["sign"] else value


def numeric(prediction: str, output: str, *, absolute: str = "0", relative: str = "0") -> float:
    """Return 1 if the last number of the reply is the output's number, else 0.

    An output of several numbers asks for the same last numbers in the same order.

    Args:
        prediction: The reply.
        output: An accepted output.
        absolute: Largest allowed difference, as a decimal numeral.
        relative: Largest allowed difference as a share of the output's absolute value, as a decimal numeral.

    Raises:
        DataError: The output has no number.
    """
    wanted = numbers(output)
    if not wanted:
        raise DataError(
            f"The metric numeric needs a number in every accepted output, but one is {output!r}. "
            "Correct the example, or use another metric, such as exact_match."
        )
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


_OPTION_OUTPUT = re.compile(r"\W*([A-Za-z])\W*|\(?([A-Z])[).:]\s.+", re.DOTALL)
_WRONG = r"(?!\s*(?:is|are|was|would be|isn't|can't|cannot)?\s*(?:not\b|wrong|incorrect|false|n't))"
# A bare capital is an option unless it is the article or the pronoun, as in "A good answer" and "I think".
_LETTER = rf"(?:[(\[]\s*([A-Za-z])\s*[)\]]|([A-Z])(?![\w'])(?<!\bI)(?!(?<=\bA)\s+(?!because|since|as\b|for\b|is\b)[a-z])){_WRONG}"
_WHOLE = re.compile(r"\W*([A-Za-z])\W*")
_ANNOUNCED = re.compile(
    r"(?:\b(?i:(?:answer|choice|option)(?:\s+(?:is|would\s+be|must\s+be|should\s+be)|\s*[:=])|choose|pick|select|therefore,?|hence,?|thus,?|so,?|go\s+with|####)"
    rf"\s*:?\s*(?i:(?:the\s+)?(?:correct\s+)?(?:option|choice|answer|letter)\s*(?:is\b)?)?\s*{_LETTER})"
)
_LEADING = re.compile(rf"\W*?(?i:option\s+|answer\s+)?(?:{_LETTER}|([A-Za-z])\))")
_BRACKETED = re.compile(rf"(?<!\bnot )(?<!than )(?<!instead of )[(\[]\s*([A-Za-z])\s*[)\]]{_WRONG}")
