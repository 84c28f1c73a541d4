"""Regions: what is said of each expert. Knows the mixture and what was measured, no HTML."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mop.prompts import Demo, Prompt
from mop.report.dots import RIGHT
from mop.report.measuring import MIXTURE, ONE_PROMPT, Measured
from mop.report.texts import cut
from mop.stats import paired_difference
from mop.views.view import ExpertView, MixtureView, signed


@dataclass(frozen=True, slots=True)
class Shown:
    """A prompt as far as it is shown; ``left_out`` demos aren't."""

    instruction: str
    demos: tuple[Demo, ...]
    left_out: int


@dataclass(frozen=True, slots=True)
class Mistake:
    """A query that a region got wrong."""

    query: str
    answer: str
    expected: str


@dataclass(frozen=True, slots=True)
class Tally:
    """What was measured in a region: ``right`` of ``count`` queries, with one prompt ``right_before``; mean scores of
    both, their difference in words, and what was wrong.
    """

    count: int
    right: int
    right_before: int
    score: float
    other: float
    gain: str
    mistakes: tuple[Mistake, ...]
    more: int


@dataclass(frozen=True, slots=True)
class Region:
    """One region; ``tally`` is None where nothing was measured in it."""

    view: ExpertView
    prompt: Shown
    tally: Tally | None


def regions(
    view: MixtureView, measured: Measured | None, *, demos: int = 24, letters: int = 600, mistakes: int = 12
) -> tuple[Region, ...]:
    """Return the regions that are listed, the largest ones of the mixture, in the order of their numbers."""
    return tuple(
        Region(
            one,
            shown(one.prompt, demos=demos, letters=letters),
            _tally(measured, one.number, letters, mistakes),
        )
        for one in view.experts
    )


def gain_box(view: MixtureView) -> str:
    """Return the viewBox of the pictures of gains: from the lowest interval to the highest, 0 always among them."""
    known = [one.expert for one in view.experts if one.compared]
    reach = view.gain_reach
    low = max(-1.0, min([0.0, *(one.gain_low / reach for one in known)]))
    high = min(1.0, max([0.0, *(one.gain_high / reach for one in known)]))
    return f"{50 * low - 4:.1f} -6 {50 * (high - low) + 8:.1f} 12"


def shown(prompt: Prompt, *, demos: int = 24, letters: int = 600) -> Shown:
    """Return the parts of a prompt, cut to these limits; an instruction may be four times as long as a demo."""
    some = tuple(Demo(cut(demo.input, letters), cut(demo.output, letters)) for demo in prompt.demos[:demos])
    return Shown(cut(prompt.instruction, 4 * letters), some, len(prompt.demos) - len(some))


def _tally(measured: Measured | None, region: int, letters: int, most: int) -> Tally | None:
    ours = None if measured is None else measured.find(MIXTURE)
    if measured is None or ours is None:
        return None
    plan = measured.plan
    here = [place for place, route in enumerate(plan.routes) if route.expert == region]
    if not here:
        return None
    scores, other = measured.by_place(MIXTURE)[here], measured.by_place(ONE_PROMPT)[here]
    difference = paired_difference(scores, other)
    wrong = [place for place, score in zip(here, scores, strict=True) if score < RIGHT]
    return Tally(
        len(here),
        int((scores >= RIGHT).sum()),
        int((other >= RIGHT).sum()),
        float(np.mean(scores)),
        float(np.mean(other)),
        f"{signed(difference.mean)} ({signed(difference.low)} to {signed(difference.high)})",
        tuple(
            Mistake(
                cut(plan.examples[place].input, letters),
                cut(ours.answers[place], letters) or "(nothing)",
                cut(" or ".join(plan.examples[place].outputs), letters),
            )
            for place in wrong[:most]
        ),
        max(0, len(wrong) - most),
    )
