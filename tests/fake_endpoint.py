"""Fake endpoint: a real HTTP server on loopback that speaks the OpenAI API and answers by rule, fast.

>>> with FakeEndpoint(answer=lambda messages: messages[-1]["content"].upper()) as endpoint:
...     endpoint.base_url.startswith("http://127.0.0.1:")
True

Without ``answer`` the text is a hash of the messages, so equal questions get equal answers. ``python -m
tests.fake_endpoint --latency 0.05`` serves in a process of its own and prints its base URL first; ``--answer
simulated`` answers as `tests.simulated` does, ``--journal FILE`` writes a line for each chat as it arrives and as it is
answered, ``--rate`` and ``--burst`` refuse what a token bucket doesn't allow, ``--failing`` is the share of chats that
fail in other ways, ``--outage 10 15`` answers 503 to all from the tenth second after the first chat to the fifteenth.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import random
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from socket import SO_LINGER, SOL_SOCKET
from typing import Any

Messages = list[dict[str, str]]


@dataclass(frozen=True)
class Fault:
    """What happens to one request in place of an answer.

    ``drop`` closes the connection without a word, ``reset`` so that the other side gets an error; ``delay`` seconds go
    before whatever follows; ``raw`` is sent as the body, with ``status`` and ``headers``. ``cut`` sends only so many
    bytes of the response and closes, ``drip`` sends a byte each so many seconds; ``head`` is sent as it is in
    place of a response, before the connection closes. Otherwise the answer is normal.
    """

    status: int = 200
    raw: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    drop: bool = False
    reset: bool = False
    cut: int | None = None
    drip: float = 0.0
    head: bytes | None = None

    @classmethod
    def error(cls, status: int, message: str = "no", code: str | None = None, **headers: str) -> Fault:
        body = {"error": {"message": message, "type": "error", "param": None, "code": code}}
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return cls(status, json.dumps(body).encode(), named)

    @classmethod
    def body(cls, value: Any, headers: dict[str, str] | None = None) -> Fault:
        return cls(raw=json.dumps(value).encode(), headers=headers or {})


#: What happens to the request of this number (from 0) with this body.
Rule = Callable[[int, dict[str, Any]], Fault | None]


def fingerprint(body: dict[str, Any]) -> str:
    """Return what tells one question from another: a hash of the messages and the fields that shape the answer."""
    messages = [[message["role"], message["content"]] for message in body["messages"]]
    asked = [body["model"], messages, body.get("max_tokens"), body.get("temperature"), body.get("stop") or []]
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:32]


class Bucket:
    """Refuses what a token bucket doesn't allow; use it as ``faults``.

    ``rate`` is in calls per second, ``burst`` the most that may be saved up. ``retry_after`` is what a refusal says:
    None for nothing, "whole" for the whole seconds until the next call is allowed, "exact" for milliseconds.
    """

    def __init__(self, rate: float, burst: float, retry_after: str | None = None) -> None:
        self.rate, self.burst, self.retry_after = rate, burst, retry_after
        self.allowed = self.refused = 0
        self._level, self._at = burst, time.monotonic()

    def __call__(self, _number: int, _body: dict[str, Any]) -> Fault | None:
        now = time.monotonic()
        self._level = min(self.burst, self._level + (now - self._at) * self.rate)
        self._at = now
        if self._level >= 1:
            self._level -= 1
            self.allowed += 1
            return None
        self.refused += 1
        wait = (1 - self._level) / self.rate
        headers = {"whole": {"retry_after": str(-int(-wait // 1))}, "exact": {"retry_after_ms": f"{1000 * wait:.0f}"}}
        return Fault.error(429, "slow down", "rate_limit_exceeded", **headers.get(self.retry_after or "", {}))


class Failing:
    """Fails a share of the chats in ways that pass; what ``otherwise`` says happens to the others."""

    def __init__(self, share: float, otherwise: Rule | None = None) -> None:
        self._rng, self._share, self._otherwise = random.Random(0), share, otherwise
        self._kinds = [Fault.error(500), Fault.error(502), Fault(drop=True), Fault(reset=True), Fault(cut=150)]

    def __call__(self, number: int, body: dict[str, Any]) -> Fault | None:
        if "messages" in body and self._rng.random() < self._share:
            return self._rng.choice(self._kinds)
        return self._otherwise(number, body) if self._otherwise else None


class Outage:
    """Answers 503 to all between two moments, in seconds after the first request; else what ``otherwise`` says."""

    def __init__(self, start: float, end: float, otherwise: Rule | None = None) -> None:
        self._start, self._end, self._otherwise = start, end, otherwise
        self._first: float | None = None

    def __call__(self, number: int, body: dict[str, Any]) -> Fault | None:
        now = time.monotonic()
        self._first = now if self._first is None else self._first
        if self._start <= now - self._first < self._end:
            return Fault.error(503, "try later")
        return self._otherwise(number, body) if self._otherwise else None


def hashed(messages: Messages) -> str:
    """Answer with the first 16 hex digits of the hash of the messages."""
    return hashlib.sha256(json.dumps(messages).encode()).hexdigest()[:16]


class FakeEndpoint:
    """Serves from a thread of its own while used as a context manager.

    Args:
        answer: The text for given messages.
        latency: Seconds before each answer.
        faults: One entry for each request in order of arrival, ``None`` for none; or a function of the
            request's number (from 0) and body.
        record: Keep bodies and headers.
        journal: File that gets a line ``+ fingerprint`` for each chat that arrives and ``-`` for each that is answered.

    ``served`` counts requests, ``bodies`` and ``headers`` hold them, ``most_in_flight`` is the highest
    concurrency seen.
    """

    def __init__(
        self,
        answer: Callable[[Messages], str] = hashed,
        *,
        latency: float = 0.0,
        faults: Iterable[Fault | None] | Rule = (),
        record: bool = True,
        port: int = 0,
        journal: str | None = None,
    ) -> None:
        self.answer = answer
        self.latency = latency
        self._faults = faults if callable(faults) else _from_script(iter(faults))
        self._record = record
        self._port = port
        self._journal = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND) if journal else None
        self.served = 0
        self.in_flight = 0
        self.most_in_flight = 0
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self.serve()), daemon=True)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._port}/v1"

    def __enter__(self) -> FakeEndpoint:
        self._thread.start()
        if not self._ready.wait(10):
            raise RuntimeError("The fake endpoint did not start.")
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    async def serve(self, announce: Callable[[str], None] = lambda _: None) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        server = await self._loop.create_server(lambda: _Connection(self), "127.0.0.1", self._port, backlog=512)
        self._port = server.sockets[0].getsockname()[1]
        self._ready.set()
        announce(self.base_url)
        await self._stop.wait()
        server.close()

    def handle(self, connection: _Connection, path: str, headers: bytes, raw: bytes) -> None:
        body = json.loads(raw)
        number = self.served
        self.served += 1
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        if self._record:
            self.bodies.append(body)
            pairs = (line.split(": ", 1) for line in headers.decode("latin-1").split("\r\n")[1:] if line)
            self.headers.append({name.lower(): value for name, value in pairs})
        self._note("+", body)
        fault = self._faults(number, body)
        delay = self.latency + (fault.delay if fault else 0.0)
        if delay:
            self._loop.call_later(delay, self._respond, connection, path, body, fault)
        else:
            self._respond(connection, path, body, fault)

    def _respond(self, connection: _Connection, path: str, body: dict[str, Any], fault: Fault | None) -> None:
        self.in_flight -= 1
        if connection.transport.is_closing():
            return
        connection.fault = fault
        if fault is not None and fault.drop:
            connection.transport.close()
        elif fault is not None and fault.reset:
            socket = connection.transport.get_extra_info("socket")
            socket.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
            connection.transport.abort()
        elif fault is not None and fault.head is not None:
            connection.transport.write(fault.head)
            connection.transport.close()
        elif fault is not None and fault.raw is not None:
            connection.reply(fault.status, fault.raw, fault.headers)
        elif path.endswith("/embeddings"):
            connection.reply(200, json.dumps(_embeddings(body)).encode(), {})
        else:
            self._note("-", body)
            connection.reply(200, json.dumps(self._chat(body)).encode(), {})

    def _note(self, sign: str, body: dict[str, Any]) -> None:
        if self._journal is not None and "messages" in body:
            os.write(self._journal, f"{sign} {fingerprint(body)}\n".encode())

    def _chat(self, body: dict[str, Any]) -> dict[str, Any]:
        text = self.answer(body["messages"])
        usage = {
            "prompt_tokens": sum(len(message["content"].encode()) // 4 + 4 for message in body["messages"]),
            "completion_tokens": len(text.encode()) // 4 + 1,
            "prompt_tokens_details": {"cached_tokens": 0},
        }
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
        return {
            "id": "chatcmpl-0",
            "object": "chat.completion",
            "created": 0,
            "model": body["model"],
            "choices": [choice],
            "usage": usage,
        }


def _from_script(script: Iterator[Fault | None]) -> Callable[[int, dict[str, Any]], Fault | None]:
    return lambda _number, _body: next(script, None)


def _embeddings(body: dict[str, Any]) -> dict[str, Any]:
    texts = body["input"]
    rows = [
        {"object": "embedding", "index": index, "embedding": [byte / 255 for byte in _digest(text)[:8]]}
        for index, text in enumerate(texts)
    ]
    # In reverse, because nothing promises the order.
    return {
        "object": "list",
        "model": body["model"],
        "data": rows[::-1],
        "usage": {"prompt_tokens": len(texts)},
    }


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


class _Connection(asyncio.Protocol):
    """One HTTP/1.1 connection, kept alive; takes requests with a Content-Length, one after the other."""

    transport: asyncio.Transport
    fault: Fault | None = None

    def __init__(self, endpoint: FakeEndpoint) -> None:
        self._endpoint = endpoint
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, rest = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return
        start = head.lower().find(b"content-length:")
        length = int(head[start + 15 :].split(b"\r\n", 1)[0])
        if len(rest) >= length:
            self._buffer = rest[length:]
            self._endpoint.handle(self, head.split(b" ", 2)[1].decode(), head, rest[:length])

    def reply(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        lines = {"content-type": "application/json", "content-length": str(len(body)), **headers}
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        response = f"HTTP/1.1 {status} X\r\n{head}\r\n".encode() + body
        if self.fault is not None and self.fault.cut is not None:
            self.transport.write(response[: self.fault.cut])
            self.transport.close()
        elif self.fault is not None and self.fault.drip:
            self._drip(response, self.fault.drip)
        else:
            self.transport.write(response)

    def _drip(self, left: bytes, pause: float) -> None:
        if left and not self.transport.is_closing():
            self.transport.write(left[:1])
            asyncio.get_running_loop().call_later(pause, self._drip, left[1:], pause)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--latency", type=float, default=0.0)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--answer", choices=["hashed", "simulated"], default="hashed")
    parser.add_argument("--journal")
    parser.add_argument("--rate", type=float)
    parser.add_argument("--burst", type=float, default=1.0)
    parser.add_argument("--retry-after", choices=["whole", "exact"])
    parser.add_argument("--failing", type=float, default=0.0)
    parser.add_argument("--outage", type=float, nargs=2)
    options = parser.parse_args()
    answer: Callable[[Messages], str] = hashed
    if options.answer == "simulated":
        from tests.simulated import nearest_demo_answer as answer
    rule: Rule | None = Bucket(options.rate, options.burst, options.retry_after) if options.rate else None
    rule = Outage(*options.outage, rule) if options.outage else rule
    rule = Failing(options.failing, rule) if options.failing else rule
    endpoint = FakeEndpoint(
        answer,
        latency=options.latency,
        record=False,
        port=options.port,
        journal=options.journal,
        faults=rule or (),
    )
    asyncio.run(endpoint.serve(lambda url: print(url, flush=True)))


if __name__ == "__main__":
    main()
