"""Parsing: the bytes of a request's body to what routing needs of it. Knows nothing of mixtures or networks.

Only what routing needs is checked; every other field goes to the upstream as it came.

>>> parse_chat(b'{"model": "bank", "messages": [{"role": "user", "content": "hi"}], "top_k": 3}').fields["top_k"]
3
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from mop.serve.problems import Problem, invalid

#: Which user messages are the routed query: the last, the first, or all of them.
RouteOn = Literal["last", "first", "all"]
ROUTE_ON: tuple[str, ...] = get_args(RouteOn)
_KINDS = {bool: "true or false", int: "a number", float: "a number", str: "a text", list: "a list", dict: "an object"}
#: Roles of messages that instruct; ``developer`` is what newer models call it.
SYSTEM_ROLES = ("system", "developer")
#: Most texts of one /v1/route request, and most prompts of one /v1/completions request.
MOST_TEXTS, MOST_PROMPTS = 2048, 128


@dataclass(frozen=True, slots=True)
class Call:
    """What every request has. ``fields`` is the whole JSON object; ``model`` is None if it names none."""

    fields: dict[str, Any]
    model: str | None
    stream: bool


@dataclass(frozen=True, slots=True)
class Chat(Call):
    """A chat completion; ``messages`` are objects with a role, at least one of them the user's."""

    messages: list[dict[str, Any]]

    def query(self, route_on: RouteOn = "last") -> str:
        """Return the text to route: the parts of a message are joined by line feeds, images have no text."""
        users = [message for message in self.messages if message["role"] == "user"]
        chosen = users if route_on == "all" else [users[0 if route_on == "first" else -1]]
        return _routable("messages", "\n".join(text for message in chosen if (text := text_of(message))))


@dataclass(frozen=True, slots=True)
class Completion(Call):
    """A completion of one or more ``prompts``; ``single`` tells whether the prompt was one string."""

    prompts: tuple[str, ...]
    single: bool


@dataclass(frozen=True, slots=True)
class Routing(Call):
    """A question for the route of each of ``texts``; ``single`` tells whether the input was one string."""

    texts: tuple[str, ...]
    single: bool


def parse_object(raw: bytes) -> dict[str, Any]:
    """Return the JSON object in ``raw``; raises Problem if there is none."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Problem(
            400, "invalid_utf8", f"The body isn't UTF-8 ({error.reason} at byte {error.start}); send JSON in UTF-8."
        ) from None
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except RecursionError:
        raise Problem(400, "invalid_json", "The body is nested too deeply; send plain JSON.") from None
    except ValueError as error:  # JSONDecodeError, and numbers with thousands of digits
        raise Problem(400, "invalid_json", f"The body isn't JSON: {str(error)[:200]}.") from None
    if not isinstance(value, dict):
        raise Problem(400, "invalid_json", f"The body is {_kind(value)}; send a JSON object.")
    return value


def parse_chat(raw: bytes) -> Chat:
    """Read the body of a chat completion; raises Problem."""
    fields = parse_object(raw)
    messages = fields.get("messages")
    if not isinstance(messages, list) or not messages:
        raise invalid("messages", f"messages is {_kind(messages)}; send a list of at least one message.")
    for place, message in enumerate(messages):
        _check_message(message, f"messages[{place}]")
    if not any(message["role"] == "user" for message in messages):
        raise Problem(
            400, "no_user_message", "There is no message of role user, so there is nothing to route.", param="messages"
        )
    return Chat(fields, _model(fields), _stream(fields), messages)


def parse_completion(raw: bytes) -> Completion:
    """Read the body of a completion; raises Problem."""
    fields = parse_object(raw)
    prompts, single = _texts(fields, "prompt", MOST_PROMPTS)
    return Completion(fields, _model(fields), _stream(fields), prompts, single)


def parse_routing(raw: bytes) -> Routing:
    """Read the body of a question for routes; raises Problem, also for a field that there isn't."""
    fields = parse_object(raw)
    unknown = sorted(set(fields) - {"model", "input"})
    if unknown:
        raise Problem(
            400,
            "unknown_parameter",
            f"There is no field {unknown[0][:80]!r}; send model and input.",
            param=unknown[0][:80],
        )
    texts, single = _texts(fields, "input", MOST_TEXTS)
    for place, text in enumerate(texts):
        if not text.strip():
            raise invalid("input", f"Text {place} of the input is empty; send texts with content.")
    return Routing(fields, _model(fields), False, texts, single)


def text_of(message: Mapping[str, Any]) -> str:
    """Return a message's text; parts are joined by line feeds, those that aren't text are left out."""
    content = message.get("content")
    if isinstance(content, list):
        return "\n".join(part["text"] for part in content if part["type"] == "text")
    return content if isinstance(content, str) else ""


def _check_message(message: Any, where: str) -> None:
    if not isinstance(message, dict):
        raise invalid(where, f"{where} is {_kind(message)}; send an object with a role and a content.")
    if not isinstance(message.get("role"), str):
        raise invalid(f"{where}.role", f"{where}.role is {_kind(message.get('role'))}; send a text such as user.")
    content = message.get("content")
    if content is None or isinstance(content, str):
        return
    if not isinstance(content, list):
        raise invalid(f"{where}.content", f"{where}.content is {_kind(content)}; send a text or a list of parts.")
    for place, part in enumerate(content):
        here = f"{where}.content[{place}]"
        if not isinstance(part, dict) or not isinstance(part.get("type"), str):
            raise invalid(here, f"{here} isn't an object with a type, such as text or image_url.")
        if part["type"] == "text" and not isinstance(part.get("text"), str):
            raise invalid(f"{here}.text", f"{here}.text is {_kind(part.get('text'))}; send a text.")


def _texts(fields: Mapping[str, Any], name: str, most: int) -> tuple[tuple[str, ...], bool]:
    value = fields.get(name)
    single = isinstance(value, str)
    texts: Sequence[Any] = [value] if single else value if isinstance(value, list) else []
    if not texts or not all(isinstance(text, str) for text in texts):
        hint = " Token numbers cannot be routed." if any(isinstance(text, int | list) for text in texts) else ""
        raise invalid(name, f"{name} must be a text, or a list of texts with at least one.{hint}")
    if len(texts) > most:
        raise invalid(name, f"{name} holds {len(texts)} texts; send at most {most} at a time.")
    return tuple(_routable(name, text) for text in texts), single


def _routable(param: str, text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise invalid(param, f"{param} holds half of a surrogate pair, which is no text; clean it.") from None
    return text


def _model(fields: Mapping[str, Any]) -> str | None:
    model = fields.get("model")
    if model is not None and (not isinstance(model, str) or not model):
        raise invalid("model", f"model is {_kind(model)}; send the name of a mixture, as /v1/models lists them.")
    return model


def _stream(fields: Mapping[str, Any]) -> bool:
    stream = fields.get("stream")
    if stream is not None and not isinstance(stream, bool):
        raise invalid("stream", f"stream is {_kind(stream)}; send true or false.")
    return bool(stream)


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} isn't a JSON number")


def _kind(value: Any) -> str:
    """Return in words what a JSON value is, without its content."""
    if value is None:
        return "missing or null"
    empty = " without content" if isinstance(value, str | list | dict) and not value else ""
    return _KINDS[type(value)] + empty
