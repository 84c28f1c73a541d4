"""Gated: a causal model with a LoRA adapter behind a gate that decides row by row.

Off means off: a row for which the gate is shut goes through the weights that were there before, and its logits are
equal bit for bit to those of the model without an adapter. Nothing is switched in the model: every call says which rows
are on, so no query can leave the adapter on for the next. The adapter leaves the first layer alone, which is what the
gate looks at. Knows nothing of training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from mop.errors import ArtifactError, SettingsError
from mop.students.adapters import attach
from mop.students.features import Features, FirstLayer
from mop.students.gate import Gate, compute
from mop.students.gate_files import JSON as GATE_FILE
from mop.students.gate_files import load_gate, regions_from, save_gate
from mop.students.generating import ADAPTER, BASE, positions, write
from mop.students.prompting import ids_before
from mop.students.untouched import NO_MERGE, check_adapter

if TYPE_CHECKING:
    from mop.students.models import Student

#: How far the logits of a row may be from those it gets alone, with the same padding: sums in another order.
TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True)
class GatedAnswer:
    """An answer, whether the adapter wrote it, and the gate's probability that it should."""

    text: str
    on: bool
    probability: float


class Gated:
    """A student with its adapter and gate.

    Args:
        student: A model of peft with one adapter, called "default".
        gate: What decides.
        features: What the gate looks at; the first layer's states if not given.

    Raises:
        ArtifactError: The adapter changes the first layer, or is merged into the model.
    """

    def __init__(self, student: Student, gate: Gate, features: Sequence[Features] | None = None) -> None:
        check_adapter(student.model)
        student.model.eval()
        self.student, self.gate = student, gate
        self.features = tuple(features or (FirstLayer(student.model, student.tokenizer),))

    def decide(self, queries: Sequence[str]) -> list[tuple[bool, float]]:
        """Return for each query whether the adapter answers, and the gate's probability. Looks at nothing else."""
        inputs = compute(self.features, self.gate.needs, queries)
        probabilities = self.gate.probabilities(inputs, len(queries))
        decided = self.gate.decide(probabilities).tolist()
        return list(zip(decided, probabilities.tolist(), strict=True))

    def logits(self, ids: Any, mask: Any, on: Sequence[bool]) -> Any:
        """Return the logits of token ids of shape (rows, tokens), the adapter on where ``on`` says so.

        ``mask`` is 0 for padding. Shape (rows, tokens, vocabulary).
        """
        import torch

        names = [ADAPTER if one else BASE for one in on]
        with torch.inference_mode():
            found = self.student.model(
                input_ids=ids, attention_mask=mask, position_ids=positions(mask), adapter_names=names, use_cache=False
            )
        return found.logits

    def answer(
        self,
        queries: Sequence[str],
        *,
        max_tokens: int = 256,
        persona: str | None = None,
        on: Sequence[bool] | None = None,
    ) -> list[GatedAnswer]:
        """Answer each query greedily; all go in the same batches, with the adapter and without.

        ``persona`` stands in the prompt if given, which a trained adapter does without. ``on`` decides in the gate's
        place.
        """
        if not queries:
            return []
        decisions = self.decide(queries) if on is None else [(bool(one), float(one)) for one in on]
        prompts = [ids_before(self.student.tokenizer, query, persona) for query in queries]
        rows = [one for one, _ in decisions]
        written = write(self.student, prompts, max_tokens=max_tokens, on=rows)
        return [
            GatedAnswer(one.text, row, probability) for one, (row, probability) in zip(written, decisions, strict=True)
        ]

    def merge(self) -> NoReturn:
        """Refuse: raises SettingsError with the reason."""
        raise SettingsError(NO_MERGE)

    def save_gate(self, folder: Path) -> None:
        """Write the gate into the folder of the adapter, beside what peft needs."""
        save_gate(
            self.gate,
            folder,
            base=self.student.name,
            base_sha256=self.student.sha,
            features=self.features,
        )


def load_gated(folder: Path, student: Student) -> Gated:
    """Return the gated adapter in ``folder`` on ``student``, its base model, which gets the adapter.

    Raises ArtifactError if a file is missing or damaged, or if adapter or gate was trained for another model.
    """
    stored = load_gate(folder)
    if stored.base_sha256 != student.sha:
        raise ArtifactError(
            f"The gate in {folder} was trained for {stored.base} ({stored.base_sha256[:12]}), the model at hand is "
            f"{student.name} ({student.sha[:12]}). Load it with the model that it was trained for."
        )
    student = attach(student, folder)
    features: list[Features] = [FirstLayer(student.model, student.tokenizer)]
    if (regions := regions_from(stored)) is not None:
        features.append(regions)
    return Gated(student, stored.gate, features)


def is_gated(folder: Path) -> bool:
    """Whether the adapter in ``folder`` has a gate."""
    return (folder / GATE_FILE).exists()


def check_mergeable(folder: Path) -> None:
    """Raise SettingsError, with the reason, if the adapter in ``folder`` has a gate and so can't be merged."""
    if is_gated(folder):
        raise SettingsError(NO_MERGE)
