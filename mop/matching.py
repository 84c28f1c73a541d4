"""Matching: which expert of one mixture is which of another. Knows nothing of what is then compared.

Experts have no names, so they are matched: first those with the same prompt and centroid; then pairs of which each has
the other as its nearest centroid, if both mixtures place centroids in the same space; then those that share most demos,
half of the fewer at least. What is left was added or removed.
"""

from __future__ import annotations

import numpy as np

from mop.mixture import Expert, Mixture


def one_space_of(before: Mixture, after: Mixture) -> bool:
    """Return whether the centroids of both are places in the same space."""
    if before.encoder_record.identity != after.encoder_record.identity:
        return False
    if before.projection is None or after.projection is None:
        same = before.projection is after.projection
    else:
        same = np.array_equal(before.projection, after.projection)
    return bool(same and before.centroids.shape[1] == after.centroids.shape[1])


def matched(before: Mixture, after: Mixture, *, one_space: bool) -> list[tuple[int, int]]:
    """Return the pairs of experts (their numbers before and after) that are one expert, in the order of the second.

    ``one_space`` says whether centroids can be compared.
    """
    left, right = list(range(len(before))), list(range(len(after)))
    pairs: list[tuple[int, int]] = []

    def take(first: int, second: int) -> None:
        pairs.append((first, second))
        left.remove(first)
        right.remove(second)

    if one_space:
        places = {
            (before.experts[number].prompt, before.centroids[number].tobytes()): number for number in reversed(left)
        }
        for second in list(right):
            first = places.get((after.experts[second].prompt, after.centroids[second].tobytes()))
            if first in left:
                take(first, second)
        if left and right:
            apart = ((before.centroids[left][:, None] - after.centroids[right][None]) ** 2).sum(axis=2)
            nearest, back = apart.argmin(axis=1), apart.argmin(axis=0)
            mutual = [(left[i], right[int(j)]) for i, j in enumerate(nearest) if int(back[int(j)]) == i]
            for first, second in mutual:
                take(first, second)
    shared = sorted(
        (-_shared(before.experts[first], after.experts[second]), first, second) for first in left for second in right
    )
    for share, first, second in shared:
        if -share >= 0.5 and first in left and second in right:
            take(first, second)
    return sorted(pairs, key=lambda pair: pair[1])


def _shared(one: Expert, other: Expert) -> float:
    """Return the part of demos that both show, of the fewer; prompts without demos are alike if they are the same."""
    first, second = set(one.prompt.demos), set(other.prompt.demos)
    if not (first and second):
        return float(one.prompt == other.prompt)
    return len(first & second) / min(len(first), len(second))
