"""What another state of a method did: counted by hand on small results."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from test_benchmark_report import record

from benchmarks.__main__ import main
from benchmarks.changes import changes
from mop.errors import DataError

Record = dict[str, Any]


def again(one: Record, *wrong: int, right: tuple[int, ...] = ()) -> Record:
    """Return the record of the same cell, run in a later era of the method, with some other answers."""
    scores = [0.0 if place in wrong else 1.0 if place in right else old for place, old in enumerate(one["scores"])]
    return {**one, "cell": one["cell"] + " anew", "era": 9, "scores": scores, "score": sum(scores) / len(scores)}


def rows(text: str) -> list[list[str]]:
    return [line.strip("| ").split(" | ") for line in text.splitlines()[2:]]


def test_only_what_was_run_anew_is_compared_and_on_the_same_inputs() -> None:
    old = [record("a", "mop", 0, 10), record("a", "ape", 0, 10), record("b", "mop", 0, 5), record("c", "mop", 0, 5)]
    new = [again(old[0], 0, right=(17, 18, 19)), old[1], old[2], record("d", "mop", 0, 5)]
    ((task, method, seeds, era, before, after, difference, better, worse),) = rows(changes(old, new))
    assert (task, method, seeds, era) == ("a", "mop", "0", "— → 9")
    assert (before, after, better, worse) == ("0.50", "0.60", "3", "1")
    assert difference.startswith("+0.10 [")


def test_a_seed_that_was_not_run_anew_takes_no_part() -> None:
    old = [record("a", "mop", seed, 10) for seed in range(3)]
    (row,) = rows(changes(old, [old[0], again(old[1], 0, 1, 2, 3), old[2]]))
    alone = rows(changes([old[1]], [again(old[1], 0, 1, 2, 3)]))[0]
    assert row == alone
    assert row[2] == "1"


def test_rows_stand_in_the_order_of_tasks_and_methods_whatever_that_of_the_files() -> None:
    old = [record(task, method, 0, 10) for task in "ba" for method in ("ape", "mop")]
    new = [again(one, 0) for one in old]
    assert changes(old, new) == changes(old[::-1], new[::-1])
    assert [row[:2] for row in rows(changes(old, new))] == [["a", "mop"], ["a", "ape"], ["b", "mop"], ["b", "ape"]]


def test_a_run_that_ended_alike_is_shown_too() -> None:
    old = record("a", "mop", 0, 10)
    assert rows(changes([old], [again(old)]))[0][4:6] == ["0.50", "0.50"]


def test_a_newer_version_of_mop_is_a_change_and_another_budget_is_none() -> None:
    old = record("a", "mop", 0, 10)
    newer = {**again(old, 3), "era": 8, "versions": {"mop": "1"}}
    assert rows(changes([{**old, "era": 8}], [newer]))[0][3] == "8 (mop 0) → 8 (mop 1)"
    with pytest.raises(DataError, match="nothing to compare"):
        changes([old], [again(record("a", "mop", 0, 10, budget=99), 3)])


def test_of_several_states_in_one_file_the_newest_counts() -> None:
    old = record("a", "mop", 0, 10)
    newer = {**again(old, 0), "versions": {"mop": "1"}, "era": 2, "finished": "2026-02-01"}
    newest = {**again(old, 0, 1), "cell": "c", "versions": {"mop": "2"}, "era": 2, "finished": "2026-03-01"}
    for after in ([old, newer, newest], [newest, newer, old]):
        assert rows(changes([old], after))[0][5] == "0.40"


def test_a_cell_that_fails_now_is_shown_as_failed() -> None:
    old = {**record("a", "mop", 0, 10), "era": 1}
    lacking = ("score", "scores", "sizes", "splits_sha256", "test_inputs")
    failed = {name: value for name, value in old.items() if name not in lacking}
    failed |= {"cell": "another", "era": 2, "failed": {"type": "DataError", "message": "no rows"}}
    for after in ([failed], [old, failed]):
        assert rows(changes([old], after)) == [["a", "mop", "0", "1 → 2", "0.50", "failed", "—", "—", "—"]]
    assert rows(changes([old, failed], [again(old)]))[0][4:6] == ["failed", "0.50"]


def test_results_from_other_examples_are_named_and_the_others_compared() -> None:
    old = [record("a", "mop", 0, 10), record("b", "mop", 0, 10)]
    other = {**again(old[0]), "splits_sha256": {"learn": "other", "test": "a0"}, "data_sha256": "newer"}
    text = changes(old, [other, again(old[1])])
    assert [row[0] for row in rows(text.split("\n\n")[0])] == ["b"]
    assert text.endswith("Not compared, because the examples are other ones: a mop seed 0.\n")


def test_files_that_name_no_inputs_are_compared_by_their_order() -> None:
    old = record("a", "mop", 0, 10)
    nameless = {name: value for name, value in old.items() if name != "test_inputs"}
    assert rows(changes([nameless], [again(old, 0, 1)]))[0][7:] == ["0", "2"]


def test_conditions_have_tables_of_their_own() -> None:
    old = [record("a", "mop", 0, 10), record("a", "mop", 0, 10, budget=99)]
    text = changes(old, [again(one, 0) for one in old])
    assert text.startswith("budget 60, model m, test 20:\n\n")
    assert "\n\nbudget 99, model m" in text
    assert changes(old, [again(old[0], 0), old[1]]).startswith("budget 60"), "although the other has no table"


def test_the_command_reads_two_files_also_from_pipes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = record("a", "mop", 0, 10)
    (tmp_path / "new").write_text(json.dumps(again(old, 0)) + "\n", encoding="utf-8")
    read, write = os.pipe()
    with os.fdopen(write, "w", encoding="utf-8") as pipe:
        pipe.write(json.dumps(old) + "\n")
    assert main(["changes", f"/dev/fd/{read}", str(tmp_path / "new")]) == 0
    os.close(read)
    assert "| a | mop | 0 | — → 9 | 0.50 | 0.45 | -0.05 [" in capsys.readouterr().out
    assert main(["changes", str(tmp_path / "new"), str(tmp_path / "none")]) == DataError.exit_code
    assert "There are no results in" in capsys.readouterr().err
