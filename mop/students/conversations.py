"""Conversations: chat-format JSON lines as data to train on. Knows no models and no tokens.

One line, as `mop personas generate` and `mop students annotate` write it:

    {"messages": [{"role": "user", "content": "What is 2+2?"}, {"role": "assistant", "content": "4."}]}

``role``, if it is there, is who had best answer (null: nobody in particular). Other keys stay what they are and are not
trained on. Everything wrong with a file is told at once, before any model is loaded.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mop.data.formats import parse
from mop.data.rows import LISTED
from mop.errors import BadRows, DataError, RowProblem
from mop.students.rendering import Message

_SPEAKERS = ("system", "user", "assistant")


@dataclass(frozen=True)
class Conversation:
    """Turns to train on, the number of the line they stood in, and all else that stood there.

    ``role`` is who had best answer; ``annotated`` says whether the line names one, be it nobody (None).
    """

    messages: tuple[Message, ...]
    line: int
    role: str | None = None
    annotated: bool = False

    @property
    def question(self) -> str:
        """What the user says first."""
        return next(one["content"] for one in self.messages if one["role"] == "user")

    @property
    def answer(self) -> str:
        """What the assistant says last."""
        return next(one["content"] for one in reversed(self.messages) if one["role"] == "assistant")


def read_conversations(
    path: str | os.PathLike[str], *, system: bool = False, annotated: bool = False
) -> list[Conversation]:
    """Return all conversations of a file.

    Args:
        path: JSON lines, UTF-8.
        system: Whether a system turn may stand first. Where an identity is to be learned by heart it must not be read
            in the prompt, so that it is an error by default.
        annotated: Whether every line must name a role.

    Raises:
        BadRows: Some lines can't be used; the message lists the first 20, ``problems`` all of them.
        DataError: The file is missing, empty or not JSON lines.
    """
    place = Path(path)
    if place.is_dir():
        raise DataError(f"{place} is a folder; give one file of conversations in it.")
    try:
        content = place.read_bytes()
    except OSError as error:
        raise DataError(f"{place} can't be read: {error.strerror or error}. Give a file of JSON lines.") from error
    if not content.strip():
        raise DataError(f"{place} is empty; expected at least one conversation as a JSON line.")
    table = parse(content, "jsonl", str(place), ())
    found: list[Conversation] = []
    problems: list[RowProblem] = []
    for row in table.rows:
        reasons = [row.problem] if row.problem else _problems(row.values, system, annotated)
        if reasons:
            problems += [RowProblem(row.position, "; ".join(reasons), table.unit)]
            continue
        found.append(_conversation(row.values, row.position))
    if problems:
        raise bad_conversations(problems, str(place), len(table.rows))
    return found


def bad_conversations(problems: Sequence[RowProblem], origin: str, rows: int) -> BadRows:
    """Return the error that reports ``problems`` among the ``rows`` lines of ``origin``."""
    lines = [f"{len(problems)} of the {rows} lines of {origin} cannot be trained on:"]
    lines += [f"  {problem}" for problem in problems[:LISTED]]
    if len(problems) > LISTED:
        lines.append(f"  … and {len(problems) - LISTED} more")
    lines.append(
        'Correct or remove them and try again. Each line is {"messages": [{"role": "user", "content": "…"}, '
        '{"role": "assistant", "content": "…"}]}.'
    )
    return BadRows("\n".join(lines), tuple(problems))


def _conversation(values: Mapping[str, Any], line: int) -> Conversation:
    messages = tuple({"role": one["role"], "content": one["content"]} for one in values["messages"])
    role = values.get("role")
    return Conversation(messages, line, role.strip() if role else None, "role" in values)


def _problems(values: Mapping[str, Any], system: bool, annotated: bool) -> list[str]:
    messages = values.get("messages")
    if not isinstance(messages, list) or not messages:
        return ['expected "messages": a list of turns such as {"role": "user", "content": "…"}']
    reasons: list[str] = []
    for number, one in enumerate(messages, start=1):
        if not isinstance(one, dict) or one.get("role") not in _SPEAKERS or not isinstance(one.get("content"), str):
            return [f'turn {number} is not {{"role": "system", "user" or "assistant", "content": text}}']
        if not one["content"].strip():
            reasons.append(f"turn {number} is empty")
        if _half_character(one["content"]):
            reasons.append(f"turn {number} holds half of a surrogate pair")
    speakers = [one["role"] for one in messages]
    if speakers[0] == "system":
        speakers = speakers[1:]
        if not system:
            reasons.append("it has a system turn; what is to be learned must not stand in the prompt")
    if "system" in speakers:
        reasons.append("a system turn stands elsewhere than first")
    elif not _alternate(speakers):
        reasons.append("the turns aren't user, assistant, … with the assistant last")
    if annotated and "role" not in values:
        reasons.append('it names no "role" (null for none); run `mop students annotate` first')
    identity = values.get("identity")
    if isinstance(identity, str) and identity.strip() and any(identity.strip() in text for text in _read(messages)):
        reasons.append('its "identity" stands in the prompt; the student is to learn the answer without it')
    role = values.get("role")
    if role is not None and (not isinstance(role, str) or not role.strip()):
        reasons.append(f'"role" is {role!r}; expected a text, or null for none')
    return reasons


def _read(messages: Sequence[Message]) -> list[str]:
    """Return what the student reads and doesn't write."""
    return [one["content"] for one in messages if one["role"] != "assistant"]


def _alternate(speakers: Sequence[str]) -> bool:
    wanted = ("user", "assistant")
    return bool(speakers) and len(speakers) % 2 == 0 and all(one == wanted[n % 2] for n, one in enumerate(speakers))


def _half_character(text: str) -> bool:
    return any("\ud800" <= one <= "\udfff" for one in text)
