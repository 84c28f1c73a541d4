"""A data folder of one benchmark with one task, as `python -m benchmarks` reads it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from mop.examples import Example


def write_task(folder: Path, name: str, examples: Sequence[Example], metric: str = "exact_match") -> Path:
    """Write the task into ``folder``, the benchmark's, and return that folder."""
    folder.mkdir(parents=True)
    rows = [{"input": one.input, "output": list(one.outputs)} for one in examples]
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    index = {name: {"files": {f"{name}.jsonl": len(rows)}, "metric": metric}}
    (folder / "tasks.json").write_text(json.dumps(index), encoding="utf-8")
    return folder
