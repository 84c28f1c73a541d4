"""Upstream: one OpenAI-compatible endpoint that answers for mixtures. Knows nothing of callers or prompts.

A call that fails before anything of its answer was passed on is sent again for a while, so that an upstream may be
restarted under load: as long as no connection is to be had, and a few times when one breaks. What each response means
is in `mop.serve.answers`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx2

from mop.encoding import LOOPBACK
from mop.errors import MopError, SettingsError
from mop.lm.endpoint import check_url, is_openai, shown_url
from mop.serve.answers import read_answer, redact, refusal
from mop.serve.limits import Limits
from mop.serve.problems import Problem
from mop.serve.streams import Events

#: Attempts at a call whose connection broke; the upstream may have begun to work on it.
BROKEN_ATTEMPTS = 3
#: First and longest pause between attempts, in seconds.
PAUSE, LONGEST_PAUSE = 0.1, 2.0
#: What callers are told to wait: for an upstream that was tried in vain for a while, and for a broken connection.
_LATER, _AGAIN = 5, 1
_CONNECT_SECONDS = 10.0
_MOST_ANSWER = 64 * 1024 * 1024
_log = logging.getLogger("mop.serve")

T = TypeVar("T")
#: Called with each failed attempt.
OnTrouble = Callable[[Problem], None]


class Upstream:
    """An endpoint and its connections, used from one event loop.

    Args:
        base_url: Address up to and including ``/v1``.
        start: In place of it, a function that returns the address of a server on this machine, started if it doesn't
            run. Called in a thread before every attempt, so a server that died comes back.
        key: The API key; empty sends none. Only ever sent to the upstream.
        limits: Patience, and the most calls in flight.
        concurrency: Most calls in flight, if not those of ``limits``.

    Raises:
        SettingsError: The address cannot be used.
    """

    def __init__(
        self,
        base_url: str | None = None,
        *,
        start: Callable[[], str] | None = None,
        key: str = "",
        limits: Limits | None = None,
        concurrency: int | None = None,
    ) -> None:
        check_url(base_url)
        self._base_url = (base_url or "https://api.openai.com/v1").rstrip("/")
        try:
            httpx2.URL(self._base_url)
        except httpx2.InvalidURL as error:
            raise SettingsError(f"The upstream's address cannot be used: {error}.") from None
        self._start = start
        self._key = key
        self._limits = limits or Limits()
        self.concurrency = concurrency or self._limits.concurrency
        self.slots = asyncio.Semaphore(self.concurrency)
        self._client: httpx2.AsyncClient | None = None

    @property
    def local(self) -> bool:
        """Whether the upstream is the embedded model."""
        return self._start is not None

    @property
    def length_field(self) -> str:
        """What the upstream calls the most tokens of a chat's answer."""
        return "max_completion_tokens" if not self.local and is_openai(self._base_url) else "max_tokens"

    def __str__(self) -> str:
        return "the embedded model" if self.local else shown_url(self._base_url)

    async def answer(self, path: str, body: bytes, on_trouble: OnTrouble) -> tuple[bytes, Mapping[str, Any]]:
        """Return the bytes of an answer, and its usage; raises Problem."""

        async def attempt() -> tuple[bytes, Mapping[str, Any]]:
            response = await self._send(path, body)
            try:
                content = await self._whole(response)
            finally:
                await response.aclose()
            return content, read_answer(content, self._key)

        return await self._persist(attempt, on_trouble)

    @asynccontextmanager
    async def stream(self, path: str, body: bytes, on_trouble: OnTrouble, *, choices: int = 1) -> AsyncIterator[Events]:
        """Yield the events of an answer of so many ``choices``, the first at hand; raises Problem before that."""

        async def attempt() -> tuple[Events, httpx2.Response]:
            response = await self._send(path, body)
            try:
                if "text/event-stream" not in response.headers.get("content-type", "").lower():
                    read_answer(await self._whole(response), self._key)
                    raise Problem(502, "upstream_malformed", "The upstream was asked for a stream and sent none.")
                chunks = _translated(response.aiter_bytes())
                events = Events(chunks, self._key, self._limits.idle_seconds, choices=choices)
                await events.first()
            except BaseException:
                await response.aclose()
                raise
            return events, response

        async with AsyncExitStack() as stack:
            events, response = await self._persist(attempt, on_trouble)
            stack.push_async_callback(response.aclose)
            yield events

    async def aclose(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.aclose()

    async def _persist(self, attempt: Callable[[], Awaitable[T]], on_trouble: OnTrouble) -> T:
        loop = asyncio.get_running_loop()
        give_up = loop.time() + self._limits.retry_seconds
        pause, broken = PAUSE, 0
        while True:
            try:
                return await attempt()
            except Problem as problem:
                on_trouble(problem)
                broken += problem.label == "upstream_dropped"
                wait = max(pause, problem.wait)
                if not problem.again or broken >= BROKEN_ATTEMPTS or loop.time() + wait > give_up:
                    raise
            await asyncio.sleep(wait)
            pause = min(LONGEST_PAUSE, 2 * pause)

    async def _send(self, path: str, body: bytes) -> httpx2.Response:
        """Return a response of status 200 whose body is still to be read."""
        address = await self._address()
        if self._client is None:
            self._client = self._new_client(address)
        headers = {"content-type": "application/json", "accept-encoding": "identity", "user-agent": "mop"}
        if self._key:
            headers["authorization"] = f"Bearer {self._key}"
        try:
            request = self._client.build_request("POST", address + path, content=body, headers=headers)
            response = await self._client.send(request, stream=True)
        except httpx2.HTTPError as error:
            raise _trouble(error) from None
        if response.status_code == 200:
            return response
        try:
            content = await self._whole(response)
        finally:
            await response.aclose()
        if response.status_code in (401, 403):
            _log.error("The upstream %s refuses the key (status %d).", self, response.status_code)
        raise refusal(response.status_code, response.headers, content, self._key)

    async def _address(self) -> str:
        if self._start is None:
            return self._base_url
        try:
            return await asyncio.to_thread(self._start)
        except MopError as error:
            _log.error("The embedded model cannot be started: %s", redact(str(error), self._key))
            raise Problem(
                502,
                "upstream_unreachable",
                "The embedded model cannot be started; the server's log says why.",
                retry_after=_LATER,
            ) from None

    async def _whole(self, response: httpx2.Response) -> bytes:
        content = bytearray()
        async for chunk in _translated(response.aiter_bytes()):
            content += chunk
            if len(content) > _MOST_ANSWER:
                raise Problem(502, "upstream_malformed", "The upstream's answer is larger than any answer.")
        return bytes(content)

    def _new_client(self, address: str) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(
            # Everything but the connection is bounded by the request's own time.
            timeout=httpx2.Timeout(None, connect=_CONNECT_SECONDS),
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=self.concurrency),
            # A proxy of the environment must not be asked for the loopback.
            trust_env=urlsplit(address).hostname not in LOOPBACK,
        )


async def _translated(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    try:
        async for chunk in chunks:
            yield chunk
    except httpx2.HTTPError as error:
        raise _trouble(error) from None


def _trouble(error: httpx2.HTTPError) -> Problem:
    """Return the problem of a connection; the error's own words may hold the address, which isn't the caller's."""
    if isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.ProxyError):
        return Problem(
            502,
            "upstream_unreachable",
            "The upstream cannot be reached; try again later.",
            retry_after=_LATER,
            again=True,
        )
    if isinstance(error, httpx2.TimeoutException):
        return Problem(504, "upstream_timeout", "The upstream did not answer in time.", retry_after=_LATER)
    if isinstance(error, httpx2.DecodingError):
        return Problem(502, "upstream_malformed", "The upstream's answer is compressed in a damaged way.")
    return Problem(
        502,
        "upstream_dropped",
        "The upstream closed the connection before its answer was whole.",
        retry_after=_AGAIN,
        again=True,
    )
