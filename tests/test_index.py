"""The routing index: exact nearest centroids, the same as the regions' own."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mop.embeddings.encoders import Vectors
from mop.embeddings.index import RoutingIndex
from mop.embeddings.regions import Regions
from mop.seeds import stream


def vectors(rows: int, seed: int) -> Vectors:
    return stream(seed, "index").standard_normal((rows, 6)).astype(np.float32)


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 40), st.integers(1, 50), st.integers(0, 99))
def test_it_finds_what_comparing_with_every_centroid_finds(experts: int, queries: int, seed: int) -> None:
    centroids, asked = vectors(experts, seed), vectors(queries, seed + 1)
    squared = ((asked[:, None].astype(np.float64) - centroids[None]) ** 2).sum(axis=2)
    ordered = np.sort(squared, axis=1)
    nearest = RoutingIndex(centroids).nearest(asked)
    np.testing.assert_allclose(nearest.distance, ordered[:, 0], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(nearest.margin, ordered[:, 1] - ordered[:, 0], rtol=1e-3, atol=1e-4)
    clear = ordered[:, 1] - ordered[:, 0] > 1e-3
    np.testing.assert_array_equal(nearest.expert[clear], squared.argmin(axis=1)[clear])
    np.testing.assert_array_equal(nearest.expert[clear], Regions(centroids).assign(asked)[clear])


def test_a_centroid_is_at_distance_zero_from_itself() -> None:
    centroids = vectors(30, 0)
    nearest = RoutingIndex(centroids).nearest(centroids)
    np.testing.assert_array_equal(nearest.expert, np.arange(30))
    np.testing.assert_allclose(nearest.distance, 0, atol=1e-4)
    assert nearest.distance.min() >= 0


def test_with_one_centroid_the_margin_is_infinite() -> None:
    nearest = RoutingIndex(vectors(1, 0)).nearest(vectors(4, 1))
    assert nearest.expert.tolist() == [0] * 4
    assert np.isposinf(nearest.margin).all()


def test_between_two_equal_centroids_the_margin_is_zero() -> None:
    nearest = RoutingIndex(np.tile(vectors(1, 0), (2, 1))).nearest(vectors(3, 1))
    assert nearest.margin.tolist() == [0] * 3


def test_vectors_of_any_float_type_and_layout_are_taken() -> None:
    centroids, asked = vectors(5, 0), vectors(7, 1)
    expected = RoutingIndex(centroids).nearest(asked).expert
    turned = np.asfortranarray(asked.astype(np.float64))
    np.testing.assert_array_equal(RoutingIndex(centroids[:, :]).nearest(turned).expert, expected)  # type: ignore[arg-type]


def test_no_queries_have_no_neighbours() -> None:
    assert len(RoutingIndex(vectors(3, 0)).nearest(vectors(0, 1)).expert) == 0
