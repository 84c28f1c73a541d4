"""Worker: what runs in the processes of the cluster: clients on the run's ledger and budget, kept between jobs.

A job that is done again, because the worker that had it died, finds what was answered in the ledger. Nothing here
decides what is asked. What a check finds is returned, not raised: Dask would log it with its arguments.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import version

import sqlalchemy as sa

from mop.cluster.site import Post, Site, has_key
from mop.connect import connect
from mop.errors import LedgerError, MopError, SettingsError
from mop.gate import Gate, install
from mop.lm.client import ModelClient
from mop.lm.ledger import Ledger
from mop.lm.request import Reply, Request
from mop.lm.shared_budget import SharedBudget
from mop.lm.tables import WORKERS
from mop.sync import run

#: Seconds without a job after which a worker gives a run's connections back; whoever had work for it may be dead.
IDLE = 120.0
#: Seconds that calls on the wire have to finish when a run leaves.
DRAIN_SECONDS = 60.0

#: Runs that have ended here and are remembered, so that a job of theirs which comes late isn't begun.
REMEMBERED = 1000

_lock = threading.Lock()
_sessions: dict[str, _Session] = {}
_ended: dict[str, None] = {}


def answer(site: Site, post: Post, requests: Sequence[Request]) -> list[Reply] | None:
    """Return the replies to ``requests``, recorded in the run's ledger; None if the run has ended meanwhile.

    Raises as `mop.lm.client.ModelClient.complete_many` does, and as `check` returns errors: this worker may be new.
    """
    session = _enter(site)
    if session is None:
        return None
    try:
        return run(session.answer(post, requests))
    finally:
        _exit(session)


async def check(site: Site, posts: Sequence[Post]) -> MopError | None:
    """Return what keeps this worker from answering calls of a run, if anything does; nothing is asked."""
    try:
        await asyncio.to_thread(_check, site, posts)
    except MopError as error:
        return error
    return None


async def stop(token: str) -> None:
    """Start no more calls for a run; those on the wire finish and are recorded."""
    await asyncio.to_thread(_stop, token)


async def leave(token: str) -> None:
    """Stop a run, and give its connections back once the calls on the wire have finished."""
    await asyncio.to_thread(_leave, token)


class _Session:
    """What this process has open for one run. Its calls are made on the event loop of `mop.sync`."""

    def __init__(self, site: Site) -> None:
        self.site = site
        #: Jobs underway, and what closes the session if there is none for long; both under the module's lock.
        self.jobs = 0
        self.timer: threading.Timer | None = None
        self.ledger = Ledger(site.ledger)
        try:
            calls, tokens, usd = site.caps
            self._check_ledger()
            self.budget = SharedBudget(self.ledger, site.run, calls, tokens, usd, site.prices)
        except BaseException:
            self.ledger.close()
            raise
        self._gate = Gate()
        self._clients: dict[Post, ModelClient] = {}
        self._answering: set[asyncio.Task[list[Reply]]] = set()

    def client(self, post: Post) -> ModelClient:
        """Return the client of a model. Raises as `mop.connect.connect` does, and SettingsError without an API key."""
        if post not in self._clients:
            if post.base_url is not None and self.site.keyed and not has_key():
                raise SettingsError(
                    "There is no API key in the worker's environment, and keys are not sent to workers. Set "
                    "MOP_API_KEY or OPENAI_API_KEY where the worker is started."
                )
            self._clients[post] = connect(
                post.model,
                ledger=self.ledger,
                budget=self.budget,
                base_url=post.base_url,
                concurrency=self.site.concurrency,
                run=self.site.run,
            )
        return self._clients[post]

    async def answer(self, post: Post, requests: Sequence[Request]) -> list[Reply] | None:
        """Return the replies, or None if the session was stopped before all were there."""
        if self._gate.closed:
            return None
        install(self._gate)
        client = self.client(post)
        await asyncio.to_thread(self.budget.take_over, self.site.driver, requests)
        work = asyncio.create_task(client.complete_many(requests))
        stopped = asyncio.create_task(self._drained())
        self._answering.add(work)
        try:
            await asyncio.wait({work, stopped}, return_when=asyncio.FIRST_COMPLETED)
            return work.result() if work.done() else None
        finally:
            for task in (work, stopped):
                task.cancel()
            await asyncio.wait({work, stopped})
            self._answering.discard(work)
            self.budget.let_go(requests)
            if work.cancelled() or work.exception() is not None:
                with suppress(LedgerError):  # what ended the work is what counts, and a reservation ends with its owner
                    await self.budget.flush()

    async def stop(self) -> None:
        """Start no more calls."""
        self._gate.close()

    def close(self) -> None:
        """Stop, and close everything once nothing is on the wire."""
        if self.timer is not None:
            self.timer.cancel()
        run(self._wind_up())
        self.ledger.close()

    def _check_ledger(self) -> None:
        known = sa.select(WORKERS.c.owner).where(WORKERS.c.owner == self.site.driver)
        if self.ledger.database.run(lambda connection: connection.scalar(known), write=False) is None:
            raise LedgerError(
                f"The worker finds another ledger at {self.ledger.name} than the search has; give an address that "
                "means the same database on all machines."
            )

    async def _drained(self) -> None:
        await self._gate.shut()
        await self._gate.empty()

    async def _wind_up(self) -> None:
        self._gate.close()
        if self._answering:
            await asyncio.wait(set(self._answering), timeout=DRAIN_SECONDS)
        for client in self._clients.values():
            await client.aclose()


def _stop(token: str) -> None:
    with _lock:
        _remember(token)
        session = _sessions.get(token)
    if session is not None:
        run(session.stop())


def _leave(token: str) -> None:
    with _lock:
        _remember(token)
        session = _sessions.pop(token, None)
    if session is not None:
        session.close()


def _remember(token: str) -> None:
    """Note that a run has ended; the lock is held. Jobs that wait in Dask's queue are given to this worker even so."""
    _ended[token] = None
    while len(_ended) > REMEMBERED:
        del _ended[next(iter(_ended))]


def _enter(site: Site) -> _Session | None:
    """Return the session of a run, with one job more; None if the run has ended here."""
    if (here := version("mop")) != site.version:
        raise SettingsError(f"A worker has mop {here}, the search {site.version}; install the same version everywhere.")
    with _lock:
        if site.token in _ended:
            return None
        session = _sessions.get(site.token)
        if session is None:
            session = _sessions[site.token] = _Session(site)
        if session.timer is not None:
            session.timer.cancel()
        session.jobs += 1
    return session


def _exit(session: _Session) -> None:
    with _lock:
        session.jobs -= 1
        if not session.jobs and _sessions.get(session.site.token) is session:
            session.timer = threading.Timer(IDLE, _expire, [session])
            session.timer.daemon = True
            session.timer.start()


def _expire(session: _Session) -> None:
    with _lock:
        if session.jobs or _sessions.get(session.site.token) is not session:
            return
        del _sessions[session.site.token]
    session.close()


def _check(site: Site, posts: Sequence[Post]) -> None:
    session = _enter(site)
    if session is None:
        return
    try:
        for post in posts:
            session.client(post)
    finally:
        _exit(session)
