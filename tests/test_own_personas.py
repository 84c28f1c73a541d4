"""The user's own personas in the search: the same gate, named wherever a region says who its expert is."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_endpoint import FakeEndpoint
from hypothesis import given
from hypothesis import strategies as st
from small import small_mixture
from test_persona_gate import fact, learn, luck, persona_helps_style_only, regions, style

import mop
from mop.artifact import to_bytes
from mop.cli import main
from mop.comparison import compare
from mop.errors import ArtifactError, SettingsError
from mop.manifest import manifest_text, read_manifest
from mop.mixture import Mixture
from mop.optimization import Run
from mop.own_personas import NAME_CHARACTERS, OwnPersona, read_own
from mop.persona import Persona
from mop.report.origin import facts, learn_again
from mop.search.guises import own_guises
from mop.search.persona_gate import FIRST, FORMS, PLAIN, STRIPPED, in_order, pick_personas
from mop.settings import make_settings

FLORIST = OwnPersona("florist", "Speak as the florist whom everybody in the street likes.")
HERMIT = OwnPersona("hermit", "Speak as a hermit who would rather be left alone.")
SENTENCE = 'own persona "florist" with demos'


def only_the_florist_is_tender(messages: list[dict[str, str]]) -> str:
    """Right answers to style: 95 % as the florist, 40 % else; to facts: 90 % bare, 30 % as anybody the user gave."""
    asked, told = messages[-1]["content"], messages[0]["content"]
    if asked.startswith("Say"):
        return "warm" if luck(asked) < (0.95 if FLORIST.text in told else 0.4) else "cold"
    if asked.startswith("Compute") and "Speak as" in told:
        return "even" if luck(asked) < 0.3 else "odd"
    return persona_helps_style_only(messages)


@pytest.fixture(scope="module", autouse=True)
def _environment() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOP_API_KEY", "key")
        patch.setenv("SOURCE_DATE_EPOCH", "1700000000")
        yield


@pytest.fixture(scope="module")
def learned() -> tuple[Mixture, int]:
    with FakeEndpoint(only_the_florist_is_tender) as endpoint:
        return learn(endpoint, budget=600, persona=[FLORIST, HERMIT]), endpoint.served


def test_an_own_persona_is_used_where_it_is_proven_to_help_and_nowhere_else(learned: tuple[Mixture, int]) -> None:
    mixture, served = learned
    tender, factual = (mixture.experts[region] for region in regions(mixture))
    assert tender.persona is not None
    assert factual.persona is not None
    assert (tender.persona.kind, tender.persona.name, tender.persona.text) == ("own", "florist", FLORIST.text)
    assert tender.persona.gain_low > 0
    assert tender.prompt.instruction.startswith(FLORIST.text)
    assert factual.persona.kind == "bare"
    assert factual.prompt.instruction.count("Speak as") == 0
    assert served <= 600


def test_prompts_without_demos_are_said_to_have_none() -> None:
    with FakeEndpoint(only_the_florist_is_tender) as endpoint:
        mixture = learn(endpoint, budget=600, persona=[FLORIST], max_demos=0)
    tender = mixture.experts[regions(mixture)[0]]
    assert tender.persona is not None
    assert tender.persona.sentence.startswith('own persona "florist" without demos, +')
    report = mixture.report["personas"]
    assert [one for one in report["tried"] if "demos" in one] == []
    assert sorted(one["used"] for one in report["regions"]) == ["bare", 'own "florist"']


def silencing(first_bare: float, first_as_florist: float) -> Callable[[list[dict[str, str]]], str]:
    """Right answers to style: 50 % under a written instruction, whoever answers; under the first one as said."""

    def answer(messages: list[dict[str, str]]) -> str:
        asked, told = messages[-1]["content"], messages[0]["content"]
        if asked.startswith("Say"):
            first = first_as_florist if FLORIST.text in told else first_bare
            return "warm" if luck(asked) < (0.5 if "one word as asked" in told else first) else "cold"
        return only_the_florist_is_tender(messages)

    return answer


def test_an_own_persona_that_the_regions_instruction_silences_is_used_under_the_first_one(tmp_path: Path) -> None:
    with FakeEndpoint(silencing(0.1, 0.95)) as endpoint:
        used = Run()
        mixture = learn(endpoint, used, budget=600, persona=[FLORIST], retrieved=0)
        assert endpoint.served == used.spend.calls <= 600
    place, other = regions(mixture)
    tender = mixture.experts[place]
    assert tender.persona is not None
    assert (tender.persona.kind, tender.persona.name) == ("own", "florist")
    assert tender.persona.gain_low > 0
    assert tender.prompt.instruction.startswith(f"{FLORIST.text}\n\nAnswer in one word.")
    assert tender.proposer == "given"
    assert FLORIST.text not in mixture.experts[other].prompt.instruction
    report = mixture.report["personas"]
    assert report["own"] == ['own "florist"']
    assert report["regions"][place]["used"] == 'own "florist" under the first instruction with demos'
    assert all(place not in one["chosen"] for one in mixture.report["instructions"] if one["proposer"] != "given")
    # Where it was behind under the region's instruction it isn't tried under another one.
    assert [one["persona"] for one in report["regions"][other]["tried"]].count('own "florist" with demos') == 1
    assert not any("first instruction" in one["persona"] for one in report["regions"][other]["tried"])
    mixture.save(tmp_path / "m.mop")
    assert mop.load(tmp_path / "m.mop").experts == mixture.experts


@pytest.mark.parametrize("budget", [250, 350, 600])
def test_what_the_first_instruction_gains_by_itself_is_not_the_personas_merit(budget: int) -> None:
    with FakeEndpoint(silencing(0.95, 0.95)) as endpoint:
        mixture = learn(endpoint, budget=budget, persona=[FLORIST], retrieved=0)
    assert all(one.persona is None or one.persona.kind == "bare" for one in mixture.experts)
    assert not any(FLORIST.text in one.prompt.instruction for one in mixture.experts)


def test_the_first_instruction_is_used_bare_where_it_is_better_than_the_regions() -> None:
    regions_of = np.repeat([0, 1], 20)
    plain, first = np.zeros(40), np.repeat([1.0, 0.0], 20)
    rows = {PLAIN: plain, FIRST: first, ('own "a" under the first instruction', True): first}
    assert [pick.form for pick in pick_personas(rows, regions_of, 2)] == [FIRST, PLAIN]


def test_the_report_names_the_own_personas_and_how_many_bounds_hold_together(learned: tuple[Mixture, int]) -> None:
    report = learned[0].report["personas"]
    assert report["own"] == ['own "florist"', 'own "hermit"']
    assert 'own "hermit" with demos' in report["tried"]
    assert report["bounds_together"] == sum(not one.startswith("bare") for one in report["tried"]) >= 3
    assert learned[0].provenance["settings"]["persona"] == {one.name: one.text for one in (FLORIST, HERMIT)}


def test_the_file_and_a_comparison_of_files_name_the_own_persona(learned: tuple[Mixture, int], tmp_path: Path) -> None:
    mixture = learned[0]
    mixture.save(tmp_path / "m.mop")
    again = mop.load(tmp_path / "m.mop")
    assert again.experts == mixture.experts
    assert not compare(mixture, again)
    place = regions(mixture)[0]
    old = mixture.experts[place]
    assert old.persona is not None
    renamed = replace(old, persona=replace(old.persona, name="gardener"))
    experts = tuple(renamed if number == place else one for number, one in enumerate(mixture.experts))
    found = str(compare(mixture, replace(mixture, experts=experts)))
    assert 'own persona "florist"' in found
    assert 'own persona "gardener"' in found


def test_the_command_line_takes_a_file_of_personas_and_says_what_became_of_each(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [one(number) for number in range(50) for one in (style, fact)]
    data, out, voices = (tmp_path / name for name in ("data.jsonl", "m.mop", "voices.jsonl"))
    data.write_text("".join(json.dumps({"input": one.input, "output": one.output}) + "\n" for one in rows))
    voices.write_text("".join(json.dumps(asdict(one)) + "\n" for one in (FLORIST, HERMIT)))
    with FakeEndpoint(only_the_florist_is_tender) as endpoint:
        given = ["--model", "m", "--base-url", endpoint.base_url, "--ledger", str(tmp_path / "l.sqlite"), "--quiet"]
        given += ["--encoder", "tfidf", "--experts", "2", "--budget", "500", "--instruction", "Answer in one word."]
        chosen = ["--personas", "gated", "--persona", f"@{voices}", "--persona", "You are a clerk."]
        assert main(["optimize", str(data), "--out", str(out), *given, *chosen]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert 'Own "florist": used in 1 region. Own "hermit": used nowhere. Own "You are a clerk.": used nowhere.' in said
    assert "each has to prove its gain so that all hold at 90 %" in said
    assert main(["show", str(out)]) == 0
    assert SENTENCE in capsys.readouterr().out
    place = regions(mop.load(out))[0]
    assert main(["show", str(out), "--expert", str(place)]) == 0
    assert SENTENCE in capsys.readouterr().out


def test_a_mixture_without_own_personas_has_no_field_for_them() -> None:
    mixture = small_mixture()
    plain = Persona("bare", True, "", "expert", 18, -0.2, -0.35, -0.05)
    mixture = replace(mixture, experts=tuple(replace(one, persona=plain) for one in mixture.experts))
    document = json.loads(manifest_text(mixture, "0" * 64))
    assert all("name" not in one["persona"] for one in document["experts"])
    assert mop.artifact.from_bytes(to_bytes(mixture)).experts == mixture.experts


@pytest.mark.parametrize(
    "fields", [{"name": "florist"}, {"tried": "own"}, {"kind": "own", "tried": "own"}], ids=["bare", "tried", "used"]
)
def test_a_file_in_which_names_and_personas_do_not_fit_is_refused(fields: dict[str, str]) -> None:
    document = json.loads(manifest_text(small_mixture(), "0" * 64))
    persona = asdict(Persona("bare", True, "", "expert", 18, -0.2, -0.35, -0.05))
    document["experts"][0]["persona"] = persona | fields
    with pytest.raises(ArtifactError, match="persona: the name"):
        read_manifest(json.dumps(document).encode(), "m.mop")


# -- the rule


def test_own_personas_are_tried_first_and_without_demos_only_after_the_bare_prompt_without() -> None:
    labels = [one.label for one in own_guises([FLORIST, HERMIT], "Answer.")]
    order = in_order([FLORIST.name, HERMIT.name])
    assert order[:5] == tuple((label, True) for label in labels)
    assert order[2] == FIRST
    assert [form for form in order if form[0] not in labels] == list(FORMS)
    assert all(order.index((label, False)) > order.index(STRIPPED) for label in labels[:2])
    assert in_order([]) == FORMS


@given(
    st.lists(st.sampled_from([0.0, 1.0]), min_size=40, max_size=40),
    st.lists(st.sampled_from([0.0, 1.0]), min_size=40, max_size=40),
    st.integers(1, 4),
)
def test_every_further_persona_makes_the_bound_of_each_stricter(
    plain: list[float], expert: list[float], more: int
) -> None:
    regions = np.repeat([0, 1], 20)
    rows: dict[tuple[str, bool], Any] = {PLAIN: np.array(plain), ("expert", True): np.array(expert)}
    alone = pick_personas(rows, regions, 2)
    own = {(f'own "{number}"', True): np.array(plain) for number in range(more)}
    beside = pick_personas(rows | own, regions, 2)
    for one, other in zip(alone, beside, strict=True):
        before, after = (next(x for x in pick.tried if x.form == ("expert", True)) for pick in (one, other))
        assert after.shrunk.mean == before.shrunk.mean
        assert after.shrunk.low <= before.shrunk.low
        assert other.form in (one.form, PLAIN)


# -- what may be given


def test_texts_files_and_names_with_texts_are_read(tmp_path: Path) -> None:
    lines, text = tmp_path / "voices.jsonl", tmp_path / "press.txt"
    lines.write_text('{"name": "a", "text": "Be brief."}\n\n{"name": "b", "text": "Be kind.", "intents": ["x"]}\n')
    text.write_text("\ufeffYou speak\nfor a press.\n", encoding="utf-8")
    long = "You are the keeper of a lighthouse, and you weigh every single word."
    found = read_own([f"@{lines}", f"@{text}", long])
    assert [one.name for one in found] == ["a", "b", "press", "You are the keeper of a lighthouse…"]
    assert [one.text for one in found] == ["Be brief.", "Be kind.", "You speak\nfor a press.", long]
    assert read_own({"a": "Be brief."}) == (OwnPersona("a", "Be brief."),)
    assert make_settings({"model": "m", "personas": "gated"}, environment={"MOP_PERSONA": "Be brief."}).persona == (
        OwnPersona("Be brief.", "Be brief."),
    )
    assert read_own([]) == ()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("  ", "without a text"),
        ("x" * 4001, "takes up to 4000"),
        (["Be kind.", "Be kind."], "comes 2 times"),
        ({"a": "Be kind.", "b": "Be kind."}, "comes 2 times"),
        ({"n" * (NAME_CHARACTERS + 1): "Be kind."}, "in its name"),
        ({"a": 3}, "are texts"),
        (7, "a text or @FILE"),
        ("@no/such/file.jsonl", "can't be read"),
        ("@\0", "can't be read"),
        ('{"name": "a"}', "line 1: expected"),
        ('{"name": "a", "text": "Be kind."}\n{', "line 2: this isn't JSON"),
        ("\n", "has no personas"),
    ],
)
def test_what_is_no_persona_is_refused_with_the_reason(given: Any, said: str, tmp_path: Path) -> None:
    if isinstance(given, str) and given.startswith(("{", "\n")):
        (tmp_path / "p.jsonl").write_text(given)
        given = f"@{tmp_path / 'p.jsonl'}"
    with pytest.raises(SettingsError, match=said):
        read_own(given)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"persona": "Be kind."}, "set personas to gated"),
        ({"persona": "Be kind.", "method": "ape"}, "takes no notice of persona"),
        ({"persona": "Be kind.", "personas": "gated", "experts": 1}, "region by region"),
    ],
)
def test_an_own_persona_that_would_not_be_tried_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        make_settings({"model": "m", **options})


def test_the_report_says_how_to_learn_again_with_the_same_personas(learned: tuple[Mixture, int]) -> None:
    mixture, _ = learned
    command = shlex.split(learn_again(mixture) or "")
    given = [command[place + 1] for place, word in enumerate(command) if word == "--persona"]
    assert [one.text for one in read_own(given)] == [FLORIST.text, HERMIT.text]
    assert [value for name, value in facts(mixture, None) if name == "--persona"] == given


@pytest.mark.parametrize(
    "texts",
    [
        ("@home they call me a clerk.",),
        ("You are the voice of a small press " + end for end in ("of poems.", "of maps.")),
    ],
)
def test_personas_that_texts_cannot_give_again_are_a_file_of_the_command(
    learned: tuple[Mixture, int], texts: tuple[str, ...]
) -> None:
    mixture, _ = learned
    settings = mixture.provenance["settings"] | {"persona": {str(number): text for number, text in enumerate(texts)}}
    other = replace(mixture, provenance={**mixture.provenance, "settings": settings})
    command = shlex.split(learn_again(other) or "")
    assert command[command.index("--persona") + 1] == "@PERSONAS.jsonl"
