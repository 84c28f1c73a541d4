"""Labelled data that comes with the package, written for it."""

from __future__ import annotations

import json
from importlib.resources import files

from mop.examples import Example, Splits

#: Your own instruction is the first candidate of a search; this is the help desk's.
HELPDESK_INSTRUCTION = "Sort the message to the company help desk. Answer with the label only."


def helpdesk() -> Splits:
    """Return messages to a company's help desk chat: 58 intents, 18 messages each.

    696 for training, 232 for validation, 116 for the test, drawn by lot for each intent. Each message was written on
    its own: short, in the plain words of its topic, with neighbouring intents that share them. Labels look like
    ``docking_station``.
    """
    rows: dict[str, list[Example]] = {"train": [], "validation": [], "test": []}
    text = files("mop.datasets").joinpath("helpdesk.jsonl").read_text(encoding="utf-8")
    for line in text.splitlines():
        row = json.loads(line)
        rows[row["split"]].append(Example(row["input"], tuple(row["output"]), row["split"]))
    return Splits(tuple(rows["train"]), tuple(rows["validation"]), tuple(rows["test"]))
