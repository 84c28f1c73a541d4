"""Regions: deterministic K-means cells that are big enough to show demos and to be judged."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mop.embeddings.encoders import Vectors
from mop.embeddings.regions import Regions, find_regions
from mop.seeds import stream


def unit(rows: int, seed: int, dimension: int = 8) -> Vectors:
    vectors = stream(seed, "test").standard_normal((rows, dimension))
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def blobs(sizes: list[int], seed: int = 0) -> Vectors:
    """Return tight groups around different axes."""
    rows = np.concatenate([np.tile(np.eye(8)[place], (size, 1)) for place, size in enumerate(sizes)])
    rows += 0.05 * stream(seed, "noise").standard_normal(rows.shape)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def test_groups_that_are_apart_become_the_regions() -> None:
    sizes = [12, 9, 15, 8]
    regions = find_regions(blobs(sizes), 4, seed=0)
    assigned = regions.assign(blobs(sizes))
    groups = np.split(assigned, np.cumsum(sizes)[:-1])
    assert all(len(set(group.tolist())) == 1 for group in groups)
    assert len(set(assigned.tolist())) == len(regions) == 4


@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(1, 60),
    held_out=st.integers(0, 30),
    count=st.integers(1, 12),
    min_demos=st.integers(1, 6),
    min_held_out=st.integers(0, 4),
    seed=st.integers(0, 5),
)
def test_there_are_never_more_regions_than_asked_and_each_is_big_enough_or_the_only_one(
    rows: int, held_out: int, count: int, min_demos: int, min_held_out: int, seed: int
) -> None:
    vectors, judged = unit(rows, seed), unit(held_out, seed + 100)
    regions = find_regions(
        vectors, count, seed=seed, held_out=judged, min_demos=min_demos, min_held_out=min_held_out, restarts=1
    )
    assert 1 <= len(regions) <= min(count, rows)
    assert regions.centroids.dtype == np.float32
    if len(regions) > 1:
        assert np.bincount(regions.assign(vectors), minlength=len(regions)).min() >= min_demos
        assert np.bincount(regions.assign(judged), minlength=len(regions)).min() >= min_held_out


def test_the_same_seed_gives_the_same_regions_to_the_last_bit() -> None:
    vectors = unit(700, 1, 64)
    one, two = (find_regions(vectors, 12, seed=3).centroids for _ in range(2))
    np.testing.assert_array_equal(one, two)
    assert not np.array_equal(one, find_regions(vectors, 12, seed=4).centroids)


def test_the_number_of_threads_does_not_change_the_regions() -> None:
    script = (
        "import hashlib, numpy as np\n"
        "from mop.embeddings.regions import find_regions\n"
        "vectors = np.random.default_rng(0).standard_normal((1500, 32)).astype(np.float32)\n"
        "print(hashlib.sha256(find_regions(vectors, 9, seed=0, restarts=2).centroids.tobytes()).hexdigest())"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "OMP_NUM_THREADS": threads},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        ).stdout
        for threads in ("1", "4")
    }
    assert len(found) == 1


def test_a_small_group_is_dissolved_into_its_neighbours() -> None:
    vectors = blobs([20, 20, 2])
    assert len(find_regions(vectors, 3, seed=0, min_demos=1)) == 3
    kept = find_regions(vectors, 3, seed=0, min_demos=3)
    assert len(kept) == 2
    assert set(kept.assign(vectors[-2:]).tolist()) <= {0, 1}


def test_a_group_without_held_out_examples_is_dissolved() -> None:
    vectors = blobs([20, 20, 20])
    assert len(find_regions(vectors, 3, seed=0, held_out=vectors[:40], min_held_out=2)) == 2


def test_one_region_is_possible_and_takes_everything() -> None:
    vectors = unit(30, 0)
    regions = find_regions(vectors, 1, seed=0, held_out=unit(0, 1))
    assert len(regions) == 1
    assert set(regions.assign(vectors).tolist()) == {0}
    np.testing.assert_allclose(regions.centroids[0], vectors.mean(axis=0), atol=1e-6)


@pytest.mark.filterwarnings("error")
def test_identical_vectors_are_one_region_without_a_warning() -> None:
    vectors = np.tile(unit(1, 0), (20, 1))
    regions = find_regions(vectors, 5, seed=0)
    assert len(regions) == 1
    np.testing.assert_allclose(regions.centroids[0], vectors[0], atol=1e-6)


def test_one_vector_is_one_region() -> None:
    assert len(find_regions(unit(1, 0), 4, seed=0)) == 1


def test_distances_are_squared_euclidean_and_never_negative() -> None:
    vectors = unit(20, 0)
    regions = Regions(vectors[:5])
    expected = ((vectors[:, None] - vectors[None, :5]) ** 2).sum(axis=2)
    np.testing.assert_allclose(regions.distances(vectors), expected, atol=1e-5)
    assert regions.distances(vectors).min() >= 0


def test_ties_go_to_the_lowest_region() -> None:
    centroid = unit(1, 0)
    assert Regions(np.tile(centroid, (3, 1))).assign(unit(5, 1)).tolist() == [0] * 5
