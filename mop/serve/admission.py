"""Admission: how many requests the server takes on at once, and when a refused caller should come back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mop.serve.problems import Problem

#: Weight of the newest request in the mean duration.
_NEWEST = 0.1
#: Longest wait that a refused caller is told, in seconds.
_LONGEST = 60.0


class Admission:
    """Counts requests from their first byte to their last; beyond ``capacity`` they are refused.

    ``width`` is the number that is worked on at once; the others wait.
    """

    def __init__(self, capacity: int, width: int) -> None:
        self.capacity, self._width = capacity, width
        self.taken = 0
        self._mean_seconds = 1.0

    @contextmanager
    def place(self) -> Iterator[None]:
        """Hold a place; raises Problem (429, with Retry-After) if there is none."""
        if self.taken >= self.capacity:
            raise Problem(
                429,
                "overloaded",
                f"The server answers or holds {self.capacity} requests already; try again later.",
                retry_after=self.retry_after(),
            )
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1

    def took(self, seconds: float) -> None:
        """Learn how long an answered request took."""
        self._mean_seconds += _NEWEST * (seconds - self._mean_seconds)

    def retry_after(self) -> float:
        """Return the seconds until about half of those who wait are through, from 1 to 60."""
        waiting = max(0, self.taken - self._width)
        return min(_LONGEST, max(1.0, self._mean_seconds * (1 + waiting / self._width / 2)))
