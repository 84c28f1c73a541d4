"""The region map: the same picture every time, for any text, and never more than a picture in the file."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors
from small import TOPICS, WordEncoder, small_mixture

from mop.artifact import MANIFEST, VECTORS, from_bytes, to_bytes
from mop.embeddings.encoders import Vectors
from mop.embeddings.region_map import SAMPLE, draw_map
from mop.embeddings.regions import Regions
from mop.errors import ArtifactError
from mop.mixture import Mixture
from mop.seeds import stream


def clusters(regions: int, each: int, dimension: int = 60, noise: float = 0.6) -> tuple[Vectors, Vectors]:
    """Return centroids in many directions and unit vectors around them."""
    centres = stream(1, "centres").standard_normal((regions, dimension))
    rows = np.repeat(centres, each, axis=0) + noise * stream(2, "rows").standard_normal((regions * each, dimension))
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    means = rows.reshape(regions, each, dimension).mean(axis=1)
    return np.asarray(means, np.float32), np.asarray(rows, np.float32)


def fidelity(places: Vectors, centroids: Vectors, shown: Vectors, vectors: Vectors) -> float:
    """Return the share of texts that are drawn nearest to their own region."""
    return float((Regions(places).assign(shown) == Regions(centroids).assign(vectors)).mean())


def test_texts_that_it_has_not_seen_are_drawn_at_their_region_far_more_often_than_by_principal_components() -> None:
    centroids, rows = clusters(20, 30, noise=1.5)
    drawn = draw_map(centroids, rows[::2])
    unseen = rows[1::2]
    ours = fidelity(drawn.places, centroids, drawn.place(unseen, centroids), unseen)
    axes = np.linalg.svd(rows[::2] - rows.mean(axis=0), full_matrices=False)[2][:2].T
    flat = fidelity(centroids @ axes, centroids, unseen @ axes, unseen)
    assert ours > 0.8 > 0.5 > flat


def test_a_text_at_a_centroid_lies_at_it_and_one_between_two_lies_between_them() -> None:
    centroids, rows = clusters(6, 20)
    drawn = draw_map(centroids, rows)
    at_centroids = drawn.place(centroids, centroids)
    assert list(Regions(drawn.places).assign(at_centroids)) == list(range(6))
    pair = centroids[:2]
    between = drawn.place(pair.mean(axis=0, keepdims=True), centroids)[0]
    length = np.linalg.norm(drawn.places[0] - drawn.places[1])
    assert max(np.linalg.norm(between - drawn.places[0]), np.linalg.norm(between - drawn.places[1])) < 0.75 * length


def test_the_same_examples_give_the_same_map_and_a_large_number_is_sampled() -> None:
    centroids, rows = clusters(5, 2 * SAMPLE // 5 + 1, dimension=8)
    one, twin, other = draw_map(centroids, rows), draw_map(centroids, rows), draw_map(centroids, rows, seed=1)
    np.testing.assert_array_equal(one.sample, twin.sample)
    np.testing.assert_array_equal(one.places, other.places)
    assert len(one.sample) == SAMPLE
    assert not np.array_equal(one.regions, other.regions)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_centroids_and_examples_give_places_that_are_finite_numbers(data: st.DataObject) -> None:
    dimension = data.draw(st.integers(1, 4))
    numbers = st.floats(-2, 2, width=32)
    centroids = data.draw(arrays(np.float32, (data.draw(st.integers(1, 6)), dimension), elements=numbers))
    rows = data.draw(arrays(np.float32, (data.draw(st.integers(0, 6)), dimension), elements=numbers))
    drawn = draw_map(centroids, rows)
    assert drawn.places.shape == (len(centroids), 2)
    assert drawn.sample.shape == (len(rows), 2)
    shown = drawn.place(np.vstack([rows, 3 * centroids]), centroids)
    assert all(np.isfinite(one).all() for one in (drawn.places, drawn.sample, drawn.spread, shown))
    assert drawn.temperature > 0


# -- in the file


def mapped() -> Mixture:
    mixture = small_mixture()
    texts = [f"my {topic} is {word}" for topic in TOPICS for word in ("lost", "late", "here")]
    return replace(mixture, region_map=draw_map(mixture.centroids, WordEncoder().encode(texts)))


def changed(vectors: dict[str, Any] | None = None, record: Any = None) -> bytes:
    """Return the file of a mixture with a map in which something was exchanged; the hash fits."""
    with zipfile.ZipFile(io.BytesIO(to_bytes(mapped()))) as archive:
        tensors = load_tensors(archive.read(VECTORS))
        manifest = json.loads(archive.read(MANIFEST))
    tensors = {name: array for name, array in {**tensors, **(vectors or {})}.items() if array is not None}
    manifest["region_map"] = (
        {**manifest["region_map"], **record} if isinstance(record, dict) else manifest["region_map"]
    )
    if record == "none":
        manifest["region_map"] = None
    content = save_tensors(tensors)
    manifest["vectors_sha256"] = hashlib.sha256(content).hexdigest()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(MANIFEST, json.dumps(manifest))
        archive.writestr(VECTORS, content)
    return buffer.getvalue()


def test_a_map_comes_back_exactly_and_places_texts_as_before() -> None:
    mixture = mapped()
    again = from_bytes(to_bytes(mixture))
    assert to_bytes(again) == to_bytes(mixture)
    one, twin = mixture.region_map, again.region_map
    assert one is not None
    assert twin is not None
    assert one.temperature == twin.temperature
    query = WordEncoder().encode(["where is my parcel"])
    np.testing.assert_array_equal(one.place(query, mixture.centroids), twin.place(query, again.centroids))
    for name in ("places", "spread", "sample", "regions"):
        np.testing.assert_array_equal(getattr(one, name), getattr(twin, name))


def test_a_map_without_examples_comes_back_too() -> None:
    mixture = small_mixture()
    drawn = draw_map(mixture.centroids, mixture.centroids[:0])
    again = from_bytes(to_bytes(replace(mixture, region_map=drawn))).region_map
    assert again is not None
    assert again.sample.shape == (0, 2)


@pytest.mark.parametrize("version", [1, 2])
def test_files_that_are_older_than_maps_still_load(version: int) -> None:
    with zipfile.ZipFile(io.BytesIO(to_bytes(small_mixture()))) as archive:
        manifest, vectors = json.loads(archive.read(MANIFEST)), archive.read(VECTORS)
    del manifest["region_map"]
    if version == 1:
        del manifest["retrieval"]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(MANIFEST, json.dumps({**manifest, "schema_version": version}))
        archive.writestr(VECTORS, vectors)
    assert from_bytes(buffer.getvalue()).region_map is None


@pytest.mark.parametrize(
    ("vectors", "record"),
    [
        ({"map_places": np.zeros((2, 2), np.float32)}, None),
        ({"map_places": np.zeros((3, 3), np.float32)}, None),
        ({"map_places": np.full((3, 2), np.nan, np.float32)}, None),
        ({"map_places": np.zeros((3, 2), np.float64)}, None),
        ({"map_places": None}, None),
        ({"map_spread": np.zeros((31, 2), np.float32)}, None),
        ({"map_spread": np.full((32, 2), np.inf, np.float32)}, None),
        ({"map_sample": np.zeros((8, 2), np.float32)}, None),
        ({"map_sample": None}, None),
        ({"map_extra": np.zeros((3, 2), np.float32)}, None),
        (None, {"regions": [0] * 8 + [3]}),
        (None, {"regions": [0] * 8 + [-1]}),
        (None, {"regions": [0] * 8 + [10**30]}),
        (None, {"regions": [0] * 8 + [0.5]}),
        (None, {"regions": []}),
        (None, {"temperature": 0.0}),
        (None, {"temperature": -1.0}),
        (None, {"temperature": 1e999}),
        (None, {"more": 1}),
        (None, "none"),
    ],
    ids=str,
)
def test_a_hostile_map_is_refused(vectors: dict[str, Any] | None, record: Any) -> None:
    assert from_bytes(changed()).region_map is not None
    with pytest.raises(ArtifactError):
        from_bytes(changed(vectors, record))


def test_a_map_of_other_regions_is_not_saved() -> None:
    drawn = draw_map(small_mixture().centroids[:2], small_mixture().centroids)
    with pytest.raises(ArtifactError, match="cannot be saved"):
        to_bytes(small_mixture(region_map=drawn))
