"""Opening: a trained student from its folder, and what it says: its role line taken apart, its gate asked."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mop.students import require_extra
from mop.students.adapters import attach, read_record
from mop.students.gated import Gated, is_gated, load_gated
from mop.students.generating import BATCH, write
from mop.students.models import Student, load
from mop.students.rendering import Message, prompt_ids
from mop.students.role_lines import RoleLine, Spoken, role_line
from mop.students.training import require_known_words


@dataclass(frozen=True)
class OpenStudent:
    """A student with its adapter, the record of its training, the form of its role line, and its gate, if any."""

    student: Student
    record: dict[str, Any]
    line: RoleLine | None
    gated: Gated | None = None

    def answer(
        self,
        conversations: Sequence[Sequence[Message]],
        *,
        max_tokens: int = 256,
        bare: bool = False,
        roles: Sequence[str | None] | None = None,
        batch: int = BATCH,
    ) -> list[Spoken]:
        """Return what the student says next in each conversation, decoded greedily.

        Args:
            conversations: Messages, the last one the user's.
            max_tokens: Most tokens of what is written, role line included.
            bare: Answer with the adapter off: the base model itself.
            roles: For each conversation a role that is put into the student's mouth in place of its own.
            batch: Conversations that are read at a time.
        """
        tokenizer = self.student.tokenizer
        line = None if bare else self.line
        openings = [""] * len(conversations)
        if roles is not None and line is not None:
            openings = [line.before(role) for role in roles]
        prompts = [
            [*prompt_ids(tokenizer, messages), *tokenizer(opening, add_special_tokens=False).input_ids]
            for messages, opening in zip(conversations, openings, strict=True)
        ]
        if self.gated is not None:
            return self._gated(conversations, prompts, max_tokens, bare, batch)
        with self.student.model.disable_adapter() if bare else nullcontext():
            found = write(self.student, prompts, max_tokens=max_tokens, batch=batch)
        texts = [opening + one.text for opening, one in zip(openings, found, strict=True)]
        return [line.read(text) if line else Spoken(False, None, text.strip()) for text in texts]

    def _gated(
        self,
        conversations: Sequence[Sequence[Message]],
        prompts: Sequence[Sequence[int]],
        max_tokens: int,
        bare: bool,
        batch: int,
    ) -> list[Spoken]:
        """Each turn is decided anew, by what the user said last."""
        assert self.gated is not None
        on = [False] * len(prompts)
        if not bare:
            on = [one for one, _ in self.gated.decide([messages[-1]["content"] for messages in conversations])]
        found = write(self.student, prompts, max_tokens=max_tokens, on=on, batch=batch)
        return [Spoken(False, None, one.text.strip(), on=row) for one, row in zip(found, on, strict=True)]


def open_student(folder: str | Path, *, device: str = "auto", dtype: str = "auto") -> OpenStudent:
    """Return the student that `mop students train` left in ``folder``, on its base model.

    Raises:
        ArtifactError: There is no finished student, it is damaged, or its base model has changed.
        SettingsError: The extra isn't installed, or the model's prompts are written in another way by now.
        WeightsError: The base model isn't here.
    """
    require_extra()
    place = Path(folder)
    record = read_record(place)
    student = load(record["base"], device=device, dtype=dtype)
    require_known_words(student, record, place)
    if is_gated(place):
        gated = load_gated(place, student)
        return OpenStudent(gated.student, record, None, gated)
    line = role_line(record["plan"]["role_line"]) if record.get("recipe") == "self-prompt" else None
    return OpenStudent(attach(student, place), record, line)
