"""Crew: the workers of a Dask cluster, as the process that searches knows them. Knows nothing of what is asked.

joblib's backend loads when there is a cluster to talk to.
"""

from __future__ import annotations

import asyncio
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from mop.cluster import worker
from mop.cluster.connection import AGAIN, Connection
from mop.cluster.jobs import cut
from mop.cluster.shipment import Shipment
from mop.cluster.site import Post, Site, has_key
from mop.errors import ClusterError, LedgerError, MopError, SettingsError
from mop.gate import current
from mop.lm.request import Reply, Request
from mop.lm.shared_budget import SharedBudget

if TYPE_CHECKING:
    from mop.lm.caps import Caps
    from mop.lm.ledger import Ledger
    from mop.settings import Settings

#: Seconds for a worker to be there at the start.
MUSTER_SECONDS = 10.0
#: Seconds in which each worker opens the ledger and looks for its model, stops what it does, and takes its leave once
#: what it has on the wire has come back.
CHECK_SECONDS, STOP_SECONDS, LEAVE_SECONDS = 180.0, 10.0, worker.DRAIN_SECONDS + 30.0
#: Seconds that all workers may be gone, or the scheduler not answer, in the middle of a run. Where the connection to
#: the scheduler is lost the run ends at once: Dask gives everything up then.
OUTAGE_SECONDS = 60.0
#: Seconds between two looks at the books, and at the cluster, while calls are underway.
LOOK, LOOK_AT_CLUSTER = 0.5, 5.0


def muster(settings: Settings, ledger: Ledger, budget: Caps, *, replay: bool = False) -> Crew:
    """Return the crew that the settings name. Raises as `Crew` does, and SettingsError for a replay."""
    if replay:
        raise SettingsError("A replay sends nothing, so there is nothing to spread over a cluster; leave one out.")
    assert settings.scheduler is not None  # settings without one aren't valid
    return Crew(settings.scheduler, ledger, budget, settings.concurrency)


class Crew:
    """The workers behind a scheduler, at work for one run.

    Args:
        scheduler: Address of Dask's scheduler, such as ``tcp://10.0.0.1:8786``.
        ledger: Where the run keeps its replies and books, on a server.
        budget: The run's.
        concurrency: Most calls in flight to an endpoint, for each worker.

    Raises:
        SettingsError: Dask or the scheduler isn't there, or the ledger is one that workers can't share.
    """

    def __init__(self, scheduler: str, ledger: Ledger, budget: Caps, concurrency: int) -> None:
        if not isinstance(budget, SharedBudget):
            raise SettingsError(
                f"The workers of a cluster can't share the ledger {ledger.name!r}. Keep it on a server: "
                "--ledger postgresql+psycopg://USER:PASSWORD@HOST/DB, or MOP_LEDGER."
            )
        self.budget = budget
        self.workers = 1
        self._ledger = ledger
        self._posts: dict[Post, Shipment] = {}
        self._interrupted = False
        self._backend = load_backend()
        self._connection = Connection(scheduler)
        self.site = Site(
            token=secrets.token_hex(8),
            version=version("mop"),
            ledger=ledger.database.url,
            driver=ledger.worker.owner,
            run=budget.run,
            caps=(budget.calls, budget.tokens, budget.usd),
            prices=budget.prices,
            concurrency=concurrency,
            keyed=has_key(),
        )

    def at(self, model: str, base_url: str | None) -> Shipment:
        """Return what has calls to ``model`` made by the workers; without an address each runs the model itself."""
        post = Post(model, base_url)
        return self._posts.setdefault(post, Shipment(self, post))

    def check(self) -> None:
        """Find out whether every worker can do the work, before anything is asked.

        Raises:
            ClusterError: There are no workers.
            SettingsError: A worker or the scheduler has no mop or another version of it, or a worker no API key.
            LedgerError: A worker can't use the ledger, or finds another one under its address.
            WeightsError: A worker doesn't have a local model.
        """
        scheduler = self._connection.scheduler
        deadline = time.monotonic() + MUSTER_SECONDS
        while not self._connection.workers():
            if time.monotonic() > deadline:
                raise ClusterError(
                    f"The Dask scheduler at {scheduler} has no workers; start some with `dask worker {scheduler}`."
                )
            time.sleep(0.1)
        for name, found in self._connection.versions("mop").items():
            missing = isinstance(found, PackageNotFoundError)
            if isinstance(found, Exception) and not missing:
                raise ClusterError(f"The {name} doesn't answer ({found!r}); start it anew.")
            if found != self.site.version:
                raise SettingsError(
                    f"The {name} has {'no mop' if missing else f'mop {found}'}, and the search {self.site.version}; "
                    "install the same version on all machines."
                )
        # Workers look for this row, so that none writes into another database.
        self._ledger.database.run(self._ledger.worker.renew, write=True)
        checked = self._connection.on_all(worker.check, self.site, list(self._posts), seconds=CHECK_SECONDS)
        for address, problem in checked.items():
            if isinstance(problem, MopError):
                raise type(problem)(f"The worker {address} can't do the work: {problem}")
            if problem is not None:
                raise ClusterError(f"The worker {address} can't do the work: {problem!r}.")
        self.workers = len(checked)

    async def answer(self, post: Post, requests: Sequence[Request], done: Callable[[Sequence[Reply]], None]) -> None:
        """Have the workers answer ``requests``; ``done`` gets the replies of each part as soon as they are there.

        If the run is interrupted, no more calls are started and those on the wire finish; other replies are missing.

        Raises:
            MopError: What a worker raised.
            ClusterError: The cluster is gone, or gave the work up.
        """
        gate, loop = current(), asyncio.get_running_loop()
        over: asyncio.Future[None] = loop.create_future()
        enough = threading.Event()
        try:
            backend = await asyncio.to_thread(self._backend, self._connection.client)
        except Exception as error:  # whatever Dask says of a client that lost its scheduler since the last batch
            raise self._told(error) from error

        def work() -> None:
            problem = None
            try:
                for replies in self._replies(backend, post, requests, enough):
                    loop.call_soon_threadsafe(done, replies)
            except BaseException as error:  # noqa: BLE001 - whatever it is, somebody waits for it
                problem = self._told(error)
            loop.call_soon_threadsafe(_settle, over, problem)

        threading.Thread(target=work, name="mop-cluster", daemon=True).start()
        shut = loop.create_task(gate.shut() if gate is not None else asyncio.sleep(0))
        watch = loop.create_task(self._watch())
        try:
            await asyncio.wait({over, watch, *([] if gate is None else [shut])}, return_when=asyncio.FIRST_COMPLETED)
            if gate is not None and gate.closed:
                enough.set()
                self._interrupted = True
                with suppress(ClusterError):  # who can't be told now is told by the watch, or can do no more harm
                    await asyncio.to_thread(self._tell_all, worker.stop, STOP_SECONDS)
                await asyncio.wait({over, watch}, return_when=asyncio.FIRST_COMPLETED)
            (over if over.done() else watch).result()
        finally:
            enough.set()
            for task in (shut, watch):
                task.cancel()
            if not over.done():
                over.cancel()
                self._interrupted = True
                backend.fail(ClusterError("Nobody waits for the workers any more."))

    def close(self) -> None:
        """Have the workers give back what they hold for the run, and leave the cluster.

        They are waited for, unless the run was interrupted.
        """
        with suppress(ClusterError):  # without the cluster there is nothing to give back to
            if self._connection.is_open:
                self._tell_all(worker.leave, LEAVE_SECONDS, wait=not self._interrupted)
        self._connection.close()

    def _replies(
        self, backend: Any, post: Post, requests: Sequence[Request], enough: threading.Event
    ) -> Iterator[Sequence[Reply]]:
        from joblib import Parallel, delayed, parallel_config

        self.workers = max(1, len(self._connection.workers()))

        def tasks() -> Iterator[Any]:
            for job in cut(requests, self.workers):
                if enough.is_set():
                    return
                yield delayed(worker.answer)(self.site, post, job)

        with parallel_config(backend=backend):
            # Few at a time, so that what is interrupted is soon over.
            side_by_side = Parallel(n_jobs=-1, batch_size=1, pre_dispatch="2*n_jobs", return_as="generator_unordered")
            for replies in side_by_side(tasks()):
                if replies is not None:
                    yield replies

    async def _watch(self) -> None:
        """Look at the books, for those who watch them, and at the cluster. Raises ClusterError if that is gone."""
        seen = looked = time.monotonic()
        while True:
            await asyncio.sleep(LOOK)
            with suppress(LedgerError):  # whoever needs the ledger meets the same error and tells it
                await self.budget.flush()
            if (now := time.monotonic()) - looked >= LOOK_AT_CLUSTER:
                looked = now
                if await asyncio.to_thread(self._is_there):
                    seen = time.monotonic()
                elif now - seen > OUTAGE_SECONDS:
                    raise ClusterError(
                        f"The Dask cluster at {self._connection.scheduler} is gone, or has no workers any more. {AGAIN}"
                    )

    def _is_there(self) -> bool:
        try:
            return self._connection.is_open and bool(self._connection.workers())
        except ClusterError:
            return False

    def _tell_all(self, function: Callable[[str], Any], seconds: float, *, wait: bool = True) -> None:
        self._connection.on_all(function, self.site.token, seconds=seconds, wait=wait)

    def _told(self, error: BaseException) -> MopError:
        if isinstance(error, MopError):
            return error
        if isinstance(error, CancelledError):
            where = self._connection.scheduler
            return ClusterError(f"The Dask scheduler at {where} was lost: it has stopped, or was started anew. {AGAIN}")
        return ClusterError(f"The workers of the Dask cluster gave a part of the search up: {error!r}. {AGAIN}")


def load_backend() -> Callable[[Any], Any]:
    """Return joblib's backend for Dask, as it is used here.

    Raises SettingsError if Dask isn't installed, or with a joblib whose backend is another one.
    """
    try:
        from mop.cluster.backend import ClusterBackend
    except ImportError as error:
        raise SettingsError(
            f"joblib {version('joblib')} has no backend for Dask that is known here ({error}); install "
            "mop[distributed] with the versions that constraints.txt names."
        ) from error
    return ClusterBackend


def _settle(over: asyncio.Future[None], problem: MopError | None) -> None:
    if over.done():
        return
    if problem is None:
        over.set_result(None)
    else:
        over.set_exception(problem)
