"""What verdicts are worth: position bias, lengths, agreement with checkers and people. Plain numbers in, numbers out.

Scores are from the first answer's side: 1 for a win, 0 for a loss, 0.5 for a tie.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from mop.judge.judging import Pair, Verdict
from mop.metrics.checks import count_words
from mop.stats import Interval, paired_difference

#: Answers whose numbers of words differ by no more than this factor are about equally long.
ALIKE = 1.25


@dataclass(frozen=True, slots=True)
class PositionBias:
    """How often a judge's choice followed the place and not the answer.

    ``first_place`` counts pairs in which the answer shown first won both times, ``second_place`` those in which the
    one shown second did; ``consistent`` counts pairs with the same winner in both orders, ``ties`` and ``unread`` what
    is left. ``p_value`` is that of an exact sign test of first against second place.
    """

    first_place: int
    second_place: int
    consistent: int
    ties: int
    unread: int
    p_value: float


def position_bias(verdicts: Sequence[Verdict]) -> PositionBias:
    """Return the position bias over the pairs that were asked about."""
    kinds = [_kind(verdict) for verdict in verdicts if verdict.asked]
    first, second = kinds.count("first place"), kinds.count("second place")
    p_value = float(stats.binomtest(first, first + second).pvalue) if first + second else 1.0
    return PositionBias(first, second, kinds.count("consistent"), kinds.count("tie"), kinds.count("unread"), p_value)


def _kind(verdict: Verdict) -> str:
    if "unread" in verdict.votes:
        return "unread"
    return {
        ("first", "second"): "first place",
        ("second", "first"): "second place",
        ("first", "first"): "consistent",
        ("second", "second"): "consistent",
    }.get(verdict.votes, "tie")


@dataclass(frozen=True, slots=True)
class WinRate:
    """Mean score of the first answers with its 95 % interval, and how it came about."""

    rate: float
    interval: Interval | None
    wins: int
    ties: int
    losses: int

    @property
    def pairs(self) -> int:
        """Number of pairs."""
        return self.wins + self.ties + self.losses


def win_rate(verdicts: Sequence[Verdict]) -> WinRate:
    """Return the win rate of the first answers, ties as half a win; NaN without pairs.

    The interval is that of the share of wins less the share of losses, which has a width for nothing but ties as well.
    """
    scores = np.array([verdict.score for verdict in verdicts])
    rate = float(scores.mean()) if len(scores) else float("nan")
    interval = None
    if len(scores):
        lead = paired_difference(scores == 1, scores == 0)
        interval = Interval(0.5 + lead.low / 2, 0.5 + lead.high / 2)
    wins, losses = int((scores == 1).sum()), int((scores == 0).sum())
    return WinRate(rate, interval, wins, len(scores) - wins - losses, losses)


@dataclass(frozen=True, slots=True)
class Lengths:
    """Mean words of both answers, and the win rate where they are about equally long, longer and shorter."""

    first_words: float
    second_words: float
    alike: WinRate
    first_longer: WinRate
    first_shorter: WinRate


def by_length(pairs: Sequence[Pair], verdicts: Sequence[Verdict]) -> Lengths:
    """Return how verdicts go with length; ``alike`` is the length-matched comparison."""
    first = [count_words(pair.first) for pair in pairs]
    second = [count_words(pair.second) for pair in pairs]
    alike: list[Verdict] = []
    longer: list[Verdict] = []
    shorter: list[Verdict] = []
    for one, other, verdict in zip(first, second, verdicts, strict=True):
        if max(one, other) <= ALIKE * min(one, other) or one == other:
            alike.append(verdict)
        else:
            (longer if one > other else shorter).append(verdict)
    return Lengths(
        float(np.mean(first)) if first else float("nan"),
        float(np.mean(second)) if second else float("nan"),
        win_rate(alike),
        win_rate(longer),
        win_rate(shorter),
    )


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far two sources say the same of ``items``: the share that is equal, and Cohen's kappa (1960).

    Kappa is None where it isn't defined: both sources always say the same one thing.
    """

    items: int
    share: float
    kappa: float | None


def agreement(one: Sequence[str], other: Sequence[str]) -> Agreement:
    """Return the agreement of two lists of winners (``"first"``, ``"second"``, ``"tie"``) on the same pairs.

    Raises ValueError if there are none or not equally many.
    """
    if not one or len(one) != len(other):
        raise ValueError(f"{len(one)} verdicts against {len(other)}: agreement needs the same pairs, one at least.")
    share = float(np.mean([a == b for a, b in zip(one, other, strict=True)]))
    if len({*one, *other}) == 1:
        return Agreement(len(one), share, None)
    from sklearn.metrics import cohen_kappa_score

    return Agreement(len(one), share, float(cohen_kappa_score(list(one), list(other))))


def winners_by_score(first: Sequence[float], second: Sequence[float]) -> list[str]:
    """Return who wins each pair by a checker's scores."""
    return [
        "tie" if one == other else "first" if one > other else "second"
        for one, other in zip(first, second, strict=True)
    ]
