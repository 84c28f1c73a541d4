"""Mixture files in pieces: their members, and files packed with others."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st
from small import small_mixture

from mop.artifact import MANIFEST, VECTORS, to_bytes
from mop.mixture import Mixture

MIXTURE = small_mixture()
WHOLE = to_bytes(MIXTURE)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
#: Any value that a manifest may hold.
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


def members(content: bytes = WHOLE) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(content: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def with_manifest(change: Callable[[dict[str, Any]], object]) -> bytes:
    parts = members()
    manifest = json.loads(parts[MANIFEST])
    change(manifest)
    return packed({**parts, MANIFEST: json.dumps(manifest).encode()})


def with_vectors(vectors: bytes) -> bytes:
    """Return the file with other vectors, which the manifest's hash confirms."""
    manifest = json.loads(members()[MANIFEST])
    manifest["vectors_sha256"] = hashlib.sha256(vectors).hexdigest()
    return packed({MANIFEST: json.dumps(manifest).encode(), VECTORS: vectors})


def assert_same(one: Mixture, other: Mixture) -> None:
    assert one.experts == other.experts
    assert one.generalist == other.generalist
    assert one.decoding == other.decoding
    assert (one.model, one.metric) == (other.model, other.metric)
    assert (one.encoder_record.name, one.encoder_record.identity) == (
        other.encoder_record.name,
        other.encoder_record.identity,
    )
    assert dict(one.report) == dict(other.report)
    assert dict(one.provenance) == dict(other.provenance)
    assert (one.projection is None) == (other.projection is None)
    pairs = [(one.centroids, other.centroids), (one.encoder_record.probes, other.encoder_record.probes)]
    if one.projection is not None and other.projection is not None:
        pairs.append((one.projection, other.projection))
    for array, twin in pairs:
        assert array.dtype == twin.dtype == np.float32
        np.testing.assert_array_equal(array, twin)
