"""Texts cut into comparable tokens. Knows nothing of scores or of what counts as an answer.

The benchmarks drop every punctuation mark, which makes 3.5 equal to 35 and -3 equal to 3. Here a mark that
belongs to a number (sign, decimal point, thousands comma) stays with it; all other marks only separate.

>>> lex('She paid -$1,200.50, not "3-4".')
['she', 'paid', '-1200.50', 'not', '3', '4']
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

#: Operators that tell answers apart in ordinary text: 1/2 is not 12, ``x < 5`` is not ``x > 5``.
TEXT_OPERATORS = "+/=<>^"
#: All operators, for texts that are nothing but mathematics.
MATH_OPERATORS = "+-*/=<>^%|&!~×÷"

_FOLD = str.maketrans(dict.fromkeys("−–—‐‑‒﹣－", "-") | dict.fromkeys("’‘‛´", "'"))
# ASCII punctuation (underscore included), Latin-1 marks, general punctuation, CJK and full-width marks. Letters
# are whatever is left, so that combining marks and emoji, which are neither \w nor punctuation, stay in a word.
_MARKS = (
    r"!-/:-@\[-`{-~\u00a1\u00ab\u00b7\u00bb\u00bf×÷\u2010-\u2027\u2030-\u205e\u3000-\u303f\uff01-\uff0f\uff1a-\uff20"
)
_WORD = rf"[^\s{_MARKS}]+(?:[+#]+(?![^\s{_MARKS}]))?"
_NUMBER = r"[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])(?:\.[0-9]+)?|[0-9]+(?:\.[0-9]+)+|(?<![0-9])\.[0-9]+"
# A hyphen is a sign where nothing stands before it that could be subtracted from: in "-3" but not in "12-18".
_SIGN = rf"(?<![\w)\]])-(?=\.?[0-9]|[^\W\d_](?![^\s{_MARKS}]))"

_SIGNED_MONEY = re.compile(r"(?<=-)[$€£¥](?=\.?[0-9])")
_LIST = re.compile(r"\[[^\[\]]*\]")
_INITIALS = re.compile(r"\b[^\W\d_](?:\.[^\W\d_])+\b\.?")
_INNER_APOSTROPHE = re.compile(r"(?<=\w)'(?=\w)")
_QUOTES = "\"'`“”„«»‹› \t\r\n"


def fold(text: str) -> str:
    """Return ``text`` in lower case with one kind of hyphen and apostrophe, and lists as ``[1, 2]``."""
    folded = unicodedata.normalize("NFC", text).translate(_FOLD).lower()
    folded = _LIST.sub(lambda found: found.group().replace(",", ", "), folded)
    return _SIGNED_MONEY.sub("", folded)


@lru_cache(maxsize=16)
def _pattern(operators: str) -> re.Pattern[str]:
    kept = rf"|[{re.escape(operators)}]" if operators else ""
    return re.compile(rf"(?:{_SIGN})?(?:{_NUMBER}|{_WORD}){kept}")


def lex(text: str, operators: str = "") -> list[str]:
    """Return the lower-cased words and signed numbers of ``text``, and the ``operators`` among its marks.

    A text of nothing but other marks (``] ] >``) gives those marks, one token each: they are its meaning.
    """
    folded = fold(text)
    tokens = _pattern(operators).findall(folded)
    if tokens:
        return [token.replace(",", "") for token in tokens]
    return [mark for mark in folded.strip(_QUOTES) or folded if not mark.isspace()]


@lru_cache(maxsize=8192)
def normalise(text: str) -> tuple[str, ...]:
    """Return the tokens by which answers are compared, after Instruction Induction's normalisation.

    As there: case, punctuation, hyphens and underscores, ``Sentence 1:`` and an inner "and" do not count. Not as
    there: numbers keep their sign and point, and nothing is cut off (see `readings` for that).

    >>> normalise("One hundred and twenty-two.") == normalise("one_hundred twenty two")
    True
    """
    folded = re.sub(r"\bsentence [12]:", " ", text, flags=re.IGNORECASE).strip() or text
    folded = _INITIALS.sub(lambda found: found.group().replace(".", ""), folded.translate(_FOLD))
    folded = _INNER_APOSTROPHE.sub("", folded)
    if re.match(r"\s*\+[0-9.,]+\s*$", folded):
        folded = folded.replace("+", "")
    tokens = lex(folded, TEXT_OPERATORS)
    last = len(tokens) - 1
    return tuple(token for place, token in enumerate(tokens) if token != "and" or place in (0, last))


_SENTENCE_END = re.compile(r"(?<=\S)\.(?=[\s\"'”’)*`]|$)")


def first_line(text: str) -> str:
    """Return the first line of ``text`` that is not blank, or an empty string."""
    return next((line.strip() for line in text.splitlines() if line.strip()), "")


def readings(prediction: str) -> tuple[tuple[str, ...], ...]:
    """Return the normal forms of what a reply may mean: all of it, its first line, that line's first sentence.

    The benchmark cuts every text at its first full stop, so 3.5 equals 3.9 and "Dr. Smith" equals "Dr. Jones".
    Here only a reply is cut, only where a sentence ends, and the uncut reply is tried too.
    """
    line = first_line(prediction)
    sentence = _SENTENCE_END.split(line, maxsplit=1)[0]
    return tuple(dict.fromkeys(map(normalise, (prediction, line, sentence))))
