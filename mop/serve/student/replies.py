"""Replies: answers as the objects and events of the OpenAI API. Knows nothing of students."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from mop.serve.student.desk import Done


def whole(name: str, model: str, done: Done, text: str, *, prompt: int, mop: Mapping[str, Any]) -> dict[str, Any]:
    """Return a chat completion with ``text`` as its answer; ``prompt`` counts tokens, ``mop`` is a field of our own."""
    message = {"role": "assistant", "content": text, "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": done.reason}
    return {**_head(name, model, "chat.completion"), "choices": [choice], "usage": _usage(prompt, done.tokens),
            "mop": dict(mop)}  # fmt: skip


def chunk(
    name: str,
    model: str,
    delta: Mapping[str, Any],
    *,
    reason: str | None = None,
    mop: Mapping[str, Any] | None = None,
) -> bytes:
    """Return an event of a stream."""
    choice = {"index": 0, "delta": dict(delta), "logprobs": None, "finish_reason": reason}
    document = {**_head(name, model, "chat.completion.chunk"), "choices": [choice]}
    if mop is not None:
        document["mop"] = dict(mop)
    return b"data: " + json.dumps(document).encode() + b"\n\n"


def usage_chunk(name: str, model: str, *, prompt: int, completion: int) -> dict[str, Any]:
    """Return the last object of a stream whose caller asks for the tokens."""
    return {**_head(name, model, "chat.completion.chunk"), "choices": [], "usage": _usage(prompt, completion)}


def _head(name: str, model: str, kind: str) -> dict[str, Any]:
    return {"id": f"chatcmpl-{name}", "object": kind, "created": int(time.time()), "model": model}


def _usage(prompt: int, completion: int) -> dict[str, int]:
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
