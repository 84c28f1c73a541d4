"""Single prompts: which ones are raced when there is room for few."""

from __future__ import annotations

import numpy as np
import pytest

from mop.examples import Example
from mop.metrics import exact_match
from mop.search.generalist import DEFAULT_INSTRUCTION
from mop.search.problem import Problem
from mop.search.proposers import Candidate
from mop.search.singles import crossed_prompts, kinds_raced, single_prompts

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
    assert raced(None, 4, answers=5) == [("given", "random"), ("given", "wide"), ("given", "no"), ("1", "random")]


def kinds(arms: int, *, described: bool = False, closed: bool = False, wide: bool = False) -> list[tuple[int, str]]:
    """The kinds raced with six written instructions."""
    return kinds_raced(6, arms, described=described, closed=closed, wide=wide, demos=True, halved=True)


@pytest.mark.parametrize("arms", [15, 16])
@pytest.mark.parametrize("described", [False, True])
@pytest.mark.parametrize(("closed", "wide"), [(False, False), (True, False), (True, True)])
def test_a_race_of_the_usual_size_has_written_ones_with_many_few_and_no_demos_and_further_draws(
    arms: int, described: bool, closed: bool, wide: bool
) -> None:
    found = kinds(arms, described=described, closed=closed, wide=wide)
    assert len(found) == arms
    first = found[:-3]
    assert len(set(first)) == len(first)
    written = [kind for which, kind in first if which]
    assert {"random", "few", "no"} <= set(written)
    assert len({which for which, _ in first if which}) >= (4 if described else 6)
    assert (0, "no") in first or not (described or closed)
    assert {(0, "random"), (0, "few")} <= set(first)
    if described:
        assert (0, "spread") in first
    assert found[-3:] == [(0, "few"), (1, "few"), (0, "random")]


def test_where_the_model_wrote_nothing_the_plain_instruction_is_raced_without_demos_too() -> None:
    found = kinds_raced(0, 16, described=False, closed=False, wide=False, demos=True, halved=True)
    assert {kind for _, kind in found} == {"random", "few", "no", "spread"}


@pytest.mark.parametrize(("demo_tokens", "max_demos"), [(200, 8), (10, 1)])
def test_where_half_of_the_demos_would_be_none_or_all_no_prompt_has_few(demo_tokens: int, max_demos: int) -> None:
    examples = tuple(Example(f"{'word ' * demo_tokens}{number}", (f"answer {number}",)) for number in range(60))
    vectors = np.eye(60, dtype=np.float32)
    task = Problem(examples[:40], examples[40:], vectors[:40], vectors[40:], exact_match, 0, None)
    given, limits = Candidate(DEFAULT_INSTRUCTION, "given"), {"max_demos": max_demos, "token_budget": 350}
    found = single_prompts(task, [given, *WRITTEN], arms=15, **limits)
    assert {one.demos for one in found} == {"random", "no", "spread"}
    assert all(bool(one.prompt.demos) == (one.demos != "no") for one in found)
    assert len(found) >= 14, "no arm is lost as the same prompt"
    crossed = crossed_prompts(task, found[:1], arms=7, turn=0, **limits)
    assert len(crossed) == 7
    assert all(one.prompt.demos for one in crossed)


def test_where_few_demos_won_fresh_ones_are_few() -> None:
    task, given = problem("Add them.", 60), Candidate("Add them.", "given")
    limits = {"max_demos": 8, "token_budget": 10_000}
    few = next(one for one in single_prompts(task, [given], arms=9, **limits) if one.demos == "few")
    many = next(one for one in single_prompts(task, [given], arms=9, **limits) if one.demos == "random")
    assert {len(one.prompt.demos) for one in crossed_prompts(task, [few], arms=7, turn=0, **limits)} == {4}
    assert {len(one.prompt.demos) for one in crossed_prompts(task, [many], arms=7, turn=0, **limits)} == {8}


def test_few_demos_are_half_as_many_in_half_the_tokens() -> None:
    given = Candidate("Add them.", "given")

    def demos(max_demos: int, token_budget: int) -> dict[str, tuple[int, int]]:
        limits = {"max_demos": max_demos, "token_budget": token_budget}
        found = single_prompts(problem("Add them.", 60), [given], arms=9, **limits)
        shown = {one.demos: one.prompt.demos for one in found}
        return {kind: (len(some), sum(demo.tokens for demo in some)) for kind, some in shown.items()}

    assert demos(8, 10_000)["random"][0] == 8
    assert demos(8, 10_000)["few"][0] == 4
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
