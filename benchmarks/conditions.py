"""Conditions: what results must share to be compared, and the names and the order of methods."""

from __future__ import annotations

from typing import Any

from mop.search.ablations import CHOICES
from mop.search.methods import METHODS, PARTICULAR

Record = dict[str, Any]
#: Options that belong to a method; others are conditions that all methods share.
OWN = (*PARTICULAR, *CHOICES, "routing")


def condition(record: Record, *, version: bool = True) -> str:
    """Return what results must share to be compared, in words; mop's version is a part of it unless told otherwise."""
    shared = {name: value for name, value in record["options"].items() if name not in OWN}
    words = [f"{name.replace('_', ' ')} {value}" for name, value in sorted(shared.items())]
    if "most_test" in record:
        words.append(f"test {record['most_test']}")
    return ", ".join([*words, *([f"mop {record['versions']['mop']}"] if version else [])])


def label(record: Record) -> str:
    """Return the method with the options that are its own."""
    own = [f"{name}={record['options'][name]}" for name in OWN if name in record["options"]]
    return f"{record['method']} ({', '.join(own)})" if own else str(record["method"])


def in_order(name: str) -> tuple[int, str]:
    """Return where a method's label stands in tables: in the order of the methods, others last."""
    known, method = list(METHODS), name.split(" ")[0]
    return known.index(method) if method in known else len(known), name
