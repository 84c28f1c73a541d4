"""The page of `mop serve` as HTTP gives it: what it says, to whom, and that no file and no query becomes markup."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from typing import Any

import pytest
from fake_upstream import FakeUpstream
from page_parts import HOSTILE, Elements, page_of, tried, words
from serving import QUICK, Running, chat, running, serve_small, small_app
from small import WordEncoder, small_mixture

from mop.embeddings.region_map import draw_map
from mop.mixture import Expert
from mop.persona import Persona
from mop.prompts import Demo, Prompt
from mop.retrieval import Retrieval
from mop.serve.app import create_app
from mop.serve.keys import KeyRing
from mop.serve.traffic import MINUTES, Drift, Traffic
from mop.serve.upstream import Upstream

GATE = {
    "validation": 40,
    "mixture": 0.8,
    "mixture_low": 0.65,
    "mixture_high": 0.9,
    "generalist": 0.6,
    "gain": 0.2,
    "gain_low": 0.11,
    "open": True,
}


# -- what it says


def test_it_says_whether_the_mixture_helped_and_that_validation_is_no_test(upstream: FakeUpstream) -> None:
    settings = {"settings": {"confidence": 0.8}}
    said = words(page_of(upstream, report={"gate": GATE}, provenance=settings))
    assert "It helped on validation. On 40 validation examples the mixture scores 0.80 (95 % interval 0.65 to" in said
    assert "the best single prompt 0.60: a difference of +0.20, at least +0.11 with 80 % confidence." in said
    assert "Validation, not test" in said


def test_a_mixture_without_a_gain_or_without_figures_is_not_praised(upstream: FakeUpstream) -> None:
    closed = words(page_of(upstream, report={"gate": {**GATE, "open": False}}))
    assert "No gain shown." in closed
    assert "It helped" not in closed
    for gate in ({}, "yes", [1], {**GATE, "gain": "much"}, {**GATE, "mixture": None}, {**GATE, "validation": True}):
        assert "Not known. The file does not say" in words(page_of(upstream, report={"gate": gate}))


def test_each_expert_has_its_prompt_its_gain_and_who_answers(server: Running) -> None:
    html = server.get("/").text
    said = words(html)
    for topic in ("card", "parcel", "meeting"):
        assert f"Answer about the {topic}." in said
        assert f"my {topic} is lost → answered with {topic}_lost" in said
    assert (
        "On its 5 validation examples the expert scores 0.80, the generalist 0.60. Gain +0.10 (−0.05 to +0.30)." in said
    )
    assert html.count('class="badge">generalist answers') == 1
    assert "Answer «in one word» – größer." in said


def test_an_expert_s_persona_is_named_with_what_it_gained(upstream: FakeUpstream) -> None:
    experts = small_mixture().experts
    persona = Persona("expert", True, "You are a clerk.", "expert", 12, 0.25, 0.05, 0.45)
    text = Elements(page_of(upstream, experts=(replace(experts[0], persona=persona), *experts[1:]))).text
    assert text.count("Persona:") == 1
    assert "expert identity with demos, +0.25 (+0.05 to +0.45) over bare on 12 examples" in text


def test_every_region_is_on_the_map_with_its_examples_and_a_shape_beside_its_colour(upstream: FakeUpstream) -> None:
    mixture = small_mixture()
    texts = ["card", "card card", "parcel", "parcel parcel", "meeting"]
    drawn = draw_map(mixture.centroids, WordEncoder().encode(texts))
    elements = Elements(page_of(upstream, region_map=drawn))
    marks = [
        attributes for tag, attributes in elements.tags if tag == "a" and "mark" in (attributes.get("class") or "")
    ]
    assert [mark["href"] for mark in marks] == ["#expert-0", "#expert-1", "#expert-2"]
    assert ["fallback" in str(mark["class"]) for mark in marks] == [False, False, True]
    assert len({re.search(r"\bc\d", str(mark["class"]))[0] for mark in marks}) == 3  # type: ignore[index]
    used = [str(attributes["href"]) for tag, attributes in elements.tags if tag == "use" and "x" in attributes]
    assert [used.count(shape) for shape in dict.fromkeys(used)] == [2, 2, 1]
    assert "100 % of these examples" in " ".join(elements.text.split())


def test_an_older_file_without_a_map_is_drawn_from_its_centroids_and_retrieved_demos(upstream: FakeUpstream) -> None:
    assert "The file holds no examples to draw." in words(page_of(upstream))
    texts = ["card", "parcel", "meeting"]
    demos = tuple(Demo(text, "x") for text in texts)
    html = page_of(upstream, retrieval=Retrieval(demos, WordEncoder().encode(texts), 1))
    assert "100 % of these examples" in words(html)


def test_a_file_of_one_prompt_has_no_map_and_says_so(upstream: FakeUpstream) -> None:
    one = small_mixture()
    html = page_of(upstream, experts=one.experts[:1], centroids=one.centroids[:1], report={})
    assert "One prompt. This file holds one prompt" in words(html)
    assert "there are no regions to draw" in words(html)


def test_a_thousand_regions_are_a_page_of_a_bearable_size(upstream: FakeUpstream) -> None:
    names = [f"word{number}" for number in range(1000)]
    experts = tuple(
        Expert(Prompt("Answer. " * 40), size=number, validation=1, words=(name,)) for number, name in enumerate(names)
    )
    html = page_of(upstream, experts=experts, centroids=WordEncoder().encode(names))
    assert "The 200 largest of 1,000 regions are listed" in words(html)
    assert len(html) < 1_500_000


# -- what a file or a query holds is text


def test_nothing_in_a_file_becomes_markup(upstream: FakeUpstream) -> None:
    expert = replace(
        small_mixture().experts[0],
        prompt=Prompt(HOSTILE, (Demo(HOSTILE, HOSTILE),)),
        words=(HOSTILE, "javascript:pwned()"),
    )
    hostile = small_mixture(
        experts=(expert, *small_mixture().experts[1:]),
        generalist=Prompt(HOSTILE, (Demo(HOSTILE, HOSTILE),)),
        metric=HOSTILE,
        model=HOSTILE,
        report={"gate": {**GATE, "layout": HOSTILE}},
        provenance={"created": HOSTILE},
    )
    served = [serve_small(name, Upstream(upstream.base_url), mixture=hostile) for name in (HOSTILE, "bank")]
    with running(create_app(served, limits=QUICK)) as server:
        elements = Elements(server.get("/").text)
    assert HOSTILE in elements.text
    scripts = [attributes for tag, attributes in elements.tags if tag == "script"]
    assert scripts == [{"type": "module", "src": "/page/static/main.js"}]
    assert not [tag for tag, _ in elements.tags if tag in ("img", "iframe", "object", "embed", "style", "base")]
    for _, attributes in elements.tags:
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
        for name in ("href", "src"):
            assert (attributes.get(name) or "/").startswith(("/", "#"))


def test_the_policy_lets_nothing_in_from_elsewhere_and_no_inline_script_run(server: Running) -> None:
    headers = server.get("/").headers
    policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"


def test_static_files_are_there_with_their_types_and_nothing_outside_their_folder(server: Running) -> None:
    for name, kind in (("main.js", "javascript"), ("page.css", "text/css"), ("icon.svg", "image/svg")):
        response = server.get(f"/page/static/{name}")
        assert response.status_code == 200
        assert kind in response.headers["content-type"]
    for path in ("../routes.py", "%2e%2e/routes.py", "..%2froutes.py", "nothing.js", ""):
        assert server.get(f"/page/static/{path}").status_code == 404


# -- traffic


def test_answered_queries_are_counted_by_expert_and_tried_ones_are_not(server: Running) -> None:
    for text in ("my card", "a card", "the meeting"):
        server.post("/v1/chat/completions", chat(text))
    tried(server, "my parcel")
    document = server.get("/page/traffic?mixture=bank").json()
    assert (document["queries"], document["generalist"]) == (3, 1)
    assert [(one["expert"], one["queries"], one["generalist"]) for one in document["experts"]] == [(0, 2, 0), (2, 1, 1)]
    assert document["experts"][0]["share"] == pytest.approx(2 / 3)
    assert document["experts"][0]["recent"][-1] == 2
    assert len(document["recent"]) == document["minutes"] == MINUTES
    assert "3 requests so far" in words(server.get("/").text)


def test_minutes_pass_and_only_the_last_are_told_apart(upstream: FakeUpstream) -> None:
    now = [1000.0]
    traffic = Traffic(lambda: now[0])
    served = serve_small("bank", Upstream(upstream.base_url))
    [route] = served.mixture.route(["my card"])
    from mop.serve.registry import Decision

    decision = Decision(served.mixture.prompt_of(route), route)
    for minute in range(3 * MINUTES):
        now[0] = 1000.0 + 60 * minute
        for _ in range(minute % 3):
            traffic.decided(served, decision)
    counts = traffic.of(served)[0]
    assert counts.queries == sum(minute % 3 for minute in range(3 * MINUTES))
    assert counts.minutes(traffic.minute) == [minute % 3 for minute in range(2 * MINUTES, 3 * MINUTES)]
    assert len(counts.recent) <= MINUTES + 1


def test_a_changed_file_begins_its_counts_anew(server: Running, upstream: FakeUpstream) -> None:
    server.post("/v1/chat/completions", chat("my card"))
    server.gateway.registry.replace(replace(serve_small("bank", Upstream(upstream.base_url)), version="v2"))
    document = server.get("/page/traffic").json()
    assert (document["version"], document["queries"]) == ("v2", 0)
    assert 'data-version="v2"' in server.get("/").text


def test_drift_is_shown_where_the_server_measures_it(server: Running) -> None:
    server.post("/v1/chat/completions", chat("my card"))
    assert server.get("/page/traffic").json()["experts"][0]["drift"] is None
    server.gateway.drift = lambda served: {1: Drift(f"{HOSTILE} far from training", drifted=True)}
    experts = server.get("/page/traffic").json()["experts"]
    assert [one["drift"] for one in experts] == [None, {"words": f"{HOSTILE} far from training", "drifted": True}]
    html = server.get("/").text
    assert 'class="drift drifted"' in html
    assert "far from training" in html
    assert "<script>window" not in html


# -- to whom


def keyed(upstream: FakeUpstream) -> Any:
    return small_app(upstream.base_url, keys=KeyRing({"app": hashlib.sha256(b"right").digest()}))


def test_with_keys_strangers_get_a_form_and_nothing_of_the_mixtures(upstream: FakeUpstream) -> None:
    with running(keyed(upstream)) as server:
        for headers in ({}, {"authorization": "Bearer wrong"}):
            response = server.get("/?mixture=bank", headers=headers)
            assert response.status_code == 200
            assert "data-locked" in response.text
            assert not re.search("bank|parcel|simulated|Answer about", response.text)
            assert server.get("/page/traffic", headers=headers).status_code == 401
            assert server.post("/page/try", {"query": "hi"}, headers=headers).status_code == 401
        known = {"authorization": "Bearer right"}
        assert "Answer about the card." in server.get("/", headers=known).text
        assert server.get("/page/traffic", headers=known).status_code == 200
        assert server.post("/page/try", {"query": "hi"}, headers=known).status_code == 200


def test_without_keys_other_names_and_origins_do_not_get_the_page(upstream: FakeUpstream) -> None:
    with running(small_app(upstream.base_url, loopback=True)) as server:
        assert server.get("/").status_code == 200
        for headers in ({"host": "evil.example"}, {"origin": "http://evil.example"}):
            for path in ("/", "/page/traffic"):
                assert server.get(path, headers=headers).status_code == 403


def test_the_page_can_be_left_out(upstream: FakeUpstream) -> None:
    with running(small_app(upstream.base_url, page=False)) as server:
        for path in ("/", "/page/traffic", "/page/static/main.js"):
            assert server.get(path).status_code == 404
        assert server.post("/v1/chat/completions", chat("my card")).status_code == 200


def test_several_mixtures_have_a_page_each(upstream: FakeUpstream) -> None:
    names = ["bank", "a/b & c?"]
    app = create_app([serve_small(name, Upstream(upstream.base_url)) for name in names], limits=QUICK)
    with running(app) as server:
        html = server.get("/").text
        assert 'data-mixture="bank"' in html
        links = [
            attributes["href"]
            for tag, attributes in Elements(html).tags
            if tag == "a" and "?" in str(attributes["href"])
        ]
        assert 'data-mixture="a/b &amp; c?"' in server.get(str(links[1])).text
        assert server.get("/?mixture=none").status_code == 404
