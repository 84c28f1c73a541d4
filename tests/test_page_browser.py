"""The page of `mop serve` as people use it: in a real browser, by mouse and by keyboard, on any screen."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Iterator
from dataclasses import replace

import pytest
from browser import CONTRAST, OUTSIDE, OVERLAPPING, Browser, browsers, eventually
from fake_upstream import FakeUpstream
from selenium.webdriver.common.keys import Keys
from serving import QUICK, Running, chat, running, serve_small, small_app
from small import crowded, small_mixture

from mop.limits import Limits
from mop.prompts import Demo, Prompt
from mop.serve.app import create_app
from mop.serve.keys import KeyRing
from mop.serve.upstream import Upstream

HOSTILE = '</pre><script>window.pwned=1</script>"onload="window.pwned=1\' <img src=x onerror=window.pwned=1>'


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    yield from browsers()


@pytest.fixture(scope="module")
def upstream() -> Iterator[FakeUpstream]:
    with FakeUpstream(answer=lambda messages: f"about {messages[-1]['content']}") as server:
        yield server


@pytest.fixture(scope="module")
def server(upstream: FakeUpstream) -> Iterator[Running]:
    with running(
        create_app([serve_small("bank", Upstream(upstream.base_url), mixture=crowded())], limits=QUICK)
    ) as one:
        yield one


@pytest.fixture
def page(browser: Browser, server: Running) -> Browser:
    browser.look()
    browser.open(server.root)
    return browser


def try_query(browser: Browser, query: str) -> str:
    """Ask for the route of a query; return what the page says of it."""
    box = browser.find("#query")
    box.clear()
    browser.run("document.getElementById('landing').textContent = ''")
    box.send_keys(query)
    browser.find("#route").click()
    return str(eventually(lambda: browser.text("#landing")))


def shown_requests(browser: Browser) -> str:
    return browser.text("#all-queries")


# -- a query


def test_a_query_lands_where_the_server_says_and_the_point_moves_there(page: Browser, server: Running) -> None:
    places = []
    for query in ("topic3 topic", "topic8 topic"):
        said = try_query(page, query)
        found = server.post("/page/try", {"query": query}).json()
        routed = server.post("/v1/route", {"input": query}).json()["data"][0]
        assert f"It lands in region {routed['expert']} (" in said
        assert f"at distance {routed['distance']:.3f}" in page.text("#why-region")
        assert page.text("#why-margin").startswith(f"{routed['margin']:.3f}")
        assert page.find("#you").get_attribute("transform") == "translate({} {})".format(
            *(f"{value:g}" for value in found["point"])
        )
        assert page.find(".mark.chosen").get_attribute("id") == f"mark-{routed['expert']}"
        assert page.find("#you").is_displayed()
        messages = page.run("return [...document.querySelectorAll('#messages pre')].map((one) => one.textContent)")
        assert messages == [message["content"] for message in found["messages"]]
        places.append(found["point"])
    assert places[0] != places[1]
    assert page.complaints == []


def test_a_route_that_departs_from_the_nearest_region_is_said(browser: Browser, upstream: FakeUpstream) -> None:
    mixture = small_mixture(limits=Limits((math.inf,) * 3, width=10.0))
    with running(create_app([serve_small("bank", Upstream(upstream.base_url), mixture=mixture)], limits=QUICK)) as one:
        browser.look()
        browser.open(one.root)
        try_query(browser, "card card parcel")
        assert browser.text("#why-departure").startswith("region 0 (card, lost) is nearer, but gains count as well")
        assert browser.text("#term-region") == "Region"
        assert browser.text("#term-second") == "Nearest region"
        try_query(browser, "parcel parcel")
        assert not browser.find("#departs").is_displayed()
        assert browser.text("#why-answers") == "the region's own prompt"
    assert browser.complaints == []


def test_nothing_is_sent_to_the_model_until_ask_is_pressed_and_then_it_counts(
    page: Browser, server: Running, upstream: FakeUpstream
) -> None:
    before, counted = len(upstream.bodies), shown_requests(page)
    try_query(page, "topic3 topic")
    assert len(upstream.bodies) == before
    assert not page.find("#answer").is_displayed()
    page.find("#ask").click()
    eventually(lambda: page.find("#answer").is_displayed())
    assert page.text("#answer-text") == "about topic3 topic"
    assert "prompt 20, of them cached 12, answer 3" in page.text("#answer-facts")
    assert len(upstream.bodies) == before + 1
    eventually(lambda: shown_requests(page) != counted)
    assert page.complaints == []


def test_traffic_of_others_appears_without_loading_the_page_again(page: Browser, server: Running) -> None:
    panel = '.expert[data-expert="7"]'
    before = int(page.text(f"{panel} summary .queries"))
    for _ in range(3):
        server.post("/v1/chat/completions", chat("topic7 topic"))
    eventually(lambda: int(page.text(f"{panel} summary .queries")) == before + 3)
    assert float(page.find(f"{panel} .share .part").get_attribute("width") or 0) > 0


def test_what_the_server_refuses_is_said_in_words_and_the_next_query_works(
    page: Browser, upstream: FakeUpstream
) -> None:
    page.run("document.getElementById('query').removeAttribute('required')")
    page.find("#route").click()
    assert "isn't empty" in eventually(lambda: page.text("#problem"))
    assert "region" in try_query(page, "topic3 topic")
    assert page.text("#problem") == ""


def test_the_page_asks_nobody_but_its_server(page: Browser, server: Running) -> None:
    try_query(page, "topic3 topic")
    page.find("#ask").click()
    eventually(lambda: page.find("#answer").is_displayed())
    asked = page.asked_for
    assert len(asked) > 5
    assert [url for url in asked if not url.startswith(server.root)] == []


def test_texts_of_files_and_queries_stay_texts(browser: Browser, upstream: FakeUpstream) -> None:
    mixture = small_mixture()
    hostile = replace(
        mixture.experts[0], prompt=Prompt(HOSTILE, (Demo(HOSTILE, HOSTILE),)), words=(HOSTILE,), proposer=HOSTILE
    )
    changed = small_mixture(experts=(hostile, *mixture.experts[1:]), generalist=Prompt(HOSTILE), metric=HOSTILE)
    app = create_app([serve_small(HOSTILE, Upstream(upstream.base_url), mixture=changed)], limits=QUICK)
    with running(app) as server:
        browser.look()
        browser.open(server.root)
        assert HOSTILE in try_query(browser, f"card {HOSTILE}")
        browser.find("#ask").click()
        eventually(lambda: browser.find("#answer").is_displayed())
        assert HOSTILE in browser.text("#answer-text")
        assert browser.run("return window.pwned") is None
        assert browser.run("return document.images.length + document.querySelectorAll('main script').length") == 0
        assert browser.complaints == []


# -- hands and eyes


def test_everything_can_be_done_by_keyboard(page: Browser) -> None:
    page.type(Keys.TAB)
    assert page.focused.text == "Skip to the content"
    page.type(Keys.ENTER)
    for _ in range(4):
        page.type(Keys.TAB)
        if page.focused.get_attribute("id") == "query":
            break
    page.type("topic3 topic")
    page.press_with_control(Keys.ENTER)
    eventually(lambda: page.text("#landing"))
    for _ in range(4):
        page.type(Keys.TAB)
        if page.focused.get_attribute("id") == "ask":
            break
    assert page.run("return document.activeElement.matches(':focus-visible')")
    page.type(Keys.ENTER)
    eventually(lambda: page.find("#answer").is_displayed())
    page.type(Keys.TAB)
    assert page.focused.tag_name == "summary"
    page.type(Keys.ENTER)
    panel = page.find('.expert[data-expert="0"]')
    assert panel.get_property("open")
    assert "Answer about topic0." in panel.text


def test_a_region_of_the_map_leads_to_its_expert(page: Browser) -> None:
    page.click("#mark-23 .number")  # drawn last, so nothing lies on it
    panel = page.find('.expert[data-expert="23"]')
    eventually(lambda: panel.get_property("open"))
    assert page.focused.tag_name == "summary"


@pytest.mark.parametrize("width", [360, 800, 1280])
def test_nothing_overflows_or_lies_on_top_of_something_else(page: Browser, width: int) -> None:
    page.look(width)
    try_query(page, "topic3 topic " + "averyveryverylongword" * 20)
    page.find("#ask").click()
    eventually(lambda: page.find("#answer").is_displayed())
    page.run("for (const one of document.querySelectorAll('details')) one.open = true")
    assert page.run("return document.documentElement.scrollWidth") <= width
    assert page.run(OUTSIDE, width) == []
    assert page.run(OVERLAPPING, _GROUPS) == []


#: What holds boxes side by side or one under the other.
_GROUPS = "main, .studio, .card, summary.row, .inside, .why, .why div, #result, .actions"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground_by_day_and_by_night(page: Browser, scheme: str) -> None:
    page.look(scheme=scheme)
    try_query(page, "topic3 topic")
    page.run("document.querySelector('.expert').open = true")
    texts = [
        "body",
        ".quiet",
        ".doubt",
        ".landing",
        "#route",
        ".badge",
        ".inside h4",
        ".role",
        "dt",
        ".scroll pre",
        "a",
    ]
    dim = {css: ratio for css in texts if (ratio := page.run(CONTRAST, css, "color")) < 4.5}
    shapes = {kind: ratio for kind in range(8) if (ratio := page.run(CONTRAST, f".map .c{kind}", "color")) < 3}
    assert (dim, shapes) == ({}, {})
    ground = page.run("return getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, ground[4:-1].split(","))) > 384) == (scheme == "light")


def test_headings_labels_and_live_places_are_there_for_those_who_listen(page: Browser) -> None:
    levels = page.run("return [...document.querySelectorAll('h1, h2, h3, h4')].map((one) => Number(one.tagName[1]))")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(later <= earlier + 1 for earlier, later in itertools.pairwise(levels))
    assert page.run("return [...document.querySelectorAll('input, textarea')].every((one) => one.labels.length)")
    assert page.find("#landing").get_attribute("role") == "status"
    assert page.find("#answer").get_attribute("aria-live") == "polite"
    assert page.find("#plane").get_attribute("role") == "img"
    ids = page.run("return [...document.querySelectorAll('[id]')].map((one) => one.id)")
    assert len(ids) == len(set(ids))


def test_it_can_be_read_without_javascript(browser: Browser, server: Running) -> None:
    browser.look()
    browser.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.open(server.root)
        assert browser.find("#mark-23").is_displayed()
        assert "It helped on validation." in browser.find(".verdict").text
        assert "needs JavaScript" in browser.find(".try").text
        assert not browser.find("#try").is_displayed()
        browser.find('.expert[data-expert="3"] summary').click()
        assert "Answer about topic3." in browser.find('.expert[data-expert="3"]').text
        assert browser.complaints == []
    finally:
        browser.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_on_paper_the_prompts_are_there_and_the_box_is_not(page: Browser) -> None:
    page.look(media="print")
    try:
        assert not page.find("#query").is_displayed()
        assert page.run(
            "return document.querySelector('.expert .inside').checkVisibility({contentVisibilityAuto: true})"
        )
        assert page.find("#plane").is_displayed()
    finally:
        page.look()


# -- keys


def test_where_there_are_keys_the_page_asks_for_one_and_forgets_it(browser: Browser, upstream: FakeUpstream) -> None:
    keys = KeyRing({"app": hashlib.sha256(b"right").digest()})
    with running(small_app(upstream.base_url, keys=keys)) as server:
        browser.look()
        browser.open(server.root)
        assert "asks for a key" in browser.find("main").text
        assert "card" not in browser.find("main").text
        browser.type("wrong", Keys.ENTER)
        assert "does not know this key" in eventually(lambda: browser.find("#refused").text)
        browser.type("right", Keys.ENTER)
        eventually(lambda: browser.run("return document.getElementById('query') !== null"))
        assert "region 1" in try_query(browser, "where is my parcel")
        browser.find("#ask").click()
        assert eventually(lambda: browser.find("#answer-text").text) == "about where is my parcel"
        eventually(lambda: shown_requests(browser) == "1 request")
        assert browser.complaints == []
        kept = "return [document.cookie, JSON.stringify(localStorage), JSON.stringify(sessionStorage), location.href]"
        assert "right" not in "".join(browser.run(kept))
        browser.open(server.root)
        assert "asks for a key" in browser.find("main").text


def test_with_a_key_one_can_go_from_mixture_to_mixture(browser: Browser, upstream: FakeUpstream) -> None:
    keys = KeyRing({"app": hashlib.sha256(b"right").digest()})
    served = [serve_small(name, Upstream(upstream.base_url)) for name in ("bank", "a/b & c?")]
    with running(create_app(served, limits=QUICK, keys=keys)) as server:
        browser.look()
        browser.open(server.root)
        browser.type("right", Keys.ENTER)
        eventually(lambda: browser.text("h1") == "bank")
        browser.find(".top li:last-child a").click()
        eventually(lambda: browser.text("h1") == "a/b & c?")
        assert "region 1" in try_query(browser, "my parcel")
        assert browser.complaints == []
