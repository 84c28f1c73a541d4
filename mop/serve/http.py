"""HTTP: what every endpoint does around its own work, as ASGI. Knows nothing of mixtures.

An endpoint is a function of an `Exchange`. Here are the caller's key, the limits on a body's size and time, a caller
who goes away, errors as OpenAI-shaped bodies, and the counting.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import secrets
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Protocol

from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from mop.encoding import LOOPBACK
from mop.serve.admission import Admission
from mop.serve.keys import KeyRing
from mop.serve.limits import Limits
from mop.serve.metrics import Metrics
from mop.serve.problems import Problem
from mop.serve.streams import error_event

JSON = "application/json"
EVENTS = "text/event-stream; charset=utf-8"
#: What is read of a body that is refused anyway, at most.
_DRAIN_BYTES, _DRAIN_SECONDS = 64 * 1024 * 1024, 5.0
#: For the last words to a caller who may not be reading.
_LAST_WORDS_SECONDS = 1.0
#: What a caller on this machine calls it; the Host header has IPv6 addresses in brackets.
_LOOPBACK_HOSTS = frozenset(f"[{name}]" if ":" in name else name for name in LOOPBACK)
_PORT = re.compile(r":\d*$")
_log = logging.getLogger("mop.serve")


class Entrance(Protocol):
    """What a request passes on its way in, whoever answers it: see `mop.serve.gateway.Gateway`."""

    limits: Limits
    keys: KeyRing | None
    metrics: Metrics
    admission: Admission
    loopback: bool


class CallerGone(Exception):
    """The caller closed the connection; nobody waits for the answer."""


class Exchange:
    """One request and its response.

    ``mixture`` is the label of the metrics: the name of a served mixture, or empty as long as none was found.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope, self._receive, self._send = scope, receive, send
        self.headers = Headers(scope=scope)
        self.id = secrets.token_hex(8)
        self.began = time.perf_counter()
        self.first_byte: float | None = None
        self.streaming = False
        self.mixture = ""
        self.status = 0
        self.code = ""
        self.complete = False
        self._read = False

    @property
    def seconds(self) -> float:
        """Seconds since the request began."""
        return time.perf_counter() - self.began

    async def body(self, most: int) -> bytes:
        """Return the request's body; raises Problem if it is larger than ``most`` bytes."""
        too_large = Problem(413, "request_too_large", f"The body is larger than {most} bytes; send less text.")
        length = self.headers.get("content-length", "")
        if length.isdigit() and int(length) > most:
            raise too_large
        content = bytearray()
        while not self._read:
            content += await self._part()
            if len(content) > most:
                raise too_large
        return bytes(content)

    async def _part(self) -> bytes:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise CallerGone
        self._read = not message.get("more_body", False)
        return bytes(message.get("body", b""))

    async def _drain(self) -> None:
        """Read what is left of a refused body: most clients look for an answer only once they have sent everything."""
        if "expect" in self.headers:
            return
        left = _DRAIN_BYTES
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_SECONDS):
                while not self._read and left > 0:
                    left -= len(await self._part())

    async def gone(self) -> None:
        """Return when the caller has gone. The body must have been read."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def start(self, status: int, headers: Mapping[str, str]) -> None:
        """Send the status line and the headers."""
        self.status = status
        named = {**headers, "x-request-id": self.id}
        raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in named.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": raw})

    async def write(self, content: bytes, *, more: bool = False) -> None:
        """Send a part of the body."""
        if self.first_byte is None:
            self.first_byte = self.seconds
        self.complete = not more
        await self._send({"type": "http.response.body", "body": content, "more_body": more})

    async def respond(self, content: bytes, headers: Mapping[str, str] | None = None, status: int = 200) -> None:
        """Send a whole response."""
        length = {"content-type": JSON, "content-length": str(len(content))}
        await self.start(status, {**length, **(headers or {})})
        await self.write(content)

    async def fail(self, problem: Problem) -> None:
        """Tell the caller of a problem; in a stream, as its last event."""
        self.code = problem.label
        if self.streaming:
            await self.write(error_event(problem))
        elif self.status:
            # A part of a whole answer has been sent: only a broken connection says that the rest is missing.
            raise problem
        else:
            if problem.status != 408:
                await self._drain()
            headers = {} if problem.retry_after is None else {"retry-after": str(problem.retry_after)}
            if not self._read:  # the next request cannot begin before the rest of this one has come, if ever it does
                headers["connection"] = "close"
            await self.respond(problem.body, headers, problem.status)


Handler = Callable[[Exchange, bytes], Coroutine[Any, Any, None]]


class Endpoint:
    """An ASGI application that answers POST requests with ``handler``.

    ``name`` is its label in the metrics.
    """

    def __init__(self, gateway: Entrance, name: str, handler: Handler) -> None:
        self._gateway, self._name, self._handler = gateway, name, handler

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        exchange = Exchange(scope, receive, send)
        metrics = self._gateway.metrics
        try:
            await self._answer(exchange)
        except CallerGone:
            exchange.status, exchange.code = 499, "caller_gone"
        finally:
            metrics.requests.labels(self._name, exchange.mixture, str(exchange.status), exchange.code).inc()
            if exchange.mixture:
                metrics.seconds.labels(self._name, exchange.mixture).observe(exchange.seconds)
                if exchange.first_byte is not None and exchange.status == 200:
                    metrics.first_seconds.labels(exchange.mixture).observe(exchange.first_byte)

    async def _answer(self, exchange: Exchange) -> None:
        gateway = self._gateway
        try:
            admit(exchange.headers, gateway)
            with gateway.admission.place():
                gateway.metrics.held.inc()
                try:
                    await self._work(exchange)
                finally:
                    gateway.metrics.held.dec()
            if exchange.status == 200 and not exchange.code:
                gateway.admission.took(exchange.seconds)
        except Problem as problem:
            await exchange.fail(problem)
        except TimeoutError:
            message = f"The answer was not complete within {gateway.limits.seconds:g} s."
            await exchange.fail(Problem(504, "upstream_timeout", message, retry_after=1))
        except asyncio.CancelledError:
            # The server has been stopped and the time for its last answers is over: what is left to say is said.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LAST_WORDS_SECONDS):
                    await exchange.fail(
                        Problem(503, "stopping", "The server is being stopped; ask again.", retry_after=1)
                    )
        except CallerGone:
            raise
        except Exception:  # noqa: BLE001  # whatever it is, the caller gets an answer
            _log.exception("Request %s failed because of a defect.", exchange.id)
            message = f"The server has a defect; its log has it under {exchange.id}."
            await exchange.fail(Problem(500, "internal_error", message))

    async def _work(self, exchange: Exchange) -> None:
        limits = self._gateway.limits
        try:
            async with asyncio.timeout(limits.body_seconds):
                raw = await exchange.body(limits.body_bytes)
        except TimeoutError:
            raise Problem(
                408, "request_timeout", f"The request's body did not arrive within {limits.body_seconds:g} s."
            ) from None
        async with asyncio.timeout(limits.seconds):
            await _unless_gone(exchange, self._handler(exchange, raw))


def admit(headers: Headers, gateway: Entrance) -> None:
    """Raise Problem unless this caller may ask."""
    keys = gateway.keys
    if keys is None:
        # Without keys, any web page that the user opens could have the model work for it: from its own origin, or by
        # giving its own name the address of this machine.
        host = headers.get("host", "localhost").lower()
        if gateway.loopback and _PORT.sub("", host) not in _LOOPBACK_HOSTS:
            message = "This server answers to localhost only; run it with keys to have it answer to other names."
            raise Problem(403, "unknown_host", message)
        origin = headers.get("origin")
        if origin is not None and origin.partition("://")[2] != headers.get("host"):
            raise Problem(403, "cross_origin", "Web pages of other origins may not ask; run the server with keys.")
        return
    scheme, _, key = headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or keys.caller(key.strip()) is None:
        raise Problem(401, "invalid_api_key", "The API key is missing or wrong; send it as Authorization: Bearer KEY.")


async def _unless_gone(exchange: Exchange, work: Coroutine[Any, Any, None]) -> None:
    """Do the work; stop it when the caller goes away, so that it holds no place at the upstream."""
    task = asyncio.create_task(work)
    gone = asyncio.create_task(exchange.gone())
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if not task.done() and not exchange.complete:
            raise CallerGone
        await task
    finally:
        task.cancel()
        gone.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)
