"""Candidate instructions: what is asked for, and what of the replies is used."""

from __future__ import annotations

import pytest
from fake_endpoint import FakeEndpoint, Fault
from hypothesis import given
from hypothesis import strategies as st

from mop.examples import Example
from mop.lm.client import ModelClient
from mop.lm.ledger import Ledger
from mop.search import proposers
from mop.search.proposers import Failure

ROWS = [Example(f"in {i}", (f"out {i % 5}",)) for i in range(20)]


@pytest.mark.parametrize(
    ("reply", "instruction"),
    [
        ("Give the opposite of the word.", "Give the opposite of the word."),
        ('"Give the opposite of the word."', "Give the opposite of the word."),
        ("Instruction: Give the opposite of the word.", "Give the opposite of the word."),
        ("The instruction was to: Give the opposite.", "Give the opposite."),
        ("Give the opposite\nof the word.", "Give the opposite of the word."),
        ("", None),
        ("None", None),
        ("Input: hot\nOutput: cold", None),
        ("<think>Hot and cold.</think>\nGive the opposite of the word.", "Give the opposite of the word."),
        ("<think>Hot and cold, so it could be", None),
        ("Do as here.\nInput: hot\nOutput: cold", None),
    ],
)
def test_a_reply_becomes_an_instruction_or_nothing(reply: str, instruction: str | None) -> None:
    assert proposers.clean(reply) == instruction


@given(st.text())
def test_no_reply_can_break_the_proposer(reply: str) -> None:
    cleaned = proposers.clean(reply)
    assert cleaned is None or len(cleaned) >= 1


def test_samples_show_different_answers_first_and_depend_on_the_seed_alone() -> None:
    drawn = proposers.sample(ROWS, 5, 0, "x")
    assert len({example.output for example in drawn}) == 5
    assert drawn == proposers.sample(ROWS, 5, 0, "x")
    assert drawn != proposers.sample(ROWS, 5, 1, "x")
    assert len(proposers.sample(ROWS, 99, 0, "x")) == len(ROWS)


def test_a_question_about_failures_shows_what_went_wrong() -> None:
    question = proposers.from_failures("Say it.", [Failure(ROWS[3], "wrong answer")])
    assert "Say it." in question
    assert "wrong answer" in question
    assert "out 3" in question


async def test_a_question_can_follow_others_that_are_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOP_API_KEY", "key")
    texts = iter(["Name the colour.", proposers.WORKED[1][1].upper()])
    with FakeEndpoint(lambda _: next(texts)) as endpoint:
        client = ModelClient("m", ledger=Ledger.in_memory(), base_url=endpoint.base_url, concurrency=1)
        groups = [[("demos", proposers.after_worked(ROWS[:2]))] * 2]
        (found,) = await proposers.ask_each(client, groups, seed=0, before=proposers.WORKED)
        await client.aclose()
    assert [one.instruction for one in found] == ["Name the colour."], "a repeated answer is no instruction"
    body = endpoint.bodies[0]
    *before, last = body["messages"]
    assert [turn["role"] for turn in before] == ["user", "assistant"] * 3
    assert all("Input: " in turn["content"] for turn in before[::2])
    assert all(proposers.clean(turn["content"]) == turn["content"] for turn in before[1::2])
    assert last["role"] == "user"
    assert last["content"].endswith("Input: in 0\nOutput: out 0\n\nInput: in 1\nOutput: out 1\n")


async def test_equal_candidates_are_kept_once_and_cut_off_ones_dropped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MOP_API_KEY", "key")
    cut = {"choices": [{"message": {"content": "This one is cut"}, "finish_reason": "length"}], "usage": {}}
    texts = iter(["Name the colour.", "name the colour.", "Name the shape."])
    with FakeEndpoint(lambda _: next(texts), faults=[Fault.body(cut)]) as endpoint:
        client = ModelClient("m", ledger=Ledger.in_memory(), base_url=endpoint.base_url, concurrency=1)
        questions = [("demos", f"question {i}") for i in range(4)]
        found = await proposers.ask(client, questions, seed=0)
        await client.aclose()
    assert [candidate.instruction for candidate in found] == ["Name the colour.", "Name the shape."]
    assert all(body["temperature"] > 0 for body in endpoint.bodies)
