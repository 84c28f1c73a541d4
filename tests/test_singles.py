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
    assert raced("Add them.", 6) == [
        ("given", "random"), ("given", "no"), ("given", "few"), ("given", "spread"), ("1", "random"),
        ("given", "few"),
    ]  # fmt: skip


def test_without_an_instruction_of_the_user_written_ones_are_raced_with_demos_at_the_smallest_budget() -> None:
    assert raced(None, 3) == [("given", "random"), ("1", "random"), ("2", "few")]


def test_without_an_instruction_a_closed_set_of_answers_is_shown_whole_before_written_ones() -> None:
    assert raced(None, 3, answers=5) == [("given", "random"), ("given", "wide"), ("1", "random")]


@pytest.mark.parametrize("description", [None, "Add them."])
@pytest.mark.parametrize("answers", [5, 60])
def test_every_kind_of_prompt_is_raced_and_a_fifth_are_further_sets_of_demos(
    description: str | None, answers: int
) -> None:
    own = {"random", "few", "spread"} | ({"wide", "unlisted"} if answers == 5 else set())
    own |= {"no"} if description else set()
    found = raced(description, 20, answers)
    first, further = found[: len(own) + 2 * len(WRITTEN)], found[len(own) + 2 * len(WRITTEN) :]
    assert len(set(first)) == len(first)
    assert {kind for name, kind in first if name == "given"} == own
    assert {one for one in first if one[0] != "given"} == {
        *((str(n), "no") for n in range(1, 5)), ("1", "random"), ("2", "few"), ("3", "random"), ("4", "few"),
    }  # fmt: skip
    turns = ["given", "1", "given", "2", "given", "3", "given", "4", "given"]
    kinds = ["few", "few", "random", "random", "few", "few", "random", "random", "few"]
    assert len(further) >= 4
    assert further == list(zip(turns, kinds, strict=True))[: len(further)]


def test_few_demos_are_half_as_many_in_half_the_tokens() -> None:
    given = Candidate("Add them.", "given")

    def demos(max_demos: int, token_budget: int) -> dict[str, tuple[int, int]]:
        found = single_prompts(
            problem("Add them.", 60), [given], arms=9, max_demos=max_demos, token_budget=token_budget
        )
        shown = {one.demos: one.prompt.demos for one in found}
        return {kind: (len(some), sum(demo.tokens for demo in some)) for kind, some in shown.items()}

    assert demos(8, 10_000)["random"][0] == 8
    assert demos(8, 10_000)["few"][0] == 4
    assert demos(1, 10_000)["few"][0] == 1
    narrow = demos(40, 200)
    assert 0 < narrow["few"][1] <= 100 < narrow["random"][1] <= 200


def test_many_written_instructions_leave_room_for_prompts_without_demos() -> None:
    given, many = Candidate("Answer.", "given"), [Candidate(f"Add them, way {n}.", "demos") for n in range(16)]
    found = single_prompts(problem(None, 60), [given, *many], arms=16, max_demos=4, token_budget=200)
    assert sum(one.demos == "no" for one in found) == 4
    assert {one.demos for one in found if one.candidate == given} >= {"random", "few"}


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
