"""Single prompts: which ones are raced when there is room for few."""

from __future__ import annotations

import numpy as np
import pytest

from mop.examples import Example
from mop.metrics import exact_match
from mop.search.generalist import DEFAULT_INSTRUCTION
from mop.search.problem import Problem
from mop.search.proposers import Candidate
from mop.search.singles import single_prompts

WRITTEN = [Candidate(f"Add the numbers, way {number}.", "demos") for number in range(1, 5)]


def problem(description: str | None, answers: int) -> Problem:
    """A task of 60 sums with ``answers`` different answers."""
    examples = tuple(Example(f"{number} 1", (f"answer {number % answers}",)) for number in range(60))
    vectors = np.eye(60, dtype=np.float32)
    return Problem(examples[:40], examples[40:], vectors[:40], vectors[40:], exact_match, 0, description)


def raced(description: str | None, arms: int, answers: int = 60, max_demos: int = 4) -> list[tuple[str, str]]:
    given = Candidate(description or DEFAULT_INSTRUCTION, "given")
    found = single_prompts(
        problem(description, answers), [given, *WRITTEN], arms=arms, max_demos=max_demos, token_budget=200
    )
    return [("given" if one.candidate == given else one.candidate.instruction[-2:-1], one.demos) for one in found]


def test_the_users_instruction_is_raced_with_every_kind_of_demos_before_a_written_one() -> None:
    assert raced("Add them.", 5) == [
        ("given", "random"), ("given", "no"), ("given", "spread"), ("1", "random"), ("1", "no"),
    ]  # fmt: skip


def test_without_an_instruction_of_the_user_written_ones_are_raced_with_demos_at_the_smallest_budget() -> None:
    assert raced(None, 3) == [("given", "random"), ("1", "random"), ("2", "random")]


def test_without_an_instruction_a_closed_set_of_answers_is_shown_whole_before_written_ones() -> None:
    assert raced(None, 3, answers=5) == [("given", "random"), ("given", "wide"), ("1", "random")]


@pytest.mark.parametrize("description", [None, "Add them."])
@pytest.mark.parametrize("answers", [5, 60])
def test_every_kind_of_prompt_is_raced_once_and_then_further_random_demos(
    description: str | None, answers: int
) -> None:
    kinds = 5 if answers == 5 else 3
    room = kinds + 2 * len(WRITTEN)
    found = raced(description, room + 9, answers)
    first, further = found[:room], found[room:]
    assert len(set(first)) == len(first)
    assert {one for one in first if one[0] != "given"} == {
        (str(n), kind) for n in range(1, 5) for kind in ("random", "no")
    }
    assert len([one for one in first if one[0] == "given"]) == kinds
    assert further == [(name, "random") for name in ("given", "1", "given", "2", "given", "3", "given", "4", "given")]


@pytest.mark.parametrize("description", [None, "Add them."])
def test_where_no_demos_are_wanted_none_are_shown(description: str | None) -> None:
    assert raced(description, 4, max_demos=0) == [("given", "no"), ("1", "no"), ("2", "no"), ("3", "no")]


@pytest.mark.parametrize("answers", [2, 3])
def test_few_answers_are_shown_in_turns_until_the_demos_are_full(answers: int) -> None:
    given = Candidate("Name it.", "given")
    (found,) = single_prompts(problem("Name it.", answers), [given], arms=1, max_demos=8, token_budget=400)
    shown = [demo.output for demo in found.prompt.demos]
    assert len({demo.input for demo in found.prompt.demos}) == 8
    assert all(len(set(shown[turn : turn + answers])) == answers for turn in range(0, 8 - answers, answers))


def test_where_not_every_answer_finds_room_none_is_shown_twice() -> None:
    given = Candidate("Name it.", "given")
    (found,) = single_prompts(problem("Name it.", 10), [given], arms=1, max_demos=8, token_budget=400)
    assert len({demo.output for demo in found.prompt.demos}) == len(found.prompt.demos) == 8


def test_no_wide_prompt_is_raced_where_an_experts_demos_show_every_answer() -> None:
    assert ("given", "wide") not in raced("Name it.", 100, answers=3)
    assert ("given", "wide") in raced("Name it.", 100, answers=5)
