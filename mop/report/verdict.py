"""Verdict: whether the mixture helped, in one sentence with its interval. Knows no HTML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mop.familiar import doubts_about
from mop.mixture import Mixture
from mop.report.costs import Cost
from mop.report.measuring import KNN, MIXTURE, ONE_PROMPT, WITH_NEAREST, Measured
from mop.stats import PairedDifference
from mop.views.view import MixtureView, plural, signed, words_of

#: What the examples of a split are called in a sentence.
NAMES = {"test": "test example", "validation": "validation example", "train": "training example", "all": "example"}


#: Most regions that the reason names.
_MOST_NAMED = 3


@dataclass(frozen=True, slots=True)
class Bar:
    """A system's score in words, and as places in the picture beside the sentence (0 to 100); ``words`` compare."""

    name: str
    score: str
    length: float
    low: float | None
    high: float | None
    words: str


@dataclass(frozen=True, slots=True)
class Finding:
    """The answer in a few words, in a sentence, where it comes from, what to doubt, and the scores as a picture."""

    short: str
    sentence: str
    why: tuple[str, ...]
    doubts: tuple[str, ...]
    bars: tuple[Bar, ...]


def finding(mixture: Mixture, measured: Measured | None, costs: Sequence[Cost] = ()) -> Finding:
    """Return the verdict: from what was measured, or else from what the file says of its validation.

    ``costs`` are the systems to draw.
    """
    bars = _bars(costs, measured)
    difference = None if measured is None else measured.difference(ONE_PROMPT)
    ours = None if measured is None else measured.find(MIXTURE)
    other = None if measured is None else measured.find(ONE_PROMPT)
    if measured is None or difference is None or ours is None or other is None:
        found = MixtureView(mixture).verdict
        return Finding(found.short, found.sentence, _lead(mixture), (found.doubt,) if found.doubt else (), bars)
    split = measured.plan.split
    sentence = (
        f"On {plural(len(ours.scores), NAMES.get(split, 'example'))} the mixture scores {ours.accuracy:.2f} and the "
        f"best single prompt {other.accuracy:.2f}: a difference of {signed(difference.mean)} "
        f"(95 % interval {signed(difference.low)} to {signed(difference.high)})."
    )
    familiar = doubts_about(measured.plan.mixture, measured.plan.examples)
    doubts = (*_doubts(split), *familiar, *_opponents(measured), *measured.plan.missing)
    return Finding(_short(difference, len(mixture)), sentence, _why(measured, difference), doubts, bars)


def _short(difference: PairedDifference, experts: int) -> str:
    if experts == 1 and not (difference.wins or difference.losses):
        return "One prompt"
    if difference.low > 0:
        return "It helped"
    if difference.high < 0:
        return "It hurt"
    return "No gain shown"


def _why(measured: Measured, difference: PairedDifference) -> tuple[str, ...]:
    """Return in how many examples the difference is, where these are, and how much of it is the retrieved demo."""
    said = []
    if difference.wins or difference.losses:
        said.append(
            f"{difference.wins} of {plural(difference.n, 'example')} scored higher than with the one prompt, "
            f"{difference.losses} lower. {_where(measured)}".rstrip()
        )
    nearest, single, experts = measured.find(WITH_NEAREST), measured.find(ONE_PROMPT), measured.difference(WITH_NEAREST)
    if nearest is not None and single is not None and experts is not None:
        retrieval, alone = measured.plan.mixture.retrieval, nearest.accuracy - single.accuracy
        count = 1 if retrieval is None else retrieval.count
        shown, those = ("the demo", "that demo") if count == 1 else (f"the {count} demos", "those demos")
        said.append(
            f"Each prompt of the mixture ends with {shown} nearest to the query. The one prompt with {those} scores "
            f"{nearest.accuracy:.2f} ({signed(alone)}); what the experts' own prompts add to that is "
            f"{signed(experts.mean)} ({signed(experts.low)} to {signed(experts.high)})."
        )
    return tuple(said)


def _where(measured: Measured) -> str:
    """Return the regions in which most was gained, in words; empty where one region or none gained."""
    experts = measured.plan.mixture.experts
    gains = np.zeros(len(experts))
    regions = [route.expert for route in measured.plan.routes]
    np.add.at(gains, regions, measured.by_place(MIXTURE) - measured.by_place(ONE_PROMPT))
    best = [int(region) for region in np.argsort(-gains, kind="stable")[:_MOST_NAMED] if gains[region] > 0]
    if len(best) < 2 or len(experts) <= len(best):
        return ""
    named = [f"{region} ({words})" if (words := words_of(experts[region], 2)) else f"{region}" for region in best]
    return f"Most was gained in the regions {', '.join(named[:-1])} and {named[-1]}."


def _lead(mixture: Mixture) -> tuple[str, ...]:
    """Return in how many regions the expert did better on validation."""
    pairs = [(one.score, one.generalist_score) for one in mixture.experts if not one.fallback]
    known = [(ours, single) for ours, single in pairs if ours is not None and single is not None]
    if len(mixture) == 1 or not known:
        return ()
    better, worse = sum(ours > single for ours, single in known), sum(ours < single for ours, single in known)
    return (
        f"Of {plural(len(known), 'region')} with an expert, the expert scored higher than the one prompt in {better}, "
        f"as high in {len(known) - better - worse} and lower in {worse}.",
    )


def _doubts(split: str) -> list[str]:
    if split == "test":
        return []
    if split == "validation":
        return [
            "Validation, not test: these examples also chose the prompts and stand among the demos to retrieve, so the "
            "scores lean upwards."
        ]
    return ["The mixture may have been learned from these examples; then the scores lean upwards."]


def _opponents(measured: Measured) -> list[str]:
    """Say where another opponent is not shown to be worse than the mixture."""
    said = []
    for name, words in ((WITH_NEAREST, "The same single prompt with the demo nearest to the query"), (KNN, "kNN")):
        difference = measured.difference(name)
        if difference is not None and difference.low <= 0:
            better = "is better" if difference.high < 0 else "is not shown to be worse"
            said.append(
                f"{words} {better}: the mixture's difference to it is {signed(difference.mean)} "
                f"({signed(difference.low)} to {signed(difference.high)}) on {plural(difference.n, 'example')}. "
                + _tokens(measured, name)
            )
    return said


def _tokens(measured: Measured, name: str) -> str:
    """Return what both systems cost for a query, in words."""
    ours, other = measured.find(MIXTURE), measured.find(name)
    if ours is None or other is None:
        return ""
    return f"It takes {other.fresh_tokens:,.0f} fresh prompt tokens a query, the mixture {ours.fresh_tokens:,.0f}."


def _bars(costs: Sequence[Cost], measured: Measured | None) -> tuple[Bar, ...]:
    top = max([1.0, *(end for cost in costs for end in (cost.accuracy, cost.high) if end is not None)])

    def place(score: float | None) -> float | None:
        return None if score is None else round(100 * max(0.0, score) / top, 1)

    return tuple(
        Bar(
            cost.name,
            f"{cost.accuracy:.2f}",
            place(cost.accuracy) or 0.0,
            place(cost.low),
            place(cost.high),
            _compared(cost, measured),
        )
        for cost in costs
    )


def _compared(cost: Cost, measured: Measured | None) -> str:
    """Return how a system does beside the mixture, in words."""
    difference = None if measured is None or cost.name == MIXTURE else measured.difference(cost.name)
    if measured is None or difference is None:
        return ""
    told = f"mixture {signed(difference.mean)} ({signed(difference.low)} to {signed(difference.high)})"
    return told if difference.n == len(measured.plan.examples) else f"{told}, on {plural(difference.n, 'example')}"
