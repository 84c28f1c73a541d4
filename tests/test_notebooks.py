"""The notebooks: each runs from what is recorded, shows the same again, and holds nothing private."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest

FOLDER = Path(__file__).parent.parent / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("[0-9]*.ipynb"))
#: What a notebook for everyone doesn't hold: paths of a machine, and keys.
_PRIVATE = re.compile(r"/(?:home|root|tmp|work|Users)/|\bsk-\w|api_key|Bearer ")


def printed(notebook: Any) -> list[str]:
    """Return what the cells of a notebook print, and how many pictures they show."""
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert [output for output in outputs if output.output_type == "error"] == []
    texts = ["".join(output.text) for output in outputs if output.output_type == "stream" and output.name == "stdout"]
    return [*texts, f"{sum('image/png' in output.get('data', {}) for output in outputs)} pictures"]


def test_there_are_notebooks() -> None:
    assert [path.stem[:2] for path in NOTEBOOKS] == [f"{number:02}" for number in range(1, len(NOTEBOOKS) + 1)]
    assert len(NOTEBOOKS) >= 2


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_from_the_recording_and_shows_what_it_showed(
    path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.delenv("MOP_LIVE", raising=False)
    # Without a model's weights: everything must come from the recording.
    monkeypatch.setenv("MOP_LEDGER", str(tmp_path / "not-this-one.sqlite"))
    from run import execute

    try:
        ran = execute(path)
    finally:
        sys.modules.pop("run", None)
    assert printed(ran) == printed(nbformat.read(path, as_version=4))
    assert not (tmp_path / "not-this-one.sqlite").exists()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_holds_its_outputs_and_no_path_or_key(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert _PRIVATE.findall(text) == []
    assert len(text) < 1_000_000
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert int(printed(notebook)[-1].split()[0]) >= 1
    assert [cell.source for cell in notebook.cells if cell.cell_type == "code" and cell.execution_count is None] == []


def test_the_recording_is_small() -> None:
    assert sum(path.stat().st_size for path in FOLDER.glob("recorded.*")) < 1_500_000
