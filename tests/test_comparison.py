"""diff: what changed is named, what did not is silent, and the exit code is that of diff."""

from __future__ import annotations

import json
import math
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small import small_mixture

from mop.artifact import from_bytes, to_bytes
from mop.cli import main
from mop.comparison import compare
from mop.decoding import Decoding
from mop.drift import Reference
from mop.embeddings.region_map import draw_map
from mop.limits import Limits
from mop.mixture import EncoderRecord, Expert, Mixture
from mop.persona import Persona
from mop.prompts import Demo, Prompt
from mop.retrieval import Retrieval

BASE = small_mixture()


def with_expert(mixture: Mixture, number: int, **changes: Any) -> Mixture:
    experts = list(mixture.experts)
    experts[number] = replace(experts[number], **changes)
    return replace(mixture, experts=tuple(experts))


def without(mixture: Mixture, number: int) -> Mixture:
    kept = [place for place in range(len(mixture)) if place != number]
    return replace(mixture, experts=tuple(mixture.experts[place] for place in kept), centroids=mixture.centroids[kept])


def test_a_mixture_is_the_same_as_its_own_copy() -> None:
    found = compare(BASE, from_bytes(to_bytes(BASE)))
    assert not found
    assert found.to_dict()["same"] is True
    assert found.to_dict()["experts"] == {"same": 3, "changed": [], "added": [], "removed": []}


RETRIEVAL = Retrieval((Demo("a", "b"),), BASE.centroids[:1], 1)


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"model": "other"}, ["settings", "model"]),
        ({"metric": "token_f1"}, ["settings", "metric"]),
        ({"decoding": Decoding(17, ("\n",))}, ["settings", "max_tokens"]),
        ({"provenance": {"seed": 1}}, ["settings", "provenance.seed"]),
        ({"report": {}}, ["settings", "report.zero_shot"]),
        ({"generalist": Prompt("Other.")}, ["generalist", "instruction"]),
        ({"encoder_record": EncoderRecord("w", "w", BASE.encoder_record.probes)}, ["settings", "encoder identity"]),
        ({"encoder_record": replace(BASE.encoder_record, probes=-BASE.encoder_record.probes)}, ["vectors"]),
        ({"retrieval": RETRIEVAL}, ["retrieval", "added"]),
        ({"projection": np.eye(33, 32, dtype=np.float32)}, ["vectors"]),
        ({"encoder_record": replace(BASE.encoder_record, state=np.ones((1, 32), np.float32))}, ["vectors"]),
        ({"reference": Reference((1, 0, 0), ((0.5,), (), ()))}, ["settings", "held-out examples"]),
        ({"region_map": draw_map(BASE.centroids, BASE.centroids)}, ["vectors"]),
        ({"limits": Limits((0.5, math.inf, math.inf))}, ["experts", "changed", 0, "figures", "threshold"]),
        ({"centroids": BASE.centroids[[1, 2, 0]]}, ["experts", "changed", 0]),
    ],
)
def test_every_part_of_a_mixture_is_compared(change: dict[str, Any], where: list[str | int]) -> None:
    found = compare(BASE, replace(BASE, **change))
    assert found
    place: Any = found.to_dict()
    for name in where:
        place = place[name]
    assert place


def test_a_demo_that_is_shown_once_more_is_added_and_once_less_removed() -> None:
    prompt = BASE.experts[0].prompt
    twice = replace(prompt, demos=prompt.demos * 2)
    for other in (with_expert(BASE, 0, prompt=twice), replace(BASE, generalist=replace(BASE.generalist, demos=()))):
        assert compare(BASE, other)
        assert compare(other, BASE)
    (change,) = [one for one in compare(BASE, with_expert(BASE, 0, prompt=twice)).experts if one]
    assert (change.prompt.added, change.prompt.removed) == (prompt.demos, ())
    (change,) = [one for one in compare(with_expert(BASE, 0, prompt=twice), BASE).experts if one]
    assert (change.prompt.added, change.prompt.removed) == ((), prompt.demos)


def test_a_demo_to_retrieve_is_compared_with_its_place_and_its_number_and_not_with_its_order() -> None:
    demos, vectors = (Demo("a", "b"), Demo("c", "d")), BASE.centroids[:2]
    before = replace(BASE, retrieval=Retrieval(demos, vectors, 1))
    same = replace(BASE, retrieval=Retrieval(demos[::-1], vectors[::-1], 1))
    assert not compare(before, same)
    swapped = replace(BASE, retrieval=Retrieval(demos[::-1], vectors, 1))
    assert compare(before, swapped).vectors == ("vectors of demos to retrieve",)
    more = replace(BASE, retrieval=Retrieval((*demos, demos[0]), BASE.centroids, 1))
    assert compare(before, more).retrieval == (1, 0)
    assert compare(more, before).retrieval == (0, 1)


@given(st.data())
def test_prompts_are_the_same_where_they_send_the_same_and_nowhere_else(data: st.DataObject) -> None:
    demos = st.lists(st.sampled_from([Demo("a", "1"), Demo("a", "2"), Demo("b", "1")]), max_size=4).map(tuple)
    prompts = st.builds(Prompt, st.sampled_from(["x", "y"]), demos, st.sampled_from(["chat", "block"]))
    one, other = data.draw(prompts), data.draw(prompts)
    assert bool(compare(replace(BASE, generalist=one), replace(BASE, generalist=other))) == (one != other)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"coverage": 0.9}, "limits.coverage"),
        ({"measure": "demo"}, "limits.measure"),
        ({"margin": 0.1}, "limits.margin"),
        ({"width": 0.1}, "limits.width"),
        ({"measured": {"routes": {"chosen": "kernel"}}}, "limits.measured.routes.chosen"),
    ],
)
def test_each_limit_is_compared(change: dict[str, Any], name: str) -> None:
    limits = Limits((math.inf,) * 3, 0.99)
    found = compare(replace(BASE, limits=limits), replace(BASE, limits=replace(limits, **change)))
    assert list(found.settings) == [name]
    assert not any(found.experts)


def test_another_map_is_said_and_the_same_map_is_silent() -> None:
    drawn = draw_map(BASE.centroids, BASE.centroids)
    other = replace(drawn, sample=drawn.sample[:1], regions=drawn.regions[:1])
    assert compare(replace(BASE, region_map=drawn), replace(BASE, region_map=other)).vectors == ("map of the regions",)
    assert not compare(replace(BASE, region_map=drawn), replace(BASE, region_map=replace(drawn)))


def test_a_new_field_of_a_mixture_is_compared_above_before_it_is_listed_here() -> None:
    assert {one.name for one in fields(Mixture)} == {
        *("experts", "generalist", "centroids", "encoder_record", "model", "decoding", "metric", "projection"),
        *("retrieval", "limits", "region_map", "reference", "report", "provenance"),
    }
    assert {one.name for one in fields(Limits)} == {
        *("thresholds", "coverage", "measure", "margin", "width", "measured")
    }
    assert {one.name for one in fields(EncoderRecord)} == {"name", "identity", "probes", "state"}
    assert {one.name for one in fields(Expert)} == {
        *("prompt", "size", "validation", "words", "proposer", "score", "generalist_score"),
        *("gain", "gain_low", "gain_high", "fallback", "persona"),
    }
    assert {one.name for one in fields(Decoding)} == {"max_tokens", "stop", "temperature"}
    assert {one.name for one in fields(Retrieval)} == {"demos", "vectors", "count"}
    # What was retrieved belongs to one query and to no mixture.
    assert {one.name for one in fields(Prompt)} == {"instruction", "demos", "layout", "retrieved"}


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"size": 99}, "size"),
        ({"validation": 99}, "validation"),
        ({"words": ("other",)}, "words"),
        ({"proposer": "other"}, "proposer"),
        ({"score": 0.1}, "score"),
        ({"generalist_score": 0.1}, "generalist_score"),
        ({"gain": 0.9}, "gain"),
        ({"gain_low": 0.0}, "gain_low"),
        ({"gain_high": 0.9}, "gain_high"),
        ({"fallback": True}, "fallback"),
        ({"persona": Persona("generic", True, "You are.", "generic", 9, 0.2, 0.1, 0.3)}, "persona"),
    ],
)
def test_each_figure_of_an_expert_is_compared(change: dict[str, Any], name: str) -> None:
    (found,) = [one for one in compare(BASE, with_expert(BASE, 0, **change)).experts if one]
    assert list(found.figures) == [name]


def test_an_expert_is_known_again_by_its_centroid_whatever_its_number() -> None:
    changed = with_expert(BASE, 1, prompt=Prompt("New.", (Demo("my parcel is lost", "parcel_lost"), Demo("x", "y"))))
    turned = replace(changed, experts=changed.experts[::-1], centroids=changed.centroids[::-1].copy())
    found = compare(BASE, turned)
    (only,) = [one for one in found.experts if one]
    assert (only.before, only.after) == (1, 1)
    assert only.prompt.instruction == ("Answer about the parcel.", "New.")
    assert only.prompt.added == (Demo("x", "y"),)
    assert (found.added, found.removed) == ((), ())


def test_added_and_removed_experts_are_named() -> None:
    assert compare(BASE, without(BASE, 0)).removed == (0,)
    assert compare(without(BASE, 0), BASE).added == (0,)


def test_in_another_space_experts_are_known_by_their_demos() -> None:
    record = EncoderRecord("other", "other", BASE.encoder_record.probes)
    found = compare(BASE, replace(without(BASE, 0), encoder_record=record))
    assert [(one.before, one.after) for one in found.experts] == [(1, 0), (2, 1)]
    assert all(one.moved is None for one in found.experts)
    assert found.removed == (0,)


@settings(max_examples=30, deadline=None)
@given(st.permutations(range(3)), st.sets(st.integers(0, 2), max_size=2), st.sets(st.integers(0, 2), max_size=2))
def test_every_expert_is_matched_once_or_said_to_be_gone(order: Any, left: set[int], right: set[int]) -> None:
    def cut(mixture: Mixture, gone: set[int]) -> Mixture:
        for number in sorted(gone, reverse=True):
            mixture = without(mixture, number)
        return mixture

    turned = replace(BASE, experts=tuple(BASE.experts[i] for i in order), centroids=BASE.centroids[list(order)])
    before, after = cut(BASE, left), cut(turned, right)
    found = compare(before, after)
    assert sorted([*(one.before for one in found.experts), *found.removed]) == list(range(len(before)))
    assert sorted([*(one.after for one in found.experts), *found.added]) == list(range(len(after)))
    # Demos, words and centroids differ, so an expert is never taken for a changed one while it is still there.
    names = {one.words for one in before.experts} & {one.words for one in after.experts}
    assert sum(not one for one in found.experts) == len(names)


def test_the_exit_code_is_that_of_diff(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, other = str(tmp_path / "a.mop"), str(tmp_path / "b.mop")
    BASE.save(one)
    with_expert(BASE, 0, gain=0.5, prompt=Prompt("New\x1b[31m.", BASE.experts[0].prompt.demos)).save(other)
    assert main(["diff", one, one]) == 0
    assert capsys.readouterr().out == "No difference.\n"
    assert main(["diff", one, other]) == 1
    said = capsys.readouterr().out
    assert "1 changed" in said
    assert "+ New" in said
    assert "\x1b" not in said
    assert main(["diff", one, other, "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["experts"]["changed"][0]["figures"]["gain"] == [0.1, 0.5]
    (tmp_path / "junk").write_text("junk")
    assert main(["diff", one, str(tmp_path / "junk")]) == 2
    assert main(["diff", one]) == 2
