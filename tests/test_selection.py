"""Decisions region by region."""

from __future__ import annotations

import numpy as np

from mop.search.selection import choose_candidates, gate, hardest

REGIONS = np.repeat([0, 1, 2, 3], 15)


def test_a_mixture_without_gain_is_not_shipped() -> None:
    same = np.tile([1.0, 0.0, 1.0], 20)
    assert not gate(same, same, REGIONS, 4, confidence=0.9).open


def test_a_region_that_loses_clearly_falls_back_while_the_others_stay() -> None:
    experts, generalist = np.ones(60), np.zeros(60)
    experts[REGIONS == 2], generalist[REGIONS == 2] = 0.0, 1.0
    result = gate(experts, generalist, REGIONS, 4, confidence=0.9)
    assert result.open
    assert [result.falls_back(region) for region in range(4)] == [False, False, True, False]
    assert result.gains[0].mean > 0.5


def test_a_region_without_validation_examples_gets_the_gain_of_the_whole() -> None:
    experts, generalist = np.ones(60), np.zeros(60)
    result = gate(experts, generalist, REGIONS, 5, confidence=0.9)
    assert not result.falls_back(4)
    assert result.gains[4].weight == 0


def test_a_candidate_wins_only_where_it_is_better() -> None:
    incumbent = np.where(REGIONS == 1, 0.0, 1.0)
    rival = np.where(REGIONS == 1, 1.0, 0.0)
    assert choose_candidates(np.vstack([incumbent, rival]), REGIONS, 4) == [0, 1, 0, 0]


def test_a_tie_keeps_the_incumbent_and_so_does_a_score_of_zero_everywhere() -> None:
    nothing = np.zeros(60)
    assert choose_candidates(np.vstack([nothing, nothing]), REGIONS, 4) == [0, 0, 0, 0]


def test_one_lucky_example_does_not_change_a_regions_instruction() -> None:
    rng = np.random.default_rng(1)
    incumbent = rng.choice([0.0, 1.0], size=60)
    rival = incumbent.copy()
    losers = np.flatnonzero(incumbent == 1)[:12]
    rival[losers] = 0.0
    lucky = np.flatnonzero((REGIONS == 3) & (incumbent == 0))[:1]
    rival[lucky] = 1.0
    assert choose_candidates(np.vstack([incumbent, rival]), REGIONS, 4)[3] == 0


def test_a_candidate_tried_in_one_region_only_is_considered_there_alone() -> None:
    incumbent = np.zeros(60)
    rival = np.full(60, np.nan)
    rival[REGIONS == 2] = 1.0
    assert choose_candidates(np.vstack([incumbent, rival]), REGIONS, 4) == [0, 0, 1, 0]


def test_hard_regions_come_first_and_perfect_ones_not_at_all() -> None:
    scores = np.ones(60)
    scores[REGIONS == 1] = 0.0
    scores[np.flatnonzero(REGIONS == 3)[:2]] = 0.0
    assert list(hardest(scores, REGIONS, 4)) == [1, 3]
