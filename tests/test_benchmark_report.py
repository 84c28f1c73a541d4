"""The tables: counted by hand on small results."""

from __future__ import annotations

import random
from typing import Any

import pytest

from benchmarks.comparing import average_ranks, compare, shared_tasks
from benchmarks.report import report
from mop.errors import DataError

Scores = dict[str, dict[str, dict[int, dict[str, Any]]]]


def record(task: str, method: str, seed: int, right: int, of: int = 20, **options: Any) -> dict[str, Any]:
    scores = [1.0] * right + [0.0] * (of - right)
    return {
        "cell": f"{task} {method} {seed} {options}",
        "task": task,
        "method": method,
        "seed": seed,
        "options": {"model": "m", "budget": 60, **options},
        "metric": "exact_match",
        "splits_sha256": {"learn": "l", "test": f"{task}{seed}"},
        "sizes": {"train": 9, "validation": 9, "test": of},
        "score": right / of,
        "scores": scores,
        "experts": 1,
        "encoder": "e",
        "versions": {"mop": "0"},
        "search": {"calls": 50, "prompt_tokens": 1000, "completion_tokens": 100},
        "test": {"calls": of, "prompt_tokens": 30 * of, "completion_tokens": 2 * of},
    }


def table(rows: list[dict[str, Any]]) -> Scores:
    scores: Scores = {}
    for row in rows:
        scores.setdefault(row["task"], {}).setdefault(row["method"], {})[row["seed"]] = row
    return scores


def test_wins_ties_and_losses_are_counted_over_tasks() -> None:
    results = {"a": (18, 2), "b": (12, 12), "c": (10, 11), "d": (15, 12)}
    rows = [record(task, method, 0, n) for task, both in results.items() for method, n in zip("xy", both, strict=True)]
    pair = compare(table(rows), "x", "y")
    assert pair is not None
    assert (pair.wins, pair.ties, pair.losses, pair.tasks) == (2, 1, 1, 4)
    assert pair.win_rate == pytest.approx(2.5 / 4)
    assert pair.difference == pytest.approx((0.8 + 0 - 0.05 + 0.15) / 4)
    assert (pair.sure_wins, pair.sure_losses) == (1, 0)
    assert 0 <= pair.interval.low < pair.win_rate < pair.interval.high <= 1
    mirrored = compare(table(rows), "y", "x")
    assert mirrored is not None
    assert mirrored.win_rate == pytest.approx(1 - pair.win_rate)


def test_a_difference_of_less_than_half_an_example_is_a_tie() -> None:
    one, other = record("a", "x", 0, 10), record("a", "y", 0, 10)
    one["scores"][-1] = 0.3
    one["score"] = 10.3 / 20
    pair = compare(table([one, other]), "x", "y")
    assert pair is not None
    assert pair.ties == 1
    one["scores"][-1], one["score"] = 0.7, 10.7 / 20
    pair = compare(table([one, other]), "x", "y")
    assert pair is not None
    assert pair.wins == 1


def test_only_seeds_that_both_have_are_compared() -> None:
    rows = [record("a", "x", 0, 5), record("a", "x", 1, 20), record("a", "y", 0, 6)]
    pair = compare(table(rows), "x", "y")
    assert pair is not None
    assert pair.losses == 1
    assert compare(table([*rows, record("b", "z", 0, 1)]), "x", "z") is None
    assert shared_tasks(table(rows), ["x", "y"]) == []


def test_methods_that_were_tested_on_different_examples_are_not_compared() -> None:
    one, other = record("a", "x", 0, 5), record("a", "y", 0, 6)
    other["splits_sha256"]["test"] = "others"
    with pytest.raises(DataError, match="different examples of a, seed 0"):
        compare(table([one, other]), "x", "y")


def test_equal_scores_share_their_ranks() -> None:
    rows = [record("a", method, 0, right) for method, right in {"x": 9, "y": 9, "z": 3}.items()]
    assert average_ranks(table(rows), ["x", "y", "z"], ["a"]) == {"x": 1.5, "y": 1.5, "z": 3.0}


def test_the_order_of_the_lines_changes_no_byte() -> None:
    rows = [
        record(task, method, seed, 3 + place)
        for place, (task, method, seed) in enumerate(
            (task, method, seed) for task in "ab" for method in ("mop", "ape") for seed in (0, 1, 2)
        )
    ]
    first = report(rows)
    random.Random(0).shuffle(rows)
    assert report(rows) == first


def test_seconds_are_no_part_of_the_tables() -> None:
    row = record("a", "ape", 0, 3)
    plain = report([row])
    row["search"]["seconds"] = row["test"]["seconds"] = 123.4
    row["finished"] = "2020-01-01"
    assert report([row]) == plain


def test_several_seeds_have_a_t_interval_and_one_seed_that_of_its_examples() -> None:
    several = report([record("a", "ape", seed, right) for seed, right in enumerate((10, 12, 14))])
    assert "| 0.600 ± 0.248 |" in several  # 0.1 / sqrt(3) * 4.303
    assert "| 0.500 [0.30, 0.70] |" in report([record("a", "ape", 0, 10)])


def test_a_cell_that_was_not_run_is_a_dash_and_its_task_does_not_rank() -> None:
    text = report([record("a", "ape", 0, 3), record("a", "mop", 0, 4), record("b", "ape", 0, 5)])
    assert "| b | exact_match | 20 | — |" in text
    assert "| mop | ape | 1 | 1 | 0 | 0 | 100 % |" in text
    assert "| mop | 1 | 1.00 | 50 | 1,000 | 100 | 30 | 2 | 1.0 |" in text


def test_other_conditions_have_tables_of_their_own_and_other_numbers_of_experts_columns() -> None:
    text = report(
        [
            record("a", "mop-paper", 0, 3, budget=100),
            record("a", "mop-paper", 0, 4),
            record("a", "mop-paper", 0, 5, experts=4),
        ]
    )
    assert text.count("\n## ") == 2
    assert "mop-paper | mop-paper (experts=4) |" in text
