"""Sources: what is asked, from the data folder (benchmarks/README.md), drawn by seed. Knows no arms and no models."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.tasks import load_task, read_index, task_ids
from mop.errors import DataError, SettingsError
from mop.examples import Example
from mop.seeds import stream

#: Characters of a question with options, and of an open question, at most: a small model reads them one by one.
MOST_FACTUAL, MOST_OPEN = 500, 240
#: Inputs of a domain that its identity is written from; they are never asked.
SHOWN = 3
#: Categories of open questions: those that want neither code nor a number.
OPEN = {
    "open_ended/mt_bench": ("writing", "roleplay", "stem", "humanities"),
    "open_ended/dolly": ("general_qa", "brainstorming", "creative_writing"),
}
HARMFUL = "refusal/jailbreakbench"


@dataclass(frozen=True)
class Subject:
    """An MMLU subject: questions that show what it is about, questions to ask, and others kept for the gate."""

    name: str
    shown: tuple[str, ...]
    asked: tuple[Example, ...]
    kept: tuple[Example, ...]

    @property
    def title(self) -> str:
        """Its name in words."""
        return self.name.replace("_", " ")


def subjects(data: Path, names: Sequence[str], count: int, kept: int, seed: int) -> list[Subject]:
    """Return subjects with ``count`` questions each, and ``kept`` others: the same ones whatever the count.

    Raises SettingsError for a subject that isn't there, DataError for one with too few questions.
    """
    known = task_ids(data)
    found = []
    for name in names:
        if f"mmlu/{name}" not in known:
            there = ", ".join(one.removeprefix("mmlu/") for one in known if one.startswith("mmlu/")) or "none"
            raise SettingsError(f"There is no MMLU subject {name!r} in {data}. There are: {there}.")
        rows = [row.example for row in load_task(data, f"mmlu/{name}").pool if len(row.example.input) <= MOST_FACTUAL]
        needed = SHOWN + count + kept
        if len(rows) < needed:
            raise DataError(
                f"{name} has {len(rows)} questions of at most {MOST_FACTUAL} characters; {needed} are needed. "
                "Ask fewer of each subject."
            )
        drawn = [rows[i] for i in stream(seed, "personas", name).permutation(len(rows))]
        shown = tuple(example.input for example in drawn[:SHOWN])
        found.append(Subject(name, shown, tuple(drawn[SHOWN : SHOWN + count]), tuple(drawn[len(drawn) - kept :])))
    return found


def open_questions(data: Path, count: int, kept: int, seed: int) -> tuple[list[str], list[str]]:
    """Return ``count`` open questions, from the sources in turn, and ``kept`` others. Raises DataError for too few."""
    from_each = []
    for task, categories in OPEN.items():
        rows = read_rows(data, task)
        texts = [row["input"] for row in rows if row.get("meta", {}).get("category") in categories]
        texts = list(dict.fromkeys(text for text in texts if len(text) <= MOST_OPEN))
        from_each.append([texts[i] for i in stream(seed, "personas", task).permutation(len(texts))])
    short = min(map(len, from_each))
    # In turn while both last; MT-Bench has few.
    mixed = [one for pair in zip(*from_each, strict=False) for one in pair]
    mixed += [text for texts in from_each for text in texts[short:]]
    if len(mixed) < count + kept:
        raise DataError(f"There are {len(mixed)} short open questions in {data}; {count + kept} are needed.")
    return mixed[:count], mixed[len(mixed) - kept :]


def harmful_requests(data: Path, count: int, seed: int) -> list[str]:
    """Return harmful behaviours. Raises DataError if there are too few."""
    texts = [row["input"] for row in read_rows(data, HARMFUL)]
    if len(texts) < count:
        raise DataError(f"{HARMFUL} has {len(texts)} behaviours in {data}; {count} are needed.")
    return [texts[i] for i in stream(seed, "personas", HARMFUL).permutation(len(texts))[:count]]


def read_rows(data: Path, task: str) -> list[dict[str, Any]]:
    """Return the rows of a task as they stand in its files; those that are to be judged have no accepted outputs.

    Raises SettingsError if there is no such task, DataError for a file that can't be read or a row without input.
    """
    folder = task_ids(data).get(task)
    if folder is None:
        raise SettingsError(f"There is no task {task} in {data}; benchmarks/README.md says how such a folder looks.")
    rows: list[dict[str, Any]] = []
    for file in sorted(read_index(folder)[task.partition("/")[2]]["files"]):
        path = folder / file
        try:
            raw = path.read_bytes()
            text = (gzip.decompress(raw) if raw.startswith(b"\x1f\x8b") else raw).decode("utf-8-sig")
            rows += [json.loads(line) for line in text.split("\n") if line.strip()]
        except (OSError, ValueError) as error:
            raise DataError(f"{path} cannot be read ({error}); it must be JSON lines, plain or gzipped.") from error
    bad = [number for number, row in enumerate(rows, 1) if not (isinstance(row, dict) and _is_text(row.get("input")))]
    if bad:
        raise DataError(f"{task} has rows without an input: number {', '.join(map(str, bad[:5]))}.")
    return rows


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())
