"""The experiment on Self-Prompt Tuning: its data are fair to every arm, its tables say what the answers show."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.self_prompt import main, require_own
from benchmarks.self_prompt_results import markdown, summary
from benchmarks.self_prompt_tasks import FOREIGN, TAUGHT, TEST, TRAIN, Item, filler, right, shuffled_roles
from mop.embeddings.encoders import Vectors
from mop.errors import SettingsError
from mop.students.role_lines import role_line


class Letters:
    """Encodes a text by its letters."""

    identity = "letters"

    def encode(self, texts: Sequence[str]) -> Vectors:
        rows = np.array([[text.lower().count(chr(97 + letter)) for letter in range(26)] for text in texts], np.float32)
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


def _rows(items: Sequence[Item], way: str, roles: Sequence[str | None], answers: Sequence[str]) -> list[dict[str, Any]]:
    return [
        {"way": way, "question": item.question, "written": role is not None, "role": role, "answer": answer}
        for item, role, answer in zip(items, roles, answers, strict=True)
    ]


def test_no_question_or_domain_of_the_foreign_test_is_in_the_training() -> None:
    questions = [one.question for one in (*TRAIN, *TEST, *FOREIGN)]
    assert len(set(questions)) == len(questions)
    assert not {one.domain for one in FOREIGN} & {one.domain for one in TRAIN}
    assert {one.domain for one in TEST} == {one.domain for one in TRAIN}


def test_shuffled_roles_are_the_same_roles_and_none_stays_in_its_domain() -> None:
    homes = {one.role: one.domain for one in TRAIN}
    dealt = shuffled_roles(TRAIN)
    assert sorted(map(str, dealt)) == sorted(one.role for one in TRAIN)
    assert all(homes[str(role)] != one.domain for role, one in zip(dealt, TRAIN, strict=True))
    assert dealt == shuffled_roles(TRAIN)


def test_filler_is_as_long_as_the_role_and_every_arm_can_stand_in_every_line() -> None:
    for words, one in zip(filler(TRAIN), TRAIN, strict=True):
        assert len(str(words).split()) == len(one.role.split())
    for given in TAUGHT.values():
        for role in given(TRAIN) if given else []:
            assert role_line("bracket").read(role_line("bracket").before(role) + "x").role == role


@pytest.mark.parametrize(
    ("answer", "expected"), [("The capital is Oslo.", True), ("oslo", True), ("Oslofjord", False), ("Bergen", False)]
)
def test_an_answer_is_right_if_it_names_an_accepted_one_as_a_word(answer: str, expected: bool) -> None:
    assert right(Item("What is the capital of Norway?", ("Oslo",), "geography"), answer) is expected


def test_answers_of_another_experiment_are_not_taken_for_ones_own(tmp_path: Path) -> None:
    settings = {"model": "one", "epochs": 2, "seeds": 1, "only": None, "out": tmp_path, "small": True}
    require_own(tmp_path / "new", settings)
    require_own(tmp_path / "new", {**settings, "seeds": 3})
    with pytest.raises(SettingsError, match=r"differs in .*\bmodel\b"):
        main(["--model", "another", "--small", "--epochs", "2", "--out", str(tmp_path / "new")])


def test_the_table_tells_gains_roles_that_fit_and_answers_that_change() -> None:
    items = [*TEST[:6], *FOREIGN[:6]]
    correct, wrong = [one.answers[0] for one in items], ["no idea"] * len(items)
    bare, fitting = [None] * len(items), [f"one who knows {item.question}" for item in items]
    said = {
        "base": [_rows(items, "own", bare, wrong)],
        "plain answers": [_rows(items, "own", bare, wrong)],
        "shuffled roles": [_rows(items, "own", ["a baker"] * len(items), wrong)],
        "self-prompt": [
            _rows(items, "own", fitting, correct)
            + _rows(items, "swapped", fitting[::-1], [*wrong[:6], *correct[6:]])
            + _rows(items, "removed", bare, correct)
        ],
    }
    found = summary(items, said, Letters())
    arm = found["arms"]["self-prompt"]
    assert (arm["written"], arm["roles"]) == (1.0, 12)
    assert arm["changed"]["swapped"]["mean"] == 0.5
    assert arm["changed"]["removed"]["mean"] == 0.0
    assert arm["fit"]["low"] > 0
    assert found["arms"]["shuffled roles"]["fit"] is None  # one role for all fits nothing better than anything
    gap = found["differences"]["self-prompt minus plain answers"]
    assert gap["all"]["mean"] == 1.0
    assert gap["all"]["low"] > 0
    assert found["differences"]["self-prompt: own minus swapped role"]["known domains"]["mean"] == 1.0
    assert found["differences"]["self-prompt: own minus swapped role"]["foreign domains"]["mean"] == 0.0
    assert "| self-prompt | 1.00" in markdown(found)
