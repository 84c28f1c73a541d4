"""Thoughts: what a reasoning model writes before its answer, where the endpoint hands it over with the answer."""

from __future__ import annotations

import re

#: Between its marks, or, where the prompt opened it, up to the second.
_THOUGHT = re.compile(r"\s*<think(?:ing)?>.*?(?:</think(?:ing)?>|\Z)", re.DOTALL | re.IGNORECASE)
_END_OF_THOUGHT = re.compile(r"\A(?:(?!<think).)*?^\s*</think(?:ing)?>\s*$", re.DOTALL | re.IGNORECASE | re.MULTILINE)


def without_thought(text: str) -> str:
    """Return a reply without the thought before its answer; empty if the thought never ended.

    >>> without_thought("<think>They want one word.</think>Paris")
    'Paris'
    """
    found = _THOUGHT.match(text) or _END_OF_THOUGHT.match(text)
    return text[found.end() :].lstrip() if found else text
