"""Failures: what an error of the SDK means, and what to do about it. Sends nothing and waits for nothing."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

import openai

from mop.errors import ModelError
from mop.lm.wire import ErrorInBody, Malformed

#: Statuses other than 5xx that may go away by asking again.
TRANSIENT = frozenset({408, 409, 425, 429})
#: Statuses that say that there are too many calls; 429 may mean too many at once or too many in a minute.
OVERLOAD = frozenset({429, 503, 529})


@dataclass(frozen=True, slots=True)
class Trouble:
    """A failed attempt that may be repeated.

    ``kind`` is ``"status"``, ``"connection"``, ``"timeout"`` or ``"malformed"``; ``retry_after`` is in
    seconds. ``overload`` says that there are too many calls at once, ``rate`` that they came too fast.
    """

    kind: str
    text: str
    overload: bool = False
    rate: bool = False
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class Address:
    """Whom an error message talks about. ``key_source`` says in words where the API key came from."""

    url: str
    secret: str
    key_source: str

    def redact(self, text: str) -> str:
        """Return ``text``, at most 400 characters of it, without the API key."""
        return (text.replace(self.secret, "***") if len(self.secret) > 3 else text)[:400]


def trouble(error: Exception, model: str, address: Address) -> Trouble:
    """Return the trouble that ``error`` is, if asking again may help.

    Raises:
        ModelError: Asking again would not help; the message says what to do.
    """
    if isinstance(error, openai.APIStatusError):
        return _status(error, model, address)
    if isinstance(error, TimeoutError | openai.APITimeoutError):
        return Trouble("timeout", "no answer in time")
    if isinstance(error, openai.APIConnectionError):
        cause = error.__cause__
        return Trouble("connection", address.redact(f"connection error ({cause or error})"))
    if isinstance(error, ErrorInBody):
        return _in_body(error, model, address)
    if isinstance(error, Malformed):
        return Trouble("malformed", address.redact(f"the answer is malformed: {error}"))
    # What the SDK lets through when a body that should be JSON isn't.
    return Trouble("malformed", address.redact(f"the answer isn't JSON ({error})"))


def _status(error: openai.APIStatusError, model: str, address: Address) -> Trouble:
    status = error.status_code
    said = address.redact(_said(error))
    if error.code == "insufficient_quota":
        raise ModelError(f"{address.url} says that the quota is used up ({said}). Add credit or use another key.")
    if _passes(status):
        return _refused(status, said, retry_after(error.response.headers))
    raise ModelError(_advice(status, said, str(error.code), model, address))


def _in_body(error: ErrorInBody, model: str, address: Address) -> Trouble:
    """Return the trouble that an error with the status 200 is; raises ModelError as `trouble` does."""
    said = address.redact(str(error))
    if _passes(error.status):
        return _refused(error.status, said, None)
    raise ModelError(_advice(error.status, said, "", model, address))


def _passes(status: int) -> bool:
    return status in TRANSIENT or status >= 500


def _refused(status: int, said: str, pause: float | None) -> Trouble:
    return Trouble(
        "status", f"HTTP {status} ({said})", overload=status in OVERLOAD, rate=status == 429, retry_after=pause
    )


def _advice(status: int, said: str, code: str, model: str, address: Address) -> str:
    refused = f"{address.url} refused the call for model {model!r} with HTTP {status} ({said})."
    words = f"{code} {said}".lower()
    if status == 401:
        return (
            f"{refused} The API key is missing or wrong ({address.key_source}): set the environment variable "
            "MOP_API_KEY or OPENAI_API_KEY to a key of this endpoint."
        )
    if status == 403:
        return f"{refused} This key may not use the model: check its permissions, or use another key or model."
    if status in (404, 410):
        return (
            f"{refused} Check the model's name (it may have been retired), and that the base URL is right (it usually "
            "ends in /v1)."
        )
    if status == 413 or ("context" in words and any(w in words for w in ("length", "size", "window", "exceed"))):
        return (
            f"{refused} The prompt and max_tokens do not fit into the model's context: use fewer or shorter "
            "demos, a smaller max_tokens, or a model with a longer context."
        )
    return f"{refused} The request itself isn't accepted: change the setting that the endpoint names."


def _said(error: openai.APIStatusError) -> str:
    """Return the endpoint's own words, without the SDK's wrapping."""
    body: Any = error.body
    if isinstance(body, dict):
        body = body.get("message") or body.get("detail") or body.get("error") or body
    return " ".join(str(body if body is not None else error.message).split())


def _now(headers: Any) -> float:
    """Return the endpoint's own time, if it says it: the clock of this machine may be wrong by hours."""
    try:
        return parsedate_to_datetime(headers.get("date") or "").timestamp()
    except ValueError:
        return time.time()


def retry_after(headers: Any) -> float | None:
    """Return the seconds that the headers ask to wait: ``retry-after-ms``, or ``retry-after`` in seconds or a
    date.
    """
    for name, scale in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        value = headers.get(name)
        if value is None:
            continue
        try:
            seconds = float(value) / scale
        except ValueError:
            try:
                seconds = parsedate_to_datetime(value).timestamp() - _now(headers)
            except ValueError:
                continue
        if math.isfinite(seconds):
            return max(0.0, seconds)
    return None
