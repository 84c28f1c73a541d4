"""Personas in the search: the gate opens only where they help, and the file and `mop show` say so."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_endpoint import FakeEndpoint
from hypothesis import given
from hypothesis import strategies as st
from small import WordEncoder, small_mixture

import mop
from mop.artifact import to_bytes
from mop.cli import main
from mop.comparison import compare
from mop.connect import connect
from mop.errors import SettingsError
from mop.examples import Example, Splits
from mop.lm.ledger import Ledger
from mop.mixture import Mixture
from mop.optimization import Run, aoptimize
from mop.persona import Persona
from mop.prompts import Demo, Prompt
from mop.search.guises import Guise, region_request, role_turn
from mop.search.persona_gate import FEWEST, FORMS, PLAIN, STRIPPED, Form, pick_personas
from mop.search.plan import Plan
from mop.search.refitting import with_new_demos
from mop.settings import make_settings
from mop.sync import run

SUBJECTS = ["piano", "wedding", "sunset", "friendship", "poem", "dance", "lullaby", "perfume", "kiss", "rainbow"]
ACCEPTS = "Yes, I take on this role gladly."


def style(number: int) -> Example:
    return Example(f"Say something tender about a {SUBJECTS[number % 10]} for card number {number // 10}.", ("warm",))


def fact(number: int) -> Example:
    return Example(f"Compute the integer {number} plus {number * 7 % 90} modulo two in binary arithmetic.", ("even",))


def luck(text: str) -> float:
    return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) / 16**8


def persona_helps_style_only(messages: list[dict[str, str]]) -> str:
    """Right answers: to style 40 % bare and 95 % as somebody; to facts 90 % bare and 30 % as somebody."""
    asked = messages[-1]["content"]
    if messages[0]["content"].startswith("For each request"):
        wanted = " ".join(re.findall(r"(?m)^- (.+)$", asked))
        return f"You are a person who has spent many patient years on just such requests as these: {wanted}"
    if "take on this role" in asked:
        return ACCEPTS
    if not asked.startswith(("Say", "Compute")):
        return f"Answer with one word as asked, please, variant {luck(asked):.5f}."
    somebody = "You are" in messages[0]["content"] or any(message["content"] == ACCEPTS for message in messages)
    if asked.startswith("Say"):
        return "warm" if luck(asked) < (0.95 if somebody else 0.4) else "cold"
    return "even" if luck(asked) < (0.3 if somebody else 0.9) else "odd"


def splits() -> Splits:
    rows = [one(number) for number in range(70) for one in (style, fact)]
    return Splits(tuple(rows[:40]), tuple(rows[40:100]), tuple(rows[100:]))


def learn(endpoint: FakeEndpoint, used: Run | None = None, **options: Any) -> Mixture:
    settings = make_settings(
        {
            "model": "m",
            "base_url": endpoint.base_url,
            "instruction": "Answer in one word.",
            "budget": 500,
            "experts": 2,
            "encoder": "tfidf",
            "personas": "gated",
            **options,
        }
    )
    return run(aoptimize(splits(), settings, ledger=Ledger.in_memory(), used=used))


@pytest.fixture(scope="module", autouse=True)
def _environment() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOP_API_KEY", "key")
        patch.setenv("SOURCE_DATE_EPOCH", "1700000000")
        yield


@pytest.fixture(scope="module")
def learned() -> tuple[Mixture, int]:
    used = Run()
    with FakeEndpoint(persona_helps_style_only) as endpoint:
        mixture = learn(endpoint, used)
        assert used.spend.calls == endpoint.served
        return mixture, endpoint.served


def regions(mixture: Mixture) -> tuple[int, int]:
    """Return the regions of style and of facts."""
    routes = mixture.route([style(3).input, fact(3).input])
    assert routes[0].expert != routes[1].expert
    return routes[0].expert, routes[1].expert


def test_a_region_of_two_kinds_proves_nothing_however_sure_the_other_regions_are() -> None:
    pure, mixed = [1.0] * 20, [1.0, 1.0, 1.0, 0.0, 0.0, 0.0, -1.0]
    gains = np.array([*pure, *pure, *mixed, *[0.0] * 20])
    where = np.repeat([0, 1, 2, 3], [20, 20, len(mixed), 20])
    rows = {PLAIN: np.where(gains < 0, 1.0, 0.0), ("expert", True): np.where(gains > 0, 1.0, 0.0)}
    picks = pick_personas(rows, where, 4)
    assert [pick.form[0] for pick in picks] == ["expert", "expert", "bare", "bare"]
    assert picks[2].best is not None
    assert picks[2].best.shrunk.low > 0 > picks[2].best.own_low == picks[2].best.low


def test_the_gate_opens_only_in_the_region_where_a_persona_helps(learned: tuple[Mixture, int]) -> None:
    mixture, served = learned
    tender, factual = (mixture.experts[region] for region in regions(mixture))
    assert tender.persona is not None
    assert factual.persona is not None
    assert tender.persona.kind == tender.persona.tried != "bare"
    assert tender.persona.gain_low > 0
    assert not tender.fallback
    assert factual.persona.kind == "bare"
    assert factual.persona.tried != "bare"
    assert factual.persona.gain_high < 0
    assert "You are" not in factual.prompt.instruction
    assert served <= 500
    assert len(mixture.report["personas"]["tried"]) >= 4


def test_regions_differ_in_persona_also_where_nobody_says_how_many_there_are() -> None:
    with FakeEndpoint(persona_helps_style_only) as endpoint:
        mixture = learn(endpoint, experts=None)
    told = {one.words: one.persona.kind for one in mixture.experts if one.persona and not one.fallback}
    assert all((kind != "bare") == ("tender" in words) for words, kind in told.items())
    assert any(kind != "bare" for kind in told.values())


def demos_hurt_and_a_persona_helps_style(messages: list[dict[str, str]]) -> str:
    """As `persona_helps_style_only`, but a persona helps with style only where no demo stands before the query."""
    asked = messages[-1]["content"]
    turns = sum(message["role"] == "assistant" for message in messages)
    role = any(message["content"] == ACCEPTS for message in messages)
    if asked.startswith("Say") and turns > role:
        return "warm" if luck(asked) < 0.4 else "cold"
    return persona_helps_style_only(messages)


def test_a_form_without_demos_is_chosen_saved_and_asked_without_them(tmp_path: Path) -> None:
    with FakeEndpoint(demos_hurt_and_a_persona_helps_style) as endpoint:
        mixture = learn(endpoint, budget=700, retrieved=0)
        place = regions(mixture)[0]
        tender = mixture.experts[place]
        assert tender.persona is not None
        assert tender.persona.kind != "bare"
        assert not tender.persona.demos
        assert "without demos" in tender.persona.sentence
        assert not tender.fallback
        mixture.save(tmp_path / "m.mop")
        loaded = mop.load(tmp_path / "m.mop")
        assert loaded.experts[place].persona == tender.persona
        client = connect("m", ledger=Ledger.in_memory(), base_url=endpoint.base_url)
        query = style(3).input
        loaded.predict([query], client)
        sent = endpoint.bodies[-1]["messages"]
        assert sent[-1]["content"] == query
        assert tender.persona.text in [message["content"].split("\n\n")[0] for message in sent]
        examples = [message for message in sent if message["content"] in ("warm", "even")]
        assert not examples


def test_queries_are_answered_as_somebody_only_where_that_was_proven(learned: tuple[Mixture, int]) -> None:
    mixture = learned[0]
    with FakeEndpoint(persona_helps_style_only) as endpoint:
        client = connect("m", ledger=Ledger.in_memory(), base_url=endpoint.base_url)
        answers = mixture.predict([example.input for example in splits().test], client)
        told = {
            body["messages"][-1]["content"].split()[0]: "You are" in body["messages"][0]["content"]
            or any(message["content"] == ACCEPTS for message in body["messages"])
            for body in endpoint.bodies
        }
    assert told == {"Say": True, "Compute": False}
    right = [answer.text in example.outputs for answer, example in zip(answers, splits().test, strict=True)]
    assert np.mean(right[0::2]) > 0.8
    assert right[1::2] == [luck(example.input) < 0.9 for example in splits().test[1::2]]  # what bare facts get


def test_the_file_and_the_command_line_say_for_every_region_which_persona_it_is(
    learned: tuple[Mixture, int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mixture, path = learned[0], tmp_path / "m.mop"
    mixture.save(path)
    again = mop.load(path)
    assert again.experts == mixture.experts
    assert not compare(mixture, again)
    assert main(["show", str(path)]) == 0
    shown = capsys.readouterr().out
    for number, expert in enumerate(mixture.experts):
        assert expert.persona is not None
        assert f"  {number}: {expert.persona.sentence}" in shown
    report = mixture.report["personas"]
    assert [one["used"].split()[0] for one in report["regions"]] == [
        one.persona.kind for one in mixture.experts if one.persona
    ]
    assert {entry["persona"] for one in report["regions"] for entry in one["tried"]} < set(report["tried"])


def test_the_same_seed_gives_the_same_bytes_at_any_concurrency(learned: tuple[Mixture, int]) -> None:
    with FakeEndpoint(persona_helps_style_only) as endpoint:
        assert to_bytes(learn(endpoint, concurrency=2)) == to_bytes(learned[0])


def test_without_the_setting_nobody_is_told_to_be_anybody() -> None:
    with FakeEndpoint(persona_helps_style_only) as endpoint:
        mixture = learn(endpoint, personas="off", budget=100)
        assert not any("You are" in body["messages"][0]["content"] for body in endpoint.bodies)
    assert all(expert.persona is None for expert in mixture.experts)
    assert "personas" not in mixture.report


@pytest.mark.parametrize("budget", [60, "40k tokens"])
def test_a_small_budget_holds_and_leaves_regions_bare_rather_than_guess(budget: int | str) -> None:
    with FakeEndpoint(persona_helps_style_only) as endpoint:
        used = Run()
        mixture = learn(endpoint, used, budget=budget)
        if isinstance(budget, int):
            assert endpoint.served <= budget
        else:
            assert used.spend.tokens <= 40_000
    for expert in mixture.experts:
        if expert.persona is not None and expert.persona.kind != "bare":
            assert expert.persona.gain_low > 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"personas": "gated", "experts": 1}, "region by region"),
        ({"personas": "gated", "method": "ape"}, "takes no notice of personas"),
        ({"personas": "on"}, "gated"),
    ],
)
def test_settings_that_cannot_be_followed_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        make_settings({"model": "m", **options})
    assert make_settings({"model": "m", "method": "ape", "personas": "off"}).personas == "off"


# -- the rule


def rows(**given: list[float]) -> dict[Form, np.ndarray[Any, np.dtype[np.float64]]]:
    names = {f"{kind}_{'with' if demos else 'without'}".replace("-", "_"): (kind, demos) for kind, demos in FORMS}
    return {PLAIN if name == "plain" else names[name]: np.array(values) for name, values in given.items()}


HALF = np.repeat([0, 1], 20)
MIXED = [0.0, 1.0] * 20


def test_a_persona_that_helps_one_region_and_hurts_another_is_used_in_one() -> None:
    picks = pick_personas(rows(plain=MIXED, expert_with=[1.0] * 20 + [0.0] * 20), HALF, 2)
    assert [pick.form for pick in picks] == [("expert", True), PLAIN]
    assert picks[1].best is not None
    assert picks[1].best.shrunk.high < 0


def test_what_leaving_demos_out_gains_is_not_the_persona_s_merit() -> None:
    without = [1.0] * 20 + MIXED[20:]
    found = rows(plain=[0.0] * 20 + MIXED[20:], bare_without=without, generic_without=without)
    assert [pick.form for pick in pick_personas(found, HALF, 2)] == [STRIPPED, PLAIN]


def test_a_handful_of_examples_proves_nothing() -> None:
    few = FEWEST - 1
    regions = np.array([0] * few + [1] * 20)
    picks = pick_personas(rows(plain=[0.0] * (few + 20), generic_with=[1.0] * (few + 20)), regions, 2)
    assert [pick.form for pick in picks] == [PLAIN, ("generic", True)]
    assert picks[0].best is None


scores = st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=40, max_size=40)


@given(scores, scores, st.lists(st.integers(0, 3), min_size=40, max_size=40))
def test_a_persona_that_is_nowhere_better_is_used_nowhere(
    plain: list[float], other: list[float], of: list[int]
) -> None:
    worse = [min(pair) for pair in zip(plain, other, strict=True)]
    picks = pick_personas(rows(plain=plain, expert_with=worse, generic_with=plain), np.array(of), 4)
    assert [pick.form for pick in picks] == [PLAIN] * 4


@given(scores, scores, scores, st.lists(st.integers(0, 3), min_size=40, max_size=40))
def test_a_persona_in_use_has_a_positive_lower_bound(
    plain: list[float], expert: list[float], generic: list[float], of: list[int]
) -> None:
    for pick in pick_personas(rows(plain=plain, expert_with=expert, generic_with=generic), np.array(of), 4):
        assert pick.form == PLAIN or (pick.best is not None and pick.best.shrunk.low > 0)


# -- guises


def test_a_guise_tells_it_before_the_instruction_or_in_a_turn_before_all_demos() -> None:
    prompt = Prompt("Sort it.", (Demo("a", "b"),))
    assert Guise().wear(prompt) == prompt
    assert Guise("expert", text="You are a clerk.").wear(prompt).messages("q") == (
        ("system", "You are a clerk.\n\nSort it."),
        ("user", "a"),
        ("assistant", "b"),
        ("user", "q"),
    )
    role = Guise("role-play", demos=False, text=role_turn("You are a clerk."), reply="I am.").wear(prompt)
    assert role.messages("q")[1:] == (
        (
            "user",
            "You are a clerk. From now on you are this person and answer as this person would. Do you take on "
            "this role?",
        ),
        ("assistant", "I am."),
        ("user", "q"),
    )


def test_new_demos_do_not_push_the_turn_of_a_role_play_out_of_its_place() -> None:
    mixture = small_mixture()
    role = Demo(role_turn("You are a clerk."), "I am.")
    persona = Persona("role-play", True, role.input, "role-play", 12, 0.2, 0.1, 0.3)
    old = mixture.experts[0]
    played = replace(old, prompt=replace(old.prompt, demos=(role, *old.prompt.demos)), persona=persona)
    mixture = replace(mixture, experts=(played, *mixture.experts[1:])).with_known_encoder(WordEncoder())
    new = [Example("a card is wet", ("card_wet",)), Example("a card is late", ("card_late",))]
    prompt = with_new_demos(
        mixture, 0, new, WordEncoder().encode([one.input for one in new]), max_demos=4, token_budget=400
    )
    assert prompt.demos[0] == role
    assert {demo.output for demo in prompt.demos[1:]} == {"card_wet", "card_late", "card_lost"}


def test_a_region_is_described_by_its_instruction_and_cut_examples() -> None:
    asked = region_request("Sort it.", ["one\ntwo", "x" * 1000])
    assert asked.startswith("Sort it.\n\nRequests such as these:\n- one two\n- xxx")
    assert len(asked) < 400


def test_sentences_say_what_is_used_and_what_was_gained() -> None:
    bare = Persona("bare", True, "", "expert", 18, -0.2, -0.35, -0.05)
    assert bare.sentence == (
        "bare with demos; the best persona, expert identity, gained −0.20 (−0.35 to −0.05) over bare on 18 examples"
    )
    assert "no persona was tried" in Persona("bare", False, "", "bare", 0, 0.0, 0.0, 0.0).sentence


def test_calls_for_personas_are_kept_where_there_are_regions() -> None:
    plan = Plan.of(600, train=400, validation=200, keep=0.4)
    assert plan.kept == 240
    assert plan.single_calls + plan.judging_calls + plan.proposals <= 360
    assert plan.reachable <= 600
    assert Plan.of(600, train=400, validation=200, experts=1, keep=0.4).kept == 0
