"""Import: hand-written prompts become a mixture that routes, shows and evaluates; mistakes are named by line."""

from __future__ import annotations

import contextlib
import json
import textwrap
from pathlib import Path

import numpy as np
import pytest
from fake_endpoint import FakeEndpoint
from hypothesis import given
from hypothesis import strategies as st
from small import WordEncoder

import mop
from mop import handwritten
from mop.artifact import from_bytes, to_bytes
from mop.cli import main
from mop.errors import BadRows, DataError
from mop.handwritten import FREE_TOKENS, Bank, make_mixture, read_bank
from mop.prompts import Demo

BANK = """
model: simulated
encoder: words
generalist:
  instruction: Answer yes or no.
experts:
  - name: card
    instruction: About cards {x}.
    demos:
      - {input: my card is lost, output: yes}
      - {input: my card is red, output: 12}
  - name: parcel
    examples:
      - my parcel is late
      - input: my parcel came
        output: no
"""


def bank_of(folder: Path, text: str = BANK, name: str = "bank.yaml") -> Bank:
    (folder / name).write_text(text, encoding="utf-8")
    return read_bank(folder / name)


def test_every_text_stays_as_it_is_written(tmp_path: Path) -> None:
    mixture = make_mixture(bank_of(tmp_path), WordEncoder())
    assert mixture.generalist.instruction == "Answer yes or no."
    assert mixture.experts[0].prompt.demos == (Demo("my card is lost", "yes"), Demo("my card is red", "12"))
    assert mixture.experts[1].prompt.demos == ()


def test_queries_go_where_the_examples_are_and_the_file_comes_back(tmp_path: Path) -> None:
    encoder = WordEncoder()
    mixture = make_mixture(bank_of(tmp_path), encoder)
    again = from_bytes(to_bytes(mixture)).use_encoder(encoder)
    assert [one.expert for one in again.route(["where is my parcel", "a red card"])] == [1, 0]
    mean = encoder.encode(["my parcel is late", "my parcel came"]).mean(axis=0)
    np.testing.assert_allclose(again.centroids[1], mean / np.linalg.norm(mean), atol=1e-6)


def test_nothing_is_claimed_of_experts_that_nobody_measured(tmp_path: Path) -> None:
    mixture = make_mixture(bank_of(tmp_path), WordEncoder())
    assert all(one.score is None and one.generalist_score is None and not one.fallback for one in mixture.experts)
    assert mixture.reference is None
    assert mixture.provenance["calls"] == 0


def test_labels_say_where_an_answer_ends_and_free_answers_are_not_cut(tmp_path: Path) -> None:
    assert make_mixture(bank_of(tmp_path), WordEncoder()).decoding.stop == ("\n",)
    free = make_mixture(bank_of(tmp_path, BANK.replace("output: 12", "output: " + "long " * 40)), WordEncoder())
    assert (free.decoding.max_tokens, free.decoding.stop) == (FREE_TOKENS, ())
    given_ = BANK + "decoding: {max_tokens: 7, stop: [END], temperature: 0.5}\n"
    decoding = make_mixture(bank_of(tmp_path, given_), WordEncoder()).decoding
    assert (decoding.max_tokens, decoding.stop, decoding.temperature) == (7, ("END",), 0.5)


def test_demos_and_labelled_examples_can_be_retrieved(tmp_path: Path) -> None:
    encoder = WordEncoder()
    mixture = make_mixture(bank_of(tmp_path, "retrieved: 1\n" + BANK), encoder).with_known_encoder(encoder)
    assert mixture.retrieval is not None
    assert {demo.output for demo in mixture.retrieval.demos} == {"yes", "12", "no"}
    assert mixture.route("my parcel came").retrieved == (Demo("my parcel came", "no"),)


def test_the_example_of_the_documentation_can_be_imported(tmp_path: Path) -> None:
    example = (handwritten.__doc__ or "").partition("::\n")[2].partition("\nAn expert's")[0]
    mixture = make_mixture(bank_of(tmp_path, textwrap.dedent(example)), WordEncoder())
    assert [one.words for one in mixture.experts] == [("billing",)]
    assert mixture.decoding.stop == ("\n",)


def test_json_says_the_same_as_yaml(tmp_path: Path) -> None:
    text = json.dumps(bank_of(tmp_path).model_dump(mode="json", exclude_none=True))
    assert bank_of(tmp_path, text, "bank.json") == bank_of(tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("generalist:", "generalists:"), r"line 4: generalists: there is no such key"),
        (("    instruction: About", "    instructions: About"), r"line 8: experts\[0\].instructions"),
        (("input: my card is red", "input: ' '"), r"line 11: experts\[0\].demos\[1\].input: the text is empty"),
        (("- name: parcel", "- name: card"), "two experts are called 'card'"),
        (("encoder: words", "metric: exact_matsch"), "line 3: metric: .*exact_match"),
        (("encoder: words", "retrieved: many"), "line 3: retrieved"),
        (("encoder: words", "model: again"), "line 3: the key 'model' stands twice"),
        (("encoder: words", "encoder: *card"), r"references \(\*card\)"),
        (("encoder: words", "encoder: [a"), "isn't YAML"),
        (("- my parcel is late", "- 'half'\n      - {input: a, output: \"\\uD800\"}"), "UTF-8|isn't YAML"),
        (
            ("    examples:\n      - my parcel is late\n      - input: my parcel came\n        output: no\n", ""),
            "line 12",
        ),
    ],
)
def test_a_mistake_is_named_with_its_place(tmp_path: Path, change: tuple[str, str], words: str) -> None:
    assert change[0] in BANK
    with pytest.raises(DataError, match=words):
        bank_of(tmp_path, BANK.replace(*change, 1))


def test_a_mistake_in_json_is_named_by_its_key(tmp_path: Path) -> None:
    with pytest.raises(BadRows, match=r"experts: "):
        bank_of(tmp_path, '{"generalist": {"instruction": "x"}, "experts": []}', "bank.json")
    with pytest.raises(DataError, match="'a' stands twice"):
        bank_of(tmp_path, '{"a": 1, "a": 2}', "bank.json")
    for empty in ("", "# nothing\n"):
        with pytest.raises(DataError, match="empty"):
            bank_of(tmp_path, empty)


@given(st.binary(max_size=200) | st.text("{}[]:-*&!|>'\"\n a1,?%@`", max_size=80).map(str.encode))
def test_any_file_is_a_bank_or_a_data_error(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(content)
    with contextlib.suppress(DataError):
        assert read_bank(path).experts


def test_the_command_makes_a_file_that_shows_routes_and_evaluates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MOP_LEDGER", str(tmp_path / "ledger"))
    monkeypatch.setenv("MOP_API_KEY", "k")
    for name in ("resolve_encoder", "resolve_recorded_encoder"):
        monkeypatch.setattr(f"mop.encoding.{name}", lambda name, **_options: WordEncoder())
    Path("bank.yaml").write_text(BANK)
    assert main(["import", "bank.yaml"]) == 0
    assert "not measured" in capsys.readouterr().out
    assert len(mop.load("bank.mop")) == 2
    assert main(["show", "bank.mop"]) == 0
    said = capsys.readouterr().out
    assert "Not measured" in said
    assert "written by hand" in said
    assert "+0.00" not in said
    assert main(["route", "bank.mop", "my parcel", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["routes"][0]["expert"] == 1
    Path("rows.jsonl").write_text("\n".join(json.dumps({"input": f"my card {n}", "output": "yes"}) for n in range(4)))
    with FakeEndpoint(lambda messages: "yes") as endpoint:
        assert main(["evaluate", "bank.mop", "rows.jsonl", "--base-url", endpoint.base_url, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["systems"][0]["accuracy"] == 1.0
    assert main(["import", "bank.yaml", "-o", "missing/x.mop"]) == 7
    Path("bank.yaml").write_text("experts: 1")
    assert main(["import", "bank.yaml"]) == 3
    assert "generalist" in capsys.readouterr().err
