"""Desk: where requests wait for a student, which answers several at a time in a thread of its own.

The gate decides in that thread too, at the beginning of a batch: its look at the first layer mustn't meet an answer
that is being written. While a batch is written, the next gathers. A caller who goes away frees the batch of his answer.
Knows nothing of HTTP.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from mop.errors import MopError
from mop.serve.problems import Problem
from mop.serve.student.growing import Growing
from mop.students.generating import write
from mop.students.opening import OpenStudent

_log = logging.getLogger("mop.serve")


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether the adapter answers, and the gate's probability that it should; None where no gate was asked."""

    on: bool
    probability: float | None


@dataclass(frozen=True, slots=True)
class Done:
    """The end of an answer: its whole text, why it ended (``stop`` or ``length``), and its tokens."""

    text: str
    reason: str
    tokens: int


@dataclass(eq=False, slots=True)
class Job:
    """One answer to be written; ``bare`` keeps the adapter off, whatever the gate would say.

    Told are, through `next`: the Decision; with ``pieces`` the texts of the answer as they come; Done.
    """

    ids: list[int]
    query: str
    max_tokens: int
    temperature: float
    seed: str
    growing: Growing
    pieces: bool = False
    bare: bool = False
    gone: bool = False
    decision: Decision | None = None
    told: asyncio.Queue[Decision | str | Done | Exception] = field(default_factory=asyncio.Queue)

    async def next(self) -> Decision | str | Done:
        """Return what is told next; raises what went wrong."""
        found = await self.told.get()
        if isinstance(found, Exception):
            raise found
        return found


class Desk:
    """Answers jobs.

    Args:
        opened: The student.
        batch: Most answers that are written together. With 1 an answer doesn't depend in any bit on what others ask;
            with more, rows of other lengths beside it move its sums by rounding.
    """

    def __init__(self, opened: OpenStudent, *, batch: int) -> None:
        self.opened, self.batch = opened, batch
        self._queue: deque[Job] = deque()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="mop-student")
        self._running: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def answering(self, job: Job) -> AsyncIterator[Job]:
        """Have a job done while inside; whoever leaves early doesn't want its answer any more."""
        self._queue.append(job)
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._work())
        try:
            yield job
        finally:
            job.gone = True

    async def aclose(self) -> None:
        """End what is being written, and the thread."""
        for job in self._queue:
            job.gone = True
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _work(self) -> None:
        while jobs := self._next():
            try:
                await self._settle(jobs)
            except asyncio.CancelledError:
                for job in jobs:
                    job.gone = True
                raise

    async def _settle(self, jobs: Sequence[Job]) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._pool, self._answer, jobs, loop)
        except Exception as error:  # noqa: BLE001  # it belongs to those who wait, not to this task
            if len(jobs) > 1 and not any(len(job.growing) for job in jobs):
                # One bad request, or too little memory for all: each gets its own try, once.
                for job in jobs:
                    await self._settle([job])
                return
            for job in jobs:
                job.told.put_nowait(_told_of(error))

    def _next(self) -> list[Job]:
        """Take the jobs of the next batch: those sampled like the first."""
        found: list[Job] = []
        left: deque[Job] = deque()
        while self._queue:
            job = self._queue.popleft()
            if job.gone:
                continue
            fits = len(found) < self.batch and (not found or job.temperature == found[0].temperature)
            (found if fits else left).append(job)
        self._queue = left
        return found

    def _answer(self, jobs: Sequence[Job], loop: asyncio.AbstractEventLoop) -> None:
        """Decide and write; in the thread."""

        def tell(job: Job, what: Decision | str | Done) -> None:
            loop.call_soon_threadsafe(job.told.put_nowait, what)

        self._decide(jobs, tell)
        watched = [bool(job.pieces or job.growing.stops) for job in jobs]

        def watch(place: int, token: int) -> bool:
            job = jobs[place]
            if not watched[place]:
                job.growing.keep(token)
            elif (piece := job.growing.take(token)) and job.pieces:
                tell(job, piece)
            return job.gone or job.growing.stopped or len(job.growing) >= job.max_tokens

        written = write(
            self.opened.student,
            [job.ids for job in jobs],
            max_tokens=max(job.max_tokens for job in jobs),
            temperature=jobs[0].temperature,
            seeds=[job.seed for job in jobs],
            on=[job.decision is not None and job.decision.on for job in jobs],
            batch=len(jobs),
            watch=watch,
        )
        for job, one in zip(jobs, written, strict=True):
            piece = job.growing.end()
            if piece and job.pieces:
                tell(job, piece)
            reason = "stop" if one.ended or job.growing.stopped else "length"
            tell(job, Done(job.growing.text, reason, len(one.ids)))

    def _decide(self, jobs: Sequence[Job], tell: Callable[[Job, Decision], None]) -> None:
        """Give each job its decision, unless it has one from an attempt that failed."""
        gated = self.opened.gated
        asked = [job for job in jobs if job.decision is None]
        free = [job for job in asked if not job.bare and gated is not None]
        found = gated.decide([job.query for job in free]) if gated is not None and free else []
        decided = dict(zip(map(id, free), found, strict=True))
        for job in asked:
            on, probability = decided.get(id(job), (not job.bare, None))
            job.decision = Decision(on, probability)
            tell(job, job.decision)


def _told_of(error: Exception) -> Exception:
    """Return the error as a caller is to be told of it; a defect stays what it is."""
    if isinstance(error, MopError) and not isinstance(error, Problem):
        _log.error("A student's gate cannot decide: %s", error)
        return Problem(502, "encoder_failed", "The encoder cannot encode the query; try again.")
    return error
