"""Answers: what an upstream's response means. Sends nothing; knows nothing of callers.

A good answer goes on byte for byte. Anything else becomes a `Problem`, and only there is the upstream's key removed: a
placeholder such as "test" may well be a part of the answer's words.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mop.lm.failures import retry_after
from mop.serve.problems import Problem

#: Statuses whose blame is the caller's parameters: passed on in the upstream's words.
_CALLERS = frozenset({400, 413, 422})
#: Statuses that pass when a server is back or has loaded its model.
_PASSING = frozenset({502, 503, 504, 529})
#: Seconds after which callers may ask again, where the upstream says nothing of it.
_LATER = 5
_MOST_WORDS = 400
_MOST_CODE = 64
#: A shorter key is no secret but a placeholder, and removing it would spoil words.
_SHORTEST_SECRET = 4


def read_answer(body: bytes, secret: str) -> Mapping[str, Any]:
    """Return the usage of a whole answer (empty if it has none); raises Problem if it isn't an answer."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        raise Problem(
            502, "upstream_malformed", f"The upstream's answer isn't JSON; it begins with {_start(body, secret)}."
        ) from None
    if not isinstance(value, dict):
        raise Problem(502, "upstream_malformed", "The upstream's answer is JSON, but not an object.")
    if value.get("error") and not value.get("choices"):
        raise error_body(value["error"], secret)
    if not isinstance(value.get("choices"), list):
        raise Problem(502, "upstream_malformed", "The upstream's answer has no choices. Does its URL end in /v1?")
    return usage_of(value)


def usage_of(value: Any) -> Mapping[str, Any]:
    """Return the usage object of an answer or of an event; empty if there is none."""
    usage = value.get("usage") if isinstance(value, dict) else None
    return usage if isinstance(usage, dict) else {}


def error_body(error: Any, secret: str) -> Problem:
    """Return the problem of an error that came with status 200."""
    return Problem(502, "upstream_error_body", f"The upstream answered with an error: {_words(error, secret)}.")


def refusal(status: int, headers: Mapping[str, str], body: bytes, secret: str) -> Problem:
    """Return the problem of a response with a status other than 200."""
    error = _error_of(body)
    said = _words(error, secret) if error is not None else _start(body, secret)
    wait = retry_after(headers)
    if status == 429:
        return Problem(
            429, "upstream_rate_limited", f"The upstream takes no more calls now: {said}.", retry_after=wait or 1
        )
    if status in _CALLERS:
        known = error if isinstance(error, dict) else {}
        code, param = known.get("code"), known.get("param")
        return Problem(
            status,
            redact(code, secret)[:_MOST_CODE] if isinstance(code, str) else "upstream_refused_parameters",
            redact(str(known.get("message") or said), secret)[:_MOST_WORDS],
            param=redact(param, secret)[:_MOST_WORDS] if isinstance(param, str) else None,
            label="upstream_refused_parameters",
        )
    if status in (401, 403):
        # Its words often hold a part of the key.
        return Problem(502, "upstream_refused", "The upstream refuses the server's key. Tell the server's operator.")
    if 300 <= status < 400:
        return Problem(502, "upstream_malformed", f"The upstream redirects (status {status}) in place of an answer.")
    if status == 408:
        return Problem(504, "upstream_timeout", f"The upstream says that it took too long: {said}.", retry_after=_LATER)
    if status < 500:
        return Problem(502, "upstream_refused", f"The upstream refused the call (status {status}): {said}.")
    return Problem(
        502,
        "upstream_failed",
        f"The upstream failed (status {status}): {said}.",
        retry_after=wait or (_LATER if status in _PASSING else None),
        again=status in _PASSING,
        wait=wait or 0.0,
    )


def redact(text: str, secret: str) -> str:
    """Return the text of an error without the upstream's key."""
    return text.replace(secret, "***") if len(secret) >= _SHORTEST_SECRET else text


def _error_of(body: bytes) -> Any:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    return value.get("error") or value.get("detail") or value.get("message")


def _words(error: Any, secret: str) -> str:
    if isinstance(error, dict):
        error = error.get("message") or error.get("detail") or error
    return redact(" ".join(str(error).split()), secret)[:_MOST_WORDS].rstrip(".")


def _start(body: bytes, secret: str) -> str:
    text = " ".join(redact(body[:2000].decode("utf-8", "replace"), secret).split())
    return repr(text[:80]) if text else "nothing"
