"""A measurement without a model: routes of a mixture's own encoder, and scores that the test chooses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mop.evaluation import SystemScore
from mop.examples import Example
from mop.lm.request import Usage
from mop.mixture import Mixture
from mop.report.measuring import Measured, make_plan
from mop.stats import proportion_interval


def measured_of(
    mixture: Mixture,
    examples: Sequence[Example],
    scores: Mapping[str, Sequence[float]],
    *,
    split: str = "test",
    knn_rows: int = 0,
) -> Measured:
    """Return what would have been measured if the systems had scored so; one that isn't named scores 0."""
    plan = make_plan(mixture, examples, split, knn_rows=knn_rows)
    systems = []
    for number, system in enumerate(plan.systems):
        given = np.array(scores.get(system.name, [0.0] * len(examples)), dtype=float)[list(system.places)]
        right = [examples[place].output for place in system.places]
        answers = tuple(one if score else f"not {one}" for one, score in zip(right, given, strict=True))
        usage = Usage(len(given) * (100 + 60 * number), len(given) * 70, len(given) * 3)
        interval = proportion_interval(given)
        systems.append(
            SystemScore(system.name, given, answers, float(given.mean()), interval, len(given), usage, 0.1, 0.2, 0.3)
        )
    return Measured(plan, tuple(systems))
