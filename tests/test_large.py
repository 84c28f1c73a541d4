"""Clustering a sample of many vectors: the same every time, about as good as clustering all."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from small import small_mixture

from mop.artifact import from_bytes, to_bytes
from mop.embeddings import regions as regions_module
from mop.embeddings.encoders import Vectors
from mop.embeddings.large import CHUNK, assign, cluster
from mop.embeddings.regions import Regions, find_regions
from mop.prompts import Demo
from mop.retrieval import Retrieval
from mop.seeds import stream


def groups(rows: int, count: int = 12, dimension: int = 16) -> Vectors:
    rng = stream(0, "large")
    centres = stream(1, "centres").standard_normal((count, dimension))
    points = centres[rng.integers(0, count, rows)] + 0.2 * rng.standard_normal((rows, dimension))
    return np.asarray(points / np.linalg.norm(points, axis=1, keepdims=True), np.float32)


def inertia(vectors: Vectors, centres: Vectors) -> float:
    return float(Regions(centres).distances(vectors).min(axis=1).mean())


def test_a_samples_clusters_fit_all_the_vectors_about_as_well_as_their_own() -> None:
    vectors = groups(20_000)
    exact = find_regions(vectors, 12, seed=0, restarts=2).centroids
    sampled = cluster(vectors, 24, seed=0)
    assert sampled.shape == (24, 16)
    assert sampled.dtype == np.float32
    assert inertia(vectors, sampled) < 1.1 * inertia(vectors, exact)


def test_regions_of_many_vectors_come_from_a_sample_and_are_still_big_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(regions_module, "LARGE", 5000)
    vectors, told = groups(6000), []
    found = find_regions(vectors, 10, seed=0, min_demos=50, progress=lambda done, total: told.append((done, total)))
    assert told == [(done, 20) for done in range(1, 21)]
    assert 2 <= len(found) <= 10
    assert np.bincount(found.assign(vectors), minlength=len(found)).min() >= 50
    again = find_regions(vectors, 10, seed=0, min_demos=50)
    np.testing.assert_array_equal(found.centroids, again.centroids)


def test_the_number_of_threads_does_not_change_the_clusters() -> None:
    script = (
        "import hashlib, numpy as np\n"
        "from mop.embeddings.large import cluster\n"
        "vectors = np.random.default_rng(0).standard_normal((9000, 48)).astype(np.float32)\n"
        "print(hashlib.sha256(cluster(vectors, 30, seed=0).tobytes()).hexdigest())"
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
        for threads in ("1", "2", "4")
    }
    assert len(found) == 1


def test_parts_are_assigned_as_the_whole_is(tmp_path: Path) -> None:
    vectors = groups(CHUNK + 300)
    centres = vectors[:9]
    mapped = np.memmap(tmp_path / "vectors", np.float32, "w+", shape=vectors.shape)
    mapped[:] = vectors
    expected = Regions(centres).distances(vectors).argmin(axis=1)
    for found in (assign(mapped, centres), Regions(centres).assign(vectors)):
        assert (found == expected).mean() > 0.9999


def test_identical_vectors_and_as_many_centres_as_vectors_are_taken() -> None:
    same = np.tile(groups(1), (500, 1))
    np.testing.assert_allclose(cluster(same, 4, seed=0)[0], same[0], atol=1e-5)
    few = groups(8)
    assert inertia(few, cluster(few, 8, seed=0)) < 1e-6


def test_a_large_pool_of_demos_is_kept_in_half_precision_and_finds_the_same_ones() -> None:
    vectors = groups(20_500, count=400, dimension=32)
    demos = tuple(Demo(str(number), "answer") for number in range(len(vectors)))
    mixture = small_mixture(retrieval=Retrieval(demos, vectors, 1))
    content = to_bytes(mixture)
    loaded = from_bytes(content)
    assert to_bytes(loaded) == content
    assert mixture.retrieval is not None
    assert loaded.retrieval is not None
    assert loaded.retrieval.vectors.dtype == np.float32
    np.testing.assert_allclose(loaded.retrieval.vectors, vectors, atol=1e-3)
    asked = vectors[:300] + 0.02 * stream(3, "asked").standard_normal((300, 32)).astype(np.float32)
    before, after = mixture.retrieval.nearest(asked), loaded.retrieval.nearest(asked)
    assert np.mean([one == other for one, other in zip(before, after, strict=True)]) > 0.98
    facts = loaded.retrieval.facts()
    assert facts["exact"] is False
    assert float(str(facts["recall"])) > 0.95
