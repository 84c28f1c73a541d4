"""What came out of the gated students: answers of each arm and seed become rates, leaks and paired differences.

Seeds are averaged for each prompt first, so that intervals are over prompts. Knows nothing of models.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from benchmarks.student_tasks import Task, leaks, right
from mop.stats import paired_difference, proportion_interval

Answers = dict[str, list[str]]
#: What is measured on which prompts.
MEASURES: dict[str, tuple[Callable[[Task, str], bool], Callable[[Task], bool]]] = {
    "rule": (right, lambda task: not task.factual),
    "fact": (right, lambda task: task.factual),
    "near fact": (right, lambda task: task.near),
    "leak": (leaks, lambda task: task.factual),
}
#: Differences: name, measure, one arm minus another.
WANTED = (
    ("rule: gated minus persona", "rule", "gated", "persona"),
    ("rule: gated minus bare", "rule", "gated", "bare"),
    ("rule: gated minus region table", "rule", "gated", "region table"),
    ("rule: gated minus shuffled gate", "rule", "gated", "shuffled gate"),
    ("fact: gated minus bare", "fact", "gated", "bare"),
    ("fact: gated minus ungated", "fact", "gated", "ungated"),
    ("fact: gated minus region table", "fact", "gated", "region table"),
    ("fact: gated minus persona", "fact", "gated", "persona"),
    ("fact: ungated minus bare", "fact", "ungated", "bare"),
    ("fact: neutral text minus bare", "fact", "neutral text", "bare"),
    ("leak: ungated minus gated", "leak", "ungated", "gated"),
    ("leak: region table minus gated", "leak", "region table", "gated"),
)


def better(given: Sequence[Task], told: Sequence[str], bare: Sequence[str]) -> list[bool]:
    """Return where the first answer is right and the second isn't."""
    return [right(task, one) and not right(task, two) for task, one, two in zip(given, told, bare, strict=True)]


def table(test: Sequence[Task], prompted: Answers, runs: Sequence[Answers]) -> dict[str, Any]:
    """Return for each arm its rates with intervals, and words of an answer; means over seeds.

    ``rule`` is obeyed on generative prompts; ``fact`` is right, ``near fact`` of those that are about what personas are
    asked about; ``leak`` are factual answers in a persona's words.
    """
    found = {}
    for arm in (*prompted, *runs[0]):
        texts = _of(arm, prompted, runs)
        row: dict[str, Any] = {"words": float(np.mean([len(text.split()) for one in texts for text in one]))}
        for name in MEASURES:
            scores = _scores(test, texts, name)
            interval = proportion_interval(scores)
            row[name] = {"mean": float(scores.mean()), "low": interval.low, "high": interval.high, "n": len(scores)}
        row["by persona and seed"] = {
            name: [
                [sum(right(task, text) for task, text in zip(test, one, strict=True) if _asks(task, name)),
                 sum(_asks(task, name) for task in test)]
                for one in texts
            ]
            for name in sorted({task.persona for task in test})
        }  # fmt: skip
        found[arm] = row
    return found


def differences(test: Sequence[Task], prompted: Answers, runs: Sequence[Answers]) -> dict[str, Any]:
    """Return paired differences with their intervals, over prompts; several seeds of a prompt are averaged first."""
    found = {}
    for name, measure, one, other in WANTED:
        gap = paired_difference(*(_scores(test, _of(arm, prompted, runs), measure) for arm in (one, other)))
        found[name] = {"mean": gap.mean, "low": gap.low, "high": gap.high, "p": gap.p_value, "n": gap.n}
    return found


def agreement(own: dict[str, bool], train: Sequence[Task], labels: Sequence[bool]) -> dict[str, Any]:
    """Return how often the model as its own judge says what the checks say."""
    checked = {task.query: label for task, label in zip(train, labels, strict=True)}
    same = [checked[query] == won for query, won in own.items()]
    return {"pairs": len(same), "persona_won": sum(own.values()), "agrees": sum(same)}


def _asks(task: Task, persona: str) -> bool:
    return not task.factual and task.persona == persona


def _of(arm: str, prompted: Answers, runs: Sequence[Answers]) -> list[list[str]]:
    return [prompted[arm]] if arm in prompted else [run[arm] for run in runs]


def _scores(test: Sequence[Task], texts: Sequence[Sequence[str]], name: str) -> Any:
    measure, counts = MEASURES[name]
    rows = [[float(measure(task, text)) for task, text in zip(test, one, strict=True) if counts(task)] for one in texts]
    return np.mean(rows, axis=0)
