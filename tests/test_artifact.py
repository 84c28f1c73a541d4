"""The mixture file: exact, repeatable, written whole or not at all, and harmless whatever is in it."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from artifact_files import MIXTURE, PLAIN, TEXT, WHOLE, assert_same, members
from hypothesis import given, settings
from hypothesis import strategies as st
from small import small_mixture

import mop
from mop.artifact import MANIFEST, from_bytes, save, to_bytes
from mop.decoding import Decoding
from mop.errors import ArtifactError
from mop.mixture import PROBES, EncoderRecord, Expert, Mixture
from mop.prompts import Demo, Prompt

# -- what goes in comes out


def test_a_saved_mixture_comes_back_exactly(tmp_path: Path) -> None:
    MIXTURE.save(tmp_path / "m.mop")
    assert_same(MIXTURE, mop.load(tmp_path / "m.mop"))


def test_a_projection_comes_back_exactly() -> None:
    projection = np.random.default_rng(0).standard_normal((33, 5)).astype(np.float32)
    centroids = np.random.default_rng(1).standard_normal((3, 5)).astype(np.float32)
    mixture = small_mixture(projection=projection, centroids=centroids)
    assert_same(mixture, from_bytes(to_bytes(mixture)))


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
