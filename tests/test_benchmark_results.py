"""The result file: lines that are whole, half, or damaged."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from test_benchmark_report import record

from benchmarks.__main__ import main
from benchmarks.progress import progress
from benchmarks.results import Results
from mop.errors import DataError


def test_half_a_line_is_cut_off_and_a_cell_is_written_once(tmp_path: Path) -> None:
    results = Results(tmp_path / "deep" / "results.jsonl")
    results.add({"cell": "a", "score": 1})
    with results.path.open("ab") as file:
        file.write(b'{"cell": "b", "sco')
    assert list(results.read()) == ["a"]
    results.add({"cell": "c", "score": 0})
    results.add({"cell": "a", "score": 0.5})
    assert [json.loads(line) for line in results.path.read_text().splitlines()] == [
        {"cell": "a", "score": 1},
        {"cell": "c", "score": 0},
    ]


def test_a_whole_line_without_its_newline_is_a_result_too(tmp_path: Path) -> None:
    results = Results(tmp_path / "results.jsonl")
    results.path.write_text('{"cell": "a", "score": 1}\n{"cell": "b", "score": 0}', encoding="utf-8")
    assert list(results.read()) == ["a", "b"]
    results.add({"cell": "c", "score": 1})
    assert list(results.read()) == ["a", "b", "c"]


def test_a_damaged_line_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "results.jsonl"
    path.write_text('{"cell": "a"}\n{"cell"\n', encoding="utf-8")
    with pytest.raises(DataError, match="line 2 is no result"):
        Results(path).read()
    assert main(["report", str(path)]) == DataError.exit_code
    assert "line 2" in capsys.readouterr().err
    path.write_text('{"cell": "a", "task": "b"}\n', encoding="utf-8")
    assert main(["report", str(path)]) == DataError.exit_code
    assert "cell a has no method and no seed" in capsys.readouterr().err


def test_a_report_of_several_files_is_that_of_all_their_cells(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [record("a", "mop", 0, 8), record("a", "knn", 0, 4), record("b", "mop", 0, 6)]
    for path, kept in (("all", rows), ("one", rows[:2]), ("two", rows[1:])):
        for row in kept:
            Results(tmp_path / path).add(row)
    failed = {key: value for key, value in rows[2].items() if key not in ("score", "scores")}
    Results(tmp_path / "one").add_failed({**failed, "failed": {"type": "ModelError", "message": "gone"}})
    assert main(["report", str(tmp_path / "all")]) == 0
    together = capsys.readouterr().out
    assert main(["report", str(tmp_path / "one"), str(tmp_path / "two")]) == 0
    assert capsys.readouterr().out == together
    assert main(["report", str(tmp_path / "one"), str(tmp_path / "none")]) == DataError.exit_code
    assert "none" in capsys.readouterr().err


def test_a_report_of_nothing_says_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path / "none.jsonl")]) == DataError.exit_code
    assert "benchmarks run" in capsys.readouterr().err


def test_a_grid_that_finishes_nothing_for_long_says_that_it_is_at_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.progress.SILENCE", 0.01)
    row = {**record("a", "mop", 0, 8), "cell": "one"}
    results = Results(tmp_path / "results.jsonl")
    with progress(results, {"one", "two"}):
        time.sleep(1.2)
        results.add({**row, "search": {"calls": 40, "seconds": 1}, "test": {"calls": 10, "seconds": 1}})
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "2 cells, 0 of them finished before."
    assert said[1].startswith("[0/2] at work for 0 min")
    assert [line for line in said if line.startswith("[1/2] a seed 0 mop:") and line.endswith("left)")]
