"""PRISM: from personas to a gated adapter, by the model itself (arXiv 2603.18507).

Personas → queries → answers bare and with the persona → verdicts in both orders → gate → distillation of the winning
answers into an adapter that needs no persona. The stages' files are in ``stages/`` of the folder, the adapter and its
gate in the folder itself; each can be looked at, and a stopped run goes on where it was.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from mop.errors import DataError, SettingsError
from mop.judge import Judge
from mop.seeds import stream
from mop.students.asking import StudentClient
from mop.students.batches import lay_out
from mop.students.bootstrap import (
    Bootstrap,
    Progress,
    make_answers,
    make_queries,
    make_verdicts,
    usable,
    winners,
)
from mop.students.config import TrainerConfig
from mop.students.distil import TEMPERATURE, check_divergence, divergence, mean_divergence
from mop.students.distil_batches import DistilBatches, Item, in_turn, make_item
from mop.students.features import Features, FirstLayer, regions_of
from mop.students.gate import Gate, compute
from mop.students.gate_training import train_gate
from mop.students.gated import Gated
from mop.students.personas import Persona
from mop.students.rendering import prompt_text
from mop.students.stages import Row, row_id, run_stage, write_rows
from mop.students.training import PROBE
from mop.sync import run

if TYPE_CHECKING:
    from mop.lm.asked import Asked
    from mop.mixture import Mixture
    from mop.students.models import Student
    from mop.students.trainer import Step

STAGES, REPORT = "stages", "report.json"
#: What distillation takes unless told otherwise: the released settings of PRISM, all layers but the first.
DISTILLATION = TrainerConfig(
    rank=16, alpha=32, lora_dropout=0.05, first_layer=1, learning_rate=2e-4, warmup=0.1, weight_decay=0.01, clip=1.0
)


@dataclass(frozen=True, slots=True)
class Prism:
    """How a gated adapter is made.

    Args:
        bootstrap: How much is asked of the model.
        trainer: Hyper-parameters; ``first_layer`` must be 1 or more.
        epochs: Times that each winning answer is seen.
        batch: Answers of a step.
        micro: Answers on the device at a time.
        temperature: Softens teacher and student.
        held_out: Share of the intents whose winning answers aren't trained on; the divergence is measured on them.
        seed: Of the gate, the order and the held-out intents.
    """

    bootstrap: Bootstrap = field(default_factory=Bootstrap)
    trainer: TrainerConfig = DISTILLATION
    epochs: int = 10
    batch: int = 16
    micro: int = 4
    temperature: float = TEMPERATURE
    held_out: float = 0.2
    seed: int = 0


def prism_settings(chosen: Mapping[str, Any]) -> Prism:
    """Return the settings of a run: what is ``chosen`` and not None goes before the defaults.

    Names are those of `TrainerConfig`, `Prism` and `Bootstrap`. Raises SettingsError for a value that can't be used.
    """
    given = {name: value for name, value in chosen.items() if value is not None}
    parts = (TrainerConfig.model_fields, Prism.__dataclass_fields__, Bootstrap.__dataclass_fields__)
    trainer, own, asking = ({name: one for name, one in given.items() if name in part} for part in parts)
    if unknown := sorted(set(given) - {*trainer, *own, *asking}):
        raise SettingsError(f"There is no setting {', '.join(unknown)} of the recipe prism.")
    low = [
        name
        for name in ("queries", "query_tokens", "answer_tokens", "epochs", "batch", "micro")
        if given.get(name, 1) < 1
    ]
    if low:
        raise SettingsError(f"{', '.join(low)} must be 1 or more.")
    try:
        config = TrainerConfig(**{**DISTILLATION.model_dump(), **trainer})
    except ValidationError as error:
        first = error.errors()[0]
        raise SettingsError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}, got {first['input']!r}.") from None
    return Prism(**{**own, "bootstrap": Bootstrap(**asking), "trainer": config})


async def bootstrap(
    folder: Path,
    personas: Sequence[Persona],
    model: Asked,
    settings: Bootstrap,
    *,
    judge: Judge | None = None,
    progress: Progress | None = None,
) -> list[Row]:
    """Run the stages that only ask: return the verdicts (`mop.students.bootstrap.make_verdicts`).

    ``judge`` is the model itself unless given. Raises ModelError if the model can't answer or judge.
    """
    stages = folder / STAGES
    queries = usable(await make_queries(stages, personas, model, settings, progress))
    answers = await make_answers(stages, queries, model, settings, progress)
    return await make_verdicts(stages, answers, judge or Judge(model), progress)


def make_prism(
    personas: Sequence[Persona],
    student: Student,
    folder: Path,
    settings: Prism,
    *,
    model: Asked | None = None,
    judge: Judge | None = None,
    mixture: Mixture | None = None,
    progress: Progress | None = None,
    listener: Callable[[Step], None] | None = None,
) -> Gated:
    """Return a student with an adapter that has learned the personas, behind a gate; it is saved in ``folder``.

    Args:
        personas: With their intents.
        student: The base model; it gets the adapter.
        folder: Where all files go.
        settings: How it is made.
        model: What writes queries and answers: the student itself, or a client of the same model at an endpoint.
        judge: Compares the answers; the same model unless given.
        mixture: Its regions become features of the gate and the table that it must beat.
        progress: Told how far each stage is.
        listener: Told of each step of the training.

    Raises:
        DataError: No persona won anywhere, or the personas change nothing.
        ModelError: The model can't answer, or its verdicts can't be read.
        SettingsError: The folder holds another run.
    """
    intents = sum(len(one.intents) for one in personas)
    if intents < 2:
        raise DataError(
            "A gate is tested on intents that it hasn't seen; give personas with two intents or more in all."
        )
    asked = model or StudentClient(student)
    verdicts = run(bootstrap(folder, personas, asked, settings.bootstrap, judge=judge, progress=progress))
    features: list[Features] = [FirstLayer(student.model, student.tokenizer)]
    if mixture is not None:
        features.append(regions_of(mixture))
    gate = fit_gate(folder, verdicts, features, settings.seed)
    won = run(_with_divergence(folder, winners(verdicts), student, progress))
    gated, report = distil(won, student, gate, features, folder, settings, listener)
    report["queries"], report["won"] = len(verdicts), len(won)
    report["on"], report["lengths"] = routing_rates(gated, verdicts), lengths(verdicts)
    (folder / REPORT).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return gated


def fit_gate(folder: Path, verdicts: Sequence[Row], features: Sequence[Features], seed: int) -> Gate:
    """Return the gate for these verdicts, tested on held-out intents; its rows are written to ``gate.jsonl``."""
    queries = [row["query"] for row in verdicts]
    labels = [bool(row["persona_won"]) for row in verdicts]
    templates = [f"{row['persona']}: {row['intent']}" for row in verdicts]
    inputs = compute(features, [one.name for one in features], queries)
    gate = train_gate(inputs, labels, templates, seed=seed)
    probabilities = gate.probabilities(inputs, len(queries)).tolist()
    rows = [
        {"query": query, "template": template, "persona_won": label, "probability": probability}
        for query, template, label, probability in zip(queries, templates, labels, probabilities, strict=True)
    ]
    write_rows(folder / STAGES / "gate.jsonl", [{"id": row_id("gate", row), **row} for row in rows])
    return gate


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
    items = [_item(student, row) for row in taught]
    tested = in_turn([_item(student, row) for row in held], micro=settings.micro)
    before = mean_divergence(student, tested) if held else None
    order = lay_out([range(len(items))], epochs=settings.epochs, batch=settings.batch, seed=settings.seed)
    trained = train(
        student,
        DistilBatches(items, order, micro=settings.micro),
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
        "held_out": len(held),
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
    items = [_item(student, row) for row in rows]
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


async def _with_divergence(folder: Path, won: Sequence[Row], student: Student, progress: Progress | None) -> list[Row]:
    """Return the rows with how far the persona's prompt is from the bare one before any step; checked to be clear."""
    kept = ("query", "persona", "intent", "text", "with_persona", "ended")
    work = [{**{name: row[name] for name in kept}, "base": student.sha} for row in won]

    async def make(rows: Sequence[Row]) -> list[Row]:
        found = []
        for row in rows:
            each = in_turn([_item(student, row)])
            found.append({"divergence": mean_divergence(student, each)})
        return found

    rows = await run_stage(folder / STAGES / "divergence.jsonl", work, make, progress=progress)
    check_divergence(sum(row["divergence"] for row in rows) / len(rows))
    return rows


def _item(student: Student, row: Row) -> Item:
    return make_item(student.tokenizer, row["query"], row["text"], row["with_persona"], ended=row["ended"])


def _divided(rows: Sequence[Row], settings: Prism) -> tuple[list[Row], list[Row]]:
    """Return the rows of held-out intents and the others; none are held out where there is but one intent."""
    intents = sorted({(row["persona"], row["intent"]) for row in rows})
    count = min(round(settings.held_out * len(intents)), len(intents) - 1)
    order = stream(settings.seed, "held-out intents").permutation(len(intents))
    held = {intents[place] for place in order[:count]}
    chosen = [row for row in rows if (row["persona"], row["intent"]) in held]
    return chosen, [row for row in rows if (row["persona"], row["intent"]) not in held]
