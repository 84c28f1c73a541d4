"""Pace: how many calls a second an endpoint allows, found out from its refusals. Knows nothing of slots or queues.

A token bucket that refused a call was empty then. So between two refusals, if calls came fast enough to leave nothing
unused, it gave out just what it allows: the calls that got through, divided by the time, are its rate. A pace that is
only guessed is held while refusals come, until that can be measured, and doubles while none comes. From a measured
rate the pace takes the way of TCP CUBIC: a little below it, slowly past it, faster the longer no refusal comes.
"""

from __future__ import annotations

#: How far below the measured rate the pace begins, as a share of it, and seconds until it is back there.
DEPTH, PERIOD = 0.03, 8.0
#: Above this multiple of the measured rate so much may have been left unused that it has to be measured anew.
FAR = 1.25
#: Seconds without a refusal, or calls if they take longer, after which a guessed pace grows; it doubles in as many.
HOLD_SECONDS, HOLD_CALLS = 1.0, 5
#: Calls that got through until a rate counts as measured; or fewer, if so many seconds have passed.
LEAST_CALLS, FEW_CALLS, LEAST_SECONDS = 20, 8, 4.0
#: Slowest pace: one call in a minute.
SLOWEST = 1 / 60


class Pace:
    """The pace of one endpoint; times are in seconds of a clock that never goes back."""

    def __init__(self, now: float) -> None:
        self._rate: float | None = None
        self._known = False
        self._since = now
        self._marked = now
        self._paused = 0.0
        self._through = 0
        self._resume_at = now
        self._next = now

    def rate(self, now: float) -> float:
        """Return the calls per second at this moment; infinite until the endpoint first refused one."""
        if self._rate is None:
            return float("inf")
        passed = max(0.0, now - self._since)
        if self._known:
            return self._rate * (1 + DEPTH * (passed / PERIOD - 1) ** 3)
        hold = max(HOLD_SECONDS, HOLD_CALLS / self._rate)
        return float(self._rate * 2.0 ** min(max(0.0, passed / hold - 1), 30.0))

    @property
    def next_start(self) -> float:
        """When the next call may start."""
        return self._next

    def started(self, now: float) -> None:
        """A call starts."""
        self._through += 1
        if self._rate is not None:
            # What a late timer lost is made up for, but no more than one call's time.
            gap = 1 / self.rate(now)
            self._next = max(self._next, now - gap) + gap

    def refused(self, now: float, pause: float, started: float) -> None:
        """A call that ``started`` then was refused, and nothing starts for ``pause`` seconds."""
        current = started >= self._marked
        self._through -= current
        paused = self._paused
        if now + pause > self._resume_at:
            self._paused += now + pause - max(now, self._resume_at)
            self._resume_at = now + pause
            self._next = max(self._next, self._resume_at)
        if not current:
            return
        elapsed, rate = now - self._marked, self.rate(started)
        if self._rate is None:
            # The bucket's savings got through as well, and calls were still getting more: a guess.
            self._measure(now, max(0.5, self._through) / max(elapsed, 0.001), known=False)
        elif rate > self._rate * (FAR if self._known else 1.0):
            self._measure(now, rate, known=False)
        elif self._through >= LEAST_CALLS or (elapsed >= LEAST_SECONDS and self._through >= FEW_CALLS):
            # What a bucket saved up while the endpoint wanted a pause is between nothing and all of that time's calls.
            least, most = self._through / elapsed, self._through / max(0.001, elapsed - paused)
            self._measure(now, (least + most) / 2, known=True)
        elif not self._known:
            self._since = max(now, self._resume_at)  # refusals come: the pace is fast enough to measure the rate
            if elapsed - paused > LEAST_CALLS / self._rate + LEAST_SECONDS:
                self._measure(now, self._rate / 2, known=False)  # hardly anything gets through

    def _measure(self, now: float, rate: float, *, known: bool) -> None:
        """Go on from ``rate`` and begin to measure anew."""
        self._rate, self._known = max(SLOWEST, rate), known
        self._since = max(now, self._resume_at)
        self._marked, self._paused, self._through = now, self._since - now, 0
