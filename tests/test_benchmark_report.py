"""The tables: counted by hand on small results."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from benchmarks.__main__ import main
from benchmarks.comparing import average_ranks, compare, interval_of, shared_tasks, wilson
from benchmarks.report import report
from benchmarks.report import table as table_of
from mop.errors import DataError
from mop.stats import paired_difference, proportion_interval

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
        "data_sha256": f"data of {task}",
        "most_test": 20,
        "test_inputs": [f"{task} {seed} {place}" for place in range(of)],
        "splits_sha256": {"learn": "l", "test": f"{task}{seed}"},
        "sizes": {"train": 9, "validation": 9, "test": of},
        "score": right / of,
        "scores": scores,
        "experts": 1,
        "kept": 1,
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


def test_methods_that_learned_from_different_examples_are_not_compared() -> None:
    one, other = record("a", "x", 0, 5), record("a", "y", 0, 6)
    other["splits_sha256"]["learn"] = "others"
    with pytest.raises(DataError, match="learned from different examples of a, seed 0"):
        compare(table([one, other]), "x", "y")


def test_an_input_that_several_seeds_share_counts_once() -> None:
    # Two of 20 examples are no sure win, however often the same inputs are measured.
    rows = [record("a", method, seed, n) for seed in range(5) for method, n in (("x", 9), ("y", 7))]
    apart = compare(table(rows), "x", "y")
    for row in rows:
        row["test_inputs"] = [f"input {place}" for place in range(20)]
    shared = compare(table(rows), "x", "y")
    assert apart is not None
    assert shared is not None
    assert (apart.wins, apart.sure_wins) == (1, 1)
    assert (shared.wins, shared.sure_wins) == (1, 0)


def test_shared_inputs_are_matched_by_what_they_are_and_not_by_their_place() -> None:
    rows = [record("a", method, seed, n, 4) for seed in (0, 1) for method, n in (("x", 2), ("y", 1))]
    for row in rows:
        row["test_inputs"] = ["p", "q", "r", "s"]
        if row["seed"] == 1:
            row["test_inputs"] = row["test_inputs"][::-1]
            row["scores"] = row["scores"][::-1]
    text = report(rows)
    interval = proportion_interval([1, 1, 0, 0])
    assert f"± {(interval.high - interval.low) / 2:.3f}" in text


def test_a_tie_is_half_an_example_of_one_seed_whatever_the_number_of_seeds() -> None:
    rows = [record("a", method, seed, 10) for seed in range(4) for method in "xy"]
    rows[0]["scores"][-1], rows[0]["score"] = 1.0, 11 / 20  # a quarter of an example on average
    pair = compare(table(rows), "x", "y")
    assert pair is not None
    assert pair.ties == 1


@pytest.mark.parametrize(("seed", "rights"), [(0, (9, 8)), (1, (7, 6)), (0, (12, 11)), (1, (20, 19)), (1, (4, 3))])
def test_half_an_example_is_a_win_or_a_loss_whichever_way_the_means_are_rounded(
    seed: int, rights: tuple[int, int]
) -> None:
    # With two seeds one more right answer is half an example exactly; 0.35 - 0.325 is above 0.025, 0.45 - 0.425 below.
    rows = [record("a", method, one, 8) for one in (0, 1) for method in "xy"]
    kept = [row for row in rows if row["seed"] != seed]
    changed = [record("a", method, seed, right) for method, right in zip("xy", rights, strict=True)]
    pair, back = (compare(table([*kept, *changed]), *both) for both in ("xy", "yx"))
    assert pair is not None
    assert back is not None
    assert (pair.wins, pair.ties) == (1, 0)
    assert (back.losses, back.ties) == (1, 0)


def test_one_task_proves_little() -> None:
    pair = compare(table([record("a", "x", 0, 20), record("a", "y", 0, 0)]), "x", "y")
    assert pair is not None
    assert pair.win_rate == 1
    assert pair.interval.low < 0.25
    assert pair.interval.high == 1


@pytest.mark.parametrize("outcomes", [[1], [0, 0, 0], [1, 1, 0, 1, 0]])
def test_the_interval_of_the_win_rate_is_wilsons(outcomes: list[int]) -> None:
    expected, found = proportion_interval(outcomes), wilson(sum(outcomes), len(outcomes))
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert wilson(0.5, 1).low == pytest.approx(1 - wilson(0.5, 1).high)


def test_equal_seeds_still_have_the_uncertainty_of_their_test_inputs() -> None:
    assert "| 0.500 ± 0.000" not in report([record("a", "ape", seed, 10) for seed in (0, 1, 2)])


def test_other_test_sizes_data_and_versions_are_other_conditions() -> None:
    rows = [record("a", "ape", 0, right) for right in (3, 4, 5, 6)]
    rows[1]["most_test"] = 10
    rows[2]["data_sha256"] = "changed"
    rows[3]["versions"] = {"mop": "1"}
    text = report(rows)
    assert text.count("\n## ") == 4
    assert "test 10" in text
    assert ", data changed" in text
    for score in ("0.150", "0.200", "0.250", "0.300"):
        assert f"| {score} [" in text


def test_two_results_of_one_cell_are_refused() -> None:
    with pytest.raises(DataError, match="two results of ape on a under seed 0"):
        report([record("a", "ape", 0, 3), record("a", "ape", 0, 4)])


def failure(task: str, method: str, seed: int) -> dict[str, Any]:
    kept = ("cell", "task", "method", "seed", "options", "metric", "data_sha256", "most_test", "versions")
    whole = record(task, method, seed, 0)
    return {**{name: whole[name] for name in kept}, "failed": {"type": "ZeroDivisionError", "message": "a | b"}}


def test_of_a_cell_that_was_run_in_two_eras_the_newest_counts_beside_the_methods_of_other_eras() -> None:
    other = record("a", "ape", 0, 8) | {"era": 7}
    old, new = record("a", "mop", 0, 4) | {"era": 7}, record("a", "mop", 0, 12) | {"era": 8, "cell": "other"}
    text = report([old, new, other, record("b", "mop", 0, 4) | {"era": 7}, record("b", "ape", 0, 8) | {"era": 7}])
    assert text.count("\n## ") == 1
    assert "| a | exact_match | 20 | 0.600 [" in text
    assert "0.200 [" in text, "task b has the older result alone"
    assert "Of an earlier state of the method: mop (b)." in text
    variant = record("a", "mop", 0, 4, experts=4) | {"era": 7, "cell": "variant"}
    assert "Of an earlier state of the method: mop (experts=4) (a)." in report([new, variant])
    assert table_of([old, new, other], "pairs", of="mop").count("| mop | ape | 1 | 1 | 0 | 0 |") == 1


def test_a_failure_of_an_earlier_era_is_forgotten_and_a_later_one_is_not() -> None:
    finished = record("a", "ape", 0, 8) | {"era": 8}
    assert "failed" not in table_of([finished], "scores", [failure("a", "ape", 0) | {"era": 7}])
    assert "failed" in table_of([finished], "scores", [failure("a", "ape", 0) | {"era": 9}])


def test_failed_cells_are_shown_as_failed_with_their_error() -> None:
    rows = [record("a", "ape", 0, 10), record("a", "mop", 0, 4)]
    text = report(rows, [failure("b", "mop", 0), failure("a", "ape", 1), failure("b", "random-demos", 0)])
    assert "| a | exact_match | 20 | 0.200 [0.08, 0.42] | — | 0.500 [0.30, 0.70] (1 failed) |" in text
    assert "| b | exact_match | — | failed | failed | — |" in text
    assert "| b | mop | 0 | ZeroDivisionError | a \\| b |" in text
    assert "2 cells and 3 failed" in text
    assert report([], [failure("a", "ape", 0)])


def test_a_table_alone_shows_failed_cells_as_the_report_does() -> None:
    rows, failed = [record("a", "mop", 0, 4), record("a", "ape", 0, 3)], [failure("b", "mop", 0)]
    whole = report(rows, failed)
    for kind in ("scores", "failed", "pairs", "methods"):
        alone = table_of(rows, kind, failed)
        assert alone
        assert alone in whole
    assert "failed" in table_of([], "scores", failed)


def test_pairs_say_how_many_tasks_were_left_out() -> None:
    rows = [record("a", "mop", 0, 4), record("a", "ape", 0, 3), record("b", "ape", 0, 3), record("c", "ape", 0, 3)]
    (row,) = [line for line in report(rows, [failure("d", "mop", 0)]).splitlines() if line.startswith("| mop | ape |")]
    assert row.startswith("| mop | ape | 1 |")
    assert row.endswith("| 3 |")


def test_experts_that_fall_back_are_not_counted() -> None:
    row = record("a", "mop", 0, 4)
    row["experts"], row["kept"] = 8, 3
    assert "| 3.0 |" in report([row])


def test_a_method_that_finished_nothing_takes_no_ranks_from_the_others() -> None:
    rows = [record(task, method, 0, right) for task in "ab" for method, right in (("mop", 9), ("ape", 3))]
    text = report(rows, [failure("a", "instructzero", 0), failure("b", "instructzero", 0)])
    assert "| mean of the 2 tasks that all have |  |  | 0.450 | 0.150 | — |" in text
    assert "| mop | 2 | 1.00 |" in text
    assert "| ape | 2 | 2.00 |" in text
    assert "| instructzero | 0 | — |" in text


def test_pairs_have_bootstrap_intervals_over_tasks() -> None:
    results = {"a": (18, 2), "b": (12, 12), "c": (10, 11), "d": (15, 12), "e": (9, 4)}
    both = [
        record(task, method, 0, right)
        for task, pair in results.items()
        for method, right in zip(("mop", "ape"), pair, strict=True)
    ]
    line = next(line for line in table_of(both, "bootstrap").splitlines() if line.startswith("| mop | ape |"))
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[2:4] + cells[5:6] == ["5", "70 %", "+0.230"]
    # Every one of the 5^5 equally likely draws, in place of some of them.
    draws = np.stack(np.meshgrid(*[range(5)] * 5), axis=-1).reshape(-1, 5)
    for cell, values, scale in ((cells[4], (1, 0.5, 0, 1, 1), 100), (cells[6], (0.8, 0, -0.05, 0.15, 0.25), 1)):
        exact = np.quantile(np.array(values)[draws].mean(axis=1), [0.025, 0.975]) * scale
        shown = [float(bound) for bound in cell.strip("[]").split(",")]
        assert shown == pytest.approx(exact, abs=0.03 * scale)
    assert not table_of([row for row in both if row["task"] == "a"], "bootstrap"), "one task has no spread"


def test_differences_on_each_task_have_the_interval_that_makes_wins_sure() -> None:
    results = {"a": {"mop": 18, "ape": 2, "knn": 18}, "b": {"mop": 10, "ape": 11}}
    rows = [record(task, method, 0, right) for task, found in results.items() for method, right in found.items()]
    lines = table_of(rows, "differences", of="ape").splitlines()
    assert lines[0] == "| task | ape − mop | ape − knn |"
    sure = paired_difference(rows[1]["scores"], rows[0]["scores"])
    assert lines[2] == f"| a | -0.80 [{sure.low:+.2f}, {sure.high:+.2f}] | -0.80 [{sure.low:+.2f}, {sure.high:+.2f}] |"
    assert sure.high < 0
    assert lines[3].startswith("| b | +0.05 [-")
    assert lines[3].endswith("] | — |"), "knn was not run on b"
    assert not table_of(rows, "differences"), "it compares one method with the others"


@pytest.mark.parametrize("more", [["--table=differences"], ["--of=mop"], ["--table=scores", "--of=mop"]])
def test_a_table_against_one_method_and_that_method_go_together(
    more: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", "results.jsonl", *more]) != 0
    assert "--of" in capsys.readouterr().err


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
    assert "| 0.600 ± 0.248 (3 seeds) |" in several  # 0.1 / sqrt(3) * 4.303
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


def test_the_pairs_of_one_method_are_shown_from_its_side() -> None:
    rows = [record("a", method, 0, right) for method, right in (("ape", 5), ("mop", 15), ("zero-shot", 10))]
    lines = table_of(rows, "pairs", of="ape").splitlines()[2:]
    assert [line.split(" | ")[:2] for line in lines] == [["| ape", "mop"], ["| ape", "zero-shot"]]
    assert all("| 1 | 0 | 0 | 1 | 0 % |" in line for line in lines), "lost against both"


def test_pairs_of_a_method_without_results_are_refused_with_those_that_have_some() -> None:
    with pytest.raises(DataError, match="method moop; there are some of ape, mop"):
        table_of([record("a", "mop", 0, 15), record("a", "ape", 0, 5)], "pairs", of="moop")


def test_the_interval_of_several_seeds_is_the_same_for_tables_and_pictures() -> None:
    cell = {seed: record("a", "ape", seed, right) for seed, right in enumerate((10, 12, 14))}
    low, high = interval_of(cell)
    assert f"| 0.600 ± {(high - low) / 2:.3f} (3 seeds) |" in report(list(cell.values()))
    assert (low + high) / 2 == pytest.approx(0.6)
    assert interval_of({0: cell[0]}) == (
        proportion_interval(cell[0]["scores"]).low,
        proportion_interval(cell[0]["scores"]).high,
    )
