"""Which demos a prompt shows: near a centre, every answer seen before any is repeated, within a token budget.

A prompt that lacks the right answer can hardly give it, and one that shows many answers is harder to read; what that
means in numbers is in benchmarks/LOG.md, "Coverage" and "Recipes".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mop.examples import Example
from mop.prompts import Demo


def nearest_demos(
    examples: Sequence[Example],
    order: NDArray[np.intp] | Sequence[int],
    *,
    token_budget: int,
    max_demos: int,
    per_answer: int | None,
) -> tuple[Demo, ...]:
    """Take examples in ``order`` until ``token_budget`` (estimated tokens) or ``max_demos`` is reached.

    ``per_answer`` bounds how often one answer is shown (``None``: no bound). Nothing is ever shown twice; an example
    that doesn't fit any more is passed over for a shorter one farther away.
    """
    shown: Counter[str] = Counter()
    inputs: set[str] = set()
    chosen: list[Demo] = []
    left = token_budget
    for position in order:
        if len(chosen) == max_demos:
            break
        demo = Demo.of(examples[int(position)])
        if demo.input in inputs or demo.tokens > left:
            continue
        if per_answer is not None and shown[demo.output] >= per_answer:
            continue
        chosen.append(demo)
        inputs.add(demo.input)
        shown[demo.output] += 1
        left -= demo.tokens
    return tuple(chosen)


def each_answer_first(examples: Sequence[Example], order: NDArray[np.intp] | Sequence[int]) -> list[int]:
    """Return ``order`` with the first example of every answer before any second one."""
    seen: Counter[str] = Counter()
    ranked = []
    for place in order:
        answer = examples[int(place)].output
        ranked.append((seen[answer], int(place)))
        seen[answer] += 1
    return [place for _, place in sorted(ranked, key=lambda pair: pair[0])]


def one_for_each_answer(
    examples: Sequence[Example],
    order: Sequence[int],
    *,
    token_budget: int,
    max_demos: int,
    choose_among: int = 4,
) -> tuple[Demo, ...]:
    """Return one demo for each of the answers that come first in ``order``: the shortest of its first few examples.

    A short example stands for its answer as well as a long one, and leaves room for more answers: with 600 tokens
    on the help desk data, 24 experts then show the right answer for 78 % of messages instead of 74 %
    (benchmarks/LOG.md, "Coverage").
    """
    by_answer: dict[str, list[Demo]] = {}
    for position in order:
        demo = Demo.of(examples[position])
        first = by_answer.setdefault(demo.output, [])
        if len(first) < choose_among:
            first.append(demo)
    chosen: list[Demo] = []
    for demos in by_answer.values():
        shortest = min(demos, key=lambda demo: demo.tokens)
        if len(chosen) < max_demos and shortest.tokens <= token_budget:
            chosen.append(shortest)
            token_budget -= shortest.tokens
    return tuple(chosen)


def closed_answers(examples: Sequence[Example], *, longest: int = 60) -> tuple[str, ...]:
    """Return the sorted answers if they form a closed set (labels), else ``()``.

    A set counts as closed when answers repeat at least three times on average and are short.
    """
    answers = sorted({example.output for example in examples})
    if len(answers) < 2 or len(examples) < 3 * len(answers) or max(map(len, answers)) > longest:
        return ()
    return tuple(answers)
