"""Fake upstream: the fake endpoint that can stream, break off in the middle, and take any message content.

>>> with FakeUpstream(pace=0.01) as upstream:
...     upstream.base_url.startswith("http://127.0.0.1:")
True

``python -m tests.fake_upstream`` serves in a process of its own and prints its base URL first.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from dataclasses import dataclass
from typing import Any

try:
    from fake_endpoint import FakeEndpoint, Fault, _Connection
except ImportError:  # as a module of the folder above
    from tests.fake_endpoint import FakeEndpoint, Fault, _Connection

USAGE = {"prompt_tokens": 20, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 12}}


@dataclass(frozen=True)
class StreamFault(Fault):
    """What happens to a stream: after ``after`` events ``tail`` is sent, then nothing (``hang``), or the end.

    The end is an orderly one with ``orderly``, otherwise the connection breaks.
    """

    after: int = 1
    tail: bytes = b""
    hang: bool = False
    orderly: bool = False


class FakeUpstream(FakeEndpoint):
    """Streams ``words`` words, ``pace`` seconds apart, where a stream is asked for."""

    words = 5
    pace = 0.0

    def __init__(self, *, words: int = 5, pace: float = 0.0, **options: Any) -> None:
        super().__init__(**options)
        self.words, self.pace = words, pace
        self._tasks: set[asyncio.Task[None]] = set()

    def _respond(self, connection: _Connection, path: str, body: dict[str, Any], fault: Fault | None) -> None:
        plain = fault is not None and not isinstance(fault, StreamFault) and (fault.drop or fault.raw is not None)
        if not body.get("stream") or plain:
            super()._respond(connection, path, body, fault)
            return
        task = self._loop.create_task(self._stream(connection, path, body, fault))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _chat(self, body: dict[str, Any]) -> dict[str, Any]:
        if "prompt" in body:
            prompts = body["prompt"] if isinstance(body["prompt"], list) else [body["prompt"]]
            choices: list[Any] = [
                {"index": place, "finish_reason": "stop", "text": self.answer([{"role": "user", "content": text}])}
                for place, text in enumerate(prompts)
            ]
            kind = "text_completion"
        else:
            message: dict[str, Any] = {"role": "assistant", "content": self.answer(body["messages"])}
            if "tools" in body:
                call = {"id": "call_1", "type": "function", "function": {"name": "look_up", "arguments": '{"x":1}'}}
                message = {"role": "assistant", "content": None, "tool_calls": [call]}
            choices = [{"index": 0, "finish_reason": "stop", "message": message}]
            kind = "chat.completion"
        return {"id": "1", "object": kind, "created": 0, "model": body["model"], "choices": choices, "usage": USAGE}

    async def _stream(self, connection: _Connection, path: str, body: dict[str, Any], fault: Fault | None) -> None:
        transport = connection.transport
        transport.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        events = self._events(path, body)
        limit = fault.after if isinstance(fault, StreamFault) else len(events)
        for event in events[:limit]:
            if self.pace:
                await asyncio.sleep(self.pace)
            if transport.is_closing():
                break
            _write(transport, event)
        if isinstance(fault, StreamFault):
            if fault.tail:
                _write(transport, fault.tail)
            if not fault.orderly:
                if not fault.hang:
                    transport.close()
                return
        transport.write(b"0\r\n\r\n")
        self.in_flight -= 1

    def _events(self, path: str, body: dict[str, Any]) -> list[bytes]:
        chat = path.endswith("/chat/completions")
        head = {"id": "1", "created": 0, "model": body["model"]}
        head["object"] = "chat.completion.chunk" if chat else "text_completion"
        values: list[dict[str, Any]] = []
        for number in range(self.words):
            text = f"word{number} "
            part: dict[str, Any] = {"delta": {"content": text}} if chat else {"text": text}
            values.append({**head, "choices": [{"index": 0, "finish_reason": None, **part}]})
        last: dict[str, Any] = {"delta": {}} if chat else {"text": ""}
        values.append({**head, "choices": [{"index": 0, "finish_reason": "stop", **last}]})
        if (body.get("stream_options") or {}).get("include_usage"):
            values.append({**head, "choices": [], "usage": USAGE})
        return [b"data: " + json.dumps(value).encode() + b"\n\n" for value in values] + [b"data: [DONE]\n\n"]


def _write(transport: asyncio.Transport, content: bytes) -> None:
    transport.write(f"{len(content):x}\r\n".encode() + content + b"\r\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--latency", type=float, default=0.0)
    parser.add_argument("--pace", type=float, default=0.0)
    parser.add_argument("--words", type=int, default=5)
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args()
    upstream = FakeUpstream(
        latency=options.latency, pace=options.pace, words=options.words, record=False, port=options.port
    )
    asyncio.run(upstream.serve(lambda url: print(url, flush=True)))


if __name__ == "__main__":
    main()
