"""Verdict: whether the mixture helped, in one sentence with its interval. Knows no HTML."""

from __future__ import annotations

from dataclasses import dataclass

from mop.mixture import Mixture
from mop.report.measuring import KNN, MIXTURE, ONE_PROMPT, WITH_NEAREST, ZERO_SHOT, Measured
from mop.stats import PairedDifference
from mop.views.view import MixtureView, plural, signed

#: What the examples of a split are called in a sentence.
NAMES = {"test": "test example", "validation": "validation example", "train": "training example", "all": "example"}


@dataclass(frozen=True, slots=True)
class Bar:
    """A difference with its interval, in the units of the picture beside the sentence (-100 to 100)."""

    name: str
    low: float
    mean: float
    high: float
    words: str


@dataclass(frozen=True, slots=True)
class Finding:
    """The answer in a few words, in a sentence, where it comes from, what to doubt, and the differences as a picture."""

    short: str
    sentence: str
    why: str
    doubts: tuple[str, ...]
    bars: tuple[Bar, ...]
    reach: float


def finding(mixture: Mixture, measured: Measured | None) -> Finding:
    """Return the verdict: from what was measured, or else from what the file says of its validation."""
    difference = None if measured is None else measured.difference(ONE_PROMPT)
    ours = None if measured is None else measured.find(MIXTURE)
    other = None if measured is None else measured.find(ONE_PROMPT)
    if measured is None or difference is None or ours is None or other is None:
        found = MixtureView(mixture).verdict
        return Finding(found.short, found.sentence, _lead(mixture), (found.doubt,) if found.doubt else (), (), 1.0)
    split = measured.plan.split
    sentence = (
        f"On {plural(len(ours.scores), NAMES.get(split, 'example'))} the mixture scores {ours.accuracy:.2f} and the best "
        f"single prompt {other.accuracy:.2f}: a difference of {signed(difference.mean)} "
        f"(95 % interval {signed(difference.low)} to {signed(difference.high)})."
    )
    doubts = [*_doubts(split), *_opponents(measured), *measured.plan.missing]
    return Finding(_short(difference, len(mixture)), sentence, _why(measured), tuple(doubts), *_bars(measured))


def _short(difference: PairedDifference, experts: int) -> str:
    if experts == 1 and not (difference.wins or difference.losses):
        return "One prompt"
    if difference.low > 0:
        return "It helped"
    if difference.high < 0:
        return "It hurt"
    return "No gain shown"


def _why(measured: Measured) -> str:
    """Return how much of the difference is the demo nearest to each query, and how much the experts."""
    nearest, single, experts = measured.find(WITH_NEAREST), measured.find(ONE_PROMPT), measured.difference(WITH_NEAREST)
    if nearest is None or single is None or experts is None:
        return ""
    return (
        f"Where it comes from: showing the one prompt the demo nearest to each query gives "
        f"{signed(nearest.accuracy - single.accuracy)}, the experts beside it {signed(experts.mean)} "
        f"({signed(experts.low)} to {signed(experts.high)})."
    )


def _lead(mixture: Mixture) -> str:
    """Return in how many regions the expert did better on validation."""
    pairs = [(one.score, one.generalist_score) for one in mixture.experts if not one.fallback]
    known = [(ours, single) for ours, single in pairs if ours is not None and single is not None]
    if len(mixture) == 1 or not known:
        return ""
    better = sum(ours > single for ours, single in known)
    return f"Where it comes from: the expert was ahead of the one prompt in {better} of {plural(len(known), 'region')}."


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
                f"({signed(difference.low)} to {signed(difference.high)}) on {plural(difference.n, 'example')}."
            )
    return said


def _bars(measured: Measured) -> tuple[tuple[Bar, ...], float]:
    found = [(name, measured.difference(name)) for name in (ONE_PROMPT, WITH_NEAREST, KNN, ZERO_SHOT)]
    there = [(name, one) for name, one in found if one is not None]
    reach = max([0.05, *(max(abs(one.low), abs(one.high)) for _, one in there)])
    bars = tuple(
        Bar(
            name,
            round(100 * one.low / reach, 1),
            round(100 * one.mean / reach, 1),
            round(100 * one.high / reach, 1),
            f"{signed(one.mean)} ({signed(one.low)} to {signed(one.high)}), {plural(one.n, 'example')}",
        )
        for name, one in there
    )
    return bars, reach


