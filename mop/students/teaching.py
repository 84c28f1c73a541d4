"""Teaching: winning answers become the adapter of a gated student, and what came of it is reported.

Always reported, so that nothing is credited to an adapter that does nothing: how far it is from the base model, how far
teacher and student were apart before the first step, and how both answers' lengths went with winning. Knows nothing of
how answers were made or judged.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mop.students.balance import even_order, held_out_intents
from mop.students.distil import divergence, mean_divergence, openings_met
from mop.students.distil_batches import DistilBatches, Item, in_turn, make_item
from mop.students.features import Features, FirstLayer
from mop.students.gate import Gate
from mop.students.gated import Gated
from mop.students.rendering import prompt_text
from mop.students.stages import Row
from mop.students.teacher import teacher_of
from mop.students.training import PROBE

if TYPE_CHECKING:
    from mop.students.models import Student
    from mop.students.prism import Prism
    from mop.students.trainer import Step


def distil(
    won: Sequence[Row],
    student: Student,
    gate: Gate,
    features: Sequence[Features],
    folder: Path,
    settings: Prism,
    listener: Callable[[Step], None] | None = None,
) -> tuple[Gated, dict[str, Any]]:
    """Return the student with an adapter trained on the winning rows, and what is to be reported of it.

    Rows have ``query``, ``text`` (the persona), ``with_persona``, ``ended`` and ``intent``.
    """
    from mop.students.trainer import train

    held, taught = _divided(won, settings)
    items = [item_of(student, row) for row in taught]
    tested = in_turn([item_of(student, row) for row in held], micro=settings.micro)
    before = mean_divergence(student, tested) if held else None
    personas = [row["persona"] for row in taught]
    order = even_order(personas, epochs=settings.epochs, batch=settings.batch, seed=settings.seed)
    teacher = teacher_of(student, items)
    trained = train(
        student,
        DistilBatches(items, order, micro=settings.micro, opening=settings.opening, teacher=teacher),
        lambda model, batch: divergence(model, batch, settings.temperature),
        settings.trainer,
        folder,
        listener=listener,
        about={
            "recipe": "prism",
            "temperature": settings.temperature,
            "probe": prompt_text(student.tokenizer, PROBE),
        },
    )
    later = [one if one.name != "first layer" else FirstLayer(student.model, student.tokenizer) for one in features]
    gated = Gated(trained.student, gate, later)
    gated.save_gate(folder)
    report = {
        "trained_on": len(items),
        "trained_on_of": {name: personas.count(name) for name in sorted(set(personas))},
        "held_out": len(held),
        "openings_met": {
            "trained_on": openings_met(gated.student, in_turn(items, micro=settings.micro)),
            "held_out": openings_met(gated.student, tested) if held else None,
        },
        "divergence": {
            "first": [row["divergence"] for row in won],
            "held_out_before": before,
            "held_out_after": mean_divergence(gated.student, tested) if held else None,
            "adapter_from_base": adapter_from_base(gated.student, held or taught),
        },
        "loss": [step["loss"] for step in trained.history],
    }
    return gated, report


def adapter_from_base(student: Student, rows: Sequence[Row]) -> float:
    """Return how far the adapter is from the base model on the same bare prompts, in nats a token; 0 if it is inert."""
    items = [item_of(student, row) for row in rows]
    return mean_divergence(student, in_turn([Item(one.student, one.student, one.answer) for one in items]))


def routing_rates(gated: Gated, verdicts: Sequence[Row]) -> dict[str, float]:
    """Return the share of each persona's queries that the gate sends to the adapter."""
    decided = [on for on, _ in gated.decide([row["query"] for row in verdicts])]
    names = sorted({row["persona"] for row in verdicts})
    found = {name: [on for on, row in zip(decided, verdicts, strict=True) if row["persona"] == name] for name in names}
    return {name: sum(ons) / len(ons) for name, ons in found.items()}


def lengths(verdicts: Sequence[Row]) -> dict[str, float | None]:
    """Return the mean words of both answers, and the share that the persona won where its answer was longer or not."""
    words = [(len(row["with_persona"].split()), len(row["bare"].split())) for row in verdicts]
    won: dict[bool, list[bool]] = {True: [], False: []}
    for (told, bare), row in zip(words, verdicts, strict=True):
        won[told > bare].append(bool(row["persona_won"]))
    return {
        "with_persona": sum(told for told, _ in words) / len(words),
        "bare": sum(bare for _, bare in words) / len(words),
        "won_when_longer": sum(won[True]) / len(won[True]) if won[True] else None,
        "won_when_not_longer": sum(won[False]) / len(won[False]) if won[False] else None,
    }


def item_of(student: Student, row: Row) -> Item:
    """Return the tokens of a winning row."""
    return make_item(student.tokenizer, row["query"], row["text"], row["with_persona"], ended=row["ended"])


def _divided(rows: Sequence[Row], settings: Prism) -> tuple[list[Row], list[Row]]:
    """Return the rows of held-out intents and the others."""
    held = held_out_intents(rows, settings.held_out, seed=settings.seed)
    chosen = [row for row in rows if (row["persona"], row["intent"]) in held]
    return chosen, [row for row in rows if (row["persona"], row["intent"]) not in held]
