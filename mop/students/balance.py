"""Balance: which winning answers are trained on, how often and in what order, so that no persona drowns another.

One adapter learns all personas. Given ten answers of one and three of another it says the first one's words to both,
and holding back the only other kind of query of the second leaves nothing to tell them apart by. So personas are shown
alike often, side by side in each step, and what is held out is taken evenly from those that can spare it. Knows rows'
personas and intents; no models and no tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mop.errors import SettingsError
from mop.seeds import stream

#: A winning answer is shown at most so many times an epoch: said more often, it is learned by heart.
MOST_REPEATS = 4
#: Intents that each persona keeps; what was learned from one alone is taken for that one's wording.
LEAST_INTENTS = 2


def held_out_intents(rows: Sequence[Mapping[str, Any]], share: float, *, seed: int) -> set[tuple[str, str]]:
    """Return the (persona, intent) pairs to hold out: about ``share`` of all, evenly over the personas.

    Each persona keeps `LEAST_INTENTS` or more, or all that it has.
    """
    left: dict[str, list[str]] = {}
    for persona, intent in sorted({(row["persona"], row["intent"]) for row in rows}):
        left.setdefault(persona, []).append(intent)
    wanted = round(share * sum(len(intents) for intents in left.values()))
    for persona, intents in left.items():
        left[persona] = [
            intents[place] for place in stream(seed, "held-out intents", persona).permutation(len(intents))
        ]
    held: set[tuple[str, str]] = set()
    while len(held) < wanted:
        persona = max(left, key=lambda one: len(left[one]))
        if len(left[persona]) <= LEAST_INTENTS:
            break
        held.add((persona, left[persona].pop()))
    return held


def even_order(personas: Sequence[str], *, epochs: int, batch: int, seed: int) -> list[list[int]]:
    """Return the numbers of the rows of each step, the personas mixed evenly in every step.

    In an epoch each persona has as many places as the one with most rows, but its rows come `MOST_REPEATS` times at
    most; which ones come once more changes from epoch to epoch.

    Args:
        personas: The persona of each row.
        epochs: How often the rows are gone through.
        batch: Rows of a step; an epoch's last step may have fewer.
        seed: Seed of the orders.
    """
    if epochs < 1 or batch < 1:
        raise SettingsError(f"epochs={epochs} and batch={batch} must be at least 1.")
    rows = {name: [place for place, one in enumerate(personas) if one == name] for name in sorted(set(personas))}
    most = max((len(own) for own in rows.values()), default=0)
    steps: list[list[int]] = []
    for epoch in range(epochs):
        dealt: list[tuple[float, float, int]] = []
        for name, own in rows.items():
            rng = stream(seed, "order", name, epoch)
            places = min(most, MOST_REPEATS * len(own))
            rounds = [rng.permutation(len(own)) for _ in range(-(-places // len(own)))]
            shown = [own[place] for place in np.concatenate(rounds)[:places]]
            dealt += [((at + 0.5) / places, float(rng.random()), row) for at, row in enumerate(shown)]
        order = [row for _, _, row in sorted(dealt)]
        steps += [order[start : start + batch] for start in range(0, len(order), batch)]
    return steps
