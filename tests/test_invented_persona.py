"""A persona that is invented when a query is asked: every expert is told it, in place of one that it learned."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from fake_endpoint import FakeEndpoint
from hypothesis import given
from hypothesis import strategies as st
from small import TOPICS, WordEncoder, small_mixture

from mop.artifact import save
from mop.cli import main
from mop.lm.client import ModelClient
from mop.lm.ledger import Ledger
from mop.mixture import Mixture
from mop.persona import Kind, Persona
from mop.prompts import Demo, Prompt
from mop.search.guises import Guise, role_turn

PIRATE = "You are a pirate. Begin every answer with Arr."
LEARNED = "You are a clerk."


def pirates_say_arr(messages: list[dict[str, str]]) -> str:
    pirate = messages[0]["role"] == "system" and "pirate" in messages[0]["content"]
    return f"{'Arr. ' * pirate}{'Sir. ' * ('clerk' in str(messages))}{messages[-1]['content']}"


def persona(kind: Kind, text: str) -> Persona:
    return Persona(kind, True, text, kind, 9, 0.3, 0.1, 0.5, "clerk" if kind == "own" else "")


@pytest.fixture
def mixture(monkeypatch: pytest.MonkeyPatch) -> Mixture:
    """One expert with a persona of its own, one with a role-play, and the generalist behind the third."""
    monkeypatch.setenv("MOP_API_KEY", "key")
    own, played = Guise("own", text=LEARNED), Guise("role-play", text=role_turn(LEARNED), reply="I do.")
    first, second, third = small_mixture().experts
    return small_mixture(
        experts=(
            replace(first, prompt=own.wear(first.prompt), persona=persona("own", own.text)),
            replace(second, prompt=played.wear(second.prompt), persona=persona("role-play", played.text)),
            replace(third, persona=persona("bare", "")),
        ),
    )


def test_every_expert_obeys_it_and_none_plays_what_it_learned(mixture: Mixture) -> None:
    queries = [f"where is my {topic}" for topic in TOPICS]
    with FakeEndpoint(pirates_say_arr) as endpoint:
        client = ModelClient("m", ledger=Ledger.in_memory(), base_url=endpoint.base_url)
        plain = [answer.text for answer in mixture.predict(queries, client)]
        invented = [answer.text for answer in mixture.predict(queries, client, persona=PIRATE)]
    assert plain == [f"Sir. {queries[0]}", f"Sir. {queries[1]}", queries[2]]
    assert invented == [f"Arr. {query}" for query in queries]


def test_the_demos_stay(mixture: Mixture) -> None:
    for route in mixture.route([f"where is my {topic}" for topic in TOPICS]):
        bare = small_mixture().prompt_of(route)
        assert mixture.prompt_of(route, PIRATE) == replace(bare, instruction=f"{PIRATE}\n\n{bare.instruction}")


texts = st.text("abc .\n", min_size=1).map(str.strip).filter(bool)


@given(texts, texts, st.lists(st.builds(Demo, texts, texts), max_size=2).map(tuple), st.booleans())
def test_what_a_persona_put_into_a_prompt_is_taken_off_again(
    text: str, instruction: str, demos: tuple[Demo, ...], plays: bool
) -> None:
    prompt = Prompt(instruction, demos)
    guise = Guise("role-play", text=role_turn(text), reply="Yes.") if plays else Guise("own", text=text)
    assert persona(guise.kind, guise.text).taken_off(guise.wear(prompt)) == prompt


@pytest.mark.parametrize("given_as", ["text", "file"])
def test_the_command_line_takes_a_text_or_a_file(
    mixture: Mixture, given_as: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mop.encoding.resolve_recorded_encoder", lambda *_, **__: WordEncoder())
    save(mixture, tmp_path / "m.mop")
    (tmp_path / "pirate.txt").write_text(f"{PIRATE}\n")
    said = PIRATE if given_as == "text" else f"@{tmp_path / 'pirate.txt'}"
    with FakeEndpoint(pirates_say_arr) as endpoint:
        asked = ["ask", str(tmp_path / "m.mop"), "where is my card", "--base-url", endpoint.base_url]
        assert main([*asked, "--ledger", str(tmp_path / "l.sqlite"), "--persona", said]) == 0
    assert capsys.readouterr().out == "Arr. where is my card\n"


@pytest.mark.parametrize("rows", ["", '{"name": "a", "text": "A."}\n{"name": "b", "text": "B."}\n'])
def test_a_file_of_none_or_several_is_refused_before_anything_is_asked(
    mixture: Mixture, rows: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(mixture, tmp_path / "m.mop")
    (tmp_path / "some.jsonl").write_text(rows)
    assert main(["ask", str(tmp_path / "m.mop"), "where is my card", "--persona", f"@{tmp_path / 'some.jsonl'}"]) == 2
    assert "persona" in capsys.readouterr().err
