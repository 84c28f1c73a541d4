"""Thoughts: what a reasoning model writes before its answer, where the endpoint hands it over with the answer."""

from __future__ import annotations

import re

_OPEN, _CLOSE = r"<think(?:ing)?>", r"</think(?:ing)?>"
#: One or several between their marks; the last may never end.
_THOUGHTS = re.compile(rf"(?:\s*{_OPEN}.*?(?:{_CLOSE}|\Z))+", re.DOTALL | re.IGNORECASE)
#: Up to the second mark, on a line of its own, where the prompt had the first one.
_END_OF_THOUGHT = re.compile(rf"\A(?:(?!<think).)*?^\s*{_CLOSE}\s*$", re.DOTALL | re.IGNORECASE | re.MULTILINE)
_ANYWHERE = re.compile(rf"{_OPEN}.*?(?:{_CLOSE}|\Z)", re.DOTALL | re.IGNORECASE)


def without_thought(text: str, *, anywhere: bool = False) -> str:
    """Return a reply without the thought before its answer; empty if the thought never ended.

    ``anywhere`` takes out what stands between the marks further on as well, which an answer may speak of but a verdict
    doesn't.

    >>> without_thought("<think>They want one word.</think>Paris")
    'Paris'
    """
    found = _THOUGHTS.match(text) or _END_OF_THOUGHT.match(text)
    rest = text[found.end() :].lstrip() if found else text
    return _ANYWHERE.sub("", rest) if anywhere else rest
