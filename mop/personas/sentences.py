"""Sentences: where the sentences of an answer begin and end, without its code and quotations. Knows only texts.

>>> text = "Dr. Lee came. She left!"
>>> [text[one.start : one.end] for one in sentences(text)]
['Dr. Lee came.', 'She left!']
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_END = re.compile(r"[.!?…]+[\"”’')\]*_]*(?=\s|$)")
_ABBREVIATION = re.compile(
    r"(?:\b(?:Dr|Mr|Mrs|Ms|Prof|St|Jr|Sr|vs|etc|cf|approx|No|Fig|Vol|Inc|Ltd|Co)|\b(?:e\.g|i\.e|a\.k\.a|Ph\.D|M\.D)|"
    r"(?:^|\s|\()[A-Z])\.$"
)
_FENCE = re.compile(r"^[ \t]*(?:```|~~~)")
_QUOTATION = re.compile(r"\"[^\"]*\"|“[^”]*”|«[^»]*»")
_LEAD = re.compile(r"[ \t]*(?:#{1,6}[ \t]+|[-*+•][ \t]+|\d{1,3}[.)][ \t]+)?(?:\*\*|__)?")


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence at ``text[start:end]``; ``quoted`` says that it stands in code or in a quotation."""

    start: int
    end: int
    quoted: bool


def sentences(text: str) -> list[Sentence]:
    """Return the sentences of a text in order. A line end is an end too; marks of lists and headings are no part."""
    found = []
    code = False
    position = 0
    for line in text.splitlines(keepends=True):
        fence = _FENCE.match(line) is not None
        quoted = code or fence or line.lstrip().startswith(">") or line.startswith(("    ", "\t"))
        found += _in_line(text, position, position + len(line.rstrip("\r\n\v\f\x1c\x1d\x1e\x85\u2028\u2029")), quoted)
        code ^= fence
        position += len(line)
    return found


def without_quotations(sentence: str) -> str:
    """Return a sentence without what it quotes."""
    return _QUOTATION.sub("", sentence)


def _in_line(text: str, start: int, end: int, quoted: bool) -> list[Sentence]:
    lead = _LEAD.match(text, start, end)
    begin = lead.end() if lead else start
    line_start = begin
    found = []
    for match in _END.finditer(text, begin, end):
        if match.group().startswith(".") and _ABBREVIATION.search(
            text[max(start, match.start() - 12) : match.start() + 1]
        ):
            continue
        found.append((begin, match.end()))
        begin = match.end()
        while begin < end and text[begin].isspace():
            begin += 1
    if begin < end and text[begin:end].strip():
        found.append((begin, end))
    return [Sentence(one, two, quoted or _inside_quotes(text[line_start:one])) for one, two in found]


def _inside_quotes(before: str) -> bool:
    """Whether a quotation is still open after the text ``before``."""
    return before.count('"') % 2 == 1 or before.count("“") > before.count("”") or before.count("«") > before.count("»")
