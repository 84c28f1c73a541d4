"""One dial sets the rest."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mop.errors import BudgetExceeded
from mop.search.plan import MIN_CALLS, Plan, region_counts
from mop.search.race import schedule


@given(
    st.integers(MIN_CALLS, 20_000),
    st.integers(5, 5000),
    st.integers(2, 2000),
    st.none() | st.integers(1, 100),
)
def test_the_stages_of_a_plan_fit_into_its_calls(calls: int, train: int, validation: int, experts: int | None) -> None:
    plan = Plan.of(calls, train=train, validation=validation, experts=experts)
    assert plan.proposals + plan.single_calls + plan.crossing_calls <= calls
    if plan.region_counts != (1,):
        # The winner's examples of the first race are known when it is judged.
        taken, seen = schedule(plan.single_arms, plan.validation, plan.single_calls)
        assert plan.proposals + taken + 2 * plan.validation - seen <= calls
    assert plan.validation <= validation
    assert plan.single_arms >= 3


@given(st.integers(MIN_CALLS, 10_000))
def test_more_budget_never_means_less_of_anything(calls: int) -> None:
    less, more = (Plan.of(c, train=600, validation=200) for c in (calls, calls + 100))
    assert more.proposals >= less.proposals
    assert more.validation >= less.validation
    assert len(more.region_counts) >= len(less.region_counts)


def test_a_budget_too_small_for_any_comparison_is_refused() -> None:
    with pytest.raises(BudgetExceeded, match="at least 20"):
        Plan.of(19, train=100, validation=50)


def test_ten_examples_get_one_prompt_and_a_thousand_get_many_experts() -> None:
    assert region_counts(7, 3, 600) == (1,)
    assert region_counts(1000, 300, 600)[0] >= 40


def test_a_fixed_number_of_experts_is_the_only_one_tried() -> None:
    assert Plan.of(600, train=450, validation=150, experts=7).region_counts == (7,)
    assert Plan.of(600, train=450, validation=150, experts=1).region_counts == (1,)


def test_more_proposals_than_a_third_of_the_calls_are_not_made() -> None:
    assert Plan.of(20, train=100, validation=50, proposals=30).proposals == 6


@pytest.mark.parametrize(
    ("calls", "asked"), [(20, 0), (29, 0), (30, 1), (180, 6), (365, 6), (366, 6), (420, 7), (5000, 16)]
)
def test_small_budgets_ask_for_an_instruction_for_thirty_calls_larger_ones_for_sixty(calls: int, asked: int) -> None:
    assert Plan.of(calls, train=100, validation=50).proposals == asked


def test_no_more_instructions_are_asked_for_than_a_race_without_a_mixture_has_use_for() -> None:
    assert Plan.of(5000, train=100, validation=50, experts=1).proposals == 8


@pytest.mark.parametrize("calls", [200, 365, 366, 600, 5000])
def test_budgets_with_several_layouts_race_as_many_prompts_as_those_with_one(calls: int) -> None:
    assert Plan.of(calls, train=100, validation=50).single_arms in (15, 16)
