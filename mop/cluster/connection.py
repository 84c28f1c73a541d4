"""Connection: Dask's client of a scheduler. Every question to it ends in time, and what goes wrong is a ClusterError.

Dask itself waits for a scheduler or a worker that is there but doesn't answer (a process that is stopped, a machine
that swaps) for as long as that lasts. Knows nothing of what is asked; Dask loads when there is a cluster to talk to.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from mop.errors import ClusterError, SettingsError

#: Seconds for the scheduler to answer.
ANSWER_SECONDS = 10.0
#: Seconds in which a worker that is alive says something; it may be busy with loading what it is asked for.
SIGN_OF_LIFE_SECONDS = 30.0
#: What a user can do in nearly all cases.
AGAIN = "What was answered is in the ledger; run the same command again to go on."
#: Where Dask's client tells at length what is told here in one error.
_NOISY = "distributed.client"


def open_client(scheduler: str) -> Any:
    """Return Dask's client of the cluster behind ``scheduler``.

    Raises SettingsError if Dask isn't installed or no scheduler answers.
    """
    try:
        from dask.distributed import Client
    except ImportError as error:
        raise SettingsError("Dask isn't installed; install mop[distributed].") from error
    try:
        return Client(scheduler, timeout=ANSWER_SECONDS, set_as_default=False)  # type: ignore[no-untyped-call]
    except (OSError, ValueError, TypeError) as error:
        raise SettingsError(
            f"No Dask scheduler answers at {scheduler} ({error}); start one with `dask scheduler`, and workers."
        ) from error


def is_connected(client: str) -> bool:
    """Return whether the client with this id is connected to the cluster; to be asked by a task on a worker.

    True as well where the scheduler doesn't say (it may be set to run no functions).
    """
    from dask.distributed import get_client

    try:
        # A function of this place, so that it travels whole: the scheduler may have no mop.
        known = get_client().run_on_scheduler(lambda dask_scheduler: list(dask_scheduler.clients))  # type: ignore[no-untyped-call]
    except Exception:  # noqa: BLE001 - whatever a scheduler says to this question must not fail the work itself
        return True
    return client in known


class Connection:
    """The client of the scheduler at an address, until `close`.

    Raises:
        SettingsError: Dask isn't installed, or no scheduler answers.
    """

    def __init__(self, scheduler: str) -> None:
        self.scheduler = scheduler
        self.client = open_client(scheduler)
        logging.getLogger(_NOISY).addFilter(_drop)

    @property
    def is_open(self) -> bool:
        """Whether the scheduler was there when the client last looked."""
        return bool(self.client.status == "running")

    def workers(self) -> list[str]:
        """Return the addresses of all workers. Raises ClusterError."""
        return list(self._answer(self.client.nthreads, seconds=ANSWER_SECONDS))

    def on_all(
        self, function: Callable[..., Any], *arguments: Any, seconds: float, wait: bool = True
    ) -> dict[str, Any]:
        """Return what ``function`` returned on each worker, or the error that it met there; nothing without ``wait``.

        Raises ClusterError if that isn't known after so many ``seconds``; it is underway then.
        """
        how: dict[str, Any] = {"on_error": "return", "wait": wait}
        return dict(self._answer(self.client.run, function, *arguments, seconds=seconds, **how) or {})

    def versions(self, package: str) -> dict[str, Any]:
        """Return which version of a package everybody has, or the error that says that there is none.

        The function is the standard library's, because who has no mop couldn't read one of ours. The scheduler reads
        tasks as well before it passes them on. Raises ClusterError, which names workers that say nothing.
        """
        addresses = self.workers()
        try:
            found = self.on_all(version, package, seconds=SIGN_OF_LIFE_SECONDS)
        except ClusterError as error:
            silent = [one for one in addresses if not self._shows_life(one)]
            if not silent:
                raise
            raise ClusterError(f"Workers don't answer: {', '.join(silent)}. Stop them, or start them anew.") from error
        named = {f"worker {address}": one for address, one in found.items()}
        try:
            named["scheduler"] = self._answer(self.client.run_on_scheduler, version, package, seconds=ANSWER_SECONDS)
        except PackageNotFoundError as error:
            named["scheduler"] = error
        return named

    def close(self) -> None:
        """Leave the cluster."""
        try:
            self._answer(self.client.close, timeout=ANSWER_SECONDS)
        except ClusterError:
            return  # it is left all the same, and whoever needed it has been told
        finally:
            logging.getLogger(_NOISY).removeFilter(_drop)

    def _shows_life(self, address: str) -> bool:
        try:
            asked: dict[str, Any] = {"workers": [address], "on_error": "return"}
            self._answer(self.client.run, version, "mop", seconds=ANSWER_SECONDS / 5, **asked)
        except ClusterError:
            return False
        return True

    def _answer(self, ask: Callable[..., Any], *arguments: Any, seconds: float | None = None, **named: Any) -> Any:
        """Return what the client says; ``seconds`` bound how long it may take. Raises ClusterError."""
        if seconds is not None:
            named["callback_timeout"] = seconds
        try:
            return ask(*arguments, **named)
        except PackageNotFoundError:
            raise
        except Exception as error:  # whatever it is: a client that has lost its scheduler fails in many ways
            raise ClusterError(f"The Dask cluster at {self.scheduler} doesn't answer ({error!r}). {AGAIN}") from error


def _drop(_record: logging.LogRecord) -> bool:
    return False
