"""A mixture file that anyone may have written: refused in words, or read as the mixture that it is."""

from __future__ import annotations

import io
import pickle
import struct
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from artifact_files import MIXTURE, PLAIN, WHOLE, assert_same, members, packed, with_manifest, with_vectors
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save as save_tensors
from small import small_mixture

from mop.artifact import MANIFEST, MAX_MANIFEST_BYTES, VECTORS, from_bytes, load, to_bytes
from mop.errors import ArtifactError
from mop.manifest import SCHEMA_VERSION


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_an_artifact_error(content: bytes) -> None:
    with pytest.raises(ArtifactError):
        from_bytes(content)


@settings(max_examples=400, deadline=None)
@given(
    position=st.integers(0, len(WHOLE) - 1),
    removed=st.integers(0, 8),
    inserted=st.binary(max_size=8),
)
def test_a_mutated_file_is_an_artifact_error_or_the_same_mixture(position: int, removed: int, inserted: bytes) -> None:
    mutated = WHOLE[:position] + inserted + WHOLE[position + removed :]
    try:
        mixture = from_bytes(mutated)
    except ArtifactError:
        return
    # Only what says nothing (time stamps, permissions, comments) can differ.
    assert to_bytes(mixture) == WHOLE


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_a_manifest_with_anything_in_any_place_is_an_artifact_error_or_can_be_saved(data: st.DataObject) -> None:
    def change(manifest: dict[str, Any]) -> None:
        node: Any = manifest
        while True:
            keys = list(node) if isinstance(node, dict) else list(range(len(node)))
            key = data.draw(st.sampled_from(keys))
            if isinstance(node[key], (dict, list)) and node[key] and data.draw(st.booleans()):
                node = node[key]
                continue
            node[key] = data.draw(PLAIN | st.sampled_from([1e999, float("nan"), -1, 10**30, "\ud800"]))
            return

    try:
        mixture = from_bytes(with_manifest(change))
    except ArtifactError:
        return
    assert_same(mixture, from_bytes(to_bytes(mixture)))


@settings(max_examples=300, deadline=None)
@given(position=st.integers(0, 600), inserted=st.binary(max_size=8), removed=st.integers(0, 8))
def test_mutated_vectors_with_a_right_hash_are_an_artifact_error_or_a_mixture(
    position: int, inserted: bytes, removed: int
) -> None:
    vectors = members()[VECTORS]
    mutated = vectors[:position] + inserted + vectors[position + removed :]
    try:
        mixture = from_bytes(with_vectors(mutated))
    except ArtifactError:
        return
    assert mixture.centroids.shape == MIXTURE.centroids.shape
    assert np.isfinite(mixture.centroids).all()


@pytest.mark.parametrize("kept", [0, 1, 100, len(WHOLE) // 2, len(WHOLE) - 1])
def test_a_truncated_file_is_an_artifact_error(kept: int, tmp_path: Path) -> None:
    (tmp_path / "m.mop").write_bytes(WHOLE[:kept])
    with pytest.raises(ArtifactError, match=r"m\.mop is damaged"):
        load(tmp_path / "m.mop")


@pytest.mark.parametrize("extra", ["../../evil", "/etc/evil", "model.pkl", "mixture.json/", "C:\\evil", "."])
def test_another_member_is_an_artifact_error_and_nothing_is_unpacked(
    extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "inner").mkdir()
    monkeypatch.chdir(tmp_path / "inner")
    with pytest.raises(ArtifactError, match="nothing else"):
        from_bytes(packed({**members(), extra: b"x"}))
    assert [*tmp_path.rglob("*")] == [tmp_path / "inner"]


def test_a_member_twice_is_an_artifact_error() -> None:
    buffer = io.BytesIO(WHOLE)
    with (
        zipfile.ZipFile(buffer, "a") as archive,
        pytest.warns(UserWarning, match="Duplicate name"),
    ):
        archive.writestr(MANIFEST, b"{}")
    with pytest.raises(ArtifactError, match="nothing else"):
        from_bytes(buffer.getvalue())


def test_a_missing_member_is_an_artifact_error() -> None:
    with pytest.raises(ArtifactError, match=r"expected mixture\.json"):
        from_bytes(packed({MANIFEST: members()[MANIFEST]}))


class _Executed:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("place", [MANIFEST, VECTORS, "model.pkl", "whole"])
def test_a_pickle_anywhere_is_an_artifact_error_and_is_not_executed(place: str, tmp_path: Path) -> None:
    mark = tmp_path / "executed"
    hostile = pickle.dumps(_Executed(mark))
    if place == "whole":
        content = hostile
    elif place == VECTORS:
        content = with_vectors(hostile)
    else:
        content = packed({**members(), place: hostile})
    with pytest.raises(ArtifactError):
        from_bytes(content)
    assert not mark.exists()


def test_a_claim_of_too_much_text_is_refused_before_it_is_unpacked() -> None:
    bomb = packed({**members(), MANIFEST: b" " * (MAX_MANIFEST_BYTES + 1)})
    assert len(bomb) < 1_000_000
    assert _peak_of_refusal(bomb, "would unpack to more") < 5_000_000


def test_a_claim_of_too_many_vectors_is_refused_before_they_are_unpacked() -> None:
    bomb = _with_claimed_size(WHOLE, VECTORS, 1 << 31)
    assert _peak_of_refusal(bomb, "would unpack to more") < 5_000_000


def test_a_member_that_unpacks_to_more_than_it_claims_takes_no_more_memory_than_it_claims() -> None:
    bomb = _with_claimed_size(packed({**members(), VECTORS: bytes(64 << 20)}), VECTORS, 1000)
    assert _peak_of_refusal(bomb, "damaged") < 5_000_000


def _peak_of_refusal(content: bytes, words: str) -> int:
    tracemalloc.start()
    try:
        with pytest.raises(ArtifactError, match=words):
            from_bytes(content)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def _central_entry(content: bytes, member: str) -> int:
    """Return where the member's entry in the zip's directory begins."""
    start = content.index(b"PK\x01\x02")
    while content[start + 46 : start + 46 + len(member)] != member.encode():
        start = content.index(b"PK\x01\x02", start + 4)
    return start


def _with_claimed_size(content: bytes, member: str, size: int) -> bytes:
    changed = bytearray(content)
    struct.pack_into("<I", changed, _central_entry(content, member) + 24, size)
    return bytes(changed)


@pytest.mark.parametrize("member", [MANIFEST, VECTORS])
def test_an_encrypted_member_is_an_artifact_error(member: str) -> None:
    changed = bytearray(WHOLE)
    changed[_central_entry(WHOLE, member) + 8] |= 1
    with pytest.raises(ArtifactError, match="encrypted"):
        from_bytes(bytes(changed))


@pytest.mark.parametrize("compression", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_another_compression_is_an_artifact_error(compression: int) -> None:
    with pytest.raises(ArtifactError, match="compressed"):
        from_bytes(packed(members(), compression))


def test_a_file_without_compression_is_read() -> None:
    assert_same(MIXTURE, from_bytes(packed(members(), zipfile.ZIP_STORED)))


def test_vectors_of_another_mixture_are_an_artifact_error() -> None:
    other = members(to_bytes(small_mixture(centroids=-MIXTURE.centroids)))
    with pytest.raises(ArtifactError, match="hash differs"):
        from_bytes(packed({**members(), VECTORS: other[VECTORS]}))


PROBE_ROWS = MIXTURE.encoder_record.probes


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"centroids": np.full_like(MIXTURE.centroids, np.nan), "probes": PROBE_ROWS}, "finite"),
        ({"centroids": MIXTURE.centroids, "probes": np.full_like(PROBE_ROWS, np.inf)}, "finite"),
        ({"centroids": MIXTURE.centroids[:2], "probes": PROBE_ROWS}, "3 experts"),
        ({"centroids": MIXTURE.centroids[:, :4], "probes": PROBE_ROWS}, "shapes"),
        ({"centroids": MIXTURE.centroids, "probes": PROBE_ROWS[:2]}, "shapes"),
        ({"centroids": MIXTURE.centroids.astype(np.float64), "probes": PROBE_ROWS}, "shapes"),
        ({"centroids": MIXTURE.centroids, "probes": np.asarray(1, np.float32)}, "shapes"),
        ({"centroids": np.empty((3, 0), np.float32), "probes": np.empty((6, 0), np.float32)}, "shapes"),
        (
            {"centroids": MIXTURE.centroids, "probes": PROBE_ROWS, "projection": np.zeros((32, 32), np.float32)},
            "shapes",
        ),
        ({"centroids": MIXTURE.centroids}, "expected"),
        ({"centroids": MIXTURE.centroids, "probes": PROBE_ROWS, "weights": PROBE_ROWS}, "weights"),
    ],
)
def test_vectors_that_do_not_fit_are_an_artifact_error(arrays: dict[str, np.ndarray[Any, Any]], words: str) -> None:
    with pytest.raises(ArtifactError, match=words):
        from_bytes(with_vectors(save_tensors(arrays)))


def test_a_newer_schema_says_to_update() -> None:
    with pytest.raises(ArtifactError, match=rf"schema version {SCHEMA_VERSION + 1}.*Update mop"):
        from_bytes(with_manifest(lambda manifest: manifest.update(schema_version=SCHEMA_VERSION + 1)))


@pytest.mark.parametrize("version", [0, -1, True, "1", 1.5, None])
def test_a_schema_that_never_was_is_an_artifact_error(version: Any) -> None:
    with pytest.raises(ArtifactError, match="schema_version"):
        from_bytes(with_manifest(lambda manifest: manifest.update(schema_version=version)))


@pytest.mark.parametrize(
    "text",
    [b"", b"\xff\xfe", b"[]", b"null", b"{}", b"[" * 100_000, b'{"schema_version": 1e999}', b"1" * 5000, b"{"],
    ids=lambda text: str(text[:10]),
)
def test_a_manifest_that_is_no_manifest_is_an_artifact_error(text: bytes) -> None:
    with pytest.raises(ArtifactError):
        from_bytes(packed({**members(), MANIFEST: text}))


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity", b"1e999"])
def test_numbers_that_are_not_finite_are_an_artifact_error(number: bytes) -> None:
    text = members()[MANIFEST].replace(b"2.5", number)
    with pytest.raises(ArtifactError, match="finite"):
        from_bytes(packed({**members(), MANIFEST: text}))


def test_a_field_that_the_schema_does_not_know_is_an_artifact_error_that_names_it() -> None:
    with pytest.raises(ArtifactError, match=r"experts\.0\.code"):
        from_bytes(with_manifest(lambda manifest: manifest["experts"][0].update(code="import os")))


def test_a_persona_of_no_known_kind_is_an_artifact_error() -> None:
    persona = {"demos": True, "text": "", "examples": 0, "gain": 0, "gain_low": 0, "gain_high": 0, "tried": "bare"}
    with pytest.raises(ArtifactError, match=r"experts\.0\.persona\.kind"):
        from_bytes(with_manifest(lambda manifest: manifest["experts"][0].update(persona={**persona, "kind": "king"})))


def test_a_file_from_before_personas_has_none() -> None:
    def older(manifest: dict[str, Any]) -> None:
        for expert in manifest["experts"]:
            del expert["persona"]

    assert all(expert.persona is None for expert in from_bytes(with_manifest(older)).experts)


def test_a_file_that_is_not_there_is_an_artifact_error(tmp_path: Path) -> None:
    for path in (tmp_path / "no.mop", tmp_path, "nul\0"):
        with pytest.raises(ArtifactError, match="cannot be read"):
            load(path)
