"""Endpoint: sends one call until it is answered. Knows nothing of ledgers, budgets or what the calls are
about.

Retries are bounded three times over: by a deadline for the call with all its attempts, by a small number of
malformed answers, and by a small number of refused connections while the endpoint has never answered at all.
A pause is what the endpoint asked for, or grows exponentially; its jitter comes from the request, not from a
random generator.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx2
import openai

from mop.errors import ModelError, ModelUnavailable, SettingsError
from mop.gate import passing
from mop.lm.failures import Address, Trouble, trouble
from mop.lm.limiter import AdaptiveLimiter
from mop.lm.wire import Malformed

#: Where OpenAI itself answers.
OPENAI_URL = "https://api.openai.com/v1"
#: Attempts at a call whose answers are malformed.
MALFORMED_ATTEMPTS = 3
#: Attempts to connect to an endpoint that has never answered.
FIRST_CONNECTS = 5
#: First and longest pause between attempts, in seconds, if the endpoint names none.
PAUSE, LONGEST_PAUSE = 0.5, 30.0

T = TypeVar("T")


def choose_key(base_url: str | None, given: str | None, environment: Mapping[str, str]) -> tuple[str, str]:
    """Return the API key for an endpoint, and where it came from in words that don't contain it.

    An endpoint other than OpenAI's may need no key; it gets the word ``none``.

    Raises:
        SettingsError: OpenAI's own endpoint is meant and there is no key, or the key cannot be sent in a
            header.
    """
    found = [("given by the caller", given)]
    found += [(f"taken from {name}", environment.get(name)) for name in ("MOP_API_KEY", "OPENAI_API_KEY")]
    for source, value in found:
        if value is not None and value.strip():
            key = value.strip()
            if not (key.isascii() and key.isprintable()):
                raise SettingsError(f"The API key ({source}) has characters that no key has; copy it once more.")
            return key, source
    if is_openai(base_url):
        raise SettingsError(
            "No API key for OpenAI: set the environment variable OPENAI_API_KEY or MOP_API_KEY, give "
            "the base URL of another endpoint, or use a local model (local/…), which needs none."
        )
    return "none", "none was given"


def is_openai(base_url: str | None) -> bool:
    """Return whether ``base_url`` is OpenAI's own endpoint (``None`` is)."""
    host = urlsplit(base_url).hostname if base_url else "api.openai.com"
    return host is not None and (host == "openai.com" or host.endswith(".openai.com"))


def check_url(base_url: str | None) -> None:
    """Check that a base URL can be used.

    Raises:
        SettingsError: It isn't an absolute http or https URL.
    """
    if base_url is not None:
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise SettingsError(
                f"The base URL {base_url!r} cannot be used; give one like https://host/v1 or http://127.0.0.1:8080/v1."
            )


def shown_url(base_url: str | None) -> str:
    """Return the URL without user, password and query, which may hold secrets."""
    parts = urlsplit(base_url or OPENAI_URL)
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{parts.hostname}{port}{parts.path}"


class Endpoint:
    """One OpenAI-compatible endpoint, used from one event loop.

    Args:
        base_url: Address up to and including ``/v1``, or ``None`` for OpenAI's.
        api_key: The key, and ``key_source`` where it came from, in words.
        concurrency: Most calls in flight.
        timeout: Seconds for one attempt.
        deadline: Seconds for a call with all its attempts.
    """

    def __init__(
        self,
        base_url: str | None,
        api_key: str,
        key_source: str,
        *,
        concurrency: int,
        timeout: float,
        deadline: float,
    ) -> None:
        self.limiter = AdaptiveLimiter(concurrency)
        self.attempts = 0
        self._timeout = timeout
        self._deadline = deadline
        self._answered = False
        self._address = Address(shown_url(base_url), api_key if api_key != "none" else "", key_source)
        self._openai = openai.AsyncOpenAI(
            base_url=base_url or OPENAI_URL,
            api_key=api_key,
            max_retries=0,
            http_client=openai.DefaultAsyncHttpx2Client(
                timeout=httpx2.Timeout(timeout, connect=min(timeout, 10.0)),
                limits=httpx2.Limits(max_connections=None, max_keepalive_connections=concurrency),
            ),
        )

    async def post(
        self, path: str, body: Mapping[str, Any], read: Callable[[Any], T], *, model: str, jitter: float = 0.0
    ) -> tuple[T, float]:
        """Send ``body`` until ``read`` makes sense of the answer; return what it read, and the seconds that
        it took.

        ``read`` gets the decoded JSON and raises `Malformed` if it isn't what it should be. ``jitter``, in
        [0, 1), spreads the pauses of different calls.

        Raises:
            ModelError: The endpoint refuses the call, or keeps answering what isn't an answer.
            ModelUnavailable: The endpoint failed until the deadline.
        """
        loop = asyncio.get_running_loop()
        started: float | None = None
        attempt = malformed = 0
        problem: Trouble | None = None
        while True:
            async with self.limiter.slot(first=attempt > 0) as slot, passing():
                begun = loop.time()
                started = begun if started is None else started
                if problem is not None and begun >= started + self._deadline:
                    # The wait for a slot took the rest: a call that nobody waits for may still be billed.
                    raise self._late(model, attempt, problem)
                self.attempts += 1
                attempt += 1
                left = started + self._deadline - begun
                try:
                    async with asyncio.timeout(max(0.001, min(self._timeout, left))):
                        answer: Any = await self._openai.post(path, cast_to=object, body=body)
                    value = read(json.loads(answer) if isinstance(answer, str) else answer)
                except (openai.APIError, TimeoutError, Malformed, ValueError) as error:
                    # The original isn't chained: its request and text may hold the API key.
                    trouble = self._trouble(error, model)
                    if trouble.overload:
                        slot.throttled(trouble.retry_after, rate=trouble.rate)
                    if isinstance(error, TimeoutError) and problem is not None and left < self._timeout:
                        # The deadline cut this attempt short; the failure before it says more of the endpoint.
                        raise self._late(model, attempt, problem) from None
                    problem = trouble
                else:
                    self._answered = True
                    slot.succeeded()
                    return value, loop.time() - begun
            malformed += problem.kind == "malformed"
            if malformed >= MALFORMED_ATTEMPTS:
                raise ModelError(
                    f"{self._address.url} gave no usable answer for model {model!r} in {malformed} attempts: "
                    f"{problem.text}. Check that it speaks the OpenAI API and that the model answers chats."
                )
            if problem.kind == "connection" and not self._answered and attempt >= FIRST_CONNECTS:
                raise ModelUnavailable(
                    f"{self._address.url} cannot be reached ({problem.text}, {attempt} attempts). Check "
                    "the base URL and that the server runs; then run the same command again."
                )
            pause = min(LONGEST_PAUSE, PAUSE * 2.0 ** min(attempt - 1, 10)) * (1.0 - jitter / 4)
            pause = max(pause, problem.retry_after) if problem.retry_after is not None else pause
            if loop.time() + pause >= started + self._deadline:
                raise self._late(model, attempt, problem)
            await asyncio.sleep(pause)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._openai.close()

    def _late(self, model: str, attempts: int, last: Trouble) -> ModelUnavailable:
        return ModelUnavailable(
            f"{self._address.url} did not answer for model {model!r} within {self._deadline:g} s "
            f"({attempts} attempts; the last: {last.text}). Run the same command again later: "
            "replies so far are kept and not paid for twice."
        )

    def _trouble(self, error: Exception, model: str) -> Trouble:
        try:
            return trouble(error, model, self._address)
        except ModelError as final:
            raise final from None
