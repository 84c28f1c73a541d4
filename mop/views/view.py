"""View: a mixture as the words and numbers that people see. Knows no HTML, no server.

A mixture's report is whatever its file holds; a part of it that isn't as the search writes it counts as missing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from mop.embeddings.region_map import draw_map
from mop.handwritten import AUTHOR
from mop.mixture import Expert, Mixture
from mop.prompts import Prompt
from mop.views.picture import Picture

#: Most regions whose prompts are on the page, the largest; a page with thousands would be of use to nobody.
MOST_LISTED = 200
#: Most regions that are drawn.
MOST_DRAWN = 2000
_WORDS = 4


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether the mixture helped, in a few words and in a sentence; ``doubt`` says how far to believe it."""

    short: str
    sentence: str
    doubt: str = ""


@dataclass(frozen=True, slots=True)
class ExpertView:
    """One region as it is listed."""

    number: int
    expert: Expert
    words: str
    colour: int
    shape: int

    @property
    def prompt(self) -> Prompt:
        """The expert's own prompt, also where the generalist answers."""
        return self.expert.prompt

    @property
    def compared(self) -> bool:
        """Whether validation compared it with the generalist."""
        return self.expert.generalist_score is not None

    @property
    def gain(self) -> str:
        """The gain with its interval, in words."""
        one = self.expert
        return f"{signed(one.gain)} ({signed(one.gain_low)} to {signed(one.gain_high)})"


class MixtureView:
    """What is shown of one mixture; the costly parts are made when first needed, and kept."""

    def __init__(self, mixture: Mixture) -> None:
        self.mixture = mixture

    @cached_property
    def picture(self) -> Picture | None:
        """The map; None where there is one region, or far too many to tell apart."""
        mixture = self.mixture
        if not 1 < len(mixture) <= MOST_DRAWN:
            return None
        region_map = mixture.region_map
        if region_map is None:  # the file is older than maps
            texts = mixture.centroids[:0] if mixture.retrieval is None else mixture.retrieval.vectors
            region_map = draw_map(mixture.centroids, texts)
        return Picture(region_map, [words_of(expert, 2) for expert in mixture.experts])

    @cached_property
    def experts(self) -> list[ExpertView]:
        """The regions that are listed, in the order of their numbers."""
        every = range(len(self.mixture))
        largest = sorted(every, key=lambda number: -self.mixture.experts[number].size)[:MOST_LISTED]
        return [self.expert(number) for number in sorted(largest)]

    def expert(self, number: int) -> ExpertView:
        """Return one region."""
        expert = self.mixture.experts[number]
        mark = self.picture.marks[number] if self.picture else None
        colour, shape = (mark.colour, mark.shape) if mark else (0, 0)
        return ExpertView(number, expert, words_of(expert, _WORDS) or "(no words)", colour, shape)

    @property
    def handwritten(self) -> bool:
        """Whether people wrote its prompts, so that no search and no measurement stands behind it."""
        return self.mixture.provenance.get("method") == AUTHOR

    @property
    def gain_reach(self) -> float:
        """The largest gain or loss that a listed interval reaches; never 0."""
        ends = [max(abs(one.expert.gain_low), abs(one.expert.gain_high)) for one in self.experts if one.compared]
        return max([0.05, *(min(end, 1.0) for end in ends)])

    @cached_property
    def verdict(self) -> Verdict:
        """Whether it helped, by what the file says."""
        return _UNMEASURED if self.handwritten else _verdict(self.mixture)


_UNMEASURED = Verdict(
    "Not measured",
    "People wrote these prompts, no search learned them, and nothing says yet whether they are better than one prompt.",
    "With labelled examples, mop report MIXTURE DATA measures it.",
)


def words_of(expert: Expert, most: int) -> str:
    """Return the first words that mark a region."""
    return ", ".join(expert.words[:most])


def plural(number: int, noun: str) -> str:
    """Return the number with its noun."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def signed(value: float) -> str:
    """Return a difference with its sign."""
    rounded = round(value, 2) + 0.0
    return f"{'−' if rounded < 0 else '+'}{abs(rounded):.2f}"


def given_up(mixture: Mixture) -> str | None:
    """Return in a sentence that a mixture was given up at its first look; None where none was."""
    rows = mixture.report.get("layouts")
    for row in rows if isinstance(rows, list) else []:
        if isinstance(row, Mapping) and row.get("given_up") is True:
            ours, single, count = (number_of(row.get(key)) for key in ("score", "single", "examples"))
            if ours is not None and single is not None and count is not None:
                return (
                    f"A mixture was behind at a first look ({ours:.2f} against {single:.2f} on "
                    f"{plural(int(count), 'example')}) and was given up; its calls went into the one prompt."
                )
    return None


def _verdict(mixture: Mixture) -> Verdict:
    gate = mixture.report.get("gate")
    found = {} if not isinstance(gate, Mapping) else {str(key): number_of(value) for key, value in gate.items()}
    count, ours, single, gain = (found.get(key) for key in ("validation", "mixture", "generalist", "gain"))
    if count is None or ours is None or single is None or gain is None:
        if len(mixture) == 1:
            looked = given_up(mixture)
            return Verdict("One prompt", looked or "This file holds one prompt; no mixture was compared with it.")
        return Verdict("Not known", "The file does not say how the mixture compares with one prompt.")
    low, high, least = found.get("mixture_low"), found.get("mixture_high"), found.get("gain_low")
    between = "" if low is None or high is None else f" (95 % interval {low:.2f} to {high:.2f})"
    settings = mixture.provenance.get("settings")
    sure = number_of(settings.get("confidence")) if isinstance(settings, Mapping) else None
    surely = f", at least {signed(least)} with {100 * sure:.0f} % confidence" if least is not None and sure else ""
    scores = (
        f"On {plural(int(count), 'validation example')} the mixture scores {ours:.2f}{between}, "
        f"the best single prompt {single:.2f}: a difference of {signed(gain)}{surely}."
    )
    doubt = (
        "Validation, not test: these examples also chose the prompts, so the scores lean upwards. "
        "The command mop evaluate, on examples that the search has not seen, says what to expect."
    )
    if gate is not None and gate.get("open") is True:
        return Verdict("It helped on validation", scores, doubt)
    return Verdict("No gain shown", f"{scores} That shows no gain, so the one prompt answers.", doubt)


def number_of(value: Any) -> float | None:
    """Return a number of a file as a float, or None for anything that isn't a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) and abs(value) < 1e12 else None
