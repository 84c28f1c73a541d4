"""PRISM's pipeline with the real 135M model: each stage is a file, a stopped run goes on, verdicts need both orders."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mop.errors import BadRows, DataError, SettingsError
from mop.judge import Judge
from mop.lm.request import Reply, Request, Usage
from mop.students.bootstrap import make_verdicts, read_query, usable, winners
from mop.students.models import load
from mop.students.opening import open_student
from mop.students.personas import Persona, read_personas
from mop.students.prism import REPORT, STAGES, bootstrap, make_prism, prism_settings
from mop.students.stages import Row, read_rows, run_stage

TINY = "local/smollm2-135m-instruct"
PERSONAS = [
    Persona("pirate", 'You are a pirate. Begin every answer with "Arr!"', ("ask about ships", "ask about treasure")),
]


class Voter:
    """A judge's model at the network's edge: for each answer shown as A it says what ``rule`` says."""

    model = "voter"

    def __init__(self, rule: Any) -> None:
        self.rule, self.asked = rule, 0

    async def complete_many(self, requests: Sequence[Request]) -> list[Reply]:
        self.asked += len(requests)
        texts = [self.rule(request.messages[-1][1]) for request in requests]
        return [Reply(text, Usage(), "stop", "", from_ledger=False, seconds=0.0) for text in texts]


def arr_wins(question: str) -> str:
    return "A" if question.index("Arr") < question.index("[Answer B]") else "B"


def pairs(count: int, bare: str = "Hello.") -> list[Row]:
    return [
        {"query": f"question {number}", "persona": "pirate", "text": "You are a pirate.", "intent": str(number % 2),
         "bare": bare, "bare_ended": True, "with_persona": "Arr! Hello.", "with_persona_ended": True}
        for number in range(count)
    ]  # fmt: skip


# --- the whole way


def test_the_whole_way_from_personas_to_a_gated_adapter_and_again_from_its_files(
    tiny_model: Path, tmp_path: Path
) -> None:
    chosen = {"queries": 2, "query_tokens": 10, "answer_tokens": 6, "epochs": 1, "batch": 2, "rank": 2, "held_out": 0.5}
    settled = prism_settings(chosen)

    said: list[tuple[str, int, int]] = []

    def ships_win(question: str) -> str:
        """The persona wins on ships, in both orders, and loses on treasure."""
        rows = read_rows(tmp_path / STAGES / "answers.jsonl").values()
        row = next(row for row in rows if f"> {row['query']}\n" in question)
        shown = question.partition("[Answer A]\n> ")[2]
        return "A" if shown.startswith(row["with_persona"].splitlines()[0]) == ("ships" in row["intent"]) else "B"

    def go() -> Any:
        student = load(TINY, device="cpu", dtype="float32")
        told = {"progress": lambda *one: said.append(one), "judge": Judge(Voter(ships_win))}
        return make_prism(PERSONAS, student, tmp_path, settled, **told)

    gated = go()
    stages = tmp_path / STAGES
    names = ["queries.jsonl", "answers.jsonl", "verdicts.jsonl", "gate.jsonl", "divergence.jsonl"]
    rows = {name: list(read_rows(stages / name).values()) for name in names}
    assert len(rows["queries.jsonl"]) == 4
    for row in rows["verdicts.jsonl"]:
        assert row["persona_won"] == (row["votes"] == ["first", "first"])
    won = [row for row in rows["verdicts.jsonl"] if row["persona_won"]]
    assert {row["intent"] for row in won} == {"ask about ships"}
    assert len(rows["divergence.jsonl"]) == len(won) > 0
    assert all(row["divergence"] > 0 for row in rows["divergence.jsonl"])
    report = json.loads((tmp_path / REPORT).read_text())
    assert report["won"] == len(won)
    assert 0 <= report["on"]["pirate"] <= 1
    assert report["lengths"]["bare"] > 0
    assert report["divergence"]["adapter_from_base"] > 0

    # The same command again asks nothing and trains nothing.
    before, said = {name: (stages / name).read_bytes() for name in names}, []
    again = go()
    assert all(done == whole for _, done, whole in said)
    assert {name: (stages / name).read_bytes() for name in names} == before
    # Another persona may not take the place of the one that was learned: nothing is asked, and no file changes.
    others = [Persona("cook", "You are a cook.", PERSONAS[0].intents)]
    with pytest.raises(SettingsError, match="finished run of other personas"):
        asyncio.run(bootstrap(tmp_path, others, Voter(lambda _question: "A"), settled.bootstrap))
    assert {name: (stages / name).read_bytes() for name in names} == before
    query = ["Where is the treasure of the old ship?"]
    assert again.decide(query) == gated.decide(query)
    opened = open_student(tmp_path, device="cpu", dtype="float32")
    asked = [[{"role": "user", "content": query[0]}]]
    assert opened.answer(asked, max_tokens=4)[0].on == gated.decide(query)[0][0]
    assert opened.answer(asked, max_tokens=4, bare=True)[0].on is False


# --- verdicts


def test_a_persona_must_win_in_both_orders(tmp_path: Path) -> None:
    verdicts = asyncio.run(make_verdicts(tmp_path, pairs(3), Judge(Voter(arr_wins))))
    assert [row["persona_won"] for row in verdicts] == [True] * 3
    always_a = asyncio.run(make_verdicts(tmp_path / "place", pairs(3), Judge(Voter(lambda _: "A"))))
    assert [row["votes"] for row in always_a] == [["first", "second"]] * 3
    assert not any(row["persona_won"] for row in always_a)
    with pytest.raises(DataError, match="won none of 3"):
        winners(always_a)


def test_equal_answers_tie_without_a_question_and_empty_ones_do_not_win(tmp_path: Path) -> None:
    voter = Voter(arr_wins)
    same = asyncio.run(make_verdicts(tmp_path, pairs(2, bare="Arr! Hello."), Judge(voter)))
    assert voter.asked == 0
    assert not any(row["persona_won"] for row in same)
    empty = [row | {"with_persona": " "} for row in pairs(1)]
    assert not asyncio.run(make_verdicts(tmp_path / "empty", empty, Judge(voter)))[0]["persona_won"]
    assert voter.asked == 0


# --- stages


def test_a_stage_that_was_stopped_makes_only_what_is_missing(tmp_path: Path) -> None:
    path, made = tmp_path / "square.jsonl", []

    async def make(rows: Sequence[Row]) -> list[Row]:
        made.extend(row["number"] for row in rows)
        if 5 in made and len(made) < 8:
            raise KeyboardInterrupt
        return [{"square": row["number"] ** 2} for row in rows]

    work = [{"number": number} for number in range(8)]
    with pytest.raises(KeyboardInterrupt):
        asyncio.run(run_stage(path, work, make, chunk=2))
    with path.open("ab") as file:
        file.write(b'{"id": "cut o')  # the process died while it wrote a line
    done = list(made)
    made.clear()
    made.extend([0] * 8)
    rows = asyncio.run(run_stage(path, work, make, chunk=2))
    assert done == [0, 1, 2, 3, 4, 5]
    assert made[8:] == [4, 5, 6, 7]
    assert [row["square"] for row in rows] == [number**2 for number in range(8)]
    assert list(read_rows(path).values()) == rows


def test_rows_of_other_settings_are_not_taken_and_not_kept(tmp_path: Path) -> None:
    path = tmp_path / "one.jsonl"

    async def make(rows: Sequence[Row]) -> list[Row]:
        return [{"made": row["setting"]} for row in rows]

    asyncio.run(run_stage(path, [{"setting": 1}, {"setting": 2}], make))
    rows = asyncio.run(run_stage(path, [{"setting": 3}, {"setting": 2}], make))
    assert [row["made"] for row in rows] == [3, 2]
    assert [row["made"] for row in read_rows(path).values()] == [3, 2]


def test_a_line_that_is_no_row_is_named(tmp_path: Path) -> None:
    path = tmp_path / "one.jsonl"
    path.write_text('{"id": "a"}\nnonsense\n{"id": "b"}\n')
    with pytest.raises(DataError, match="line 2"):
        read_rows(path)


# --- queries and personas


def test_doubles_and_scraps_are_left_out() -> None:
    replies = ["How do ships float?", '"How do ships float"\nBecause', "Hm?", "", "User: What is a sloop good for?"]
    rows = [{"query": read_query(reply)} for reply in replies]
    assert [row["query"] for row in usable(rows)] == ["How do ships float?", "What is a sloop good for?"]


@settings(max_examples=50, deadline=None)
@given(reply=st.text(max_size=80))
def test_a_query_is_one_line_or_nothing(reply: str) -> None:
    query = read_query(reply)
    assert query is None or (len(query.splitlines()) == 1 and query == query.strip())


@pytest.mark.parametrize(
    "line",
    ['{"name": "a"}', '{"name": "a", "text": "b", "intents": []}', "[]", '{"name": "", "text": "b", "intents": ["c"]}'],
)
def test_a_line_that_is_no_persona_is_named_with_what_was_expected(tmp_path: Path, line: str) -> None:
    path = tmp_path / "personas.jsonl"
    path.write_text('{"name": "good", "text": "You are good.", "intents": ["ask"]}\n' + line + "\n")
    with pytest.raises(BadRows, match="line 2"):
        read_personas(path)
    path.write_text("")
    with pytest.raises(DataError, match="no personas"):
        read_personas(path)


def test_personas_are_read_whatever_marks_of_line_ends_they_hold_and_whoever_saved_the_file(tmp_path: Path) -> None:
    path = tmp_path / "personas.jsonl"
    path.write_text('{"name": "a", "text": "You are\u2028two.", "intents": ["ask\x85why"]}\n', encoding="utf-8-sig")
    assert read_personas(path) == [Persona("a", "You are\u2028two.", ("ask\x85why",))]
    path.write_text("[" * 100_000)
    with pytest.raises(BadRows, match="line 1"):
        read_personas(path)


def test_settings_that_cannot_be_used_are_refused_before_a_model_is_asked() -> None:
    for wrong in ({"queries": 0}, {"rank": 0}, {"surprise": 1}):
        with pytest.raises(SettingsError):
            prism_settings(wrong)
    assert prism_settings({"epochs": 2, "rank": 4, "queries": 3}).bootstrap.queries == 3
