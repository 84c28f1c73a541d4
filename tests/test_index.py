"""The routing index: exact nearest centroids, the same as the regions' own."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mop.embeddings.encoders import Vectors
from mop.embeddings.index import NeighbourIndex, RoutingIndex
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


def grouped(rows: int, seed: int) -> Vectors:
    rng = stream(seed, "groups")
    centres = rng.standard_normal((40, 16))
    rows_of = centres[rng.integers(0, 40, rows)] + 0.3 * rng.standard_normal((rows, 16))
    return np.asarray(rows_of / np.linalg.norm(rows_of, axis=1, keepdims=True), np.float32)


def test_few_vectors_are_searched_exactly() -> None:
    index = NeighbourIndex(grouped(300, 0))
    assert index.exact
    assert index.recall() == 1.0


def test_many_vectors_are_searched_by_cells_that_find_nearly_all_and_say_how_many() -> None:
    pool, asked = grouped(6000, 0), grouped(300, 1)
    told: list[int] = []
    large = NeighbourIndex(pool, exact_most=1000, progress=lambda done, total: told.append(done))
    exact = NeighbourIndex(pool)
    assert (large.exact, exact.exact) == (False, True)
    assert told[-1] == 6000
    found, truth = large.nearest(asked, 1), exact.nearest(asked, 1)
    share = float((found == truth).mean())
    assert share > 0.95
    assert abs(large.recall(sample=1000) - share) < 0.05


def test_the_recall_of_an_index_that_looks_into_one_cell_is_told_to_be_poor() -> None:
    noise = stream(0, "noise").standard_normal((3000, 24)).astype(np.float32)
    index = NeighbourIndex(noise, exact_most=100)
    full = index.recall(sample=500)
    index._index.nprobe = 1
    assert index.recall(sample=500) < 0.6 < full


def test_distances_are_squared_and_belong_to_the_positions() -> None:
    pool, asked = grouped(3000, 0), grouped(50, 1)
    for index in (NeighbourIndex(pool), NeighbourIndex(pool, exact_most=100)):
        distances, positions = index.search(asked, 3)
        expected = ((asked[:, None] - pool[positions]) ** 2).sum(axis=2)
        np.testing.assert_allclose(distances, expected, atol=1e-5)
        assert (np.diff(distances, axis=1) >= 0).all()


def test_as_many_are_found_as_asked_for_where_the_cells_hold_fewer() -> None:
    pool = grouped(200, 0)
    index = NeighbourIndex(pool, exact_most=10)
    index._index.nprobe = 1
    found = index.nearest(grouped(20, 1), 150)
    assert found.shape == (20, 150)
    assert all(len(set(row.tolist())) == 150 for row in found)
    assert index.nearest(pool[:2], 500).shape == (2, 200)
