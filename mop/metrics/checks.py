"""Checks: whether an answer keeps to stated rules (length, phrases, form), by program. Knows nothing of models.

The rules are the accepted output of an example, a JSON object; each key is a check:

>>> passed("One short line.", '{"max_words": 5, "must_include": ["short"]}')
{'max_words': True, 'must_include': True}

The metric ``checks`` is the share of checks that pass, ``checks:all`` is 1 only if all do. Checks of this kind give
ground truth to tasks that have no single right answer (the idea of IFEval, arXiv 2311.07911).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from mop.errors import DataError
from mop.metrics.bounded import applies

_WORD = re.compile(r"\w+(?:['’-]\w+)*")
# Possessive, and only from the first of several marks: linear on any text.
_SENTENCE_END = re.compile(r"(?<![.!?…])[.!?…]++[\"'”’)\]]*+(?=\s|$)")
_NUMBERED = re.compile(r"^\s*(\d{1,9})[.)]\s+\S")
_BULLET = re.compile(r"^\s*[-*•]\s+\S")
_FENCE = re.compile(r"\A```[\w-]*\n(?P<body>.*?)\n?```\Z", re.DOTALL)


def count_words(text: str) -> int:
    """Return the number of words: runs of letters and digits, joined by apostrophes and hyphens."""
    return len(_WORD.findall(text))


def _lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip()]


def _sentences(text: str) -> int:
    ends = len(_SENTENCE_END.findall(text))
    tail = _SENTENCE_END.split(text)[-1]
    return ends + bool(_WORD.search(tail))


def _json_of(text: str) -> Any:
    """Return the JSON of an answer that is JSON and nothing else, perhaps in a code fence; raises ValueError."""
    try:
        return json.loads(_unfenced(text), parse_constant=_no_constant)
    except RecursionError as error:
        raise ValueError("nested too deep") from error


def _unfenced(text: str) -> str:
    text = text.strip()
    fenced = _FENCE.match(text)
    return fenced["body"] if fenced else text


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _is_json(text: str, wanted: bool) -> bool:
    try:
        _json_of(text)
    except ValueError:
        return not wanted
    return wanted


def _has_keys(text: str, keys: list[str]) -> bool:
    try:
        found = _json_of(text)
    except ValueError:
        return False
    return isinstance(found, dict) and set(keys) <= set(found)


def _fits_schema(text: str, schema: Mapping[str, Any]) -> bool:
    try:
        _json_of(text)
    except ValueError:
        return False
    return applies("json_schema", schema, _unfenced(text))


def _numbered(text: str, wanted: bool) -> bool:
    numbers = [int(match[1]) for line in _lines(text) if (match := _NUMBERED.match(line))]
    return (len(numbers) >= 2 and numbers == list(range(1, len(numbers) + 1))) == wanted


def _bulleted(text: str, count: int) -> bool:
    return sum(bool(_BULLET.match(line)) for line in _lines(text)) == count


def _includes(text: str, phrases: list[str]) -> bool:
    folded = text.casefold()
    return all(phrase.casefold() in folded for phrase in phrases)


def _avoids(text: str, phrases: list[str]) -> bool:
    """Whether none of the words or phrases stands in the text as a whole."""
    return not any(re.search(rf"(?<!\w){re.escape(phrase)}(?!\w)", text, re.IGNORECASE) for phrase in phrases)


def _case(text: str, wanted: str) -> bool:
    return text == (text.lower() if wanted == "lower" else text.upper())


#: Check → (what its value must be, function of the answer and the value).
_CHECKS: Mapping[str, tuple[str, Callable[[str, Any], bool]]] = MappingProxyType(
    {
        "min_words": ("count", lambda text, value: count_words(text) >= value),
        "max_words": ("count", lambda text, value: count_words(text) <= value),
        "min_sentences": ("count", lambda text, value: _sentences(text) >= value),
        "max_sentences": ("count", lambda text, value: _sentences(text) <= value),
        "lines": ("count", lambda text, value: len(_lines(text)) == value),
        "bullets": ("count", _bulleted),
        "must_include": ("texts", _includes),
        "must_not_include": ("texts", _avoids),
        "starts_with": ("text", lambda text, value: text.strip().casefold().startswith(value.casefold())),
        "ends_with": ("text", lambda text, value: text.strip().casefold().endswith(value.casefold())),
        "matches": ("pattern", lambda text, value: applies("matches", value, text)),
        "numbered": ("truth", _numbered),
        "json": ("truth", _is_json),
        "json_keys": ("texts", _has_keys),
        "json_schema": ("schema", _fits_schema),
        "case": ("case", _case),
    }
)
#: Names of the checks.
CHECKS = tuple(_CHECKS)


def passed(answer: str, rules: str) -> dict[str, bool]:
    """Return which checks of ``rules`` (a JSON object) the answer passes.

    An empty answer passes none, since most rules would hold for it without anything being said. Raises DataError if
    the rules can't be read.
    """
    checks = _read(rules)
    given = bool(answer.strip())
    return {name: given and _CHECKS[name][1](answer, value) for name, value in checks.items()}


def share_passed(answer: str, rules: str) -> float:
    """Return the share of checks that pass."""
    results = passed(answer, rules)
    return sum(results.values()) / len(results)


def all_passed(answer: str, rules: str) -> float:
    """Return 1.0 if every check passes, else 0.0."""
    return float(all(passed(answer, rules).values()))


@lru_cache(maxsize=4096)
def _read(rules: str) -> Mapping[str, Any]:
    try:
        checks = json.loads(rules)
    except (ValueError, RecursionError) as error:
        raise DataError(
            'The metric checks needs rules as the output of an example, such as {"max_words": 50}; '
            f"{rules[:80]!r} isn't JSON ({error})."
        ) from None
    if not isinstance(checks, dict) or not checks:
        raise DataError(f"The rules {rules[:80]!r} must be a JSON object with at least one check: {', '.join(CHECKS)}.")
    for name, value in checks.items():
        if name not in _CHECKS:
            raise DataError(f"There is no check {name!r}. Checks: {', '.join(CHECKS)}.")
        _check_value(name, _CHECKS[name][0], value)
    return MappingProxyType(checks)


def _check_value(name: str, kind: str, value: Any) -> None:
    wrong = _WRONG[kind](value)
    if wrong is not None:
        raise DataError(f"The check {name} needs {wrong}, but was given {value!r:.80}.")


def _wrong_count(value: Any) -> str | None:
    return None if type(value) is int and value >= 0 else "a whole number from 0 up"


def _wrong_truth(value: Any) -> str | None:
    return None if isinstance(value, bool) else "true or false"


def _wrong_text(value: Any) -> str | None:
    return None if isinstance(value, str) and value.strip() else "a text"


def _wrong_texts(value: Any) -> str | None:
    fine = isinstance(value, list) and value and not any(_wrong_text(one) for one in value)
    return None if fine else "a list of texts"


def _wrong_case(value: Any) -> str | None:
    return None if value in ("lower", "upper") else '"lower" or "upper"'


def _wrong_pattern(value: Any) -> str | None:
    try:
        re.compile(value)
    except (re.error, TypeError, OverflowError, RecursionError) as error:
        return f"a regular expression ({error})"
    return None


def _wrong_schema(value: Any) -> str | None:
    from jsonschema.exceptions import SchemaError
    from jsonschema.validators import validator_for

    if not isinstance(value, dict):
        return "a JSON schema"
    if any(not one.startswith("#") for one in _references(value)):
        return 'a JSON schema in one piece (each "$ref" within it, as in "#/$defs/item")'
    try:
        validator_for(value).check_schema(value)
    except SchemaError as error:
        return f"a JSON schema ({error.message})"
    applies("json_schema", value, None)
    return None


def _references(schema: Any) -> list[str]:
    """Return every ``$ref`` in a JSON schema."""
    if isinstance(schema, list):
        return [one for part in schema for one in _references(part)]
    if not isinstance(schema, dict):
        return []
    own = [schema["$ref"]] if isinstance(schema.get("$ref"), str) else []
    return own + [one for part in schema.values() for one in _references(part)]


#: What a check's value must be → function that says what it must be if a value isn't.
_WRONG: Mapping[str, Callable[[Any], str | None]] = {
    "count": _wrong_count,
    "truth": _wrong_truth,
    "text": _wrong_text,
    "texts": _wrong_texts,
    "case": _wrong_case,
    "pattern": _wrong_pattern,
    "schema": _wrong_schema,
}
