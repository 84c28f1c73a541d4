"""``mop students train --recipe prism`` as a user runs it: what is wrong is said before a model is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from mop.cli.students import train
from mop.cli.students_prism import PrismOptions
from mop.errors import DataError, SettingsError

GOOD = '{"name": "pirate", "text": "You are a pirate.", "intents": ["ask about ships"]}\n'


@pytest.fixture
def personas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("mop.students.models.load", None)  # nothing below may get as far as a model
    path = tmp_path / "personas.jsonl"
    path.write_text(GOOD)
    return path


def test_options_of_other_recipes_are_refused(personas: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="--curriculum"):
        train(personas, recipe="prism", out=tmp_path / "out", curriculum="then")


def test_a_value_that_cannot_be_used_is_named(personas: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="queries must be 1 or more"):
        train(personas, recipe="prism", out=tmp_path / "out", bootstrap=PrismOptions(queries=0))


def test_a_file_without_personas_is_refused(personas: Path, tmp_path: Path) -> None:
    personas.write_text("\n")
    with pytest.raises(DataError, match="no personas"):
        train(personas, recipe="prism", out=tmp_path / "out")
    with pytest.raises(DataError, match="can't be read"):
        train(tmp_path / "missing.jsonl", recipe="prism", out=tmp_path / "out")


def test_one_intent_is_too_few_for_a_gate(personas: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="two intents or more"):
        train(personas, recipe="prism", out=tmp_path / "out")


def test_a_launcher_of_several_processes_is_refused(
    personas: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SettingsError, match="one process"):
        train(personas, recipe="prism", out=tmp_path / "out")
