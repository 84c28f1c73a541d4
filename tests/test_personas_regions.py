"""Identities for the regions of a saved mixture: what is asked for each, and the command."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fake_endpoint import FakeEndpoint
from persona_model import persona_answer
from small import TOPICS, WordEncoder, small_mixture

from mop.cli import main
from mop.errors import DataError
from mop.mixture import Mixture
from mop.persona import Persona
from mop.personas import region_instructions
from mop.personas.regions import MEDOIDS
from mop.prompts import Demo, Prompt
from mop.retrieval import Retrieval


def retrieving() -> Mixture:
    """A mixture that can retrieve six examples of each of its regions; the fewer words, the nearer to the middle."""
    texts = [" ".join([topic] * 9 + [f"word{n}"] * n) for topic in TOPICS for n in range(1, 7)]
    return small_mixture(retrieval=Retrieval(tuple(Demo(text, "x") for text in texts), WordEncoder().encode(texts), 1))


def test_a_region_asks_for_what_its_expert_does_with_the_examples_nearest_to_its_middle() -> None:
    asked = region_instructions(retrieving())
    assert [one.line for one in asked] == [0, 1, 2]
    head, listed = asked[1].text.split("\n\nRequests such as these:\n")
    assert head == "Answer about the parcel."
    lines = listed.splitlines()
    assert len(lines) == MEDOIDS
    assert [line.count("word") for line in lines] == [1, 2, 3, 4]


def test_a_region_that_fell_back_asks_for_what_the_generalist_does() -> None:
    assert region_instructions(retrieving())[2].text.startswith("Answer «in one word» – größer.\n\n")


def test_where_nothing_is_retrieved_the_expert_s_own_demos_say_what_a_region_is_about() -> None:
    assert region_instructions(small_mixture())[0].text.endswith("- my card is lost")


def test_an_identity_that_is_worn_already_is_no_part_of_what_is_asked() -> None:
    mixture = small_mixture()
    first, second, third = mixture.experts
    clerk = Persona("expert", True, "You are a clerk.", "expert", 9, 0.2, 0.1, 0.3)
    player = replace(clerk, kind="role-play", tried="role-play", text="You are a postman. Do you take on this role?")
    told = replace(first, persona=clerk, prompt=replace(first.prompt, instruction="You are a clerk.\n\nSort it."))
    role = Demo(player.text, "I do.")
    played = replace(second, persona=player, prompt=replace(second.prompt, demos=(role, *second.prompt.demos)))
    worn = replace(mixture, experts=(told, played, third)).with_known_encoder(WordEncoder())
    asked = region_instructions(worn)
    assert asked[0].text.startswith("Sort it.\n\n")
    assert asked[1].text == "Answer about the parcel.\n\nRequests such as these:\n- my parcel is lost"


def test_a_mixture_that_shows_no_examples_is_an_error_that_says_what_to_do() -> None:
    mixture = small_mixture()
    bare = tuple(replace(one, prompt=Prompt(one.prompt.instruction)) for one in mixture.experts)
    with pytest.raises(DataError, match=r"no examples of region 0.*file of instructions"):
        region_instructions(replace(mixture, experts=bare).with_known_encoder(WordEncoder()))


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeEndpoint]:
    monkeypatch.setenv("MOP_API_KEY", "k")
    with FakeEndpoint(persona_answer) as serving:
        yield serving


def test_the_command_writes_an_identity_for_each_region_and_sends_nothing_twice(
    endpoint: FakeEndpoint, encoder_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = tmp_path / "m.mop", tmp_path / "who.jsonl"
    retrieving().save(path)
    command = ["personas", "write", str(path), "-o", str(out), "--model", "m", "--base-url", endpoint.base_url]
    command += ["--ledger", str(tmp_path / "l.sqlite"), "--encoder", str(encoder_path)]
    assert main(command) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["line"] for row in rows] == [0, 1, 2]
    assert len({row["identity"] for row in rows}) == 3
    assert "identities for 3 of 3 regions" in capsys.readouterr().out
    served, first = endpoint.served, out.read_bytes()
    assert main(command) == 0
    assert endpoint.served == served
    assert out.read_bytes() == first


def test_a_file_that_is_no_mixture_is_an_error_before_a_call(
    endpoint: FakeEndpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "m.mop"
    path.write_text("no mixture")
    address = ["--model", "m", "--base-url", endpoint.base_url, "--ledger", str(tmp_path / "l.sqlite")]
    assert main(["personas", "write", str(path), "-o", str(tmp_path / "who.jsonl"), *address]) == 7
    assert main(["personas", "write", str(tmp_path / "none.mop"), "-o", str(tmp_path / "who.jsonl"), *address]) != 0
    assert endpoint.served == 0
    assert not (tmp_path / "who.jsonl").exists()
    assert "m.mop" in capsys.readouterr().err
