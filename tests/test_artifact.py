"""The mixture file: exact, repeatable, written whole or not at all, and harmless whatever is in it."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import pickle
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save as save_tensors
from small import small_mixture

import mop
from mop.artifact import MANIFEST, MAX_MANIFEST_BYTES, VECTORS, from_bytes, load, save, to_bytes
from mop.decoding import Decoding
from mop.errors import ArtifactError
from mop.manifest import SCHEMA_VERSION
from mop.mixture import PROBES, EncoderRecord, Expert, Mixture
from mop.prompts import Demo, Prompt

MIXTURE = small_mixture()
WHOLE = to_bytes(MIXTURE)


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


# -- what goes in comes out


def test_a_saved_mixture_comes_back_exactly(tmp_path: Path) -> None:
    MIXTURE.save(tmp_path / "m.mop")
    assert_same(MIXTURE, mop.load(tmp_path / "m.mop"))


def test_a_projection_comes_back_exactly() -> None:
    projection = np.random.default_rng(0).standard_normal((33, 5)).astype(np.float32)
    centroids = np.random.default_rng(1).standard_normal((3, 5)).astype(np.float32)
    mixture = small_mixture(projection=projection, centroids=centroids)
    assert_same(mixture, from_bytes(to_bytes(mixture)))


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
UNIT = st.floats(-1, 1)
PROMPTS = st.builds(
    Prompt,
    TEXT,
    st.lists(st.builds(Demo, TEXT, TEXT), max_size=3).map(tuple),
    st.sampled_from(["chat", "block"]),
)
EXPERTS = st.builds(
    Expert,
    prompt=PROMPTS,
    size=st.integers(0, 10**6),
    validation=st.integers(0, 10**6),
    words=st.lists(TEXT, max_size=3).map(tuple),
    proposer=TEXT,
    score=st.none() | UNIT,
    generalist_score=st.none() | UNIT,
    gain=UNIT,
    gain_low=UNIT,
    gain_high=UNIT,
    fallback=st.booleans(),
)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None)
@given(
    experts=st.lists(EXPERTS, min_size=1, max_size=3).map(tuple),
    generalist=PROMPTS,
    decoding=st.builds(Decoding, st.integers(1, 9999), st.lists(TEXT).map(tuple), st.floats(0, 2)),
    report=st.dictionaries(TEXT, PLAIN, max_size=3),
    data=st.data(),
)
def test_any_mixture_comes_back_exactly_and_is_saved_again_as_the_same_bytes(
    experts: tuple[Expert, ...], generalist: Prompt, decoding: Decoding, report: dict[str, Any], data: st.DataObject
) -> None:
    numbers = st.floats(-(2.0**29), 2.0**29, width=32)
    rows = data.draw(st.lists(st.tuples(numbers, numbers), min_size=len(experts), max_size=len(experts)))
    probes = np.eye(len(PROBES), 2, dtype=np.float32)
    mixture = Mixture(
        experts=experts,
        generalist=generalist,
        centroids=np.asarray(rows, dtype=np.float32),
        encoder_record=EncoderRecord("words", "words@1", probes),
        model="model",
        decoding=decoding,
        metric="exact_match",
        report=report,
    )
    content = to_bytes(mixture)
    again = from_bytes(content)
    assert_same(mixture, again)
    assert to_bytes(again) == content


def test_the_bytes_do_not_depend_on_the_clock(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("time.time", lambda: 4e9)
    monkeypatch.setattr("time.localtime", lambda *_: (2096, 1, 1, 0, 0, 0, 0, 1, 0))
    MIXTURE.save(tmp_path / "m.mop")
    assert (tmp_path / "m.mop").read_bytes() == WHOLE


def test_the_text_inside_can_be_read_by_hand() -> None:
    text = members()[MANIFEST].decode()
    assert '"instruction": "Answer «in one word» – größer."' in text
    assert len(text.splitlines()) > 50


def test_mixtures_are_compared_without_an_error() -> None:
    assert small_mixture() != small_mixture()


# -- writing whole or not at all


def test_a_full_disk_leaves_the_old_file_and_nothing_else(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    target = tmp_path / "m.mop"
    target.write_bytes(b"old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ArtifactError, match=r"m\.mop.*No space left"):
        save(MIXTURE, target)
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["m.mop"]


def test_ctrl_c_while_writing_leaves_the_old_file_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    target = tmp_path / "m.mop"
    target.write_bytes(b"old")

    def interrupted(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save(MIXTURE, target)
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["m.mop"]


@pytest.mark.parametrize("place", ["missing/m.mop", "folder", "file/m.mop", "nul\0.mop"])
def test_a_place_that_cannot_be_written_is_a_typed_error(place: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(ArtifactError, match="cannot be written"):
        save(MIXTURE, tmp_path / place)
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


def test_saving_replaces_the_old_file_and_keeps_to_the_umask(tmp_path: Path) -> None:
    target = tmp_path / "m.mop"
    target.write_bytes(b"old")
    before = os.umask(0o027)
    try:
        save(MIXTURE, target)
    finally:
        os.umask(before)
    assert target.read_bytes() == WHOLE
    assert target.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize(
    "changes",
    [
        {"report": {"score": float("nan")}},
        {"report": {"object": object()}},
        {"report": {"text": "\ud800"}},
        {"provenance": {"high": float("inf")}},
        {"experts": (replace(MIXTURE.experts[0], gain=float("nan")), *MIXTURE.experts[1:])},
        {"experts": MIXTURE.experts[:2]},
        {"centroids": np.full_like(MIXTURE.centroids, np.nan)},
        {"experts": (), "centroids": np.empty((0, 32), np.float32)},
    ],
    ids=lambda changes: "+".join(changes),
)
def test_what_could_not_be_loaded_is_not_saved(changes: dict[str, Any], tmp_path: Path) -> None:
    target = tmp_path / "m.mop"
    target.write_bytes(b"old")
    with pytest.raises(ArtifactError, match="cannot be saved"):
        save(small_mixture(**changes), target)
    assert target.read_bytes() == b"old"


# -- reading what anyone may have written


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
