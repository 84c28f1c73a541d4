"""Drift: whether queries still are what a mixture was learned from. Knows routes and numbers; sees no query.

Two things can change: how far queries are from the centroid of their region, and which share of them each region gets.
Held-out examples of the learning say what to expect. Whether a stream departs from them is asked after every query, so
the tests are anytime-valid: conformal test martingales (Vovk, Gammerman and Shafer, "Algorithmic Learning in a Random
World", 2nd ed., chapter 8). The rank of each new value among all values seen so far, the held-out ones included, is
uniform and independent of the past as long as nothing has changed, however few the held-out examples are. A gambler
bets against that; by Ville's inequality the chance that the capital ever reaches 1/α is at most α. The gambler mixes
simple bets and moves a hundredth of the capital between them each time, so that a change may come late (Vovk, "Testing
randomness online", 2021).

A third of the false-alarm rate goes to the distances of all queries together, a third to those of single regions, a
third to the regions' shares (union bound). What is counted are numbers by region: no query is kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mop.seeds import stream

#: Most held-out distances that are kept of a region: 1,000 regions of them take some 2 MB.
MOST_DISTANCES = 200
#: Chance of any alarm, ever, while queries are as they were.
FALSE_ALARM_RATE = 0.01
#: Part of the capital that moves between bets at each query.
_JUMP = 0.01
#: Slopes of linear bets on ranks: on far queries, on far ones with less risk, on near ones.
_SLOPES = np.array([-2.0, -1.0, 1.0])
#: The bet on outliers: this many times as many queries among the farthest tenth.
_TAIL, _TAIL_FACTOR = 0.1, 5.0
#: Bets on a region's share: ranks below each of these come so many times as often, or a quarter as often. Ranks are
#: independent of each other, but not of the values behind them, so a bet may not look at the share so far.
_BELOW = np.tile([0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4], 2)
_FACTORS = np.array([4.0, 4.0, 4.0, 4.0, 4.0, 3.0, 2.0, *[0.25] * 7])
#: Distances of unit vectors are at most 2; what counts is in which of so many equal bins one is. Edges that came from
#: the held-out distances would make these ranks other than uniform.
_BINS = 1024
#: A report gives no larger evidence; JSON has no infinity.
_MOST = 1e12

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Reference:
    """What held-out examples of the learning looked like to the router.

    ``counts`` says how many went to each region; ``distances`` are squared distances to the region's centroid, sorted,
    of all of them or of `MOST_DISTANCES` drawn from them.
    """

    counts: tuple[int, ...]
    distances: tuple[tuple[float, ...], ...]

    @classmethod
    def of(cls, experts: ArrayLike, distances: ArrayLike, count: int, *, seed: int = 0) -> Reference:
        """Return the reference of examples that went to ``experts`` at ``distances``, for ``count`` regions."""
        regions, far = np.asarray(experts, dtype=np.intp), np.asarray(distances, dtype=np.float64)
        found = []
        for region in range(count):
            here = far[regions == region]
            if len(here) > MOST_DISTANCES:
                here = stream(seed, "drift reference", region).choice(here, MOST_DISTANCES, replace=False)
            found.append(tuple(float(f"{value:.6g}") for value in np.sort(here)))
        return cls(tuple(np.bincount(regions, minlength=count).tolist()), tuple(found))

    def joined(self, other: Reference) -> Reference:
        """Return the reference of these examples and the ``other``'s, region by region."""
        return Reference(
            tuple(a + b for a, b in zip(self.counts, other.counts, strict=True)),
            tuple(tuple(sorted((*a, *b))) for a, b in zip(self.distances, other.distances, strict=True)),
        )


class _Gamblers:
    """The capital of several gamblers, each with several bets; kept as logarithms."""

    def __init__(self, count: int, bets: int, rate: float) -> None:
        self.threshold, self._enough = 1 / rate, float(np.log(1 / rate))
        self._parts = np.full((count, bets), 1 / bets)
        self.log_capital = np.zeros(count)
        self.peak = np.zeros(count)
        self.alarm_at: list[int | None] = [None] * count

    def bet(self, which: NDArray[np.intp] | slice, returns: Floats, query: int) -> None:
        """Let gamblers ``which`` win or lose; ``returns`` has a row for each of them, a column for each bet."""
        mixed = (1 - _JUMP) * self._parts[which] + _JUMP / self._parts.shape[1]
        grown = mixed * returns
        total = grown.sum(axis=1, keepdims=True)
        self._parts[which] = grown / total
        self.log_capital[which] += np.log(total[:, 0])
        self.peak[which] = np.maximum(self.peak[which], self.log_capital[which])
        if self.peak.max() >= self._enough:
            for place in np.flatnonzero(self.peak >= self._enough):
                if self.alarm_at[place] is None:
                    self.alarm_at[place] = query

    def report(self, place: int) -> dict[str, Any]:
        """Return the evidence of one gambler: its capital now and at its highest, and the query of its alarm."""
        return {
            "evidence": min(float(np.exp(min(self.log_capital[place], 700.0))), _MOST),
            "highest": min(float(np.exp(min(self.peak[place], 700.0))), _MOST),
            "threshold": self.threshold,
            "alarm": self.alarm_at[place] is not None,
            "alarm_at": self.alarm_at[place],
        }


class DriftMonitor:
    """Watches where queries go; memory and time per query do not grow with their number.

    Args:
        reference: What to expect.
        rate: The chance of any alarm, ever, while queries are exchangeable with the held-out examples.
        seed: Of the random numbers that break ties between equal ranks.
    """

    def __init__(self, reference: Reference, *, rate: float = FALSE_ALARM_RATE, seed: int = 0) -> None:
        count = len(reference.counts)
        self.reference, self.rate, self.queries = reference, rate, 0
        self._random = stream(seed, "drift")
        self._bins = np.zeros((count, _BINS), dtype=np.int64)
        for region, found in enumerate(reference.distances):
            for distance in found:
                self._bins[region, _bin(distance)] += 1
        self._expected = np.array(reference.counts, dtype=np.float64)
        self._seen = np.zeros(count)
        self._beyond = np.zeros(count)
        self._limits = [float(np.quantile(found, 0.95)) if found else None for found in reference.distances]
        # One region's distances are those of all queries, and its share is 1.
        self._several = count > 1
        bets = 1 + len(_SLOPES) + 1
        self._overall = _Gamblers(1, bets, rate / 3 if self._several else rate)
        self._distances = _Gamblers(count, bets, rate / (3 * count))
        self._shares = _Gamblers(count, 1 + len(_BELOW), rate / (3 * count))

    def observe(self, expert: int, distance: float) -> None:
        """Take note of a query that went to ``expert`` at this squared distance."""
        self.queries += 1
        returns = _rank_returns(self._rank(expert, distance))[None, :]
        self._overall.bet(slice(0, 1), returns, self.queries)
        if self._several:
            self._distances.bet(np.array([expert]), returns, self.queries)
            self._shares.bet(slice(None), self._share_returns(expert), self.queries)
        self._seen[expert] += 1
        limit = self._limits[expert]
        self._beyond[expert] += limit is not None and distance > limit

    @property
    def alarm(self) -> bool:
        """Whether any test has raised an alarm; an alarm stays."""
        return any(at is not None for one in self._tests for at in one.alarm_at)

    def report(self) -> dict[str, Any]:
        """Return what was seen, as plain data.

        ``evidence`` of each test against "nothing has changed" is 1 at the start; an alarm is raised, and stays, when
        it first reaches ``threshold``. ``beyond`` is the share of a region's queries that were farther than 95 % of
        its held-out examples.
        """
        expected = self._expected / max(self._expected.sum(), 1)
        regions = []
        for region, seen in enumerate(self._seen):
            known = seen > 0 and self._limits[region] is not None
            regions.append(
                {
                    "expert": region,
                    "queries": int(seen),
                    "held_out": int(self._expected[region]),
                    "share": float(seen / self.queries) if self.queries else None,
                    "expected_share": float(expected[region]),
                    "beyond": float(self._beyond[region] / seen) if known else None,
                    "distance": self._distances.report(region) if self._several else self._overall.report(0),
                    "traffic": self._shares.report(region),
                }
            )
        return {
            "queries": self.queries,
            "held_out": int(self._expected.sum()),
            "false_alarm_rate": self.rate,
            "alarm": self.alarm,
            "overall": self._overall.report(0),
            "regions": regions,
        }

    def tests(self) -> Iterator[tuple[str, int | None, dict[str, Any]]]:
        """Yield every test: what it looks at ("distance", "traffic"), its region (None: all), its evidence."""
        yield "distance", None, self._overall.report(0)
        if self._several:
            for region in range(len(self.reference.counts)):
                yield "distance", region, self._distances.report(region)
                yield "traffic", region, self._shares.report(region)

    @property
    def _tests(self) -> Sequence[_Gamblers]:
        return (self._overall, self._distances, self._shares)

    def _rank(self, expert: int, distance: float) -> float:
        """Return the part of the region's values so far, this one included, that are farther; ties are broken."""
        bins, place = self._bins[expert], _bin(distance)
        bins[place] += 1
        farther = int(bins[place + 1 :].sum())
        return float((farther + self._random.random() * int(bins[place])) / int(bins.sum()))

    def _share_returns(self, expert: int) -> Floats:
        """Return the returns of bets on the shares, shape (regions, bets)."""
        before = self._expected + self._seen
        total = before.sum()
        here = np.zeros(len(before))
        here[expert] = 1
        after = before + here
        tie = self._random.random()
        # The rank of "this query came here" among all values of the region's indicator.
        ranks = np.where(here > 0, tie * after, after + tie * (total + 1 - after)) / (total + 1)
        below = np.where(ranks[:, None] < _BELOW, _FACTORS, (1 - _BELOW * _FACTORS) / (1 - _BELOW))
        return np.hstack([np.ones((len(ranks), 1)), below])


def _bin(distance: float) -> int:
    return min(int(max(distance, 0.0) ** 0.5 * (_BINS / 2)), _BINS - 1)


def _rank_returns(rank: float) -> Floats:
    """Return what each bet on a rank pays; each pays 1 on average over uniform ranks. The first one keeps its stake."""
    tail = _TAIL_FACTOR if rank < _TAIL else (1 - _TAIL * _TAIL_FACTOR) / (1 - _TAIL)
    return np.concatenate([[1.0], 1 + _SLOPES * (rank - 0.5), [tail]])
