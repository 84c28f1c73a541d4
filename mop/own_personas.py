"""Own personas: what the user wants tried in every region, from texts and files. Knows no search.

    You are the voice of a small press …     a text; it is called by its first words
    @voices.jsonl                             a persona on each line: {"name": "press", "text": "You are …"}
    @press.txt                                a text, called by the file's name

>>> read_own("You are a pirate.")
(OwnPersona(name='You are a pirate.', text='You are a pirate.'),)
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mop.errors import SettingsError

#: A persona stands in every prompt of its region; a longer text is another kind of file.
MOST_CHARACTERS = 4000
#: Most characters of the first words by which a text is called.
NAME_CHARACTERS = 40


@dataclass(frozen=True, slots=True)
class OwnPersona:
    """A name for people, and the text that the prompt shows."""

    name: str
    text: str


def read_own(given: Any) -> tuple[OwnPersona, ...]:
    """Return the personas that the user gives.

    Args:
        given: A text or ``@FILE``; several of them, or of `OwnPersona`; or a mapping of names to texts.

    Raises:
        SettingsError: A file can't be read, a text is empty or overlong, or a name or a text comes twice.
    """
    if isinstance(given, Mapping):
        found = [_checked(name, text, "the settings") for name, text in given.items()]
    elif isinstance(given, str | OwnPersona) or not isinstance(given, Iterable):
        found = _of(given)
    else:
        found = [one for item in given for one in _of(item)]
    for what in ("name", "text"):
        value, times = Counter(getattr(one, what) for one in found).most_common(1)[0] if found else ("", 0)
        if times > 1:
            raise SettingsError(f"The {what} {_first_words(value)!r} of a persona comes {times} times; give each once.")
    return tuple(found)


def the_one(given: str) -> OwnPersona:
    """Return the one persona of a text or ``@FILE``; raises SettingsError as `read_own` does, and if there are more."""
    found = read_own(given)
    if len(found) != 1:
        raise SettingsError(f"{given[1:]} has {len(found)} personas; give one of them as a text.")
    return found[0]


def _of(given: Any) -> list[OwnPersona]:
    if isinstance(given, OwnPersona):
        return [_checked(given.name, given.text, "the settings")]
    if not isinstance(given, str):
        raise SettingsError(f"A persona is a text or @FILE, not {given!r}.")
    if not given.startswith("@"):
        return [_checked(_first_words(given), given, "the settings")]
    path = Path(given[1:])
    try:
        content = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise SettingsError(f"The personas in {path} can't be read: {error}.") from error
    if path.suffix.lower() != ".jsonl":
        return [_checked(path.stem, content, str(path))]
    lines = [(number, line) for number, line in enumerate(content.split("\n"), start=1) if line.strip()]
    if not lines:
        raise SettingsError(f'{path} has no personas; write one on each line: {{"name": "…", "text": "…"}}.')
    return [_on_a_line(line, f"{path}, line {number}") for number, line in lines]


def _on_a_line(line: str, where: str) -> OwnPersona:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"{where}: this isn't JSON ({error}); expected one persona a line.") from error
    if not isinstance(row, dict) or not {"name", "text"} <= set(row):
        raise SettingsError(f'{where}: expected {{"name": "…", "text": "…"}}, got {line[:80]!r}.')
    return _checked(row["name"], row["text"], where)


def _checked(name: Any, text: Any, where: str) -> OwnPersona:
    if not (isinstance(name, str) and isinstance(text, str)):
        raise SettingsError(f"{where}: the name and the text of a persona are texts; got {name!r} and {text!r}.")
    called, said = " ".join(name.split()), text.strip()
    if not called or not said:
        raise SettingsError(f"{where}: a persona without a text or a name; give it both, or leave it out.")
    if len(said) > MOST_CHARACTERS or len(called) > NAME_CHARACTERS:
        raise SettingsError(
            f"{where}: the persona {_first_words(called)!r} has {len(said)} characters and {len(called)} in its name; "
            f"it takes up to {MOST_CHARACTERS} and {NAME_CHARACTERS}."
        )
    return OwnPersona(called, said)


def _first_words(text: str) -> str:
    words = " ".join(text.split())
    if len(words) <= NAME_CHARACTERS:
        return words
    return words[: NAME_CHARACTERS - 1].rsplit(" ", 1)[0].rstrip(",;:") + "…"
