"""Tasks from a data folder, and the paper's splits of them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.grid import plan_cells
from benchmarks.splitting import PAPER, SIZES, Sizes, sizes_of, split_task
from benchmarks.tasks import choose_tasks, load_task, metric_for, task_ids
from mop.errors import DataError, SettingsError
from mop.metrics import get_metric

Rows = list[dict[str, Any]]


def rows(count: int, kind: str = "row") -> Rows:
    return [{"input": f"{kind} {n}", "output": [str(n)], "meta": {"id": f"{kind}{n}"}} for n in range(count)]


def write(folder: Path, files: dict[str, Rows], metric: str = "exact_match", task: str = "task") -> Path:
    """Write one task into a benchmark's folder, and return the data folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in content).encode()
        (folder / name).write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    index = folder / "tasks.json"
    known = json.loads(index.read_text()) if index.exists() else {}
    known[task] = {"files": {name: len(content) for name, content in files.items()}, "metric": metric}
    index.write_text(json.dumps(known))
    return folder.parent


def sizes(data: Path, benchmark: str, seed: int = 0) -> tuple[int, int, int]:
    task = load_task(data, f"{benchmark}/task")
    splits = split_task(task, seed, sizes_of(task))
    return len(splits.train), len(splits.validation), len(splits.test)


# --- the paper's sizes


def test_a_benchmark_with_train_and_test_files_has_100_demos_400_validation_and_100_test_examples(
    tmp_path: Path,
) -> None:
    files = {"task.train.jsonl.gz": rows(1000, "train"), "task.test.jsonl": rows(120, "test")}
    data = write(tmp_path / "instruction_induction", files)
    assert sizes(data, "instruction_induction") == (100, 400, 100)


@pytest.mark.parametrize(
    ("train", "test", "expected"), [(163, 100, (81, 82, 100)), (26, 25, (13, 13, 25)), (15, 15, (7, 8, 15))]
)
def test_small_tasks_are_halved(train: int, test: int, expected: tuple[int, int, int], tmp_path: Path) -> None:
    files = {"task.train.jsonl": rows(train, "train"), "task.test.jsonl": rows(test, "test")}
    assert sizes(write(tmp_path / "instruction_induction", files), "instruction_induction") == expected


@pytest.mark.parametrize(("count", "expected"), [(250, (20, 63, 100)), (187, (20, 47, 94)), (178, (20, 45, 89))])
def test_big_bench_hard_shows_twenty_demos(count: int, expected: tuple[int, int, int], tmp_path: Path) -> None:
    assert sizes(write(tmp_path / "bbh", {"task.jsonl.gz": rows(count)}), "bbh") == expected


def test_a_task_of_one_file_is_halved_into_training_and_test_first(tmp_path: Path) -> None:
    assert sizes(write(tmp_path / "superni", {"task.jsonl": rows(500)}), "superni") == (100, 150, 100)


def test_sets_with_many_answers_have_more_demos(tmp_path: Path) -> None:
    files = {"task.train.jsonl": rows(2000, "train"), "task.test.jsonl": rows(900, "test")}
    assert sizes(write(tmp_path / "classification", files), "classification") == (450, 150, 100)


# --- what a split promises


def test_every_seed_has_a_split_of_its_own(tmp_path: Path) -> None:
    # In the released code all seeds share one.
    data = write(tmp_path / "superni", {"task.jsonl": rows(500)})
    task = load_task(data, "superni/task")
    one, again, other = (split_task(task, seed, PAPER) for seed in (0, 0, 1))
    assert one == again
    for role in ("train", "validation", "test"):
        assert set(getattr(one, role)) != set(getattr(other, role))


def test_no_input_is_in_two_splits_whatever_the_files_repeat(tmp_path: Path) -> None:
    train = [*rows(300, "train"), *rows(40, "test"), *rows(200, "train")]
    files = {"task.train.jsonl": train, "task.test.jsonl": rows(60, "test")}
    task = load_task(write(tmp_path / "own", files), "own/task")
    splits = split_task(task, 0, Sizes(test=20))
    inputs = [example.input for part in (splits.train, splits.validation, splits.test) for example in part]
    assert len(inputs) == len(set(inputs))
    learned = {example.input for part in (splits.train, splits.validation) for example in part}
    assert not any(text.startswith("test") for text in learned), "a smaller test makes no training rows of test rows"


def test_rows_of_one_group_stay_together(tmp_path: Path) -> None:
    pairs = [
        {"input": f"{order} {n}", "output": ["x"], "meta": {"id": str(n)}}
        for n in range(26)
        for order in ("first", "second")
    ]
    files = {"task.train.jsonl": pairs, "task.test.jsonl": rows(30, "test")}
    task = load_task(write(tmp_path / "own", files), "own/task")
    for seed in range(5):
        splits = split_task(task, seed, Sizes(train=13))
        shown, judged = ({one.input.split()[1] for one in part} for part in (splits.train, splits.validation))
        assert not shown & judged


def test_a_task_that_is_too_small_says_so(tmp_path: Path) -> None:
    task = load_task(write(tmp_path / "own", {"task.jsonl": rows(3)}), "own/task")
    with pytest.raises(DataError, match="own/task has 3 rows"):
        split_task(task, 0, PAPER)


def test_the_sizes_are_those_of_the_paper() -> None:
    assert (PAPER.train, PAPER.validation, PAPER.test, PAPER.cut) == (100, 400, 100, None)
    assert SIZES["bbh"] == Sizes(cut=20)


# --- reading


def test_a_dev_file_is_training_data_only_where_there_is_no_other(tmp_path: Path) -> None:
    files = {"task.dev.jsonl": rows(9, "dev"), "task.test.jsonl": rows(9, "test")}
    data = write(tmp_path / "own", files)
    assert {row.example.input for row in load_task(data, "own/task").pool} == {f"dev {n}" for n in range(9)}
    data = write(tmp_path / "own", {**files, "task.train.jsonl": rows(5, "train")})
    assert len(load_task(data, "own/task").pool) == 5


def test_a_line_separator_inside_a_text_ends_no_row(tmp_path: Path) -> None:
    data = write(tmp_path / "own", {"task.jsonl": [{"input": f"a\u2028{n}", "output": ["b"]} for n in range(12)]})
    assert len(load_task(data, "own/task").pool) == 12


def test_demos_of_word_problems_show_the_worked_solution_and_tests_ask_for_the_number(tmp_path: Path) -> None:
    solved = [{"input": f"{n} + 1?", "output": [str(n + 1)], "meta": {"solution": "Add.\nOne more."}} for n in range(9)]
    files = {"task.train.jsonl": solved, "task.test.jsonl": solved}
    task = load_task(write(tmp_path / "reasoning", files, "number_match (last number)"), "reasoning/task")
    demo, question = task.pool[3].example, task.test[3].example
    assert demo.outputs == ("Add.\nOne more.\n#### 4", "4")
    assert question.outputs == ("4",)
    metric = get_metric(task.metric)
    assert metric("3 and 1 make\n#### 4", demo.outputs) == metric("it is 4", question.outputs) == 1
    assert metric("4, or rather 5", question.outputs) == 0


def test_the_folder_of_one_benchmark_is_a_data_folder_too(tmp_path: Path) -> None:
    data = write(tmp_path / "own", {"task.jsonl": rows(12)})
    assert list(task_ids(data)) == list(task_ids(data / "own")) == ["own/task"]


def test_a_link_has_the_name_that_selects_the_rules_wherever_it_leads(tmp_path: Path) -> None:
    write(tmp_path / "download-7", {"task.jsonl": rows(250)})
    write(tmp_path / "download-8", {"task.jsonl": rows(250)})
    data = tmp_path / "data"
    data.mkdir()
    (data / "bbh").symlink_to(tmp_path / "download-7")
    (data / "own").symlink_to(tmp_path / "download-8")
    assert list(task_ids(data)) == ["bbh/task", "own/task"]
    assert sizes(data, "bbh") == (20, 63, 100)
    assert list(task_ids(data / "bbh")) == ["bbh/task"]


def test_tasks_are_chosen_by_name_id_or_pattern(tmp_path: Path) -> None:
    for benchmark, task in (("a", "sum"), ("a", "diff"), ("b", "sum")):
        write(tmp_path / benchmark, {f"{task}.jsonl": rows(12)}, task=task)
    assert choose_tasks(tmp_path, ["diff", "b/*", "a/sum"]) == ["a/diff", "b/sum", "a/sum"]
    assert choose_tasks(tmp_path, ["s*"]) == ["a/sum", "b/sum"]
    with pytest.raises(SettingsError, match="several benchmarks"):
        choose_tasks(tmp_path, ["sum"])
    with pytest.raises(SettingsError, match=r"Did you mean b/sum\?"):
        choose_tasks(tmp_path, ["b/summ"])
    with pytest.raises(SettingsError, match="There are 3: a/diff, a/sum, b/sum"):
        choose_tasks(tmp_path, ["antonyms"])


def test_a_grid_refuses_a_task_with_too_few_rows_before_another_one_costs_money(tmp_path: Path) -> None:
    for name, count in (("enough", 40), ("short", 3)):
        data = write(tmp_path / "own", {f"{name}.jsonl": rows(count)}, task=name)
    assert plan_cells(data, ["enough"], ["ape"], [0], {"budget": "40"})
    with pytest.raises(DataError, match="own/short"):
        plan_cells(data, ["enough", "short"], ["ape"], [0], {"budget": "40"})


def test_a_task_of_which_repeated_inputs_leave_too_little_says_what_is_left(tmp_path: Path) -> None:
    files = {"task.train.jsonl": rows(30), "task.test.jsonl": rows(30)}
    task = load_task(write(tmp_path / "own", files), "own/task")
    with pytest.raises(DataError, match=r"30 rows to learn from and 30 to test on.*leaves 0 and 30"):
        split_task(task, 0, PAPER)
    same = [{"input": "same", "output": ["x"]}] * 60
    task = load_task(write(tmp_path / "own", {"same.jsonl": same}, task="same"), "own/same")
    with pytest.raises(DataError, match=r"60 rows.*leaves 0 and 1"):
        split_task(task, 0, PAPER)


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("task.jsonl", '{"input": "a", "output": "b", "meta": "x"}\n', "row 1"),
        ("task.jsonl", '{"input": "a", "output": "b"}\n{"input": "c", "output": "b", "meta": [1]}\n', "row 2"),
        ("task.csv", "input,output\na,b\n", "JSON lines"),
    ],
)
def test_a_file_that_is_no_json_lines_of_examples_is_named(file: str, text: str, message: str, tmp_path: Path) -> None:
    data = write(tmp_path / "own", {file: []})
    (tmp_path / "own" / file).write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=f"{file}.*{message}"):
        load_task(data, "own/task")


@pytest.mark.parametrize("content", ["[1]", '{"task": {"files": {}}}', '{"task": 3}', "{"])
def test_an_index_that_is_none_is_named(content: str, tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "tasks.json").write_text(content)
    with pytest.raises(DataError, match=r"tasks\.json"):
        task_ids(tmp_path)


def test_a_missing_folder_or_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no data folder"):
        task_ids(tmp_path / "nowhere")
    data = write(tmp_path / "own", {"task.jsonl": rows(12)})
    (tmp_path / "own" / "task.jsonl").unlink()
    with pytest.raises(DataError, match=r"task\.jsonl"):
        load_task(data, "own/task")


# --- metrics by the benchmarks' definitions


@pytest.mark.parametrize(
    ("described", "benchmark", "outputs", "expected"),
    [
        ("exact_match", "instruction_induction", ["cold"], "exact_match"),
        ("f1", "instruction_induction", ["a b"], "token_f1"),
        ("contains", "instruction_induction", ["a"], "contains"),
        ("exact_set", "instruction_induction", ["a b"], "exact_set"),
        ("exact_match", "bbh", ["(A)", "(B)"] * 10 + ["Monsters, Inc"], "multiple_choice"),
        ("exact_match", "bbh", ["3", "-17"], "numeric"),
        ("exact_match", "bbh", ["True", "False"], "exact_match"),
        ("rougeL", "superni", ["3"], "rouge_l"),
        ("exact_match (accuracy)", "classification", ["greeting"], "exact_match"),
        ("number_match (last number in the reply)", "reasoning", ["72"], "numeric"),
        ("exact_match on the option letter", "mmlu", ["A"], "multiple_choice"),
        ("numeric", "own", ["72"], "numeric"),
        ("checks", "own", ['{"max_words": 5}'], "checks"),
        ("judge:pairwise (by criteria of style)", "own", ["A reply."], "judge:pairwise"),
    ],
)
def test_the_metric_is_the_benchmarks_own(described: str, benchmark: str, outputs: list[str], expected: str) -> None:
    assert metric_for(described, benchmark, outputs) == expected


def test_a_metric_that_is_not_known_is_refused() -> None:
    for described in ("LLM judge", ""):
        with pytest.raises(SettingsError, match="none that the grid knows"):
            metric_for(described, "own", ["x"])


@pytest.mark.parametrize(
    ("described", "benchmark", "reply", "output", "score"),
    [
        ("rougeL", "superni", "-3", "3", 0),  # the package drops the sign
        ("exact_match", "instruction_induction", "3.5", "3.9", 0),  # the benchmark cuts at the first full stop
        ("exact_match", "bbh", "(b)", "(B)", 1),  # the released code reads (E)
        ("exact_match", "bbh", "(b)", "(E)", 0),
        ("exact_match", "bbh", "", "(A)", 0),
        ("exact_match", "bbh", "(B) because (A) is wrong", "(B)", 1),
    ],
)
def test_known_slips_of_the_metrics_are_not_repeated(
    described: str, benchmark: str, reply: str, output: str, score: int
) -> None:
    metric = get_metric(metric_for(described, benchmark, [output]))
    assert (metric(reply, [output]) == 1) == bool(score)


def test_inputs_that_differ_in_case_or_punctuation_alone_stand_in_one_split(tmp_path: Path) -> None:
    train = rows(60, "row")
    test = [{"input": f"  Row {n}!", "output": [str(n)], "meta": {"id": f"test{n}"}} for n in range(40)]
    data = write(tmp_path / "own", {"task.train.jsonl": train, "task.test.jsonl": test})
    splits = split_task(load_task(data, "own/task"), 0, PAPER)
    learned = {example.input for example in (*splits.train, *splits.validation)}
    assert learned == {f"row {n}" for n in range(40, 60)}
    assert len(splits.test) == 40
