"""Run: executes the notebooks, each in a fresh kernel, and keeps their outputs.

python notebooks/run.py                 # all of them, in place; also writes notebooks/pictures/
python notebooks/run.py 01-quickstart
MOP_LIVE=1 python notebooks/run.py      # with the model and the encoder themselves
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).parent
#: Longest that one cell may take, in seconds: a live cell asks a model some hundred times.
TIMEOUT = 3600


def execute(path: Path) -> nbformat.NotebookNode:
    """Return the notebook at ``path`` as it is after all its cells have run, without times of day.

    Raises `nbclient.exceptions.CellExecutionError` if a cell does.
    """
    notebook = nbformat.read(path, as_version=4)
    where = {"metadata": {"path": str(HERE)}}
    # One text for each cell: how a kernel cuts what is printed into pieces depends on its speed.
    options = {"timeout": TIMEOUT, "startup_timeout": 600, "coalesce_streams": True}
    NotebookClient(notebook, kernel_name="python3", resources=where, **options).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    return notebook


def main(names: list[str]) -> None:
    """Execute the named notebooks, or all, in place."""
    os.environ["MOP_PICTURES"] = "1"
    for path in sorted(HERE.glob("[0-9]*.ipynb")):
        if not names or path.stem in names:
            nbformat.write(execute(path), path)
            print(path.name)


if __name__ == "__main__":
    main(sys.argv[1:])
