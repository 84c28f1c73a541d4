"""Workers: several server processes on one socket, which live, are replaced and end together. Serves nothing itself.

The listening socket is inherited, so that a connection that waits while a worker dies is taken by another. A worker
that has died is replaced after a pause that grows; if none is left and new ones keep dying, the server ends. An
embedded model runs once, beside the workers, who ask for its address (`mop.serve.worker` has the protocol). The limits
on calls in flight and on waiting requests are shared out among the workers.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import logging
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

from mop.errors import MopError, SettingsError
from mop.serve.limits import Limits
from mop.serve.process import Card, Plan

#: First and longest pause before a dead worker is replaced, in seconds; one that lived as long as the latter counts as
#: sound again.
PAUSE, LONGEST_PAUSE = 0.5, 30.0
#: Deaths in a row, with no other worker left, after which the server ends.
MOST_DEATHS = 5
#: Seconds beyond the grace before a worker that doesn't end is killed.
_SLACK = 5.0
#: Longest line of a worker, in bytes.
_LINE = 1 << 20
_log = logging.getLogger("mop.serve")


def pause_after(deaths: int) -> float:
    """Return the seconds before a dead worker is replaced, if ``deaths`` before it didn't live long either.

    >>> [pause_after(deaths) for deaths in (0, 1, 2, 10_000)]
    [0.5, 1.0, 2.0, 30.0]
    """
    # Bounded before the power is taken: a float holds no 2 ** 1024, and a worker may go on dying for days.
    return min(LONGEST_PAUSE, PAUSE * 2.0 ** min(deaths, 10))


class WorkerFailed(MopError):
    """A worker could not start; the message and the exit status are those of its error."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def check_workers(count: int) -> None:
    """Raise SettingsError if a server cannot have so many processes."""
    if count < 1:
        raise SettingsError(f"--workers is {count}; give 1 or more.")
    if count > 1 and sys.platform == "win32":
        raise SettingsError("Several workers need a socket that processes share, which Windows has not; give 1.")


def run_workers(
    plan: Plan, bound: socket.socket, announce: Callable[[Sequence[Card]], None], *, quiet: bool = False
) -> None:
    """Serve with ``plan.workers`` processes until SIGTERM or Ctrl-C, then have them finish their answers.

    ``announce`` is called once, when all listen. A second Ctrl-C ends them at once. Raises KeyboardInterrupt after a
    Ctrl-C, and WorkerFailed if the workers cannot start.
    """
    check_workers(plan.workers)
    bound.listen()  # at once, so that no worker finds it otherwise
    with tempfile.TemporaryDirectory(prefix="mop-serve-") as folder:
        interrupted = asyncio.run(_Fleet(plan, bound, announce, folder, quiet).run())
    if interrupted:
        raise KeyboardInterrupt


class _Worker:
    """One process, and the ends of its channel."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.ready: Sequence[Card] | None = None
        self.failure: WorkerFailed | None = None

    def tell(self, **message: Any) -> None:
        assert self.process.stdin is not None
        if not self.process.stdin.is_closing():
            self.process.stdin.write(json.dumps(message).encode() + b"\n")

    def signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)


class _Fleet:
    def __init__(
        self,
        plan: Plan,
        bound: socket.socket,
        announce: Callable[[Sequence[Card]], None],
        folder: str,
        quiet: bool,
    ) -> None:
        self._plan, self._bound, self._announce = plan, bound, announce
        self._folder, self._quiet = folder, quiet
        self._workers: dict[int, _Worker] = {}
        self._stopping = asyncio.Event()
        self._interrupts = 0
        self._replaced = 0
        self._announced = False
        self._models = asyncio.Lock()
        self._errands: set[asyncio.Task[None]] = set()

    async def run(self) -> bool:
        """Serve; return whether it was Ctrl-C that ended it."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._stop)
        loop.add_signal_handler(signal.SIGINT, self._interrupt)
        keeping = [asyncio.create_task(self._keep(number)) for number in range(self._plan.workers)]
        stop = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait([*keeping, stop], return_when=asyncio.FIRST_COMPLETED)
        finally:
            await self._end(keeping)
            stop.cancel()
        for task in keeping:
            error = task.exception()
            if error is not None:
                raise error
        return self._interrupts > 0

    def _stop(self) -> None:
        self._stopping.set()

    def _interrupt(self) -> None:
        self._interrupts += 1
        self._stopping.set()
        if self._interrupts > 1:
            for worker in self._workers.values():
                worker.signal(signal.SIGKILL)

    async def _end(self, keeping: Sequence[asyncio.Task[None]]) -> None:
        """Have all workers finish what they do, within their grace."""
        self._stopping.set()
        self._bound.close()
        for worker in self._workers.values():
            worker.signal(signal.SIGTERM)
        _, left = await asyncio.wait(keeping, timeout=self._plan.grace + _SLACK)
        for worker in self._workers.values() if left else ():
            worker.signal(signal.SIGKILL)
        await asyncio.wait(keeping)

    async def _keep(self, number: int) -> None:
        """Have a worker of this number run until the server is stopped."""
        from prometheus_client.multiprocess import mark_process_dead

        loop, deaths = asyncio.get_running_loop(), 0
        while not self._stopping.is_set():
            began = loop.time()
            worker = await self._start(number)
            await self._serve(worker)
            del self._workers[number]
            mark_process_dead(worker.process.pid, self._folder)  # type: ignore[no-untyped-call]
            if self._stopping.is_set():
                return
            if not self._announced:
                raise worker.failure or WorkerFailed(
                    f"A worker ended with status {worker.process.returncode} before it could serve."
                )
            sound = loop.time() - began >= LONGEST_PAUSE
            deaths, pause = (1, PAUSE) if sound else (deaths + 1, pause_after(deaths))
            why = f": {worker.failure}" if worker.failure else f" (status {worker.process.returncode})"
            if deaths >= MOST_DEATHS and not any(one.ready for one in self._workers.values()):
                raise worker.failure or WorkerFailed(f"No worker stays alive{why}; the log says more.")
            _log.error("A worker has died%s. Another takes its place in %g s.", why, pause)
            self._replaced += 1
            self._tell_all()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause)

    async def _start(self, number: int) -> _Worker:
        plan = self._plan
        limits = share(plan.limits, plan.workers)
        environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": self._folder}
        # Otherwise every worker has as many threads as there are cores.
        environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // plan.workers)))
        descriptor = self._bound.fileno()
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "mop.serve.worker", str(descriptor)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            pass_fds=[descriptor],
            env=environment,
            limit=_LINE,
            # A session of its own: Ctrl-C reaches this process only, which then decides.
            start_new_session=True,
        )
        worker = self._workers[number] = _Worker(process)
        worker.tell(plan=dataclasses.asdict(dataclasses.replace(plan, limits=limits)), quiet=self._quiet)
        if self._stopping.is_set():
            worker.signal(signal.SIGTERM)
        return worker

    async def _serve(self, worker: _Worker) -> None:
        """Listen to a worker until it has ended."""
        assert worker.process.stdout is not None
        async for line in worker.process.stdout:
            message = json.loads(line)
            if "need" in message:
                errand = asyncio.create_task(self._find_model(worker, message["need"]))
                self._errands.add(errand)
                errand.add_done_callback(self._errands.discard)
            elif "error" in message:
                worker.failure = WorkerFailed(message["error"], message["status"])
            else:
                worker.ready = [Card(**card) for card in message["ready"]]
                self._tell_all()
                if not self._announced and len(self._ready) == self._plan.workers:
                    self._announced = True
                    self._announce(worker.ready)
        await worker.process.wait()
        worker.ready = None

    @property
    def _ready(self) -> list[_Worker]:
        return [worker for worker in self._workers.values() if worker.ready is not None]

    def _tell_all(self) -> None:
        fleet = {"wanted": self._plan.workers, "running": len(self._ready), "replaced": self._replaced}
        for worker in self._workers.values():
            worker.tell(fleet=fleet)

    async def _find_model(self, worker: _Worker, model: str) -> None:
        """Tell a worker where the embedded model is; start it if it doesn't run."""
        from mop.lm.local import shared_server

        try:
            async with self._models:
                server = await asyncio.to_thread(shared_server, model)
        except MopError as error:
            worker.tell(model=model, error=str(error))
        else:
            worker.tell(model=model, address=server.base_url)


def share(limits: Limits, workers: int) -> Limits:
    """Return the part of the limits that one of so many workers has; together they allow no less than the whole."""
    parts = {name: -(-getattr(limits, name) // workers) for name in ("concurrency", "queue")}
    return dataclasses.replace(limits, **parts)
