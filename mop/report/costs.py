"""Costs: accuracy against tokens, as a table and as places in a plot. Knows prompts and scores, no HTML.

Measured where examples were given; else the scores are those of validation, and tokens are estimated from the prompts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mop.mixture import Mixture
from mop.prompts import TOKENS_PER_MESSAGE, estimate_tokens
from mop.report.measuring import MIXTURE, ONE_PROMPT, Measured
from mop.views.view import number_of

#: Width and height of the plot on a wide screen and on a narrow one, in the units of an SVG.
SIZES = ((720.0, 380.0), (330.0, 320.0))
_LEFT, _RIGHT, _TOP, _BOTTOM = 44.0, 20.0, 20.0, 46.0
#: Height of a line of text, and how wide a letter is on average.
_LINE, _LETTER = 15.0, 7.0


@dataclass(frozen=True, slots=True)
class Cost:
    """One system: its accuracy (with interval, if known) and tokens per query, without what a cache serves and with.

    Money is USD for 1,000 queries with caching and without; None where it isn't known.
    """

    name: str
    examples: int
    accuracy: float
    low: float | None
    high: float | None
    fresh: float
    tokens: float
    usd: float | None = None
    usd_uncached: float | None = None
    seconds: float | None = None

    @property
    def cached(self) -> int:
        """Prompt tokens per query that a cache served, rounded."""
        return round(self.tokens - self.fresh)


@dataclass(frozen=True, slots=True)
class Place:
    """A system in the plot; ``low`` and ``high`` are ends of its interval, ``label`` where its name starts."""

    name: str
    fresh: float
    tokens: float
    y: float
    low: float | None
    high: float | None
    label: tuple[float, float]
    anchor: str
    number: int


@dataclass(frozen=True, slots=True)
class Plot:
    """The plot: its width and height, ticks as (place, words), and systems."""

    size: tuple[float, float]
    across: tuple[tuple[float, str], ...]
    up: tuple[tuple[float, str], ...]
    places: tuple[Place, ...]

    @property
    def field(self) -> tuple[float, float, float, float]:
        """The field's left, top, right and bottom."""
        return _LEFT, _TOP, self.size[0] - _RIGHT, self.size[1] - _BOTTOM


def costs(mixture: Mixture, measured: Measured | None) -> tuple[Cost, ...]:
    """Return the systems' costs, as measured or from the file; empty where the file has no scores."""
    if measured is None:
        return _from_file(mixture)
    return tuple(
        Cost(
            one.name,
            len(one.scores),
            one.accuracy,
            one.interval.low,
            one.interval.high,
            one.fresh_tokens,
            one.prompt_tokens,
            one.usd_per_1000,
            one.usd_per_1000_uncached,
            one.seconds,
        )
        for one in measured.systems
    )


def plot(found: Sequence[Cost], size: tuple[float, float] = SIZES[0]) -> Plot | None:
    """Return the plot of some costs in a width and height; None if there are none."""
    if not found:
        return None
    width, height = size
    most = max(1.0, *(cost.tokens for cost in found))
    step = _nice(most / 4)
    right_end = step * math.ceil(most / step)
    ends = [end for cost in found for end in (cost.accuracy, cost.low, cost.high) if end is not None]
    low, high = max(0.0, math.floor(10 * min(ends)) / 10), min(1.0, math.ceil(10 * max(ends)) / 10)
    if min(ends) < 0 or max(ends) > 1:  # a metric of one's own
        low, high = min(ends), max(ends)
    high = high if high > low else low + 0.1

    def x(tokens: float) -> float:
        return round(_LEFT + tokens / right_end * (width - _LEFT - _RIGHT), 1)

    def y(accuracy: float) -> float:
        return round(height - _BOTTOM - (accuracy - low) / (high - low) * (height - _TOP - _BOTTOM), 1)

    across = tuple((x(step * tick), f"{step * tick:,.0f}") for tick in range(round(right_end / step) + 1))
    count = max(1, round((high - low) / (0.1 if high - low <= 0.6 else 0.2)))
    up = tuple((y(low + (high - low) * k / count), f"{low + (high - low) * k / count:.2f}") for k in range(count + 1))
    labels = _labels([(x(cost.fresh), x(cost.tokens), y(cost.accuracy), cost.name) for cost in found], size)
    places = tuple(
        Place(
            cost.name,
            x(cost.fresh),
            x(cost.tokens),
            y(cost.accuracy),
            None if cost.low is None else y(cost.low),
            None if cost.high is None else y(cost.high),
            (label[0], label[1]),
            label[2],
            number,
        )
        for number, (cost, label) in enumerate(zip(found, labels, strict=True))
    )
    return Plot(size, across, up, places)


def _labels(
    systems: Sequence[tuple[float, float, float, str]], size: tuple[float, float]
) -> list[tuple[float, float, str]]:
    """Return where each name stands (x, baseline, anchor): beside its line, and on no line or other name if it fits."""
    taken = [(fresh - 8, y - 8, tokens + 8, y + 8) for fresh, tokens, y, _ in systems]
    chosen = []
    for fresh, tokens, y, name in systems:
        width = _LETTER * len(name)
        ways = [
            (tokens + 11, y + 4, "start", tokens + 11),
            *((fresh + 9, y + off, "start", fresh + 9) for off in (-11.0, 20.0)),
            (fresh - 11, y + 4, "end", fresh - 11 - width),
            *(
                (min(fresh + 9, size[0] - width - 4), y + off, "start", min(fresh + 9, size[0] - width - 4))
                for off in (-27.0, 36.0, -43.0, 52.0)
            ),
        ]
        boxes = [(start, base - _LINE * 0.8, start + width, base + 3) for _, base, _, start in ways]
        inside = [
            place
            for place, box in enumerate(boxes)
            if box[0] >= _LEFT + 2 and box[2] <= size[0] - 2 and box[1] >= 2 and box[3] <= size[1] - _BOTTOM - 2
        ]
        free = [place for place in inside if not any(_cover(boxes[place], other) for other in taken)]
        best = (free or inside or [0])[0]
        taken.append(boxes[best])
        chosen.append((round(ways[best][0], 1), round(ways[best][1], 1), ways[best][2]))
    return chosen


def _cover(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _nice(step: float) -> float:
    """Return the smallest of 1, 2, 5 times a power of ten that is at least ``step``."""
    power = 10.0 ** math.floor(math.log10(max(step, 1.0)))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= step * 0.999)


def _from_file(mixture: Mixture) -> tuple[Cost, ...]:
    gate = mixture.report.get("gate")
    said = {str(key): number_of(value) for key, value in gate.items()} if isinstance(gate, Mapping) else {}
    count, ours, single = said.get("validation"), said.get("mixture"), said.get("generalist")
    if count is None or ours is None or single is None:
        return ()
    retrieved = 0.0
    if mixture.retrieval is not None and mixture.retrieval.demos:
        demos = mixture.retrieval.demos
        retrieved = mixture.retrieval.count * sum(demo.tokens for demo in demos) / len(demos)
    query = _query_tokens(mixture)
    sizes = [max(1, expert.size) for expert in mixture.experts]
    prompts = [(mixture.generalist if one.fallback else one.prompt).tokens for one in mixture.experts]
    mean = sum(size * tokens for size, tokens in zip(sizes, prompts, strict=True)) / sum(sizes)
    whole = int(count)
    return (
        Cost(
            MIXTURE,
            whole,
            ours,
            said.get("mixture_low"),
            said.get("mixture_high"),
            retrieved + query,
            mean + retrieved + query,
        ),
        Cost(ONE_PROMPT, whole, single, None, None, query, mixture.generalist.tokens + query),
    )


def _query_tokens(mixture: Mixture) -> float:
    """Estimate the tokens of a query: those of a demo without its answer."""
    demos = [demo for expert in mixture.experts for demo in expert.prompt.demos] or list(mixture.generalist.demos)
    if not demos:
        return float(TOKENS_PER_MESSAGE)
    return TOKENS_PER_MESSAGE + sum(estimate_tokens(demo.input) for demo in demos) / len(demos)
