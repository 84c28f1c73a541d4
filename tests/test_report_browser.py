"""The page of `mop report` in a real browser, opened from its file: what it says at first sight, and what it does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import CONTRAST, OUTSIDE, OVERLAPPING, Browser, browsers, eventually
from reporting import measured_of
from small import WordEncoder, crowded, small_mixture

from mop.examples import Example
from mop.lm.timeline import Paid
from mop.prompts import Demo
from mop.report.measuring import KNN, MIXTURE, ONE_PROMPT, WITH_NEAREST, ZERO_SHOT
from mop.report.page import Facts, make_page
from mop.retrieval import Retrieval

#: What holds boxes side by side or one under the other.
_GROUPS = "main, .card, .verdict, .bars, .bars li, .head, summary, .inside, .races, .races > div, .filters, .facts"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    yield from browsers()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with every section: 24 regions, long words, five systems, races, scores by region, calls over time."""
    base, encoder = crowded(), WordEncoder()
    count = len(base)
    texts = [f"topic{number} topic is {word}" for number in range(count) for word in ("lost", "late", "wet")]
    report = {
        **base.report,
        "zero_shot": "Answer with one word. " * 20,
        "singles": [{"name": f"given, {name} demos", "examples": 8, "score": 0.5} for name in ("wide", "random", "no")],
        "layouts": [{"name": "24 experts by topic", "examples": 9, "score": 0.7}] * 2,
        "instructions": [
            {"instruction": "Do. " * 40, "proposer": "given", "scores": [0.1 * n] * count, "trials": [3] * count}
            for n in range(10)
        ],
    }
    mixture = small_mixture(
        experts=base.experts,
        centroids=base.centroids,
        region_map=base.region_map,
        report=report,
        retrieval=Retrieval(tuple(Demo(text, "label") for text in texts), encoder.encode(texts), 1),
        provenance={**base.provenance, "calls_by_role": {"execute": 80, "propose": 20}, "settings": {"budget": 100}},
    )
    examples = [Example(f"my topic{23 - number % count} topic {number}", ("right",)) for number in range(60)]
    shares = {MIXTURE: 0.8, ONE_PROMPT: 0.5, ZERO_SHOT: 0.3, WITH_NEAREST: 0.48, KNN: 0.8}
    scores = {name: [float(place < share * 60) for place in range(60)] for name, share in shares.items()}
    paid = [Paid(1000.0 + number**1.5, "propose" if number % 5 == 0 else "execute", 50) for number in range(100)]
    facts = Facts("a-mixture", "mop report a.mop", "ab" * 32, "x.jsonl (test)", frozenset(texts[::4]), paid)
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_bytes(make_page(mixture, facts, measured_of(mixture, examples, scores, knn_rows=20)))
    return path


@pytest.fixture
def page(browser: Browser, file: Path) -> Browser:
    browser.look()
    browser.open(file.as_uri())
    return browser


def count_shown(page: Browser, kind: str = "") -> int:
    """Return how many dots can be seen."""
    script = "return [...document.querySelectorAll(arguments[0])].filter((d) => getComputedStyle(d).display !== 'none')"
    return len(page.run(script, f".dot{kind}"))


def test_it_opens_from_a_file_asks_for_nothing_and_has_nothing_to_complain_of(page: Browser, file: Path) -> None:
    assert page.complaints == []
    assert [url for url in page.asked_for if not url.startswith("data:")] == [file.as_uri()]


@pytest.mark.parametrize("width", [360, 800, 1280])
def test_nothing_overflows_or_lies_on_top_of_something_else(page: Browser, width: int) -> None:
    page.look(width)
    page.run("for (const one of document.querySelectorAll('details')) one.open = true")
    assert page.run("return document.documentElement.scrollWidth") <= width
    assert page.run(OUTSIDE, width) == []
    assert page.run(OVERLAPPING, _GROUPS) == []
    assert page.complaints == []


def test_whether_it_helped_is_seen_without_scrolling(page: Browser) -> None:
    page.look(1280, 720)
    for css in (".short", ".sentence", ".bars li:nth-child(2)"):
        assert page.run("return document.querySelector(arguments[0]).getBoundingClientRect().bottom", css) < 720
    assert page.text(".short") == "It helped"
    lengths = page.run(
        "return [...document.querySelectorAll('.bars .part')].map((bar) => bar.getBoundingClientRect().width)"
    )
    scores = page.run("return [...document.querySelectorAll('.bars li > b')].map((one) => Number(one.textContent))")
    assert lengths == pytest.approx([score * lengths[0] / scores[0] for score in scores], rel=0.03)


def test_boxes_and_the_list_choose_what_is_shown_and_one_button_shows_all(page: Browser) -> None:
    everything = count_shown(page)
    wrong = count_shown(page, ".wrong")
    assert page.text("#count") == f"{everything} of {everything} shown"
    for kind in ("example", "validation", "right"):
        page.click(f"[data-filter={kind}]")
    assert count_shown(page) == count_shown(page, ".wrong") == wrong > 0
    region = page.find(".dot.wrong").get_attribute("data-region")
    page.find(f'#region option[value="{region}"]').click()
    assert 0 < count_shown(page) == count_shown(page, f'[data-region="{region}"]') < wrong
    assert page.run("return [...document.querySelectorAll('.ring.chosen')].map((r) => r.dataset.region)") == [region]
    page.click("#all")
    assert count_shown(page) == everything
    assert page.complaints == []


def test_a_click_on_a_regions_number_shows_that_region_alone(page: Browser) -> None:
    everything = count_shown(page)
    page.click('.mark[data-region="23"] .number')  # drawn last, so nothing lies on it
    assert page.find("#region").get_property("value") == "23"
    assert count_shown(page) == count_shown(page, '[data-region="23"]') < everything
    page.click('.mark[data-region="23"] .number')
    assert count_shown(page) == everything


def test_pointing_at_a_dot_says_its_text_its_expert_and_whether_it_was_right(page: Browser) -> None:
    dot = page.run("return [...document.querySelectorAll('.dot.wrong')].at(-1)")
    page.run("arguments[0].dispatchEvent(new PointerEvent('pointerover', {bubbles: true}))", dot)
    said = page.text("#said")
    assert said.startswith("Query in region ")
    assert "says not right. Wrong, expected right." in said
    page.run("document.getElementById('map').dispatchEvent(new PointerEvent('pointerout'))")
    assert page.text("#said").startswith("Point at a dot")


def test_a_link_to_an_expert_opens_it(page: Browser) -> None:
    page.run("location.hash = '#expert-5'")
    eventually(lambda: page.find("#expert-5").get_property("open"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground_by_day_and_by_night(page: Browser, scheme: str) -> None:
    page.look(scheme=scheme)
    page.run("document.querySelector('.expert').open = true")
    texts = [
        "body",
        ".quiet",
        ".badge",
        ".inside h4",
        "dt",
        "pre.text",
        ".top a",
        ".head",
        *(f".h{n}" for n in (0, 4, 5, 9)),
    ]
    assert {css: ratio for css in texts if (ratio := page.run(CONTRAST, css, "color")) < 4.5} == {}


def test_on_paper_every_prompt_is_there_and_the_filters_are_not(page: Browser) -> None:
    page.look(width=700, media="print")
    try:
        assert not page.find("#filters").is_displayed()
        assert page.run(
            "return document.querySelector('.expert .inside').checkVisibility({contentVisibilityAuto: true})"
        )
        assert page.find("#map").is_displayed()
        assert page.run("return document.documentElement.scrollWidth") <= 700
    finally:
        page.look()


@pytest.mark.parametrize("regions", [31, 60])
def test_on_paper_scores_of_many_regions_lie_one_under_the_other_and_none_is_cut_off(
    browser: Browser, tmp_path: Path, regions: int
) -> None:
    rows = [{"instruction": f"Do {n}.", "scores": [0.1 * n] * regions, "trials": [3] * regions} for n in range(4)]
    base = crowded(regions)
    mixture = small_mixture(experts=base.experts, centroids=base.centroids, report={"instructions": rows})
    examples = [Example(f"my topic{number} topic", ("right",)) for number in range(regions)]
    path = tmp_path / "many.html"
    path.write_bytes(make_page(mixture, Facts("many"), measured_of(mixture, examples, {MIXTURE: [1.0] * regions})))
    edges = "return [...document.querySelectorAll('.heat')].map((one) => one.getBoundingClientRect()[arguments[0]])"
    columns = """return [...document.querySelectorAll('.heats')].map((box) =>
      [...box.querySelectorAll('thead th:not(:first-child)')].map((one) => Number(one.textContent)))"""
    browser.look(width=700, media="print")
    try:
        browser.open(path.as_uri())
        ends = browser.run(edges, "right")
        assert len(ends) == 2 * -(-regions // 24)
        assert max(ends) <= 700
        assert browser.run("return document.documentElement.scrollWidth") <= 700
        assert browser.run(columns) == [list(range(regions))] * 2
        tops = browser.run(edges, "top")
        assert tops == sorted(set(tops))
        browser.look()
        on_screen = browser.run(edges, "top")
        assert len(set(on_screen)) == 2  # side by side, in a box that scrolls
        assert browser.run("return document.documentElement.scrollWidth") <= 1280
    finally:
        browser.look()


def test_it_can_be_read_without_javascript(browser: Browser, file: Path) -> None:
    browser.look()
    browser.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.open(file.as_uri())
        assert browser.find(".short").text == "It helped"
        assert browser.find("#map").is_displayed()
        browser.find("#expert-3 summary").click()
        assert "Answer about topic3." in browser.find("#expert-3").text
    finally:
        browser.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_on_a_telephone_dots_are_larger_and_lie_where_they_lay(page: Browser) -> None:
    script = """
    const plane = document.getElementById('map').getBoundingClientRect();
    return [...document.querySelectorAll('.dot')].map((dot) => dot.getBoundingClientRect()).map((box) => [
      (box.left + box.width / 2 - plane.left) / plane.width, (box.top + box.height / 2 - plane.top) / plane.height,
      box.width / plane.width,
    ]);
    """
    wide = page.run(script)
    page.look(360)
    narrow = page.run(script)
    for place in (0, 1):
        assert [one[place] for one in narrow] == pytest.approx([one[place] for one in wide], abs=0.004)
    assert all(after[2] > 1.3 * before[2] for before, after in zip(wide, narrow, strict=True))
