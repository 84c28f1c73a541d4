"""Personas: a name, the text that stands in the prompt, and intents, each a kind of thing that a user would want.

A file has one persona on a line:

    {"name": "recipes", "text": "You are a cook …", "intents": ["ask how to cook a dish"]}

Knows nothing of models.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mop.errors import BadRows, DataError, RowProblem


@dataclass(frozen=True, slots=True)
class Persona:
    """One persona; its intents are what its queries are made from."""

    name: str
    text: str
    intents: tuple[str, ...]


class _Line(BaseModel):
    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)
    name: str = Field(min_length=1)
    text: str = Field(min_length=1)
    intents: list[str] = Field(min_length=1)


def read_personas(path: Path) -> list[Persona]:
    """Return the personas of a JSON-lines file.

    Raises DataError if the file can't be read or is empty, BadRows if a line isn't a persona or a name comes twice.
    """
    try:
        # A text may hold other marks that end a line, which JSON leaves as they are.
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"The personas in {path} can't be read: {error}.") from error
    found: dict[str, Persona] = {}
    problems = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            one = _Line.model_validate(json.loads(line))
            if one.name in found:
                raise ValueError(f"the name {one.name!r} comes twice")
            if not all(intent.strip() for intent in one.intents):
                raise ValueError("an intent is empty")
        except (ValidationError, ValueError, RecursionError) as error:
            problems.append(RowProblem(number, " ".join(str(error).split())[:200]))
            continue
        intents = tuple(dict.fromkeys(intent.strip() for intent in one.intents))
        found[one.name] = Persona(one.name, one.text, intents)
    if problems:
        raise BadRows(
            f'{path} has lines that are no personas; expected {{"name", "text", "intents"}}:\n'
            + "\n".join(f"  {problem}" for problem in problems),
            tuple(problems),
        )
    if not found:
        raise DataError(f'{path} has no personas; write one on each line: {{"name", "text", "intents"}}.')
    return list(found.values())
