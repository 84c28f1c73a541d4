"""Races between arms on paired examples."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mop.examples import Example
from mop.prompts import Prompt
from mop.search.race import Arm, next_rung, race

EXAMPLES = [Example(f"question {i}", ("yes",)) for i in range(40)]


class KnownTrials:
    """Trials whose scores are known beforehand: by prompt, the share of examples (from the front) it gets right."""

    def __init__(self, skill: dict[str, float]) -> None:
        self.skill = skill
        self.seen: list[tuple[str, str]] = []

    async def score(self, trials: list[tuple[Prompt, Example]]) -> list[float]:
        self.seen += [(prompt.instruction, example.input) for prompt, example in trials]
        return [
            float((int(example.input.split()[1]) * 7) % 40 < 40 * self.skill[prompt.instruction])
            for prompt, example in trials
        ]


def arms(names: list[str]) -> list[Arm]:
    return [Arm.single(name, Prompt(name), len(EXAMPLES)) for name in names]


async def test_the_best_arm_wins_and_sees_the_most_examples() -> None:
    trials = KnownTrials({"poor": 0.1, "good": 0.9, "fair": 0.5, "bad": 0.0})
    result = await race(arms(list(trials.skill)), EXAMPLES, np.arange(40), trials, calls=120)
    assert result.winner == 1
    counts = np.isfinite(result.scores).sum(axis=1)
    assert counts[1] == counts.max()
    assert result.ranking[-1] in (0, 3)


async def test_every_arm_of_a_rung_sees_the_same_examples_first() -> None:
    trials = KnownTrials({"a": 0.5, "b": 0.6, "c": 0.4})
    result = await race(arms(list(trials.skill)), EXAMPLES, np.arange(40)[::-1], trials, calls=60)
    seen = [set(np.flatnonzero(np.isfinite(row))) for row in result.scores]
    smallest = min(seen, key=len)
    assert all(smallest <= other for other in seen)
    assert max(smallest) == 39, "the given order is used"


async def test_a_hopeless_arm_leaves_early_although_half_could_stay() -> None:
    trials = KnownTrials({"good": 1.0, "hopeless": 0.0})
    many = [*arms(["good"]), *arms(["hopeless"])]
    result = await race([*many, *arms(["good"])], EXAMPLES, np.arange(40), trials, calls=90)
    assert np.isfinite(result.scores[1]).sum() < np.isfinite(result.scores[0]).sum()


async def test_one_arm_alone_wins_its_race() -> None:
    trials = KnownTrials({"only": 0.0})
    result = await race(arms(["only"]), EXAMPLES, np.arange(40), trials, calls=10)
    assert result.winner == 0
    assert result.mean(0) == 0.0


async def test_arms_that_all_score_zero_still_have_a_winner() -> None:
    trials = KnownTrials({"a": 0.0, "b": 0.0})
    result = await race(arms(["a", "b"]), EXAMPLES, np.arange(40), trials, calls=20)
    assert result.winner == 0


@given(st.integers(1, 40), st.integers(1, 200), st.integers(1, 2000))
def test_a_schedule_never_takes_more_calls_than_it_was_given(alive: int, examples: int, calls: int) -> None:
    spent, seen = 0, 0
    while (upto := next_rung(alive, seen, examples, calls - spent)) > seen:
        assert upto <= examples
        spent += alive * (upto - seen)
        seen = upto
        alive = (alive + 1) // 2
    assert spent <= calls


async def test_an_arm_that_fails_the_first_example_alone_is_not_lost_among_many() -> None:
    # All arms get the first example wrong, and only the last one, the best, gets the second one right.
    trials = KnownTrials({f"poor {i}": 0.15 for i in range(11)} | {"good": 0.9})
    order = np.array([17, 1, *(i for i in range(40) if i not in (17, 1))])
    assert await trials.score([(Prompt("good"), EXAMPLES[17])]) == [0.0]
    result = await race(arms(list(trials.skill)), EXAMPLES, order, trials, calls=94)
    assert result.winner == 11


@pytest.mark.parametrize(("arms_", "calls", "first"), [(16, 94, 2), (12, 94, 2), (12, 30, 1), (3, 94, 15), (2, 4, 2)])
def test_a_first_rung_has_two_examples_as_far_as_half_the_calls_go(arms_: int, calls: int, first: int) -> None:
    assert next_rung(arms_, 0, 200, calls) == first


async def test_calls_that_early_leavers_free_go_to_those_that_stay() -> None:
    trials = KnownTrials({"good": 0.9, "nearly": 0.85, "hopeless": 0.0, "lost": 0.0})
    result = await race(arms(list(trials.skill)), EXAMPLES, np.arange(40), trials, calls=80)
    assert np.isfinite(result.scores[0]).sum() + np.isfinite(result.scores[1]).sum() > 40


@pytest.mark.parametrize("calls", [12, 100, 400])
async def test_a_race_keeps_to_its_calls(calls: int) -> None:
    trials = KnownTrials(dict.fromkeys("abcdef", 0.5))
    await race(arms(list("abcdef")), EXAMPLES, np.arange(40), trials, calls=calls)
    assert len(trials.seen) <= calls


async def test_a_race_without_a_call_has_no_mean_and_warns_of_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = await race(arms(["a", "b", "c"]), EXAMPLES, np.arange(40), KnownTrials({}), calls=2)
        assert math.isnan(result.mean(result.winner))
