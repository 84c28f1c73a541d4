"""Backend: joblib's Dask backend, so that a task without a result ends the wait for it, and all work is for workers.

As it is, joblib (1.6) waits for ever for a task that Dask gave up, because its worker died time and again or could not
read it; and it runs the tasks in this process if the cluster has a single thread. Knows nothing of what the tasks do.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

# joblib offers the class under a name ("dask") and in this module only.
from joblib._dask import DaskDistributedBackend


class ClusterBackend(DaskDistributedBackend):  # type: ignore[misc]  # joblib has no types
    """For one call of `joblib.Parallel` on the cluster of ``client``."""

    def __init__(self, client: Any) -> None:
        super().__init__(client=client)
        self._lock = threading.Lock()
        self._waiting: dict[Future[Any], Callable[[Any], None]] = {}

    def effective_n_jobs(self, n_jobs: int) -> int:
        """Return the threads of the cluster, but at least two: for one, joblib would do the work here."""
        return max(2, int(super().effective_n_jobs(n_jobs)))

    def submit(self, func: Any, callback: Any = None) -> Future[Any]:
        """Submit a task; its callback is called however it ends."""
        future: Future[Any] = super().submit(func, callback)
        with self._lock:
            self._waiting[future] = callback
        future.add_done_callback(self._ended)
        return future

    def fail(self, error: Exception) -> None:
        """End the wait for all tasks with ``error``."""
        with self._lock:
            callbacks, self._waiting = list(self._waiting.values()), {}
        for callback in callbacks:
            callback(error)

    def retrieve_result_callback(self, out: Any) -> Any:
        """Return what a task returned; raises what it raised, or why it has no result."""
        if isinstance(out, BaseException):
            raise out
        return super().retrieve_result_callback(out)

    def _ended(self, future: Future[Any]) -> None:
        with self._lock:
            callback = self._waiting.pop(future, None)
        if callback is not None and (error := future.exception()) is not None:
            callback(error)
