"""Wire: a request as the body of the OpenAI chat API, and what its answer says. Knows nothing of networks."""

from __future__ import annotations

import json
from typing import Any

from mop.lm.request import Reply, Request, Usage
from mop.prompts import TOKENS_PER_MESSAGE, estimate_tokens

#: Tokens that a chat template adds to a conversation at most: its frame, and a default system message if it
#: has one.
TEMPLATE_TOKENS = 64
#: Tokens that a chat template adds to one message at most.
MESSAGE_TOKENS = 16
#: No call has more tokens than this: a larger count is a mistake, and databases have no room for any number.
MOST_TOKENS = 10**9


class Malformed(Exception):
    """The endpoint answered with something that isn't an answer; the message says what."""


class ErrorInBody(Malformed):
    """An error in place of an answer, under the HTTP status 200; ``status`` is the one that the body names."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status


#: What gateways write for a status.
_NAMED = {"rate_limit_exceeded": 429, "rate_limit_error": 429, "overloaded_error": 529, "invalid_api_key": 401}


def chat_body(request: Request, length_field: str = "max_tokens") -> dict[str, Any]:
    """Return the body of a chat completion. ``length_field`` is the endpoint's name for the most tokens."""
    body: dict[str, Any] = json.loads(request.extra) if request.extra else {}
    body |= {
        "model": request.model,
        "messages": [{"role": role, "content": content} for role, content in request.messages],
        "temperature": request.temperature,
        length_field: request.max_tokens,
    }
    if request.top_p is not None:
        body["top_p"] = request.top_p
    if request.stop:
        body["stop"] = list(request.stop)
    if request.seed is not None:
        body["seed"] = request.seed + request.sample
    return body


def most_prompt_tokens(request: Request) -> int:
    """Return a number of tokens that the prompt cannot exceed: a token stands for one byte or more."""
    text = sum(len(content.encode()) + MESSAGE_TOKENS for _, content in request.messages)
    return text + TEMPLATE_TOKENS


def read_chat(answer: Any, request: Request) -> Reply:
    """Read the reply out of the decoded body of a chat completion; its ``seconds`` are left at 0.

    Raises:
        Malformed: The body has no choice, or no text in it.
        ErrorInBody: It is an error that names its status.
    """
    match answer:
        case {"choices": [{"message": dict() as message, **choice}, *_]}:
            pass
        case {"error": problem}:
            raise _error_in_body(problem)
        case {"choices": []}:
            raise Malformed("an empty list of choices")
        case _:
            raise Malformed(f"a body that isn't a chat completion: {answer!r:.120}")
    reason = choice.get("finish_reason")
    text = message.get("content")
    if text is None:
        text = message.get("refusal")
    if text is None and reason == "content_filter":
        text = ""
    usage = answer.get("usage")
    spoken = usage.get("completion_tokens") if isinstance(usage, dict) else None
    # An upstream that failed often says so with an empty text; a model that has nothing to say ends with a token.
    if text == "" and reason != "content_filter" and (reason == "length" or not spoken):
        text = None
    if not isinstance(text, str):
        hint = " (the reasoning used up max_tokens: raise it)" if reason == "length" else ""
        raise Malformed(f"a message without text{hint}")
    return Reply(
        text=_storable(text),
        usage=_usage(answer, request, text),
        finish_reason=_storable(reason)[:64] if isinstance(reason, str) else "unknown",
        key=request.key,
        from_ledger=False,
        seconds=0.0,
    )


def read_embeddings(answer: Any, count: int) -> list[list[float]]:
    """Read ``count`` vectors, in the order of the texts, out of the decoded body of an embeddings call.

    Raises:
        Malformed: There are fewer or more vectors, or they aren't lists of numbers.
    """
    try:
        rows = sorted(answer["data"], key=lambda row: int(row["index"]))
        vectors = [[float(value) for value in row["embedding"]] for row in rows]
    except (KeyError, TypeError, ValueError) as error:
        raise Malformed(f"a body that isn't a list of embeddings ({error!r})") from error
    if len(vectors) != count or [row["index"] for row in rows] != list(range(count)):
        raise Malformed(f"{len(vectors)} embeddings for {count} texts")
    return vectors


def _error_in_body(problem: Any) -> Malformed:
    """Return what an error in place of an answer is: that of a status, if it names one."""
    text = f"an error in place of an answer: {problem!r:.300}"
    fields = problem if isinstance(problem, dict) else {}
    for said in (fields.get("code"), fields.get("status"), fields.get("type")):
        status = _NAMED.get(said, said) if isinstance(said, str) else said
        if isinstance(status, str) and status.isascii() and status.isdigit():
            status = int(status)
        if isinstance(status, int) and 400 <= status <= 599:
            return ErrorInBody(text, status)
    return Malformed(text)


def _usage(answer: dict[str, Any], request: Request, text: str) -> Usage:
    """Return the usage as reported, or estimated from the texts for a server that reports none that can be."""
    match answer.get("usage"):
        case {"prompt_tokens": int(prompt), "completion_tokens": int(completion), **more} if (
            # No prompt has no tokens: a server that says so counts none, and a cap on tokens would hold nothing.
            0 < prompt <= MOST_TOKENS and 0 <= completion <= MOST_TOKENS
        ):
            details = more.get("prompt_tokens_details") or answer.get("timings") or {}
            # llama.cpp before it had prompt_tokens_details says cache_n among its timings.
            cached = details.get("cached_tokens", details.get("cache_n")) if isinstance(details, dict) else 0
            cached = cached if isinstance(cached, int) and 0 <= cached <= MOST_TOKENS else 0
            return Usage(prompt, min(cached, prompt), completion)
        case _:
            prompt = sum(estimate_tokens(content) + TOKENS_PER_MESSAGE for _, content in request.messages)
            return Usage(prompt, 0, estimate_tokens(_storable(text)))


def _storable(text: str) -> str:
    """Return ``text`` without what a database cannot hold: half surrogate pairs and NUL characters."""
    if "\0" in text:
        text = text.replace("\0", "�")
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
