"""Pictures, quoted tables, figures of a mixture: drawn from small results, as their user has them drawn."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from data_folder import write_task
from fake_endpoint import FakeEndpoint
from simulated import nearest_demo_answer, task
from test_benchmark_report import record

from benchmarks.__main__ import main
from benchmarks.figures import agreement, spearman
from benchmarks.plotting import drawing
from benchmarks.quoting import END, quoted
from benchmarks.results import Results
from mop.artifact import load
from mop.errors import DataError, SettingsError

BOUNDS = {
    "random": 0.25,
    "random_examples": 20,
    "examples": 10,
    "experts": 4,
    "routed": 0.5,
    "any_expert": 0.3,
    "oracle": 0.8,
    "calls": 60,
}


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOP_API_KEY", "key")
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")


@pytest.fixture
def results(tmp_path: Path) -> Path:
    path = tmp_path / "results.jsonl"
    for place, name in enumerate(("a", "b", "c")):
        for method, right in (("mop", 15 + place), ("ape", 10), ("knn", 12)):
            row = record(name, method, 0, right)
            Results(path).add({**row, "bounds": BOUNDS if method == "mop" else None})
    return path


# --- pictures of a report


def test_a_report_has_pictures_and_the_same_results_the_same_bytes(results: Path, tmp_path: Path) -> None:
    for folder in ("one", "two"):
        assert main(["report", str(results), "--out", str(tmp_path / folder)]) == 0
        lines = results.read_text(encoding="utf-8").splitlines(keepends=True)
        results.write_text("".join(reversed(lines)), encoding="utf-8")
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert names == ["accuracy.svg", "report.md", "win-rates.svg"]
    for name in names:
        content = (tmp_path / "one" / name).read_bytes()
        assert content == (tmp_path / "two" / name).read_bytes()
        if name.endswith("svg"):
            assert ElementTree.fromstring(content).tag.endswith("svg")


def test_a_picture_does_not_depend_on_what_was_drawn_before_or_on_the_users_settings(tmp_path: Path) -> None:
    import matplotlib as mpl

    def draw(name: str) -> bytes:
        with drawing(tmp_path / name, 3, 2) as figure:
            figure.subplots().plot([0, 1], [1, 0], "o")
        return (tmp_path / name).read_bytes()

    first = draw("first.svg")
    with mpl.rc_context({"lines.markersize": 40, "svg.fonttype": "none"}):
        assert draw("second.svg") == first
        assert mpl.rcParams["lines.markersize"] == 40
    with pytest.raises(SettingsError, match=r"\.svg or \.png"):
        draw("third.pdf")


def test_conditions_have_pictures_of_their_own_and_one_method_no_pairs(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    Results(path).add(record("a", "mop", 0, 5))
    Results(path).add(record("a", "mop", 0, 5, encoder="tfidf"))
    assert main(["report", str(path), "--out", str(tmp_path / "out"), "--format", "png"]) == 0
    found = sorted(file.name for file in (tmp_path / "out").iterdir())
    assert found == ["accuracy-1.png", "accuracy-2.png", "report.md"]


def test_bounds_of_routing_are_a_table_of_their_own(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(results), "--table", "routing"]) == 0
    head, _, row = capsys.readouterr().out.splitlines()
    assert head == "| method | cells | score | random expert | examples | routed | any expert | oracle |"
    assert row == "| mop | 3 | 0.800 | 0.250 | 10 | 0.500 | 0.300 | 0.800 |"


# --- quoted tables


def test_quoted_tables_are_brought_up_to_date_and_the_rest_of_the_text_stays(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = f"<!-- python -m benchmarks report {results} --table pairs -->"
    text = tmp_path / "README.md"
    text.write_text(f"# Title\n\n{command}\nold\n{END}\n\nfarewell\n", encoding="utf-8")
    assert main(["tables", "--check", str(text)]) == 1
    assert "old" in text.read_text(encoding="utf-8")
    assert main(["tables", str(text)]) == 0
    made = text.read_text(encoding="utf-8")
    assert made.startswith(f"# Title\n\n{command}\n| method | against |")
    assert made.endswith(f"|\n{END}\n\nfarewell\n")
    capsys.readouterr()
    assert main(["report", str(results), "--table", "pairs"]) == 0
    assert capsys.readouterr().out in made
    assert main(["tables", "--check", str(text)]) == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"<!-- python -m benchmarks run --out x -->\n{END}\n", "makes no table"),
        (f"<!-- python -m benchmarks report x --table pairs --out y -->\n{END}\n", "makes no table"),
        ("<!-- python -m benchmarks report x --table pairs -->\n| a |\n", "doesn't end"),
    ],
)
def test_a_text_runs_nothing_but_tables(text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        quoted(text, lambda _: "table\n")


def test_a_quoted_command_that_the_program_does_not_know_is_a_data_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "README.md"
    text.write_text(f"<!-- python -m benchmarks report x --table paris -->\n{END}\n", encoding="utf-8")
    assert main(["tables", str(text)]) == DataError.exit_code
    assert "'report x --table paris' makes no table" in capsys.readouterr().err


def test_a_table_alone_and_a_quoted_one_show_failed_cells(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    some = next(iter(Results(results).read().values()))
    failed = {**some, "cell": "other", "task": "zzz", "failed": {"type": "DataError", "message": "no rows"}}
    copy = tmp_path / "results.jsonl"
    copy.write_bytes(results.read_bytes())
    Results(copy).add_failed({name: failed[name] for name in failed if name not in ("score", "scores", "sizes")})
    assert main(["report", str(copy), "--table", "failed"]) == 0
    assert "| zzz | mop | 0 | DataError | no rows |" in capsys.readouterr().out
    text = tmp_path / "README.md"
    text.write_text(f"<!-- python -m benchmarks report {copy} --table scores -->\n{END}\n", encoding="utf-8")
    assert main(["tables", str(text)]) == 0
    assert "| zzz | exact_match | — | failed |" in text.read_text(encoding="utf-8")


# --- figures of a mixture, as a user has them drawn


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_task(tmp_path_factory.mktemp("data") / "own", "states", task(10))


def moody(messages: list[dict[str, str]]) -> str:
    """Answer well only under some instructions, and under others in some regions."""
    if len(messages) == 1 or messages[0]["role"] != "system":
        return nearest_demo_answer(messages)
    hard = "garden" in messages[-1]["content"]
    even = sum(messages[0]["content"].encode()) % 2 == 0
    return "unknown" if even == hard else nearest_demo_answer(messages)


def test_the_experiments_of_the_paper_are_drawn_from_a_mixture_and_its_task(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with FakeEndpoint(moody) as endpoint:
        shared = ["--data", str(data), "--base-url", endpoint.base_url, "--test", "30"]
        ask = ["--tasks", "states", "--methods", "mop-paper", "--experts", "4", "--budget", "150", "--encoder", "tfidf"]
        where = ["--model", "simulated", "--out", str(tmp_path / "r.jsonl"), "--mixtures", str(tmp_path / "m")]
        assert main(["run", *shared, *ask, *where]) == 0
        (path,) = (tmp_path / "m").iterdir()
        draw = ["figures", str(path), *shared, "--task", "states", "--ledger", str(tmp_path / "l.sqlite")]
        draw += ["--validation", "40"]
        capsys.readouterr()
        assert main([*draw, "--out", str(tmp_path / "one")]) == 0
        served = endpoint.served
        assert main([*draw, "--out", str(tmp_path / "two")]) == 0
        assert endpoint.served == served, "everything came from the ledger"
    assert "warning" not in capsys.readouterr().err
    for name in ("clusters.svg", "experts.svg", "ranks.svg", "figures.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    found = json.loads((tmp_path / "one" / "figures.json").read_text(encoding="utf-8"))
    assert sum(found["clusters"]["test"]) == sum(row["examples"] for row in found["experts"]) == 30
    assert sum(found["clusters"]["demos"]) == load(path).provenance["train"]
    assert abs(sum(row["share"] for row in found["experts"]) - 1) < 1e-9
    assert all(row["accuracy_low"] <= row["accuracy"] <= row["accuracy_high"] for row in found["experts"])
    assert all(row["hit_ratio"] is None or row["hit_ratio"] >= row["accuracy"] for row in found["experts"])
    assert found["ranks"]["ranked_regions"] > 0
    assert -1 <= found["ranks"]["mean_outside"] < found["ranks"]["mean"] <= 1, "one region is apart"


def test_another_split_is_warned_of_and_one_expert_refused(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with FakeEndpoint(nearest_demo_answer) as endpoint:
        shared = ["--data", str(data), "--base-url", endpoint.base_url, "--test", "10"]
        ask = ["--tasks", "states", "--methods", "ape-random", "--budget", "20", "--encoder", "tfidf"]
        where = ["--model", "simulated", "--out", str(tmp_path / "r.jsonl"), "--mixtures", str(tmp_path / "m")]
        assert main(["run", *shared, *ask, *where]) == 0
        (path,) = (tmp_path / "m").iterdir()
        draw = ["figures", str(path), *shared, "--task", "states", "--out", str(tmp_path / "o"), "--seed", "5"]
        assert main([*draw, "--ledger", str(tmp_path / "l.sqlite")]) == DataError.exit_code
    said = capsys.readouterr().err
    assert "learned from another split" in said
    assert "one expert" in said


def test_the_mean_of_few_rank_correlations_has_no_interval() -> None:
    rows = [{"spearman": value, "spearman_outside": None} for value in (0.2, 0.9, 0.5, 0.5, None, 0.9)]
    few, enough = agreement(rows[:5], 0), agreement(rows, 0)
    assert (few["ranked_regions"], few["mean"], few["low"], few["high"]) == (4, pytest.approx(0.525), None, None)
    assert 0.2 < enough["low"] < enough["mean"] < enough["high"] < 0.9
    assert enough["mean_outside"] is None


def test_ranks_agree_disagree_or_are_none() -> None:
    rising = np.array([0.1, 0.2, 0.9])
    assert spearman(rising, rising**2) == pytest.approx(1)
    assert spearman(rising, -rising) == pytest.approx(-1)
    assert spearman(rising, np.zeros(3)) is None
