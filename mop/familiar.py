"""Familiar: which examples a mixture holds already. Knows nothing of files, models or scores.

A mixture shows labelled examples in its prompts and looks others up for each query. Asked one of them, it has the
answer before it.
"""

from __future__ import annotations

from collections.abc import Sequence

from mop.data.normal_form import normal_form
from mop.examples import Example
from mop.mixture import Mixture


def held(mixture: Mixture) -> dict[str, str]:
    """Return the answer of every input that ``mixture`` shows or can retrieve, by the input's normal form."""
    pool = () if mixture.retrieval is None else mixture.retrieval.demos
    shown = [demo for prompt in (mixture.generalist, *(one.prompt for one in mixture.experts)) for demo in prompt.demos]
    return {normal_form(demo.input): demo.output for demo in (*shown, *pool)}


def doubts_about(mixture: Mixture, examples: Sequence[Example]) -> list[str]:
    """Return a sentence for each reason why scores on ``examples`` would say too much; empty if there is none.

    Inputs count as the same up to case, spacing and punctuation.
    """
    known, forms = held(mixture), [normal_form(one.input) for one in examples]
    found = []
    if seen := sum(form in known for form in forms):
        found.append(
            f"The mixture holds {seen:,} of the {len(forms):,} examples, and shows or looks up their answers: what it "
            "scores there says nothing about new queries."
        )
    if repeated := len(forms) - len(set(forms)):
        found.append(
            f"{repeated:,} of the {len(forms):,} examples repeat the input of another, and each counts as one of its "
            "own: if they are copies and no queries that came again, the intervals are too narrow."
        )
    return found
