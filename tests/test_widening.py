"""Thresholds of a mixture whose examples grow: never smaller, and as wide as queries like the new examples need."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mop.embeddings.encoders import Vectors
from mop.limits import Limits, Measure
from mop.prompts import Demo
from mop.retrieval import Retrieval
from mop.search.adding import grown
from mop.search.widening import widened

CENTROIDS = np.eye(3, 4, dtype=np.float32)


def around(region: int, count: int, rng: np.random.Generator, spread: float = 0.3) -> Vectors:
    return np.asarray(CENTROIDS[region] + rng.normal(0, spread, (count, 4)), np.float32)


def pool_of(vectors: Vectors) -> Retrieval:
    return Retrieval(tuple(Demo(f"old {row}", "x") for row in range(len(vectors))), vectors, 1)


def after(limits: Limits, regions: list[int], vectors: Vectors, old: Vectors, measure: Measure) -> Limits:
    pool = pool_of(np.vstack([old, vectors]))
    places = len(old) + np.arange(len(vectors))
    limits = Limits(limits.thresholds, limits.coverage, measure)
    found = widened(limits, CENTROIDS, np.asarray(regions, np.intp), vectors, pool, places)
    assert found is not None
    return found


@pytest.mark.parametrize("measure", ["demo", "centroid"])
def test_enough_new_examples_widen_the_threshold_of_their_region_only(measure: Measure) -> None:
    rng = np.random.default_rng(0)
    limits = Limits((1e-3, 2e-3, 3e-3), 0.9)
    found = after(limits, [1] * 30, around(1, 30, rng), around(0, 5, rng), measure)
    assert found.thresholds[0] == 1e-3
    assert found.thresholds[1] > 0.01
    assert found.thresholds[2] == 3e-3


def test_too_few_new_examples_change_nothing() -> None:
    rng = np.random.default_rng(0)
    limits = Limits((1e-3, 1e-3, 1e-3), 0.9)
    # It takes nine scores at a coverage of 0.9.
    assert after(limits, [1] * 8, around(1, 8, rng), around(0, 5, rng), "demo").thresholds == limits.thresholds
    assert after(limits, [1] * 9, around(1, 9, rng), around(0, 5, rng), "demo").thresholds != limits.thresholds


def test_regions_that_share_a_threshold_go_on_to_share_it() -> None:
    rng = np.random.default_rng(0)
    vectors = np.vstack([around(0, 6, rng), around(1, 6, rng)])
    found = after(Limits((1e-3, 1e-3, 2e-3), 0.9), [0] * 6 + [1] * 6, vectors, around(2, 5, rng), "demo")
    assert found.thresholds[0] == found.thresholds[1] > 1e-3
    assert found.thresholds[2] == 2e-3


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(0, 3) | st.just(math.inf), min_size=3, max_size=3),
    st.sampled_from(["demo", "centroid"]),
    st.integers(0, 40),
    st.integers(0, 99),
)
def test_no_threshold_becomes_smaller_and_none_appears(
    thresholds: list[float], measure: Measure, count: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    regions = rng.integers(0, 3, count)
    vectors = np.asarray(CENTROIDS[regions] + rng.normal(0, 0.5, (count, 4)), np.float32)
    found = after(Limits(tuple(thresholds), 0.9), regions.tolist(), vectors, around(0, 2, rng), measure)
    for old, new in zip(thresholds, found.thresholds, strict=True):
        assert new >= old
        assert math.isinf(new) == math.isinf(old)


def test_without_calibrated_thresholds_there_is_nothing_to_widen() -> None:
    vectors = around(0, 20, np.random.default_rng(0))
    for limits in (None, Limits((math.inf,) * 3, margin=0.1)):
        regions, places = np.zeros(20, np.intp), np.arange(20)
        assert widened(limits, CENTROIDS, regions, vectors, pool_of(vectors), places) is limits


@pytest.mark.parametrize("measure", ["demo", "centroid"])
def test_queries_like_the_new_examples_are_covered_as_stated(measure: Measure) -> None:
    rng = np.random.default_rng(7)
    far = []
    for _ in range(300):
        old, new, queries = around(0, 10, rng, 0.05), around(0, 25, rng, 0.5), around(0, 20, rng, 0.5)
        found = after(Limits((1e-4,) * 3, 0.9), [0] * 25, new, old, measure)
        distance = ((queries - CENTROIDS[0]) ** 2).sum(axis=1)
        if measure == "demo":
            distance = pool_of(np.vstack([old, new])).search(queries)[0]
        far.append(found.far(np.zeros(20, np.intp), distance).mean())
    # The mean over draws of the examples is at most 0.1; its standard error is below 0.005.
    assert 0.05 < np.mean(far) < 0.115


def test_an_example_too_long_for_the_pool_still_says_how_far_it_is() -> None:
    rng = np.random.default_rng(3)
    from mop.examples import Example

    vectors = around(0, 12, rng)
    examples = [Example("word " * (500 if row < 6 else 1) + str(row), ("x",)) for row in range(12)]
    old = pool_of(around(0, 4, rng))
    pool, places = grown(old, examples, vectors, token_budget=100)
    assert places.tolist() == [-1] * 6 + [4, 5, 6, 7, 8, 9]
    assert len(pool.demos) == 10
    found = widened(Limits((0.0,) * 3, 0.9, "demo"), CENTROIDS, np.zeros(12, np.intp), vectors, pool, places)
    assert found is not None
    apart = ((vectors[:, None] - pool.vectors[None]) ** 2).sum(axis=2)
    apart[np.arange(6, 12), np.arange(4, 10)] = np.inf
    assert found.thresholds[0] == pytest.approx(np.sort(apart.min(axis=1))[11], rel=1e-4)
