"""Conformal thresholds keep their promise for any scores, and make none that they cannot keep."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mop.embeddings.conformal import SPARE, needed, threshold, thresholds
from mop.seeds import stream

coverages = st.integers(1, 199).map(lambda share: share / 200)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(0, 4, width=16), min_size=1, max_size=60), coverages)
def test_of_exchangeable_scores_no_more_than_the_stated_share_is_flagged(scores: list[float], coverage: float) -> None:
    """Any of n + 1 exchangeable scores is equally likely to be the new one, so counting over all of them is exact."""
    flagged = sum(score > threshold(scores[:i] + scores[i + 1 :], coverage) for i, score in enumerate(scores))
    assert flagged <= (1 - Fraction(repr(coverage))) * len(scores)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.integers(100, 400), st.sampled_from(["normal", "cauchy", "few values"]))
def test_on_random_data_of_any_kind_the_rate_of_false_alarms_is_within_the_coverage(
    seed: int, calibration: int, kind: str
) -> None:
    rng, rates = stream(seed, "conformal", kind), []
    for _ in range(300):
        size = calibration + 50
        draws = {
            "normal": lambda size=size: rng.standard_normal(size),
            "cauchy": lambda size=size: rng.standard_cauchy(size),
            "few values": lambda size=size: rng.integers(0, 6, size).astype(float),
        }[kind]()
        rates.append((draws[calibration:] > threshold(draws[:calibration], 0.95)).mean())
    # Five standard errors of a mean of 300 rates: the promise is about the mean.
    assert np.mean(rates) <= 0.05 + 5 * np.std(rates) / math.sqrt(300)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 500), st.integers(2, 5), st.integers(20, 200))
def test_the_promise_holds_within_each_region_that_has_a_threshold_of_its_own(seed: int, count: int, rows: int) -> None:
    rng = stream(seed, "regions")
    regions = np.sort(rng.integers(0, count, rows))
    scores = rng.random(rows) * (1 + regions)  # the later regions are wider
    shares = np.bincount(rng.integers(0, count, 1000), minlength=count) / 1000
    coverage = 0.8
    own = shares * (rows - 1) >= SPARE * needed(coverage)
    flagged = np.zeros(rows, dtype=bool)
    for i in range(rows):
        rest = np.arange(rows) != i
        flagged[i] = scores[i] > thresholds(scores[rest], regions[rest], coverage, shares=shares)[regions[i]]
    groups = [regions == region for region in np.flatnonzero(own)] + [~own[regions]]
    for group in groups:
        assert flagged[group].sum() <= (1 - coverage) * group.sum() + 1e-9


def test_too_few_scores_give_no_threshold() -> None:
    assert needed(0.99) == 99
    assert threshold(range(98), 0.99) == math.inf
    assert threshold(range(99), 0.99) == 98
    assert threshold([], 0.5) == math.inf


def test_a_wide_region_with_enough_scores_does_not_widen_the_others() -> None:
    regions = np.repeat([0, 1], 300)
    scores = np.concatenate([np.linspace(0, 1, 300), np.linspace(0, 10, 300)])
    own = thresholds(scores, regions, 0.9, shares=np.array([0.5, 0.5]))
    assert own[0] < 1 < 8 < own[1]
    # Expected to be rare, a region shares its threshold, however many scores it happens to have.
    shared = thresholds(scores, regions, 0.9, shares=np.array([0.001, 0.001]))
    assert shared[0] == shared[1] == threshold(scores, 0.9)


@pytest.mark.parametrize("coverage", [0.0, 1.0, -0.5, 2.0])
def test_a_coverage_that_is_no_share_is_refused(coverage: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        threshold([1.0], coverage)


def test_scores_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="aren't numbers"):
        threshold([1.0, math.nan], 0.5)
