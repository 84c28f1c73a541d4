"""Asked: what a request for a student says, checked. A field that would change the answer and can't be had is refused.

Left out without a word are only fields that change nothing of an answer, such as ``user``. Knows nothing of models.

>>> read_chat(b'{"messages": [{"role": "user", "content": "hi"}], "max_tokens": 3}', most_tokens=256).max_tokens
3
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mop.serve.parsing import SYSTEM_ROLES, parse_chat, text_of
from mop.serve.problems import Problem, invalid

_HIGHEST_TEMPERATURE = 2.0
_MOST_STOPS = 16
#: Fields that would change an answer, with the values (beside null) at which they ask for nothing.
_REFUSED: Mapping[str, tuple[Any, ...]] = {
    "n": (1,),
    "top_p": (1,),
    "top_k": (),
    "min_p": (0,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "repetition_penalty": (1,),
    "logit_bias": ({},),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "tools": ([],),
    "functions": ([],),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
    "web_search_options": (),
}


@dataclass(frozen=True, slots=True)
class Asked:
    """One chat. ``query`` is the last user message, which is all that a gate looks at; ``seed`` is None if not given.

    ``include_usage`` asks for an event with the tokens at the end of a stream.
    """

    model: str | None
    messages: tuple[dict[str, str], ...]
    query: str
    max_tokens: int
    temperature: float
    seed: int | None
    stops: tuple[str, ...]
    stream: bool
    include_usage: bool


def read_chat(raw: bytes, *, most_tokens: int) -> Asked:
    """Read the body of a chat completion; ``most_tokens`` of an answer where the caller leaves it open.

    Raises Problem.
    """
    call = parse_chat(raw)
    fields = call.fields
    for name, harmless in _REFUSED.items():
        value = fields.get(name)
        if value is not None and (isinstance(value, bool), value) not in [(isinstance(x, bool), x) for x in harmless]:
            raise Problem(400, "unsupported_parameter", f"A student has no {name}; leave the field out.", param=name)
    options = fields.get("stream_options")
    if options is not None and not isinstance(options, dict):
        raise invalid("stream_options", "stream_options isn't an object; send one with include_usage, or none.")
    query = call.query()
    return Asked(
        call.model,
        tuple(_turn(message, place) for place, message in enumerate(call.messages)),
        query,
        _length(fields, most_tokens),
        _temperature(fields),
        _seed(fields),
        _stops(fields),
        call.stream,
        bool((options or {}).get("include_usage")),
    )


def _turn(message: Mapping[str, Any], place: int) -> dict[str, str]:
    role = "system" if message["role"] in SYSTEM_ROLES else message["role"]
    where = f"messages[{place}]"
    if role not in ("system", "user", "assistant"):
        raise invalid(f"{where}.role", f"{where}.role is {role[:40]!r}; a student knows system, user and assistant.")
    content = message.get("content")
    if isinstance(content, list) and any(part["type"] != "text" for part in content):
        raise invalid(f"{where}.content", f"{where}.content holds what isn't text; a student reads texts only.")
    text = text_of(message)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise invalid(f"{where}.content", f"{where}.content holds half of a surrogate pair; clean it.") from None
    return {"role": role, "content": text}


def _length(fields: Mapping[str, Any], most: int) -> int:
    for name in ("max_completion_tokens", "max_tokens"):
        value = fields.get(name)
        if value is None:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise invalid(name, f"{name} must be a whole number of at least 1.")
        return value
    return most


def _temperature(fields: Mapping[str, Any]) -> float:
    value = fields.get("temperature")
    if value is None:
        return 0.0
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= _HIGHEST_TEMPERATURE:
        raise invalid("temperature", f"temperature must be a number from 0 to {_HIGHEST_TEMPERATURE:g}.")
    return float(value)


def _seed(fields: Mapping[str, Any]) -> int | None:
    value = fields.get("seed")
    if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
        raise invalid("seed", "seed must be a whole number.")
    return value


def _stops(fields: Mapping[str, Any]) -> tuple[str, ...]:
    value = fields.get("stop")
    stops = [] if value is None else [value] if isinstance(value, str) else value
    if not isinstance(stops, list) or len(stops) > _MOST_STOPS or not all(isinstance(x, str) and x for x in stops):
        raise invalid("stop", f"stop must be a text, or a list of at most {_MOST_STOPS} texts with content.")
    return tuple(stops)
