"""Traffic: how many queries each expert gets, in all and in the last minutes. For people; Prometheus has `metrics`.

Each server process counts its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

from mop.serve.registry import Decision, Served

#: Minutes that are told apart.
MINUTES = 15


@dataclass(slots=True)
class Counts:
    """Queries of one expert: all of them, those that the generalist answered, and those of each recent minute.

    ``recent`` is by number of the minute since the counting began.
    """

    queries: int = 0
    generalist: int = 0
    recent: dict[int, int] = field(default_factory=dict)

    def add(self, minute: int, *, generalist: bool) -> None:
        """Count a query."""
        self.queries += 1
        self.generalist += generalist
        self.recent[minute] = self.recent.get(minute, 0) + 1
        if len(self.recent) > MINUTES:
            self.recent = {one: count for one, count in self.recent.items() if one > minute - MINUTES}

    def minutes(self, minute: int) -> list[int]:
        """Return the queries of each of the last `MINUTES` minutes, the oldest first."""
        return [self.recent.get(one, 0) for one in range(minute - MINUTES + 1, minute + 1)]


@dataclass(frozen=True, slots=True)
class Drift:
    """What a comparison of a region's queries with its training examples says.

    ``words`` are for people; ``drifted`` tells whether its test raises an alarm.
    """

    words: str
    drifted: bool


#: What a server knows of the drift of a mixture's regions, by expert; regions that it knows nothing of are left out.
DriftOf = Callable[[Served], Mapping[int, Drift]]


class Traffic:
    """The counts of one server.

    Args:
        clock: Seconds, never going back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._began = clock, clock()
        # By the mixture that is served, not by its name: a changed file has other experts under the same numbers.
        self._counts: WeakKeyDictionary[Served, dict[int | None, Counts]] = WeakKeyDictionary()

    @property
    def minute(self) -> int:
        """The number of the present minute."""
        return int((self._clock() - self._began) // 60)

    def decided(self, served: Served, decision: Decision) -> None:
        """Count a query that is answered."""
        expert = None if decision.route is None else decision.route.expert
        counts = self._counts.setdefault(served, {}).setdefault(expert, Counts())
        counts.add(self.minute, generalist=decision.generalist)

    def of(self, served: Served) -> dict[int | None, Counts]:
        """Return the counts by expert; None are queries without text, which no region gets."""
        return self._counts.get(served, {})
