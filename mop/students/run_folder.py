"""Run folder: whose a folder of a training run is, what it was a run of, and its log. Knows no models."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from mop.errors import ArtifactError, SettingsError

LOG = "log.jsonl"
_LOCK = ".lock"
#: Settings that change nothing but how often a run is saved.
_HARMLESS = ("config.save_seconds",)


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Make the folder and hold it against other processes.

    Raises SettingsError if another one holds it, ArtifactError if it can't be written.
    """
    lock = FileLock(folder / _LOCK)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise SettingsError(f"Another process is training in {folder}. Wait for it, or name another folder.") from None
    except OSError as error:
        raise ArtifactError(f"{folder} can't be written: {error.strerror or error}. Name another folder.") from error
    try:
        yield
    finally:
        lock.release()


def require_same(known: Mapping[str, Any], wanted: Mapping[str, Any], folder: Path) -> None:
    """Raise SettingsError, naming what differs, unless both describe the same run. They hold plain data."""
    one, other = _flat(json.loads(json.dumps(known))), _flat(json.loads(json.dumps(wanted)))
    differ = sorted(name for name in {*one, *other} if one.get(name) != other.get(name) and name not in _HARMLESS)
    if differ:
        raise SettingsError(
            f"{folder} holds another training run: it differs in {', '.join(differ)}. Give its own settings and data "
            "to go on with it, or name another folder."
        )


def append_log(folder: Path, number: int, done: Mapping[str, float]) -> None:
    """Add step ``number`` to the log."""
    with (folder / LOG).open("a", encoding="utf-8") as file:
        file.write(_line(number, done))


def write_log(folder: Path, history: list[dict[str, float]]) -> None:
    """Make the log end where the history does: steps after a checkpoint are done again."""
    part = folder / f".{LOG}.part"
    part.write_text("".join(_line(number, done) for number, done in enumerate(history, start=1)), encoding="utf-8")
    part.replace(folder / LOG)


def read_log(folder: Path) -> list[dict[str, float]]:
    """Return the history of a finished run. Raises ArtifactError if it can't be read."""
    try:
        lines = [json.loads(line) for line in (folder / LOG).read_text(encoding="utf-8").splitlines()]
        return [{name: value for name, value in line.items() if name != "step"} for line in lines]
    except (OSError, ValueError, AttributeError) as error:
        raise ArtifactError(f"{folder / LOG} can't be read ({error}). Name another folder to train again.") from error


def _line(number: int, done: Mapping[str, float]) -> str:
    return json.dumps({"step": number, **done}) + "\n"


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {name: value}
    found: dict[str, Any] = {}
    for part, one in value.items():
        found |= _flat(one, f"{name}.{part}" if name else part)
    return found
