"""A query that is tried on the page of `mop serve`: explained as it would be answered, and never sent."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
from fake_upstream import FakeUpstream
from page_parts import HOSTILE, Elements, page_of, tried, words
from serving import QUICK, Running, chat, running, serve_small
from small import TOPICS, WordEncoder, small_mixture

from mop.limits import Limits
from mop.prompts import Demo
from mop.retrieval import Retrieval
from mop.serve.app import create_app
from mop.serve.upstream import Upstream


def test_a_query_is_explained_as_it_would_be_answered_and_nothing_is_sent(
    server: Running, upstream: FakeUpstream
) -> None:
    before = len(upstream.bodies)
    document = tried(server, "where is my parcel").json()
    assert len(upstream.bodies) == before
    route = server.post("/v1/route", {"model": "bank", "input": "where is my parcel"}).json()["data"][0]
    assert document["decision"] == {name: route[name] for name in document["decision"]}
    assert document["region"]["expert"] == 1
    assert document["second"]["expert"] in (0, 2)
    assert document["second"]["distance"] - document["region"]["distance"] == pytest.approx(route["margin"], abs=1e-5)
    assert document["nearest_demo"]["input"] == "my parcel is lost"
    server.post("/v1/chat/completions", chat("where is my parcel"))
    sent = upstream.bodies[-1]
    assert document["messages"] == sent["messages"]
    assert document["parameters"] == {name: value for name, value in sent.items() if name != "messages"}


DEMOS = tuple(Demo(f"my {topic} {state}", f"{topic}_{state}") for topic in TOPICS for state in ("lost", "late"))


@pytest.mark.parametrize(
    ("limits", "query", "answers", "departs"),
    [
        (None, "my card lost", "the region's own prompt", None),
        (None, "meeting", "the generalist: this region's own prompt showed no gain", None),
        (
            Limits((0.5,) * 3, coverage=0.99, measure="demo"),
            "card zebras sing underwater operas",
            r"the generalist: the query is far from all examples; the nearest labelled example is at distance 1\.\d{3}"
            r", and this region's prompt answers up to 0\.500$",
            None,
        ),
        (
            Limits((0.01,) * 3, coverage=0.99),
            "a card please",
            r"the generalist: the query is far from all examples; the region's centroid is at distance 0\.\d{3}, and "
            r"this region's prompt answers up to 0\.010$",
            None,
        ),
        (
            Limits((math.inf,) * 3, margin=0.2),
            "card lost parcel lost late",
            "the region's own prompt",
            r"the second region is hardly farther \(margin 0\.\d{3}, up to 0\.200 counts\)",
        ),
        (Limits((math.inf,) * 3, margin=0.2), "my card lost", "the region's own prompt", None),
        (
            Limits((math.inf,) * 3, width=10.0),
            "card card parcel",
            "the region's own prompt",
            r"region 0 \(card, lost\) is nearer, but gains count as well: weighed by nearness, the gain of region 1 is",
        ),
    ],
)
def test_a_route_says_its_reason_in_words(
    upstream: FakeUpstream, limits: Limits | None, query: str, answers: str, departs: str | None
) -> None:
    pool = Retrieval(DEMOS, WordEncoder().encode([demo.input for demo in DEMOS]), 1)
    mixture = small_mixture(limits=limits, retrieval=pool)
    with running(create_app([serve_small("bank", Upstream(upstream.base_url), mixture=mixture)], limits=QUICK)) as one:
        found = tried(one, query).json()
    assert re.match(answers, found["answers"])
    assert (found["departure"] is None) == (departs is None)
    assert departs is None or re.match(departs, found["departure"])


def test_the_page_says_what_happens_where_regions_end(upstream: FakeUpstream) -> None:
    pool = Retrieval(DEMOS, WordEncoder().encode([demo.input for demo in DEMOS]), 1)
    limits = Limits((0.5, math.inf, 0.5), 0.99, "demo", margin=0.125)
    said = words(page_of(upstream, limits=limits, retrieval=pool))
    assert "queries farther from the nearest example than a threshold go to the generalist, in 2 of 3 regions" in said
    assert "farther by 0.125 at most also gets that region's nearest demo" in said
    assert "threshold" not in words(page_of(upstream))


def test_a_query_lands_beside_the_mark_of_its_region(server: Running) -> None:
    marks = {
        str(attributes["id"]): (float(attributes["data-x"] or 0), float(attributes["data-y"] or 0))
        for tag, attributes in Elements(server.get("/").text).tags
        if tag == "a" and "data-x" in attributes
    }
    for expert, topic in enumerate(("card", "parcel", "meeting")):
        x, y = tried(server, topic).json()["point"]
        distances = {name: (x - a) ** 2 + (y - b) ** 2 for name, (a, b) in marks.items()}
        assert min(distances, key=lambda name: distances[name]) == f"mark-{expert}"


def test_of_several_demos_the_nearest_is_named_also_if_it_was_retrieved(upstream: FakeUpstream) -> None:
    texts = ["my parcel is late", "my card is red"]
    retrieval = Retrieval(tuple(Demo(text, "x") for text in texts), WordEncoder().encode(texts), 1)
    served = serve_small("bank", Upstream(upstream.base_url), mixture=small_mixture(retrieval=retrieval))
    with running(create_app([served], limits=QUICK)) as server:
        late, lost = (tried(server, f"my parcel is {word}").json()["nearest_demo"] for word in ("late", "lost"))
    assert (late["input"], late["retrieved"], late["distance"]) == (
        "my parcel is late",
        True,
        pytest.approx(0, abs=1e-5),
    )
    assert (lost["input"], lost["retrieved"], lost["distance"]) == (
        "my parcel is lost",
        False,
        pytest.approx(0, abs=1e-5),
    )


@pytest.mark.parametrize(
    ("query", "more", "status", "code"),
    [
        ("", {}, 400, "invalid_value"),
        ("  \n", {}, 400, "invalid_value"),
        (7, {}, 400, "invalid_value"),
        (None, {}, 400, "invalid_value"),
        ("x" * 20_001, {}, 400, "invalid_value"),
        ("hi", {"model": "other"}, 404, "model_not_found"),
        ("hi", {"model": 3}, 400, "invalid_value"),
        ("hi", {HOSTILE: 1}, 400, "unknown_parameter"),
    ],
)
def test_a_query_that_cannot_be_tried_is_refused_in_words(
    server: Running, query: Any, more: dict[str, Any], status: int, code: str
) -> None:
    response = tried(server, query, **more)
    assert response.status_code == status
    assert response.json()["error"]["code"] == code


@pytest.mark.parametrize("query", ["\ud800", "\x00", "😀" * 5000, HOSTILE])
def test_any_text_can_be_tried(server: Running, query: str) -> None:
    content = b'{"model":"bank","query":"\\ud800"}' if query == "\ud800" else None
    response = server.post("/page/try", content=content) if content else tried(server, query)
    assert response.status_code == 200
    assert response.json()["messages"][-1]["content"] == query
