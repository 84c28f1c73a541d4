"""Example: an input with its accepted answers. Knows nothing of files, prompts or models.

>>> Example("hot", ("cold", "chilly")).output
'cold'
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Example:
    """One labelled example.

    ``outputs`` holds every accepted answer, at least one; the first is the one that a demo shows.
    ``split`` is ``"train"``, ``"validation"``, ``"test"`` or ``None`` (not assigned yet).
    """

    input: str
    outputs: tuple[str, ...]
    split: str | None = None

    @property
    def output(self) -> str:
        """The answer that a demo of this example shows."""
        return self.outputs[0]


@dataclass(frozen=True, slots=True)
class Splits:
    """Examples by role: ``train`` gives demos, ``validation`` decides, ``test`` is touched once at the end."""

    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    test: tuple[Example, ...] = ()
