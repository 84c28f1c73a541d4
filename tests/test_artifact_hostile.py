"""Hostile mixture files beside those of test_artifact: zips that lie about themselves, arrays that lie about theirs."""

from __future__ import annotations

import io
import json
import struct
import tracemalloc
import warnings
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from safetensors.numpy import save as save_tensors
from small import small_mixture

from mop.artifact import MANIFEST, VECTORS, from_bytes, to_bytes
from mop.cli.learning import validated
from mop.cli.showing import _draw
from mop.errors import ArtifactError
from mop.mixture import Mixture

MIXTURE = small_mixture()
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=5,
)
_GATE = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("validation", "mixture", "generalist", "gain", "gain_low", "layout", "open"), _JSON)
)
_SAID = st.fixed_dictionaries({}, optional={"score": _JSON, "demos": _JSON})
WHOLE = to_bytes(MIXTURE)


def members() -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(WHOLE)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(entries: list[tuple[zipfile.ZipInfo, bytes]], comment: bytes = b"") -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w") as archive:
        warnings.simplefilter("ignore")  # names that are there twice
        for info, content in entries:
            archive.writestr(info, content)
        archive.comment = comment
    return buffer.getvalue()


def with_vectors(content: bytes) -> bytes:
    """Return a file whose manifest vouches for these vectors, whatever they are."""
    import hashlib

    manifest = json.loads(members()[MANIFEST])
    manifest["vectors_sha256"] = hashlib.sha256(content).hexdigest()
    text = json.dumps(manifest).encode()
    return zipped([(zipfile.ZipInfo(MANIFEST), text), (zipfile.ZipInfo(VECTORS), content)])


def tensors(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def refused(content: bytes, most_bytes: int = 20_000_000) -> str:
    """Read a hostile file; return the words of the error, which came without much memory."""
    tracemalloc.start()
    try:
        with pytest.raises(ArtifactError) as caught:
            from_bytes(content, "hostile.mop")
        assert tracemalloc.get_traced_memory()[1] < most_bytes
    finally:
        tracemalloc.stop()
    assert str(caught.value).startswith("hostile.mop")
    return str(caught.value)


def test_a_member_that_is_a_link_is_read_as_the_text_that_it_is() -> None:
    link = zipfile.ZipInfo(MANIFEST)
    link.external_attr = 0o120777 << 16
    assert "JSON" in refused(zipped([(link, b"/etc/passwd"), (zipfile.ZipInfo(VECTORS), members()[VECTORS])]))


@pytest.mark.parametrize(
    "names",
    [
        [MANIFEST, MANIFEST],
        [MANIFEST, VECTORS, VECTORS],
        [VECTORS, VECTORS],
        [MANIFEST, "./" + VECTORS],
        [MANIFEST, "a/../" + VECTORS],
        [MANIFEST.upper(), VECTORS],
        [MANIFEST, VECTORS, "\u202egpj.exe"],
        [MANIFEST, VECTORS, ""],
    ],
)
def test_names_other_than_the_two_are_refused(names: list[str]) -> None:
    entries = [(zipfile.ZipInfo(name), members().get(name.rpartition("/")[2], b"")) for name in names]
    assert "nothing else" in refused(zipped(entries))


def test_a_name_that_a_nul_cuts_is_no_member_of_its_own() -> None:
    info = zipfile.ZipInfo(MANIFEST)
    info.filename = MANIFEST + "\0.exe"
    content = zipped([(info, members()[MANIFEST]), (zipfile.ZipInfo(VECTORS), members()[VECTORS])])
    try:
        mixture = from_bytes(content)
    except ArtifactError:
        return
    assert to_bytes(mixture) == WHOLE


def test_two_members_that_share_their_bytes_are_refused() -> None:
    """The directory's entry of the vectors points at the manifest."""
    changed = bytearray(WHOLE)
    entry = WHOLE.index(b"PK\x01\x02", WHOLE.index(b"PK\x01\x02") + 4)
    struct.pack_into("<I", changed, entry + 42, 0)
    refused(bytes(changed))


@pytest.mark.parametrize("offset", [16, 20, 24, 42])
def test_a_directory_that_lies_about_sums_sizes_and_places_is_refused(offset: int) -> None:
    """At these places of an entry stand the checksum, both sizes and the member's place."""
    changed = bytearray(WHOLE)
    entry = WHOLE.index(b"PK\x01\x02")
    struct.pack_into("<I", changed, entry + offset, 0x7FFFFFF0)
    refused(bytes(changed))


def test_a_bomb_of_zeros_in_either_member_is_refused_without_its_memory() -> None:
    for name, why in ((MANIFEST, "would unpack to more"), (VECTORS, "damaged")):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
            for member in (MANIFEST, VECTORS):
                with archive.open(member, "w", force_zip64=True) as file:
                    if member != name:
                        file.write(members()[member])
                    for _ in range(600 if member == name else 0):
                        file.write(bytes(1 << 20))
        assert len(buffer.getvalue()) < 2_000_000
        assert why in refused(buffer.getvalue())


@pytest.mark.parametrize(
    "change",
    [
        {"probes": {"dtype": "F32", "shape": [6, 20_000_000]}, "centroids": {"dtype": "F32", "shape": [3, 20_000_000]}},
        {"centroids": {"dtype": "F32", "shape": [5_000_000, 32]}},
        {"centroids": {"dtype": "F32", "shape": [3, 1 << 60]}},
        {"centroids": {"dtype": "F32", "shape": [3] * 100}},
        {"centroids": {"dtype": "F32", "shape": [-3, -32]}},
        {"centroids": {"dtype": "F32", "shape": "3,32"}},
        {"centroids": {"dtype": ["F32"], "shape": [3, 32]}},
        {"centroids": {"dtype": "BF16", "shape": [3, 32]}},
        {"centroids": None},
        {"another": {"dtype": "F32", "shape": [100_000_000, 1]}},
    ],
)
def test_arrays_that_the_text_has_no_use_for_are_not_even_unpacked(change: dict[str, Any]) -> None:
    header = {"centroids": {"dtype": "F32", "shape": [3, 32]}, "probes": {"dtype": "F32", "shape": [6, 32]}, **change}
    vectors = io.BytesIO()
    with zipfile.ZipFile(vectors, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr(MANIFEST, members()[MANIFEST])
        with archive.open(VECTORS, "w") as file:
            file.write(tensors(header))
            for _ in range(40):
                file.write(bytes(1 << 20))
    refused(vectors.getvalue())


@pytest.mark.parametrize("value", [1e38, -1e30, 1e20])
def test_numbers_whose_distances_overflow_are_refused(value: float) -> None:
    arrays = {"centroids": MIXTURE.centroids.copy(), "probes": MIXTURE.encoder_record.probes}
    arrays["centroids"][:, 0] = value
    assert "beyond" in refused(with_vectors(save_tensors(arrays)))


def test_a_file_in_a_file_and_bytes_around_it_are_no_way_in() -> None:
    assert "nothing else" in refused(zipped([(zipfile.ZipInfo("inner.mop"), WHOLE)]))
    # What stands before or after the zip says nothing, and is never read.
    for content in (b"#!/bin/sh\nexit 1\n" + WHOLE,):
        try:
            assert to_bytes(from_bytes(content)) == WHOLE
        except ArtifactError:
            continue


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00" * 8,
        tensors({}, length=1 << 63),
        tensors({}, length=(1 << 64) - 1),
        tensors({}, length=100_000_000),
        tensors(b" " * 1_000_000),
        tensors(b"[" * 100_000),
        tensors({"centroids": {"dtype": "F32", "shape": [3, 32], "data_offsets": [0, 384]}}),
        tensors({"centroids": {"dtype": "F32", "shape": [1 << 40, 1 << 40], "data_offsets": [0, 4]}}, b"1234"),
        tensors({"centroids": {"dtype": "F32", "shape": [-1, 4], "data_offsets": [0, 4]}}, b"1234"),
        tensors({"centroids": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}}, b"1234"),
        tensors({"centroids": {"dtype": "OBJ", "shape": [1], "data_offsets": [0, 4]}}, b"1234"),
        tensors({"centroids": {"dtype": "F32", "shape": ["1"], "data_offsets": [0, 4]}}, b"1234"),
        tensors({name: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} for name in ("a", "b")}, b"1234"),
        tensors({f"t{number}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for number in range(10_000)}),
        tensors({"__metadata__": {"a": 1}}),
        save_tensors({"centroids": MIXTURE.centroids, "probes": np.zeros((6, 32), np.int64)}),
    ],
    ids=range(17),
)
def test_arrays_that_lie_about_themselves_are_refused(content: bytes) -> None:
    words = refused(with_vectors(content))
    assert len(words) < 5000


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["centroids", "probes"])
def test_one_number_that_is_none_is_refused(name: str, bad: float) -> None:
    arrays = {"centroids": MIXTURE.centroids.copy(), "probes": MIXTURE.encoder_record.probes.copy()}
    arrays[name][-1, -1] = bad
    assert "finite" in refused(with_vectors(save_tensors(arrays)))


@pytest.mark.parametrize("place", [0, -1])
@pytest.mark.parametrize("cut", [1, 4, 100])
def test_truncated_arrays_are_refused(place: int, cut: int) -> None:
    whole = members()[VECTORS]
    refused(with_vectors(whole[cut:] if place == 0 else whole[:-cut]))


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_many_mutations_at_once_are_an_artifact_error_or_a_mixture(data: st.DataObject) -> None:
    changed = bytearray(WHOLE)
    for _ in range(data.draw(st.integers(1, 20))):
        kind = data.draw(st.sampled_from(["byte", "swap", "cut", "double", "word"]))
        at = data.draw(st.integers(0, max(0, len(changed) - 1)))
        if not changed:
            break
        if kind == "byte":
            changed[at] = data.draw(st.integers(0, 255))
        elif kind == "swap":
            other = data.draw(st.integers(0, len(changed) - 1))
            changed[at], changed[other] = changed[other], changed[at]
        elif kind == "cut":
            del changed[at : at + data.draw(st.integers(1, 64))]
        elif kind == "double":
            changed[at:at] = changed[at : at + data.draw(st.integers(1, 64))]
        else:
            changed[at : at + 4] = data.draw(st.sampled_from([b"\xff" * 4, b"\0" * 4, b"PK\x01\x02", b"PK\x05\x06"]))
    try:
        mixture = from_bytes(bytes(changed))
    except ArtifactError:
        return
    assert isinstance(mixture, Mixture)
    assert np.isfinite(mixture.centroids).all()


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=400), st.integers(0, 2**64 - 1))
def test_any_header_of_arrays_is_an_artifact_error(header: bytes, length: int) -> None:
    with pytest.raises(ArtifactError):
        from_bytes(with_vectors(struct.pack("<Q", length) + header))


@settings(max_examples=60, deadline=None)
@given(
    st.fixed_dictionaries({}, optional={"gate": _JSON | _GATE, "generalist": _JSON | _SAID, "personas": _JSON}),
    st.fixed_dictionaries({}, optional=dict.fromkeys(("settings", "seed", "created", "data_sha256", "method"), _JSON)),
    st.booleans(),
)
def test_whatever_a_file_holds_as_its_report_it_is_shown(
    report: dict[str, Any], origin: dict[str, Any], single: bool
) -> None:
    mixture = small_mixture(report=report, provenance=origin)
    if single:
        mixture = replace(mixture, experts=mixture.experts[:1], centroids=mixture.centroids[:1])
    console = Console(file=io.StringIO(), width=100)
    _draw(console, Path("odd.mop"), mixture)
    for sentence in validated(mixture):
        assert sentence


def test_one_prompt_is_shown_with_the_examples_that_scored_it_and_whether_it_is_what_they_scored() -> None:
    one = replace(MIXTURE, experts=MIXTURE.experts[:1], centroids=MIXTURE.centroids[:1])
    (plain,) = validated(replace(one, report={"generalist": {"score": 0.4}}))
    assert plain == "Validation (5 examples): one prompt scores 0.40; no mixture was tried."
    (attached,) = validated(replace(one, report={"generalist": {"score": 0.4, "demos": "attached after the race"}}))
    assert "(5 examples): the prompt without its demos, which came after the race, scores 0.40" in attached
