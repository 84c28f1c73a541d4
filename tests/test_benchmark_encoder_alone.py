"""The opponent without a language model: the real encoder on a task that it can do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from data_folder import write_task

from benchmarks.encoder_alone import main
from benchmarks.splitting import sizes_of, split_task, splits_hash
from benchmarks.tasks import load_task
from mop.errors import DataError
from mop.examples import Example
from mop.provenance import data_hash

PETS = ("cat", "dog", "horse", "rabbit", "goldfish", "parrot")
PLACES = ("kitchen", "garden", "office", "harbour", "library", "station")
TOOLS = ("hammer", "saw", "drill", "spanner", "chisel", "screwdriver")


def examples() -> list[Example]:
    kinds = {"animal": PETS, "place": PLACES, "tool": TOOLS}
    said = ("I saw a {} there", "tell me about the {}", "the {} of my uncle", "a {} again", "what a {}", "no {} today")
    return [Example(one.format(word), (kind,)) for kind, words in kinds.items() for word in words for one in said]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_task(tmp_path / "own", "kinds", examples())


def table(capsys: pytest.CaptureFixture[str]) -> list[str]:
    (row,) = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()[2:]]
    return row


def test_both_ways_classify_what_the_encoder_tells_apart(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--data", str(data), "--test", "30"]) == 0
    task, size, *ways = table(capsys)
    assert (task, size, ways[3:]) == ("own/kinds", "30", ["—"] * 4)
    assert all(float(way.split()[0]) > 0.7 for way in ways[:3])


def test_a_cell_of_mop_is_compared_on_the_same_test_only(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loaded = load_task(data, "own/kinds")
    splits = split_task(loaded, 0, sizes_of(loaded, 30))
    cell = {"cell": "c", "task": "own/kinds", "method": "mop", "seed": 0, "options": {}, "era": 1, "finished": "1"}
    cell |= {"versions": {"mop": "0"}, "scores": [0.0] * len(splits.test)}
    cell |= {"splits_sha256": {"learn": data_hash(splits), "test": splits_hash(splits.test)}}
    grid = tmp_path / "grid.jsonl"
    other = {**cell, "cell": "d", "era": 2, "splits_sha256": {**cell["splits_sha256"], "learn": "other"}}
    grid.write_text(json.dumps(cell) + "\n" + json.dumps(other) + "\n", encoding="utf-8")
    assert main(["--data", str(data), "--test", "30", "--grid", str(grid)]) == 0
    _, _, nearest, _, _, mop, minus_nearest, *_ = table(capsys)
    assert mop.startswith("0.00 [")
    assert minus_nearest.startswith(f"-{nearest.split()[0]} [")
    assert main(["--data", str(data), "--test", "20", "--grid", str(grid)]) == 0
    assert table(capsys)[5:] == ["—"] * 4


def test_cells_of_several_conditions_are_refused(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loaded = load_task(data, "own/kinds")
    splits = split_task(loaded, 0, sizes_of(loaded, 30))
    cell = {"task": "own/kinds", "method": "mop", "seed": 0, "versions": {"mop": "0"}, "era": 1, "finished": "1"}
    cell |= {"splits_sha256": {"learn": data_hash(splits), "test": splits_hash(splits.test)}}
    grid = tmp_path / "grid.jsonl"
    lines = [json.dumps({**cell, "cell": str(calls), "options": {"budget": calls}}) for calls in (200, 600)]
    grid.write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert main(["--data", str(data), "--test", "30", "--grid", str(grid)]) == DataError.exit_code
    assert "several conditions: budget 200, mop 0; budget 600, mop 0" in capsys.readouterr().err


def test_a_task_without_labels_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [Example(str(number), (str(number + 1),)) for number in range(60)]
    assert main(["--data", str(write_task(tmp_path / "own", "next", rows))]) == DataError.exit_code
    assert "no labels" in capsys.readouterr().err
