"""Tasks: the public benchmarks, read from a data folder (layout: benchmarks/README.md). Knows nothing of methods.

>>> metric_for("exact_match on the option letter", "reasoning", ["A"])
'multiple_choice'
"""

from __future__ import annotations

import difflib
import fnmatch
import gzip
import hashlib
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mop.data import read_examples
from mop.errors import DataError, SettingsError
from mop.examples import Example
from mop.metrics import CODE, JUDGED, METRICS
from mop.metrics.python_tests import Tests

INDEX = "tasks.json"
#: First words of a metric's description in tasks.json, and the metric of mop that follows that definition.
METRIC_NAMES = {
    "exact_match": "exact_match",
    "accuracy": "exact_match",
    "f1": "token_f1",
    "contains": "contains",
    "exact_set": "exact_set",
    "rougeL": "rouge_l",
    "number_match": "numeric",
    "pass@1": CODE,
    **{name: name for name in (*METRICS, "checks", "checks:all", *JUDGED)},
}
_ROLE = re.compile(r"\.(train|dev|valid|validation|test)\.")
_OPTION = re.compile(r"\([A-Z]\)")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


@dataclass(frozen=True)
class Row:
    """An example, the group of rows that a split must not tear apart, and what else the file has.

    That is the worked solution of a word problem, or the tests of a program.
    """

    example: Example
    group: str
    solution: str = ""
    tests: Tests | None = None


@dataclass(frozen=True)
class Task:
    """One task of a benchmark: its metric, and its rows by role.

    ``pool`` is what demos and validation examples come from. ``test`` is empty where the benchmark has no test file of
    its own, and a part of the pool is set apart instead.
    """

    benchmark: str
    name: str
    metric: str
    pool: tuple[Row, ...]
    test: tuple[Row, ...]
    sha256: str

    @property
    def id(self) -> str:
        """Benchmark and name; unique in a data folder."""
        return f"{self.benchmark}/{self.name}"


def task_ids(data: Path) -> dict[str, Path]:
    """Return the folder of each task (``benchmark/name``) under ``data``, sorted by name.

    ``data`` holds a folder for each benchmark, or is the folder of one. Raises DataError if it is neither.
    """
    if not data.is_dir():
        raise DataError(f"There is no data folder {data}. Its layout is described in benchmarks/README.md.")
    folders = [data] if (data / INDEX).is_file() else sorted(path.parent for path in data.glob(f"*/{INDEX}"))
    # The name that was given: a link may lead to a folder of any name.
    names = {folder: Path(os.path.abspath(folder)).name for folder in folders}
    found = {f"{names[folder]}/{name}": folder for folder in folders for name in read_index(folder)}
    if not found:
        raise DataError(f"No {INDEX} in {data} or in a folder of it; the layout is described in benchmarks/README.md.")
    return dict(sorted(found.items()))


def choose_tasks(data: Path, patterns: Sequence[str]) -> list[str]:
    """Return the ids of the tasks that ``patterns`` name, in the order of the patterns, each once.

    A pattern is a task's name or id, with ``*`` and ``?`` if several are meant: ``antonyms``, ``bbh/*``.
    Raises SettingsError for a pattern without tasks and for a name that several benchmarks have.
    """
    known = task_ids(data)
    chosen: dict[str, None] = {}
    for pattern in patterns:
        names = {one: one if "/" in pattern else one.split("/", 1)[1] for one in known}
        found = [one for one, name in names.items() if fnmatch.fnmatchcase(name, pattern)]
        if not found:
            close = difflib.get_close_matches(pattern.lower(), names.values(), n=1)
            some = f"Did you mean {close[0]}?" if close else f"There are {len(known)}: {', '.join(list(known)[:8])}, …"
            raise SettingsError(f"No task in {data} is called {pattern!r}. {some}")
        if len(found) > 1 and not re.search(r"[*?[]", pattern):
            raise SettingsError(f"{pattern!r} is in several benchmarks ({', '.join(found)}); name one in full.")
        chosen.update(dict.fromkeys(found))
    return list(chosen)


def read_index(folder: Path) -> dict[str, Any]:
    """Return what a benchmark's tasks.json says of each task. Raises DataError if it can't be read."""
    path = folder / INDEX
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}); it must be a JSON object of tasks.") from error
    if not isinstance(index, dict) or not all(
        isinstance(entry, dict) and isinstance(entry.get("files"), dict) and entry["files"] for entry in index.values()
    ):
        raise DataError(f'{path} must hold an object for each task, with "files" and "metric".')
    return index


def load_task(data: Path, task_id: str) -> Task:
    """Read one task. Raises DataError for rows that can't be used and SettingsError for a metric that isn't there."""
    folder = task_ids(data).get(task_id)
    if folder is None:
        raise SettingsError(f"There is no task {task_id} in {data}.")
    benchmark, _, name = task_id.partition("/")
    entry = read_index(folder)[name]
    by_role: dict[str, list[Row]] = {}
    digest = hashlib.sha256()
    for file in sorted(entry["files"]):
        found = _ROLE.search(file)
        role = "" if found is None else found[1]
        rows, content = _read(folder / file)
        by_role.setdefault({"valid": "dev", "validation": "dev"}.get(role, role), []).extend(rows)
        digest.update(f"{file}\0".encode() + hashlib.sha256(content).digest())
    pool = by_role.get("train") or by_role.get("dev") or by_role.get("")
    if not pool:
        raise DataError(f"{task_id} has test files only, and so nothing to learn from.")
    outputs = [output for row in pool for output in row.example.outputs[:1]]
    metric = metric_for(str(entry.get("metric", "")), benchmark, outputs)
    if metric == "numeric":
        pool = [_with_solution(row) for row in pool]
    if metric == CODE:
        pool = [_with_tests(row, task_id) for row in pool]
        by_role["test"] = [_with_tests(row, task_id) for row in by_role.get("test", ())]
    return Task(benchmark, name, metric, tuple(pool), tuple(by_role.get("test", ())), digest.hexdigest())


def metric_for(described: str, benchmark: str, outputs: Sequence[str]) -> str:
    """Return the metric of mop that follows a benchmark's definition of its own.

    BIG-Bench Hard extracts answers by type before it compares them: options, numbers, anything else. A task is of the
    type that nine in ten of its answers have; some targets of the benchmark have slips.
    """
    first = described.split(maxsplit=1)[0] if described.strip() else ""
    if "option letter" in described:
        return "multiple_choice"
    metric = METRIC_NAMES.get(first)
    if metric is None:
        raise SettingsError(
            f"The metric {described!r} is none that the grid knows; it runs tasks whose metric begins with one of "
            f"{', '.join(METRIC_NAMES)}."
        )
    if benchmark == "bbh" and metric == "exact_match":
        for shape, kind in ((_OPTION, "multiple_choice"), (_NUMBER, "numeric")):
            if sum(shape.fullmatch(output) is not None for output in outputs) >= 0.9 * len(outputs):
                return kind
    return metric


def _read(path: Path) -> tuple[list[Row], bytes]:
    examples = read_examples(path)
    raw = path.read_bytes()
    content = gzip.decompress(raw) if raw.startswith(b"\x1f\x8b") else raw
    try:
        records = [json.loads(line) for line in content.decode("utf-8-sig").split("\n") if line.strip()]
    except ValueError as error:
        raise DataError(f"{path} must hold JSON lines, plain or gzipped ({error}).") from error
    rows = []
    for number, (example, record) in enumerate(zip(examples, records, strict=True)):
        meta = record.get("meta") or {}
        if not isinstance(meta, dict):
            raise DataError(f'{path}, row {number + 1}: "meta" must be an object, such as {{"id": 17}}.')
        group = f"{path.name}:{meta.get('id', f'row {number}')}"
        rows.append(Row(example, group, str(meta.get("solution", "")).strip(), _tests_in(meta, example.input)))
    return rows, content


def _tests_in(meta: dict[str, Any], text: str) -> Tests | None:
    """Return a row's tests: HumanEval's (the reply goes on with the input) or MBPP's (a list of assertions)."""
    if "test" in meta and "entry_point" in meta:
        return Tests(text, str(meta["entry_point"]), str(meta["test"]))
    if isinstance(meta.get("test_list"), list):
        setup = str(meta.get("test_setup_code") or "")
        return Tests("", "", "\n".join([setup, *map(str, meta["test_list"])]))
    return None


def _with_tests(row: Row, task_id: str) -> Row:
    """Put the tests last among the accepted outputs, where the metric looks for them."""
    if row.tests is None:
        raise DataError(f"{task_id} is scored by tests, but {row.group} has none (meta.test and meta.entry_point).")
    example = row.example
    return Row(Example(example.input, (*example.outputs, row.tests.to_output())), row.group)


def _with_solution(row: Row) -> Row:
    """Put the worked solution first, so that demos show it and answers get room for one of their own."""
    if not row.solution:
        return row
    example = row.example
    worked = f"{row.solution}\n#### {example.output}"
    return Row(Example(example.input, (worked, *example.outputs)), row.group)
