"""Streams: server-sent events on their way from an upstream to a caller. Knows nothing of connections.

Whole lines go on as they came. A stream that breaks off ends with an event that holds an OpenAI-shaped error, which the
official clients raise; without it a cut answer would look like a short one.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Any

from mop.serve.answers import error_body, redact, usage_of
from mop.serve.problems import Problem

#: A line longer than this is no event.
_MOST_LINE = 16 * 1024 * 1024
#: How long the upstream has, once its answer is whole, to end the response so that the connection can be used again.
_END_SECONDS = 0.1


class Events:
    """The events of one answer.

    ``first`` must be awaited before the status is sent; then iterate. ``usage`` is what the upstream reported,
    ``problem`` why the stream ended early, once the iteration is over. An answer is whole after ``[DONE]``, or when as
    many ``choices`` as were asked for have finished; after ``[DONE]`` nothing that the upstream does matters.
    """

    def __init__(self, chunks: AsyncIterator[bytes], secret: str, idle_seconds: float, *, choices: int = 1) -> None:
        self._chunks = chunks
        self._secret = secret
        self._choices = choices
        self._idle = idle_seconds
        self._rest = b""
        self._head = b""
        self._blocks = self._lines()
        self._told = False  # whether the upstream's own error event has been passed on
        self._done = False  # whether [DONE] has come
        self._finished: set[int] = set()  # the choices that have a reason to be finished
        self.usage: Mapping[str, Any] = {}
        self.problem: Problem | None = None

    async def first(self) -> None:
        """Wait for the first event; raises Problem if it is an error, or if there is none."""
        async for lines in self._blocks:
            self._head += lines
            if b"data:" in self._head:
                if self.problem is not None:
                    raise self.problem
                return
        told = (self._head + self._rest).strip()
        if told.startswith(b"{"):  # no stream, whatever its type says
            self._look_at(told)
        raise self.problem or Problem(
            502, "upstream_malformed", "The upstream was asked for a stream and sent no event."
        )

    async def __aiter__(self) -> AsyncIterator[bytes]:
        head, self._head = self._head, b""
        yield head
        while self.problem is None and not self._done:
            try:
                async with asyncio.timeout(self._idle):
                    block = await anext(self._blocks)
            except StopAsyncIteration:
                if self._whole:
                    return
                self.problem = Problem(502, "upstream_dropped", "The upstream's stream ended before the answer did.")
            except TimeoutError:
                self.problem = Problem(504, "upstream_timeout", "The upstream's stream has stopped moving.")
            except Problem as problem:
                self.problem = problem
            else:
                yield block
                if self._told:
                    return
        if self.problem is not None:
            yield error_event(self.problem)
            return
        with contextlib.suppress(TimeoutError, Problem):
            async with asyncio.timeout(_END_SECONDS):
                async for _ in self._chunks:
                    pass

    @property
    def _whole(self) -> bool:
        return self._done or len(self._finished) >= self._choices

    async def _lines(self) -> AsyncGenerator[bytes, None]:
        async for chunk in self._chunks:
            whole, found, rest = (self._rest + chunk).rpartition(b"\n")
            self._rest = rest
            if len(rest) > _MOST_LINE:
                raise Problem(502, "upstream_malformed", "The upstream's stream has a line without end.")
            if found:
                yield self._passed(whole + found)
                if self._done:
                    return
        if self._rest:
            block = self._passed(self._rest)
            if self._whole:  # otherwise it's half a line
                yield block.rstrip(b"\n") + b"\n\n"

    def _passed(self, block: bytes) -> bytes:
        """Learn from lines, and return what of them goes on: all up to ``[DONE]``, errors without the key."""
        lines = block.split(b"\n")
        for place, line in enumerate(lines):
            self._look_at(line)
            if self._done:
                return b"\n".join(lines[: place + 1]) + b"\n\n"
            if self._told:
                lines[place] = redact(line.decode("utf-8", "surrogateescape"), self._secret).encode(
                    "utf-8", "surrogateescape"
                )
        return b"\n".join(lines)

    def _look_at(self, line: bytes) -> None:
        """Learn from a line how the answer stands; most lines are let pass without reading their JSON."""
        if line.rstrip() == b"data: [DONE]" or line.rstrip() == b"data:[DONE]":
            self._done = True
            return
        told = b'"usage"' in line or b'"error"' in line
        if not told and b'"finish_reason"' not in line:
            return
        try:
            value = json.loads(line.removeprefix(b"data:"))
        except (ValueError, RecursionError):
            return
        if not isinstance(value, dict):
            return
        self.usage = usage_of(value) or self.usage
        choices = value.get("choices")
        if value.get("error") and not choices:
            self.problem, self._told = error_body(value["error"], self._secret), True
        for one in choices if isinstance(choices, list) else ():
            if isinstance(one, dict) and one.get("finish_reason"):
                index = one.get("index", 0)
                self._finished.add(index if isinstance(index, int) else 0)


def error_event(problem: Problem) -> bytes:
    """Return the event that tells a caller that the stream has failed; the line feed ends what came before."""
    return b"\ndata: " + problem.body + b"\n\n"
