"""Intervals, paired comparisons and shrinkage."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mop.stats import lower_bound, paired_difference, proportion_interval, shrink

binary = st.lists(st.sampled_from([0.0, 1.0]), min_size=1, max_size=60)
graded = st.lists(st.floats(0, 1), min_size=1, max_size=40)


@given(binary | graded)
def test_an_interval_contains_the_mean_and_stays_within_the_scale(scores: list[float]) -> None:
    interval = proportion_interval(scores)
    assert -1e-9 <= interval.low <= np.mean(scores) + 1e-9
    assert np.mean(scores) - 1e-9 <= interval.high <= 1 + 1e-9


def test_wilsons_interval_of_45_right_of_60_is_the_published_one() -> None:
    interval = proportion_interval([1.0] * 45 + [0.0] * 15)
    assert interval.low == pytest.approx(0.6277, abs=1e-3)
    assert interval.high == pytest.approx(0.8422, abs=1e-3)


def test_ten_of_ten_right_does_not_prove_perfection() -> None:
    assert proportion_interval([1.0] * 10).low == pytest.approx(0.7225, abs=1e-3)


@given(st.data())
def test_swapping_two_systems_mirrors_their_difference(data: st.DataObject) -> None:
    a = data.draw(binary)
    b = data.draw(st.lists(st.sampled_from([0.0, 1.0]), min_size=len(a), max_size=len(a)))
    there, back = paired_difference(a, b), paired_difference(b, a)
    assert there.mean == pytest.approx(-back.mean)
    assert there.low == pytest.approx(-back.high)
    assert there.p_value == pytest.approx(back.p_value)
    assert (there.wins, there.losses, there.ties) == (back.losses, back.wins, back.ties)
    assert there.low <= there.mean <= there.high


def test_equal_systems_have_no_difference_but_an_interval_around_it() -> None:
    same = paired_difference([1.0, 0.0, 1.0, 1.0], [1.0, 0.0, 1.0, 1.0])
    assert same.mean == 0
    assert same.low < 0 < same.high
    assert same.p_value == 1


def test_mcnemar_of_eight_wins_to_two_is_exact() -> None:
    a = [1.0] * 8 + [0.0] * 2 + [1.0] * 5
    b = [0.0] * 8 + [1.0] * 2 + [1.0] * 5
    assert paired_difference(a, b).p_value == pytest.approx(0.109375)


def test_graded_scores_are_compared_by_resampling_and_always_the_same_way() -> None:
    a, b = np.linspace(0.2, 1, 30), np.linspace(0, 0.8, 30)
    first, second = paired_difference(a, b), paired_difference(a, b)
    assert first == second
    assert first.low > 0
    assert first.p_value < 0.01


def test_four_graded_gains_of_a_hundred_prove_as_little_as_four_right_answers_do() -> None:
    # Scores of several seeds are graded: here four inputs gained under one seed of three, and none lost.
    graded = paired_difference([2 / 3] * 4 + [1 / 3] * 96, [1 / 3] * 100)
    binary = paired_difference([1.0] * 4 + [0.0] * 96, [0.0] * 100)
    assert graded.low <= 0 < graded.high
    assert (graded.low, graded.high) == pytest.approx((binary.low / 3, binary.high / 3), abs=0.004)
    assert graded.p_value > 0.1
    assert paired_difference([2 / 3] * 9 + [1 / 3] * 91, [1 / 3] * 100).low > 0


def test_of_equal_systems_with_graded_scores_few_are_called_different() -> None:
    rng = np.random.default_rng(0)
    pairs = [rng.normal(0.5, 0.1, (2, 8)).clip(0, 1) for _ in range(200)]
    found = [paired_difference(a, b) for a, b in pairs]
    assert sum(one.low > 0 or one.high < 0 for one in found) <= 10  # 5 %


@given(st.data())
def test_swapping_two_systems_with_graded_scores_mirrors_their_difference(data: st.DataObject) -> None:
    a = data.draw(graded)
    b = data.draw(st.lists(st.floats(0, 1), min_size=len(a), max_size=len(a)))
    there, back = paired_difference(a, b), paired_difference(b, a)
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low))
    assert there.low <= there.mean <= there.high


@pytest.mark.parametrize(("a", "b"), [([], []), ([1.0], [1.0, 0.0]), ([float("nan")], [1.0])])
def test_scores_that_cannot_be_compared_are_refused(a: list[float], b: list[float]) -> None:
    with pytest.raises(ValueError, match="score"):
        paired_difference(a, b)


def test_three_equal_gains_do_not_prove_a_gain_but_thirty_do() -> None:
    assert lower_bound([1.0, 0.0, 0.0], 0.9) < 0
    assert lower_bound([1.0] * 2, 0.975) < 0
    assert lower_bound([1.0] * 30, 0.95) > 0.8
    assert lower_bound([0.0] * 30, 0.95) < 0


@given(st.lists(st.sampled_from([-1.0, 0.0, 1.0]), min_size=1, max_size=50), st.floats(0.6, 0.99))
def test_more_confidence_never_raises_the_bound(differences: list[float], confidence: float) -> None:
    assert lower_bound(differences, confidence) <= lower_bound(differences, 0.55) + 1e-12
    assert lower_bound(differences, confidence) <= np.mean(differences) + 1e-12


def test_groups_that_differ_by_chance_get_the_common_mean() -> None:
    rng = np.random.default_rng(0)
    draws = [[rng.choice([0.0, 1.0], size=5) for _ in range(20)] for _ in range(50)]
    weights = [np.mean([group.weight for group in shrink(draw)]) for draw in draws]
    assert np.mean(weights) < 0.15


def test_groups_that_really_differ_keep_their_own_means() -> None:
    good, bad = shrink([np.ones(40), np.zeros(40)])
    assert good.mean > 0.9
    assert bad.mean < 0.1
    assert good.low > bad.high


def test_an_empty_group_gets_the_common_mean_and_a_larger_group_more_weight_of_its_own() -> None:
    groups = [np.ones(30), np.zeros(30), np.ones(3), np.array([])]
    large, _, small, empty = shrink(groups)
    assert empty.weight == 0
    assert empty.mean == pytest.approx(np.concatenate(groups).mean())
    assert large.weight > small.weight > 0


def test_nothing_at_all_cannot_be_shrunk() -> None:
    with pytest.raises(ValueError, match="empty"):
        shrink([np.array([]), np.array([])])
