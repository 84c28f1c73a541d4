"""What another state of a method did: counted by hand on small results."""

from __future__ import annotations

import json
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
    ((task, method, before, after, difference, better, worse),) = rows(changes(old, new))
    assert (task, method, before, after, better, worse) == ("a", "mop", "0.50", "0.60", "3", "1")
    assert difference.startswith("+0.10 [")


def test_a_run_that_ended_alike_is_shown_too() -> None:
    old = record("a", "mop", 0, 10)
    assert rows(changes([old], [again(old)]))[0][2:4] == ["0.50", "0.50"]


def test_a_newer_version_of_mop_is_a_change_and_another_budget_is_none() -> None:
    old = record("a", "mop", 0, 10)
    assert len(rows(changes([old], [{**again(old, 3), "versions": {"mop": "1"}}]))) == 1
    with pytest.raises(DataError, match="nothing to compare"):
        changes([old], [again(record("a", "mop", 0, 10, budget=99), 3)])


def test_results_from_other_examples_are_refused() -> None:
    old = record("a", "mop", 0, 10)
    other = {**again(old), "splits_sha256": {"learn": "other", "test": "a0"}}
    with pytest.raises(DataError, match="after and before learned from different examples of a, seed 0"):
        changes([old], [other])


def test_conditions_have_tables_of_their_own() -> None:
    old = [record("a", "mop", 0, 10), record("a", "mop", 0, 10, budget=99)]
    text = changes(old, [again(one, 0) for one in old])
    assert text.startswith("budget 60, model m, test 20, mop of any version:\n\n")
    assert "\n\nbudget 99, model m" in text


def test_the_command_reads_two_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = record("a", "mop", 0, 10)
    for name, one in (("old", old), ("new", again(old, 0))):
        (tmp_path / name).write_text(json.dumps(one) + "\n", encoding="utf-8")
    assert main(["changes", str(tmp_path / "old"), str(tmp_path / "new")]) == 0
    assert "| a | mop | 0.50 | 0.45 | -0.05 [" in capsys.readouterr().out
    assert main(["changes", str(tmp_path / "old"), str(tmp_path / "none")]) == DataError.exit_code
    assert "There are no results in" in capsys.readouterr().err
