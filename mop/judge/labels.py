"""Labels of people: pairs written for them to judge, blind, and read back. Knows nothing of models.

A file is JSON lines; a person fills in ``"better"`` with A, B or TIE. Which answer is A is drawn by the pair's own
hash, so the person doesn't know the system, and the program does without a key file.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from mop.errors import BadRows, DataError, RowProblem
from mop.judge.judging import Pair

_WORDS = {"a": "A", "b": "B", "tie": "tie", "": "", "equal": "tie", "same": "tie"}


def pair_id(pair: Pair) -> str:
    """Return what names a pair: 16 hex digits of the hash of its texts."""
    return hashlib.sha256(json.dumps([pair.input, pair.first, pair.second]).encode()).hexdigest()[:16]


def _turned(pair: Pair) -> bool:
    # Another hash than the name's own digits, which a person could learn to read.
    return hashlib.sha256(b"order" + pair_id(pair).encode()).digest()[0] % 2 == 1


def write_pairs(pairs: Sequence[Pair], path: str | os.PathLike[str]) -> int:
    """Write the pairs for people to label and return their number; equal pairs once, equal answers not at all.

    Raises DataError if the file exists (labels may be in it) or can't be written.
    """
    lines = {}
    for pair in pairs:
        if pair.first.strip() == pair.second.strip():
            continue
        a, b = (pair.second, pair.first) if _turned(pair) else (pair.first, pair.second)
        record = {"id": pair_id(pair), "input": pair.input, "A": a, "B": b, "better": ""}
        lines[record["id"]] = json.dumps(record, ensure_ascii=False)
    try:
        with Path(path).open("x", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in lines.values())
    except OSError as error:
        raise DataError(
            f"{path} can't be written: {error}. Labels in an old file are kept; give another name."
        ) from error
    return len(lines)


def read_labels(path: str | os.PathLike[str], pairs: Sequence[Pair]) -> Mapping[str, str]:
    """Return the labels of a file: `pair_id` → ``"first"``, ``"second"`` or ``"tie"``; pairs left open are not in it.

    Pairs that were written with the two systems the other way round are known too.

    Raises BadRows for lines that can't be read, name no pair of ``pairs``, or contradict one another; DataError for a
    file that can't be read or holds no label.
    """
    known = _known(pairs)
    labels: dict[str, str] = {}
    problems = []
    try:
        # An answer may hold other marks that end a line, which JSON leaves as they are.
        lines = Path(path).read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} can't be read: {error}.") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            name, label = _read(line, known)
            if label and labels.setdefault(name, label) != label:
                raise ValueError(f"the pair {name} has another label above")
        except ValueError as error:
            problems.append(RowProblem(number, str(error)))
    if problems:
        listed = "; ".join(map(str, problems[:5]))
        raise BadRows(f"{path}: {len(problems)} lines can't be used: {listed}.", tuple(problems))
    if not labels:
        raise DataError(f'{path} holds no label yet; fill in "better" with A, B or TIE.')
    return labels


def _known(pairs: Sequence[Pair]) -> dict[str, tuple[str, bool]]:
    """Return by each name that a line may have the name of its pair, and whether A is its first answer."""
    found: dict[str, tuple[str, bool]] = {}
    for pair in pairs:
        other = Pair(pair.input, pair.second, pair.first)
        found[pair_id(other)] = pair_id(pair), _turned(other)
    # A pair's own name counts, where two systems gave the same two answers to an input in both ways.
    return found | {pair_id(pair): (pair_id(pair), not _turned(pair)) for pair in pairs}


def _read(line: str, known: Mapping[str, tuple[str, bool]]) -> tuple[str, str]:
    try:
        record = json.loads(line)
    except RecursionError:
        raise ValueError("nested too deep") from None
    if not isinstance(record, dict) or not isinstance(record.get("id"), str):
        raise ValueError('not an object with an "id"')
    name, said = record["id"], str(record.get("better") or "").strip().casefold()
    if name not in known:
        raise ValueError(f"{name} is none of these pairs; the answers may have changed since")
    if said not in _WORDS:
        raise ValueError(f"{record['better']!r} is not A, B or TIE")
    choice = _WORDS[said]
    own, a_is_first = known[name]
    if choice not in ("A", "B"):
        return own, choice
    return own, "first" if (choice == "A") == a_is_first else "second"
