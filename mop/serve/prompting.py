"""Prompting: puts an expert's prompt in front of a caller's request. Knows nothing of networks.

The expert's system instruction and demos come first, the same bytes for every request of this expert, so that the
upstream's prefix cache serves them; the caller's messages follow as they came: history, tool calls, images. Only the
model's name is exchanged, and the decoding that the caller leaves open is set as it was when the mixture was learned.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from mop.decoding import Decoding
from mop.prompts import Prompt
from mop.serve.parsing import SYSTEM_ROLES, Chat, Completion, text_of
from mop.serve.problems import Problem

#: What becomes of the caller's own system (or developer) messages. ``after``: they stay where they are, after the
#: expert's prefix, which keeps its bytes. ``merge``: their text is added to the expert's instruction, for chat
#: templates that take one system message only; the prefix is then stable for each text. ``drop``: they are left out.
CallerSystem = Literal["after", "merge", "drop"]
CALLER_SYSTEM: tuple[str, ...] = get_args(CallerSystem)
#: Fields that change what an answer is; where a request has one, the learned length and stops don't fit it.
_OTHER_ANSWERS = ("tools", "functions", "response_format")
_LENGTHS = ("max_tokens", "max_completion_tokens")


@dataclass(frozen=True, slots=True)
class Style:
    """How requests are made for one upstream model.

    Args:
        model: Its name at the upstream.
        decoding: Set where the caller leaves it open; ``None`` leaves it to the upstream.
        caller_system: What becomes of the caller's own system messages.
        length_field: What the upstream calls the most tokens of a chat's answer.
    """

    model: str
    decoding: Decoding | None
    caller_system: CallerSystem = "after"
    length_field: str = "max_tokens"


def chat_body(call: Chat, prompt: Prompt, style: Style) -> bytes:
    """Return the body for the upstream's chat completions."""
    messages = _messages(call.messages, prompt, style.caller_system)
    return _encoded({**call.fields, "messages": messages, **_open_fields(call.fields, style, style.length_field)})


def completion_body(call: Completion, prompts: Sequence[Prompt], style: Style) -> bytes:
    """Return the body for the upstream's completions: each text is asked in the block layout of its expert's prompt."""
    texts = [_block(prompt, text) for prompt, text in zip(prompts, call.prompts, strict=True)]
    filled = {"prompt": texts[0] if call.single else texts, **_open_fields(call.fields, style, "max_tokens")}
    return _encoded({**call.fields, **filled})


def _messages(caller: Sequence[Mapping[str, Any]], prompt: Prompt, rule: CallerSystem) -> list[Mapping[str, Any]]:
    if rule != "after":
        system = [text_of(message) for message in caller if message["role"] in SYSTEM_ROLES]
        caller = [message for message in caller if message["role"] not in SYSTEM_ROLES]
        if rule == "merge":
            prompt = replace(prompt, instruction="\n\n".join(filter(None, [prompt.instruction, *system])))
    if prompt.layout == "block":
        return _with_block(caller, prompt)
    head = prompt.messages("")[:-1]
    return [*({"role": role, "content": content} for role, content in head), *caller]


def _with_block(caller: Sequence[Mapping[str, Any]], prompt: Prompt) -> list[Mapping[str, Any]]:
    """Write the block around the last user message, whose images stay."""
    place = max(place for place, message in enumerate(caller) if message["role"] == "user")
    asked = caller[place]
    content: Any = _block(prompt, text_of(asked))
    if isinstance(asked.get("content"), list):
        others = [part for part in asked["content"] if part["type"] != "text"]
        content = [{"type": "text", "text": content}, *others]
    return [*caller[:place], {**asked, "content": content}, *caller[place + 1 :]]


def _block(prompt: Prompt, query: str) -> str:
    return replace(prompt, layout="block").messages(query)[0][1]


def _open_fields(fields: Mapping[str, Any], style: Style, length_field: str) -> dict[str, Any]:
    """Return the fields that are set for the caller."""
    filled: dict[str, Any] = {"model": style.model}
    decoding = style.decoding
    if decoding is None or any(fields.get(name) is not None for name in _OTHER_ANSWERS):
        return filled
    if all(fields.get(name) is None for name in _LENGTHS):
        filled[length_field] = decoding.max_tokens
    if fields.get("temperature") is None:
        filled["temperature"] = decoding.temperature
    if fields.get("stop") is None and decoding.stop:
        filled["stop"] = list(decoding.stop)
    return filled


def _encoded(body: Mapping[str, Any]) -> bytes:
    try:
        # Escapes keep what isn't text, such as half a surrogate pair, as it came.
        return json.dumps(body, allow_nan=False, separators=(",", ":")).encode()
    except (ValueError, RecursionError):
        raise Problem(400, "invalid_json", "The body holds a number too large, or is nested too deeply.") from None
