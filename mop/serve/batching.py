"""Batching: many small requests for vectors become few calls of the encoder, off the event loop.

While one call is under way, texts gather for the next: the busier the server, the larger the batches, and nobody waits
for a batch to fill. Knows nothing of mixtures.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from mop.embeddings.encoders import Encoder, Vectors
from mop.serve.problems import Problem

#: Texts are cut to this many characters before they are encoded. Encoders take a few hundred to a few thousand tokens.
MOST_CHARACTERS = 32_768


@dataclass(eq=False, slots=True)
class _Waiting:
    texts: list[str]
    vectors: asyncio.Future[Vectors]
    #: The vectors of each piece that is encoded, by the place of its first text.
    parts: dict[int, Vectors] = field(default_factory=dict)
    taken: int = 0


@dataclass(frozen=True, slots=True)
class _Piece:
    """Texts of one request that are encoded in one call."""

    entry: _Waiting
    start: int
    texts: list[str]


class EncodeBatcher:
    """Encodes for many requests at once.

    Args:
        encoder: Called in threads of the batcher's own.
        most: Most texts in one call of the encoder; a request of more is encoded in pieces, in turn with the others.
        waiting: Most texts that wait; more are refused with status 429.
        threads: Calls of the encoder at the same time: one for weights in this process, whose tokenizer isn't made for
            more, several for an endpoint.
    """

    def __init__(self, encoder: Encoder, *, most: int = 64, waiting: int = 8192, threads: int = 1) -> None:
        self.encoder = encoder
        self._most, self._limit, self._threads = most, waiting, threads
        self._queue: deque[_Waiting] = deque()
        self._waiting = 0
        self._running = 0
        self._workers: set[asyncio.Task[None]] = set()
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="mop-encode")

    async def encode(self, texts: Sequence[str]) -> Vectors:
        """Return one vector for each text, shape (len(texts), dimension).

        Raises Problem (429) if too many wait, and whatever the encoder raises for these texts.
        """
        if self._waiting and self._waiting + len(texts) > self._limit:
            raise Problem(429, "overloaded", "Too many texts wait to be encoded; try again.", retry_after=1)
        entry = _Waiting([text[:MOST_CHARACTERS] for text in texts], asyncio.get_running_loop().create_future())
        self._queue.append(entry)
        self._waiting += len(entry.texts)
        for _ in range(min(self._threads - self._running, -(-len(entry.texts) // self._most) or 1)):
            self._running += 1
            worker = asyncio.create_task(self._work())
            self._workers.add(worker)
            worker.add_done_callback(self._workers.discard)
        return await entry.vectors

    def close(self) -> None:
        """Let go of the threads; batches under way end by themselves."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _work(self) -> None:
        try:
            while batch := self._next():
                await self._settle(batch)
        finally:
            # At once, not in the task's callback: between the two, a new text would wait for nobody.
            self._running -= 1

    async def _settle(self, batch: Sequence[_Piece]) -> None:
        try:
            await self._encode(batch)
        except Exception as error:  # noqa: BLE001  # it belongs to the requests that wait, not to this task
            if len(batch) == 1:
                _fail(batch[0].entry, error)
                return
            # One bad text must not fail the others: each gets its own try, once.
            for piece in batch:
                await self._settle([piece])

    def _next(self) -> list[_Piece]:
        """Take the texts of the next call; a request that isn't through goes to the end of the queue."""
        batch: list[_Piece] = []
        room = self._most
        while self._queue and room > 0:
            entry = self._queue.popleft()
            if entry.vectors.done():  # its caller has gone, or a piece has failed
                self._waiting -= len(entry.texts) - entry.taken
                continue
            piece = _Piece(entry, entry.taken, entry.texts[entry.taken : entry.taken + room])
            batch.append(piece)
            entry.taken += len(piece.texts)
            self._waiting -= len(piece.texts)
            room -= len(piece.texts)
            if entry.taken < len(entry.texts):
                self._queue.append(entry)
        return batch

    async def _encode(self, batch: Sequence[_Piece]) -> None:
        texts = [text for piece in batch for text in piece.texts]
        vectors = await asyncio.get_running_loop().run_in_executor(self._pool, self.encoder.encode, texts)
        if vectors.shape[:1] != (len(texts),) or not np.isfinite(vectors).all():
            raise Problem(502, "encoder_failed", "The encoder gave no usable vectors for the query.")
        start = 0
        for piece in batch:
            _give(piece, vectors[start : start + len(piece.texts)])
            start += len(piece.texts)


def _give(piece: _Piece, vectors: Vectors) -> None:
    entry = piece.entry
    entry.parts[piece.start] = vectors
    if not entry.vectors.done() and sum(len(part) for part in entry.parts.values()) == len(entry.texts):
        entry.vectors.set_result(np.concatenate([entry.parts[start] for start in sorted(entry.parts)]))


def _fail(entry: _Waiting, error: Exception) -> None:
    if not entry.vectors.done():
        entry.vectors.set_exception(error)
