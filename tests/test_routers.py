"""Routers: the ways to choose a region, behind one interface."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mop.embeddings.encoders import Vectors
from mop.embeddings.routers import NONE, Kernel, NearestCentroid, NearestDemo, RandomRegion, SoftTopTwo, kernel_weights
from mop.seeds import stream


def vectors(rows: int, seed: int) -> Vectors:
    return stream(seed, "routers").standard_normal((rows, 5)).astype(np.float32)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 12), st.integers(0, 20), st.integers(0, 50))
def test_every_router_names_a_region_for_every_query(regions: int, queries: int, seed: int) -> None:
    centroids, asked = vectors(regions, seed), vectors(queries, seed + 1)
    pool = vectors(regions * 3, seed + 2)
    routers = [
        NearestCentroid(centroids),
        NearestDemo(pool, NearestCentroid(centroids).choose(pool).expert),
        SoftTopTwo(centroids, 0.3),
        Kernel(centroids, np.linspace(-0.1, 0.2, regions), 0.5),
        RandomRegion(regions, seed),
    ]
    for router in routers:
        choice = router.choose(asked)
        assert choice.expert.shape == choice.second.shape == (queries,)
        assert ((choice.expert >= 0) & (choice.expert < regions)).all()
        assert ((choice.second >= NONE) & (choice.second < regions)).all()
        assert (choice.second != choice.expert).all()


def test_the_second_nearest_has_a_say_within_the_margin_only() -> None:
    centroids = np.array([[0, 0], [2, 0], [9, 0]], np.float32)
    asked = np.array([[0.9, 0], [0.1, 0], [1.2, 0]], np.float32)  # margins 0.4, 3.6 and 0.8
    choice = SoftTopTwo(centroids, 0.5).choose(asked)
    assert choice.expert.tolist() == [0, 0, 1]
    assert choice.second.tolist() == [1, NONE, NONE]


def test_the_nearest_example_can_lie_in_another_region_than_the_nearest_centroid() -> None:
    examples = np.array([[0, 0], [1.8, 0], [6, 0]], np.float32)
    choice = NearestDemo(examples, np.array([0, 1, 1])).choose(np.array([[1.7, 0], [0.2, 0]], np.float32))
    assert choice.expert.tolist() == [1, 0]


def test_a_narrow_kernel_is_the_nearest_centroid_and_a_wide_one_the_largest_gain() -> None:
    centroids, asked = vectors(6, 0), vectors(40, 1)
    gains = np.array([0.1, 0.2, 0.3, 0.15, 0.05, 0.12])
    nearest = NearestCentroid(centroids).choose(asked).expert
    np.testing.assert_array_equal(Kernel(centroids, gains, 1e-4).choose(asked).expert, nearest)
    assert set(Kernel(centroids, gains, 1e6).choose(asked).expert.tolist()) == {2}


def test_a_kernel_never_moves_a_query_to_a_region_without_gain() -> None:
    centroids, asked = vectors(4, 0), vectors(50, 1)
    chosen = Kernel(centroids, [0.0, -0.2, 0.1, 0.0], 1.0).choose(asked).expert
    assert set(chosen.tolist()) == {2}
    without = Kernel(centroids, np.zeros(4), 1.0).choose(asked).expert
    np.testing.assert_array_equal(without, NearestCentroid(centroids).choose(asked).expert)


def test_kernel_weights_of_a_query_far_from_everything_still_sum_to_one() -> None:
    weights = kernel_weights(np.array([[5000, 5001, 9000]], np.float32), 0.01)
    np.testing.assert_allclose(weights.sum(axis=1), 1)
    assert weights[0, 0] > 0.999


def test_chance_gives_the_same_region_for_the_same_vector_in_any_batch() -> None:
    asked, router = vectors(60, 3), RandomRegion(7, seed=1)
    together = router.choose(asked).expert
    alone = [int(router.choose(asked[row : row + 1]).expert[0]) for row in range(60)]
    assert together.tolist() == alone
    assert len(set(alone)) == 7
    assert RandomRegion(7, seed=2).choose(asked).expert.tolist() != alone
