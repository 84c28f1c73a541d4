"""`mop report`: what the page says, from a real search and from files that hold less."""

from __future__ import annotations

import html
import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_endpoint import FakeEndpoint
from hypothesis import given, settings
from hypothesis import strategies as st
from reporting import measured_of
from simulated import nearest_demo_answer, splits
from small import WordEncoder, small_mixture

import mop
from mop.cli import main
from mop.embeddings.region_map import draw_map
from mop.examples import Example
from mop.handwritten import make_mixture, read_bank
from mop.prompts import Demo, Prompt
from mop.report import racing
from mop.report.page import MOST_BYTES, Facts, make_page
from mop.retrieval import Retrieval
from mop.settings import Settings

BANK = {
    "model": "simulated",
    "encoder": "words",
    "generalist": {"instruction": "Name the trouble."},
    "experts": [
        {"name": topic, "instruction": f"Name the {topic}'s trouble.", "demos": [{"input": topic, "output": "?"}]}
        for topic in ("card", "parcel")
    ],
}


def text_of(page: bytes) -> str:
    """Return the words of a page as people read them, without what only machines read."""
    bare = re.sub(r"<(style|script)>.*?</\1>", " ", page.decode(), flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", bare)).split())


# -- a real search, and a measurement through the ledger


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, encoder_path: Path) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        for name in Settings.model_fields:
            patch.delenv(f"MOP_{name.upper()}", raising=False)
        patch.delenv("OPENAI_BASE_URL", raising=False)
        patch.setenv("MOP_LEDGER", str(path / "ledger.sqlite"))
        patch.setenv("MOP_API_KEY", "secret-key")
        patch.chdir(path)
        yield path


@pytest.fixture(scope="module")
def endpoint() -> Iterator[FakeEndpoint]:
    with FakeEndpoint(nearest_demo_answer) as server:
        yield server


@pytest.fixture(scope="module")
def task(folder: Path, endpoint: FakeEndpoint) -> Path:
    """The mixture of a small search; its data lies beside it."""
    parts = splits()
    named = (("train", parts.train), ("validation", parts.validation), ("test", parts.test[:40]))
    rows = [{"input": e.input, "output": list(e.outputs), "split": name} for name, some in named for e in some]
    (folder / "task.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    assert main([
        "optimize", "task.jsonl", "--quiet", "--budget", "500", "--model", "simulated",
        "--base-url", endpoint.base_url, "--prompt-tokens", "200", "--instruction", "Name the thing and its state.",
    ]) == 0  # fmt: skip
    return folder / "task.mop"


@pytest.fixture(scope="module")
def scored(task: Path, endpoint: FakeEndpoint) -> str:
    """What the report of the test examples says; the page is ``task.html``."""
    assert main(["report", "task.mop", "task.jsonl", "--knn-rows", "10", "--base-url", endpoint.base_url]) == 0
    return text_of(task.with_suffix(".html").read_bytes())


def test_the_verdict_is_the_paired_difference_on_the_test_that_evaluate_gives(
    scored: str, task: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(["evaluate", "task.mop", "task.jsonl", "--replay", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    ours, single = (one["accuracy"] for one in found["systems"])
    low, high = (f"{found['differences'][0][end]:+.2f}".replace("-", "−") for end in ("low", "high"))
    assert f"On 40 test examples the mixture scores {ours:.2f} and the best single prompt {single:.2f}" in scored
    assert f"(95 % interval {low} to {high})" in scored


def test_a_replay_sends_nothing_and_makes_the_same_page(scored: str, task: Path, endpoint: FakeEndpoint) -> None:
    before, page = endpoint.served, task.with_suffix(".html").read_bytes()
    assert main(["report", "task.mop", "task.jsonl", "--knn-rows", "10", "--replay", "-o", "again.html"]) == 0
    assert endpoint.served == before
    assert (task.parent / "again.html").read_bytes() == page


def test_the_number_of_calls_is_said_before_the_first_is_sent(
    scored: str, task: Path, endpoint: FakeEndpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    before = endpoint.served
    capsys.readouterr()
    options = ["--split", "validation", "--knn-rows", "0", "-o", "more.html", "--base-url", endpoint.base_url]
    assert main(["report", "task.mop", "task.jsonl", *options]) == 0
    said = capsys.readouterr().err.splitlines()[0]
    calls, known = re.search(r"4 systems: ([\d,]+) calls, ([\d,]+) of them in the ledger", said).groups()  # type: ignore[union-attr]
    assert int(calls) - int(known) == endpoint.served - before > 0
    page = text_of((task.parent / "more.html").read_bytes())
    assert "kNN was left out" in page
    assert "Validation, not test" in page


def test_a_replay_of_what_was_never_asked_stops_with_an_error(scored: str, task: Path) -> None:
    assert main(["report", "task.mop", "task.jsonl", "--split", "train", "--replay", "-o", "no.html"]) == 6
    assert not (task.parent / "no.html").exists()


def test_without_examples_no_model_is_asked_and_validation_is_named(task: Path, endpoint: FakeEndpoint) -> None:
    before = endpoint.served
    assert main(["report", "task.mop", "-o", "alone.html"]) == 0
    assert endpoint.served == before
    page = text_of((task.parent / "alone.html").read_bytes())
    assert "validation examples the mixture scores" in page
    assert "estimated from the prompts" in page
    assert "give examples as DATA to see it" in page


def test_of_hand_written_prompts_it_says_that_nothing_was_measured(
    folder: Path, endpoint: FakeEndpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "bank.json").write_text(json.dumps(BANK), encoding="utf-8")
    encoder = WordEncoder()
    mixture = make_mixture(read_bank(folder / "bank.json"), encoder, source="bank.json").with_known_encoder(encoder)
    mixture.save(folder / "bank.mop")
    capsys.readouterr()
    assert main(["report", "bank.mop"]) == 0
    assert "Not measured. People wrote these prompts" in " ".join(capsys.readouterr().out.split())
    page = text_of((folder / "bank.html").read_bytes())
    assert "nothing says yet whether they are better than one prompt" in page
    assert "Nothing raced: people wrote the prompts." in page
    assert "Nothing: there was no search." in page
    assert "mop import bank.json" in page
    assert "Name the card's trouble." in page
    of_searches = ("Learned", "95 %", "rank correlation", "Validation examples")
    assert [words for words in of_searches if words in page] == []
    examples = [Example(f"my {topic} is late", ("late",)) for topic in ("card", "parcel") * 10]
    scores = {"mixture": [1.0] * 20, "one prompt": [0.0] * 20}
    measured = text_of(make_page(mixture, Facts("bank"), measured_of(mixture, examples, scores)))
    assert "It helped On 20 test examples the mixture scores 1.00" in measured
    assert "Not measured" not in measured


def test_the_scores_by_region_are_those_that_chose_the_experts(task: Path) -> None:
    mixture = mop.load(task)
    heat = racing.region_scores(mixture)
    assert heat is not None
    rows = mixture.report["instructions"]
    chosen = {region: number for number, row in enumerate(rows) for region in row["chosen"]}
    assert sorted(chosen) == list(range(len(mixture)))
    for region, expert in enumerate(mixture.experts):
        assert heat.rows[chosen[region]][1][region] == expert.score
        assert rows[chosen[region]]["trials"][region] == expert.validation
        assert expert.prompt.instruction.startswith(rows[chosen[region]]["instruction"])


def test_the_calls_over_time_are_those_of_this_run(scored: str, task: Path) -> None:
    calls = mop.load(task).provenance["calls"]
    assert f"from the ledger: {calls} calls that this run paid for" in scored


def test_the_command_on_the_page_learns_the_same_experts_again(task: Path) -> None:
    from mop.report.origin import learn_again

    mixture = mop.load(task)
    command = learn_again(mixture)
    assert command is not None
    words = ["task.jsonl" if word == "DATA" else word for word in shlex.split(command)[1:]]
    assert main([*words, "--replay", "--quiet", "-o", "learned.mop"]) == 0
    assert mop.load(task.parent / "learned.mop").experts == mixture.experts


def test_knn_is_measured_on_as_many_examples_as_were_asked_for(scored: str) -> None:
    assert re.search(r"kNN 10 [\d.]+ ", scored)


def test_a_ledger_that_is_not_there_is_not_made(task: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOP_LEDGER", str(task.parent / "nowhere.sqlite"))
        assert main(["report", "task.mop", "-o", "alone.html"]) == 0
        assert main(["report", "task.mop", "--ledger", "nowhere.sqlite", "-o", "none.html"]) == 6
    assert not (task.parent / "nowhere.sqlite").exists()
    assert "No ledger was at hand" in text_of((task.parent / "alone.html").read_bytes())
    assert main(["report", "task.mop", "-o", "missing/alone.html"]) == 7
    assert "report missing/alone.html is in a folder" in capsys.readouterr().err


# -- files that hold less, or something else


def test_a_file_without_report_and_provenance_says_so_in_every_section() -> None:
    old = small_mixture(report={}, provenance={}, region_map=None)
    page = text_of(make_page(old, Facts("old")))
    for sentence in (
        "The file does not say how the mixture compares with one prompt.",
        "The file holds no scores of its validation",
        "The file keeps no texts of its examples",
        "The file does not tell what raced.",
        "The file does not list the instructions",
        "The file holds no scores of instructions by region.",
        "The file does not say what the search spent.",
        "No ledger was at hand",
        "The file does not hold the settings",
    ):
        assert sentence in page


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
_ROW = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(("name", "examples", "score", "instruction", "scores", "trials", "chosen"), _JSON),
)
_KEYS = ("singles", "crossed", "layouts", "gate", "candidates", "instructions", "zero_shot")
_ORIGIN = ("settings", "seed", "calls_by_role", "created", "calls", "model", "proposer", "run", "additions")


@settings(max_examples=40, deadline=None)
@given(
    st.dictionaries(st.sampled_from(_KEYS), _JSON | st.lists(_ROW, max_size=3) | _ROW),
    st.dictionaries(st.sampled_from(_ORIGIN), _JSON),
)
def test_whatever_a_file_holds_as_its_report_there_is_a_page(report: dict[str, Any], origin: dict[str, Any]) -> None:
    page = make_page(small_mixture(report=report, provenance=origin), Facts("odd"))
    assert page.endswith(b"</html>")


def test_texts_stay_texts_and_control_characters_are_replaced() -> None:
    bad = "</script><script>pwned()</script><img src=x onerror=pwned()>\u202e\x1b[31m"
    expert = replace(small_mixture().experts[0], prompt=Prompt(bad, (Demo(bad, bad),)), words=(bad,), proposer=bad)
    mixture = small_mixture(
        experts=(expert, *small_mixture().experts[1:]),
        model=bad,
        metric=bad,
        report={"candidates": [bad], "singles": [{"name": bad, "examples": 3, "score": 1.0}]},
        provenance={"settings": {bad: bad}, "seed": 0, "created": bad},
    )
    measured = measured_of(mixture, [Example(f"card {bad}", (bad,))] * 3, {})
    page = make_page(mixture, Facts(bad, command=bad, data=bad), measured).decode()
    assert page.count("<script") == page.count("</script>") == 1
    assert "<img" not in page
    assert "\u202e" not in page
    assert "\x1b" not in page


def test_a_page_of_very_many_long_texts_is_shortened_to_less_than_three_megabytes() -> None:
    encoder, one = WordEncoder(64), small_mixture().experts[0]
    count = 180
    demos = tuple(Demo("a long text " * 400, f"label{number}") for number in range(24))
    experts = tuple(replace(one, prompt=Prompt("Do it. " * 900, demos)) for _ in range(count))
    centroids = encoder.encode([f"word{number} thing{number}" for number in range(count)])
    found = tuple(Demo(f"word{number % count} " + "<&>" * 300, "x") for number in range(900))
    vectors = encoder.encode([demo.input for demo in found])
    big = small_mixture(
        experts=experts,
        centroids=centroids,
        retrieval=Retrieval(found, vectors, 1),
        region_map=draw_map(centroids, vectors),
    )
    page = make_page(big, Facts("big"))
    assert 100_000 < len(page) < MOST_BYTES
    assert "are shortened" in text_of(page)
