"""Racing: what the search tried, as far as the file says it: who proposed what, and where it was dropped.

A report is whatever its file holds; a part of it that isn't as the search writes it counts as missing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from scipy import stats

from mop.mixture import Mixture
from mop.report.measuring import Measured
from mop.report.texts import cut
from mop.views.view import number_of, plural

#: The races of a search, in their order, and what raced.
_RACES = (
    ("singles", "Single prompts", "The winner is the single prompt that answers wherever no expert is better."),
    ("crossed", "The best parts together", "The best instructions met the best demos and new ones."),
    ("layouts", "Layouts", "Numbers of experts and ways to choose their demos, under the winning instruction."),
)
_MOST = 60
#: Regions side by side that fit on paper.
_MOST_ABREAST = 24
#: Fewer candidates than this have no rank correlation worth a number.
_FEWEST_RANKED = 3


@dataclass(frozen=True, slots=True)
class Runner:
    """One arm of a race: the examples it saw, of those that the longest saw (share), and its mean score on them."""

    name: str
    examples: int
    share: float
    words: str
    won: bool


@dataclass(frozen=True, slots=True)
class Race:
    """A race, its best arm first."""

    title: str
    words: str
    runners: tuple[Runner, ...]


@dataclass(frozen=True, slots=True)
class Candidate:
    """An instruction that was tried: who wrote it, the regions that took it, and where it was dropped."""

    name: str
    instruction: str
    proposer: str
    fate: str


@dataclass(frozen=True, slots=True)
class Heat:
    """Scores by region: a row (name, cells) for each system or candidate; a cell is None where nothing was tried."""

    columns: tuple[int, ...]
    rows: tuple[tuple[str, tuple[float | None, ...]], ...]

    @property
    def parts(self) -> tuple[Heat, ...]:
        """The same scores in parts that are each as wide as a sheet of paper, or narrower."""
        count = max(1, -(-len(self.columns) // _MOST_ABREAST))
        # Of about the same width: a last part of one column would look like a mistake.
        ends = [len(self.columns) * part // count for part in range(count + 1)]
        return tuple(
            Heat(self.columns[low:high], tuple((name, cells[low:high]) for name, cells in self.rows))
            for low, high in pairwise(ends)
        )


@dataclass(frozen=True, slots=True)
class Ranks:
    """How a region's order of candidates agrees with the order over all regions (Spearman), over several regions."""

    mean: float
    low: float
    high: float
    regions: int
    candidates: int


def races(mixture: Mixture) -> tuple[Race, ...]:
    """Return the races that the file tells of."""
    found = []
    for key, title, words in _RACES:
        rows = [row for row in _rows(mixture.report.get(key)) if isinstance(row.get("name"), str)][:_MOST]
        seen = [int(max(0.0, number_of(row.get("examples")) or 0.0)) for row in rows]
        longest = max([1, *seen])
        runners = tuple(
            Runner(
                cut(row["name"], 120),
                count,
                count / longest,
                _course(row, count, longest, place),
                not place and row.get("given_up") is not True,
            )
            for place, (row, count) in enumerate(zip(rows, seen, strict=True))
        )
        if runners:
            alone = "Only this one was tried; a larger budget tries more. " if len(runners) == 1 else ""
            if len(runners) == 1 and not runners[0].won:
                alone = (
                    "Only this one was tried, and given up: on these examples it was behind the best single prompt. "
                )
            found.append(Race(title, alone + words, runners))
    return tuple(found)


def _course(row: Mapping[str, Any], count: int, longest: int, place: int) -> str:
    score = number_of(row.get("score"))
    told = "no score" if score is None else f"{score:.2f}"
    dropped = place > 0 and count < longest
    return told + (f", dropped after {count:,} of {longest:,}" if dropped else f" on {plural(count, 'example')}")


def candidates(mixture: Mixture, letters: int = 400) -> tuple[Candidate, ...]:
    """Return the instructions that were tried, in the order in which they came; empty where the file doesn't say."""
    tried = _tried(mixture)
    raced = {row["instruction"] for row in tried}
    proposed = mixture.report.get("candidates")
    others = [one for one in proposed if isinstance(one, str)] if isinstance(proposed, list) else []
    found = [
        Candidate(_name(place), cut(row["instruction"], letters), cut(str(row.get("proposer")), 60), _fate(row, place))
        for place, row in enumerate(tried)
    ]
    fate = "raced in a single prompt at most; no expert tried it"
    for place, text in enumerate(one for one in others if one not in raced):
        writer = "given" if text == others[0] else "demos"
        found.append(Candidate(f"P{place + 1}", cut(text, letters), writer, fate))
    return tuple(found[:_MOST])


def region_scores(mixture: Mixture) -> Heat | None:
    """Return the scores of the instructions by region, on validation; None where the file has none."""
    tried = _tried(mixture)
    if not tried:
        return None
    rows = tuple((_name(place), _scores(row, len(mixture))) for place, row in enumerate(tried[:_MOST]))
    return Heat(tuple(range(len(mixture))), rows)


def measured_scores(measured: Measured | None, count: int) -> Heat | None:
    """Return the scores of the systems by region on the examples that were given."""
    if measured is None or count < 2:
        return None
    regions = np.array([route.expert for route in measured.plan.routes])
    rows = []
    for system in measured.systems:
        scores = measured.by_place(system.name)
        cells = []
        for region in range(count):
            here = scores[(regions == region) & np.isfinite(scores)]
            cells.append(float(here.mean()) if len(here) else None)
        rows.append((system.name, tuple(cells)))
    return Heat(tuple(range(count)), tuple(rows))


def ranks(mixture: Mixture) -> Ranks | str:
    """Return how far the best instruction overall is the best in each region, or why that can't be told.

    Spearman's correlation, for each region, of its scores and the means over all regions, over the candidates that
    were tried in all of them. Regions where all candidates score the same have none.
    """
    rows = [_scores(row, len(mixture)) for row in _tried(mixture)]
    known = {region for row in rows for region, score in enumerate(row) if score is not None}
    whole = [row for row in rows if known and all(row[region] is not None for region in known)]
    if len(whole) < _FEWEST_RANKED or len(known) < 2:
        return (
            "A rank correlation of region and global scores needs three instructions that were tried in every region; "
            f"the file has {len(whole)}."
        )
    scores = np.array([[row[region] for region in sorted(known)] for row in whole], dtype=np.float64)
    overall = scores.mean(axis=1)
    alike = "All instructions that were tried everywhere score the same, so there is no order to compare by region."
    if np.ptp(overall) == 0:
        return alike
    found = [float(stats.spearmanr(column, overall).statistic) for column in scores.T if np.ptp(column) > 0]
    if not found:
        return alike
    return Ranks(float(np.mean(found)), min(found), max(found), len(found), len(whole))


def _tried(mixture: Mixture) -> list[Mapping[str, Any]]:
    rows = _rows(mixture.report.get("instructions"))
    return [row for row in rows if isinstance(row.get("instruction"), str)]


def _rows(value: object) -> list[Mapping[str, Any]]:
    return [row for row in value if isinstance(row, Mapping)] if isinstance(value, list | tuple) else []


def _scores(row: Mapping[str, Any], count: int) -> tuple[float | None, ...]:
    scores = row.get("scores")
    found = [number_of(score) for score in scores] if isinstance(scores, list | tuple) else []
    return tuple((found + [None] * count)[:count])


def _name(place: int) -> str:
    return f"C{place + 1}"


def _fate(row: Mapping[str, Any], place: int) -> str:
    chosen = row.get("chosen")
    regions = [region for region in chosen if isinstance(region, int)] if isinstance(chosen, list | tuple) else []
    trials = row.get("trials")
    counts = [number_of(one) or 0.0 for one in trials] if isinstance(trials, list | tuple) else []
    where = sum(count > 0 for count in counts)
    tried = f"tried on {sum(counts):,.0f} examples in {where:,} {'region' if where == 1 else 'regions'}"
    if regions:
        listed = _listed(regions)
        return f"{tried}; answers in {'region' if len(regions) == 1 else 'regions'} {listed}"
    return f"{tried}; dropped everywhere" if place else f"{tried}; the single prompt's own, replaced in every region"


def _listed(regions: Sequence[int]) -> str:
    shown = ", ".join(map(str, regions[:12]))
    return f"{shown} and {len(regions) - 12} more" if len(regions) > 12 else shown
