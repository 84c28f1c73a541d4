"""Pace: how many calls a second an endpoint allows, found out from its refusals. Knows nothing of slots or queues.

A token bucket that refused a call was empty then. So between two refusals it gave out just what it allows: the calls
that got through, divided by the time, are the rate. From there the pace takes the way of TCP CUBIC: a little below the
rate, slowly past it, and faster the longer no refusal comes.
"""

from __future__ import annotations

#: How far below the measured rate the pace begins, as a share of it.
DEPTH = 0.03
#: Seconds until the pace is back at the measured rate.
PERIOD = 8.0
#: Calls that got through until a rate counts as measured; or fewer, if so many seconds have passed; or none.
LEAST_CALLS, FEW_CALLS = 20, 3
LEAST_SECONDS, LONGEST_SECONDS = 2.0, 10.0
#: Slowest pace: one call in a minute.
SLOWEST = 1 / 60


class Pace:
    """The pace of one endpoint; times are in seconds of a clock that never goes back."""

    def __init__(self, now: float) -> None:
        self._measured_from = now
        self._through = 0
        self._rate: float | None = None
        self._known = False
        self._since = now
        self._next = now

    @property
    def known(self) -> bool:
        """Whether the endpoint has refused a call for coming too fast, so that there is a pace at all."""
        return self._rate is not None

    def rate(self, now: float) -> float:
        """Return the calls per second at this moment; infinite until the endpoint first refused one."""
        if self._rate is None:
            return float("inf")
        return self._rate * (1 + DEPTH * ((now - self._since) / PERIOD - 1) ** 3) if self._known else self._rate

    @property
    def next_start(self) -> float:
        """When the next call may start."""
        return self._next

    def started(self, now: float) -> None:
        """A call starts."""
        if self._rate is not None:
            # What a late timer lost is made up for, but no more than one call's time.
            gap = 1 / self.rate(now)
            self._next = max(self._next, now - gap) + gap

    def got_through(self) -> None:
        """A call was answered."""
        self._through += 1

    def refused(self, now: float, pause: float) -> None:
        """A call that started after the last refusal was refused; nothing starts for ``pause`` seconds."""
        self._next = max(self._next, now + pause)
        elapsed = now - self._measured_from
        enough = self._through >= LEAST_CALLS or (elapsed >= LEAST_SECONDS and self._through >= FEW_CALLS)
        if self._rate is not None and not enough and elapsed < LONGEST_SECONDS:
            return  # a bucket that is nearly empty refuses now and then; what gets through will tell the rate
        # Until the first refusal the bucket's savings got through as well: that says little, but is all there is.
        self._known = self._rate is not None
        self._rate = max(SLOWEST, max(0.5, self._through) / max(elapsed, 0.001))
        self._measured_from = self._since = now
        self._through = 0
