"""Files: a data set beside its arms, its rejects and its card. Each file is whole or not there.

For ``out.jsonl``: the main arm's chats there, ``out.arms.jsonl`` with identity and all arms of a row side by side,
``out.ARM.jsonl`` with the chats of every other arm, ``out.rejects.jsonl``, ``out.card.md``.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mop.errors import DataError
from mop.personas.card import card, chat, facts
from mop.personas.records import Curated, Plan, Reject, Row
from mop.personas.removal import WAYS, Case, Comparison


def paths(out: Path, plan: Plan) -> dict[str, Path]:
    """Return the files that are written, by what they hold."""
    base = _base(out)
    named = {"dataset": out, "arms": Path(f"{base}.arms.jsonl")}
    named |= {arm: Path(f"{base}.{arm}.jsonl") for arm in plan.arms if arm != plan.main}
    return {**named, "rejects": Path(f"{base}.rejects.jsonl"), "card": Path(f"{base}.card.md")}


def identity_paths(out: Path) -> dict[str, Path]:
    """Return the files of identities alone, by what they hold."""
    return {"identities": out, "rejects": Path(f"{_base(out)}.rejects.jsonl")}


def require_writable(named: Mapping[str, Path], source: str) -> None:
    """Raise DataError now, not after the calls, if a file can't be written or would replace the source."""
    for path in named.values():
        folder = path.parent
        if path.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
            raise DataError(
                f"{path} is a folder, or is in a folder that isn't there or can't be written. Name another --out."
            )
        if source != "-" and path.exists() and Path(source).exists() and path.samefile(source):
            raise DataError(f"{path} is the file of instructions, and would be replaced. Name another --out.")


def write(out: Path, done: Curated, **made_with: Any) -> dict[str, Any]:
    """Write all files and return the card's facts. Raises DataError if one can't be written."""
    named = paths(out, done.plan)
    content = _lines(chat(row, done.plan.main) for row in done.rows)
    found = facts(done, dataset=out.name, dataset_sha256=hashlib.sha256(content).hexdigest(), **made_with)
    _replace(named["rejects"], _lines(map(_reject, done.rejects)))
    _replace(named["arms"], _lines(_side_by_side(row) for row in done.rows))
    for arm in done.plan.arms:
        if arm != done.plan.main:
            _replace(named[arm], _lines(chat(row, arm) for row in done.rows))
    _replace(named["card"], (card(found) + "\n").encode())
    _replace(out, content)
    return found


def write_identities_to(named: Mapping[str, Path], done: Curated) -> None:
    """Write identities and rejects (`identity_paths`). Raises DataError if one can't be written."""
    _replace(named["rejects"], _lines(map(_reject, done.rejects)))
    _replace(named["identities"], _lines(_identified(row) for row in done.rows))


def write_cases(out: Path, found: Comparison) -> None:
    """Write the answers on which ways of removal differ. Raises DataError if they can't be written."""
    _replace(out, _lines(map(_case, (case for case in found.cases if case.differ))))


def _base(out: Path) -> Path:
    return out.with_suffix("") if out.suffix in (".jsonl", ".json", ".ndjson") else out


def _identified(row: Row) -> dict[str, Any]:
    identity = row.identity
    return {
        "line": row.instruction.line,
        "instruction": row.instruction.text,
        "identity": identity and identity.text,
        "similarity": identity and {"own": identity.nearness.own, "shuffled": identity.nearness.shuffled},
    }


def _case(case: Case) -> dict[str, Any]:
    return {
        **_identified(case.row),
        "arm": case.arm,
        "answer": case.answer,
        "rules": {"removed": list(case.rules.removed), "left": list(case.rules.left)},
        "audit_alone": {"removed": list(case.alone.removed), "ignored": list(case.alone.ignored)},
        "audit_after_rules": {"removed": list(case.strict.removed), "ignored": list(case.strict.ignored)},
        "dropped": {way: case.dropped(way) for way in WAYS},
    }


def _side_by_side(row: Row) -> dict[str, Any]:
    return {
        **_identified(row),
        "answers": {
            arm: {
                "text": answer.text,
                "removed": list(answer.removed),
                "removed_by_audit": list(answer.audited),
                "grade": answer.grade,
            }
            for arm, answer in row.answers.items()
        },
    }


def _reject(one: Reject) -> dict[str, Any]:
    return {
        "line": one.instruction.line,
        "instruction": one.instruction.text,
        "stage": one.stage,
        "reason": one.reason,
        "detail": one.detail,
        "arm": one.arm,
        "identity": one.identity,
        "answer": one.answer,
    }


def _lines(rows: Iterable[Mapping[str, Any]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def _replace(path: Path, content: bytes) -> None:
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            name = Path(file.name)
            try:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
                os.chmod(name, 0o644)
                name.replace(path)
            except BaseException:
                name.unlink(missing_ok=True)
                raise
    except OSError as error:
        raise DataError(f"{path} can't be written: {error}. The answers are in the ledger; run it again.") from error
