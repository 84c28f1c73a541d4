"""Labelled data that comes with the package, written for it."""

from __future__ import annotations

import json
from importlib.resources import files

from mop.examples import Example, Splits

#: Your own instruction is the first candidate of a search; this is the help desk's.
HELPDESK_INSTRUCTION = "Sort the message to the company help desk. Answer with the label only."


def helpdesk() -> Splits:
    """Return the messages to a company's help desk: 58 intents, 24 messages each.

    1,102 for training, 174 for validation, 116 for the test. Each message was written on its own; short and long ones,
    with typos, and with neighbouring intents that only a careful reader tells apart. Labels look like
    ``docking_station``.
    """
    rows: dict[str, list[Example]] = {"train": [], "validation": [], "test": []}
    text = files("mop.datasets").joinpath("helpdesk.jsonl").read_text(encoding="utf-8")
    for line in text.splitlines():
        row = json.loads(line)
        rows[row["split"]].append(Example(row["input"], tuple(row["output"]), row["split"]))
    return Splits(tuple(rows["train"]), tuple(rows["validation"]), tuple(rows["test"]))
