"""What `mop report` says in numbers: the verdict, who is compared on what, ranks, and places in the plot."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reporting import measured_of
from small import WordEncoder, small_mixture

from mop.errors import DataError, SettingsError
from mop.examples import Example
from mop.mixture import Mixture
from mop.persona import Persona
from mop.prompts import Demo
from mop.report import costs, racing
from mop.report.measuring import KNN, MIXTURE, ONE_PROMPT, WITH_NEAREST, make_plan
from mop.report.page import Facts, make_page
from mop.report.verdict import finding
from mop.retrieval import Retrieval


def _retrieving() -> Mixture:
    encoder = WordEncoder()
    demos = tuple(Demo(f"{topic} {word}", word) for topic in ("card", "parcel", "meeting") for word in "abcdef")
    return small_mixture(retrieval=Retrieval(demos, encoder.encode([demo.input for demo in demos]), 1))


@pytest.mark.parametrize(
    ("ours", "single", "short"),
    [(1.0, 0.0, "It helped"), (0.0, 1.0, "It hurt"), (1.0, 1.0, "No gain shown")],
)
def test_the_verdict_claims_what_the_interval_shows(ours: float, single: float, short: str) -> None:
    mixture, examples = _retrieving(), [Example("card a", ("a",))] * 30
    scores = {MIXTURE: [ours] * 30, ONE_PROMPT: [single] * 30, WITH_NEAREST: [1.0] * 30}
    found = finding(mixture, measured_of(mixture, examples, scores))
    assert found.short == short
    assert ("nearest to the query is not shown to be worse" in " ".join(found.doubts)) == (ours == 1.0)


def test_the_verdict_doubts_scores_on_examples_that_the_mixture_holds_or_that_repeat() -> None:
    mixture = _retrieving()
    known, new = Example("Card A!", ("a",)), [Example(f"card {place}", ("a",)) for place in range(4)]
    for examples, held, repeated in ((new, 0, 0), ([known, *new], 1, 0), ([known, known, *new, new[0]], 2, 2)):
        scores = {MIXTURE: [1.0] * len(examples), ONE_PROMPT: [0.0] * len(examples)}
        said = " ".join(finding(mixture, measured_of(mixture, examples, scores)).doubts)
        assert (f"holds {held} of the {len(examples)} examples" in said) == bool(held)
        assert (f"{repeated} of the {len(examples)} examples repeat" in said) == bool(repeated)


def test_knn_is_compared_on_the_examples_that_it_answered() -> None:
    mixture = _retrieving()
    examples = [Example(f"{topic} {word}", (word,)) for topic in ("card", "parcel") for word in "abcdefgh"]
    right = [float(place % 2) for place in range(len(examples))]
    measured = measured_of(mixture, examples, {MIXTURE: right, KNN: [1.0] * len(examples)}, knn_rows=6)
    difference, places = measured.difference(KNN), np.flatnonzero(np.isfinite(measured.by_place(KNN)))
    assert difference is not None
    assert difference.n == len(places) == 6
    assert difference.mean == pytest.approx(np.mean([right[place] - 1 for place in places]))


def test_a_regions_persona_is_said_with_its_gain() -> None:
    first, *others = small_mixture().experts
    told = replace(first, persona=Persona("generic", True, "You are an expert.", "generic", 24, 0.3, 0.1, 0.5))
    page = make_page(small_mixture(experts=(told, *others)), Facts("x")).decode()
    assert f"Persona: {told.persona.sentence}." in page


def test_what_cannot_be_planned_is_refused() -> None:
    with pytest.raises(DataError, match="no examples"):
        make_plan(small_mixture(), [], "test")
    with pytest.raises(SettingsError, match="knn-rows"):
        make_plan(small_mixture(), [Example("card", ("a",))], "test", knn_rows=-1)


def test_ranks_agree_where_regions_agree_and_not_where_they_don_t() -> None:
    def ranked(*rows: list[float | None]) -> racing.Ranks | str:
        tried = [{"instruction": f"say {number}", "scores": row} for number, row in enumerate(rows)]
        return racing.ranks(small_mixture(report={"instructions": tried}))

    same = ranked([0.1, 0.2, 0.3], [0.4, 0.5, 0.6], [0.7, 0.8, 0.9])
    assert isinstance(same, racing.Ranks)
    assert (same.mean, same.regions, same.candidates) == (pytest.approx(1), 3, 3)
    against = ranked([0.1, 0.1, 0.9], [0.5, 0.5, 0.5], [0.9, 0.9, 0.1])
    assert isinstance(against, racing.Ranks)
    assert against.low == pytest.approx(-1)
    assert "the file has 2" in str(ranked([0.1, 0.2, 0.3], [0.4, 0.5, 0.6], [0.7, None, None]))
    assert "score the same" in str(ranked(*[[0.5, 0.5, 0.5]] * 3))


_SYSTEM = st.tuples(st.floats(0, 1), st.floats(0, 3000), st.floats(0, 3000))


@settings(max_examples=80, deadline=None)
@given(st.lists(_SYSTEM, min_size=1, max_size=6))
def test_every_system_of_the_plot_is_inside_its_field(systems: list[tuple[float, float, float]]) -> None:
    found = [
        costs.Cost(f"system {number}", 9, score, score, score, min(a, b), max(a, b))
        for number, (score, a, b) in enumerate(systems)
    ]
    for size in costs.SIZES:
        plot = costs.plot(found, size)
        assert plot is not None
        left, top, right, bottom = plot.field
        for place in plot.places:
            assert left <= place.fresh <= place.tokens <= right
            assert top - 0.1 <= place.y <= bottom + 0.1
            assert 0 <= place.label[0] <= size[0]
