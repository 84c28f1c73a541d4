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
from mop.students.adapters import RECORD
from mop.students.asking import StudentClient
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
from mop.students.distil import TEMPERATURE, check_divergence, mean_divergence
from mop.students.distil_batches import in_turn
from mop.students.features import Features, FirstLayer, regions_of
from mop.students.gate import Gate, compute
from mop.students.gate_training import train_gate
from mop.students.gated import Gated
from mop.students.personas import Persona
from mop.students.recipes import FULL_SIZE
from mop.students.stages import Row, row_id, run_stage, write_rows
from mop.students.teaching import distil, item_of, lengths, routing_rates
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
#: Rate for models below `mop.students.recipes.FULL_SIZE`: an adapter with few weights takes and needs a higher one.
SMALL_RATE = 5e-4


def distillation(parameters: int) -> TrainerConfig:
    """Return the hyper-parameters for a model of so many parameters."""
    return DISTILLATION if parameters >= FULL_SIZE else DISTILLATION.model_copy(update={"learning_rate": SMALL_RATE})


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
        opening: What each of an answer's first tokens weighs beside a later one.
        held_out: Share of the intents whose winning answers aren't trained on; the divergence is measured on them.
        seed: Of the gate, the order and the held-out intents.
    """

    bootstrap: Bootstrap = field(default_factory=Bootstrap)
    trainer: TrainerConfig = DISTILLATION
    epochs: int = 10
    batch: int = 16
    micro: int = 4
    temperature: float = TEMPERATURE
    opening: float = 4.0
    held_out: float = 0.2
    seed: int = 0


def prism_settings(chosen: Mapping[str, Any], parameters: int = FULL_SIZE) -> Prism:
    """Return the settings of a run: what is ``chosen`` and not None goes before the defaults.

    Defaults are those for a model of so many ``parameters``.
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
        config = TrainerConfig(**{**distillation(parameters).model_dump(), **trainer})
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

    ``judge`` is the model itself unless given. Raises ModelError if the model can't answer or judge, SettingsError if
    the folder holds a finished run of other personas or settings, whose files are left as they are.
    """
    stages, finished = folder / STAGES, (folder / RECORD).exists()
    queries = usable(await make_queries(stages, personas, model, settings, progress, finished=finished))
    answers = await make_answers(stages, queries, model, settings, progress, finished=finished)
    return await make_verdicts(stages, answers, judge or Judge(model), progress, finished=finished)


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
    require_intents(personas)
    if settings.trainer.first_layer < 1:
        raise SettingsError("first_layer is 0; a gate looks at the first layer, so the adapter must begin after it.")
    asked = model or StudentClient(student)
    verdicts = run(bootstrap(folder, personas, asked, settings.bootstrap, judge=judge, progress=progress))
    features: list[Features] = [FirstLayer(student.model, student.tokenizer)]
    if mixture is not None:
        features.append(regions_of(mixture))
    gate = fit_gate(folder, verdicts, features, settings.seed)
    won = run(with_divergence(folder, winners(verdicts), student, progress))
    gated, report = distil(won, student, gate, features, folder, settings, listener)
    report["queries"], report["won"] = len(verdicts), len(won)
    report["on"], report["lengths"] = routing_rates(gated, verdicts), lengths(verdicts)
    (folder / REPORT).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return gated


def require_intents(personas: Sequence[Persona]) -> None:
    """Raise DataError if there are too few intents to hold any out."""
    if len({intent for one in personas for intent in one.intents}) < 2:
        raise DataError(
            "A gate is tested on intents that it hasn't seen; give personas with two intents or more in all."
        )


def fit_gate(folder: Path, verdicts: Sequence[Row], features: Sequence[Features], seed: int) -> Gate:
    """Return the gate for these verdicts, tested on held-out intents; its rows are written to ``gate.jsonl``."""
    queries = [row["query"] for row in verdicts]
    labels = [bool(row["persona_won"]) for row in verdicts]
    templates = [row["intent"] for row in verdicts]
    inputs = compute(features, [one.name for one in features], queries)
    gate = train_gate(inputs, labels, templates, seed=seed)
    probabilities = gate.probabilities(inputs, len(queries)).tolist()
    rows = [
        {"query": query, "template": template, "persona_won": label, "probability": probability}
        for query, template, label, probability in zip(queries, templates, labels, probabilities, strict=True)
    ]
    write_rows(folder / STAGES / "gate.jsonl", [{"id": row_id("gate", row), **row} for row in rows])
    return gate


async def with_divergence(
    folder: Path, won: Sequence[Row], student: Student, progress: Progress | None = None
) -> list[Row]:
    """Return the rows with how far the persona's prompt is from the bare one before any step; checked to be clear."""
    kept = ("query", "persona", "intent", "text", "with_persona", "ended")
    work = [{**{name: row[name] for name in kept}, "base": student.sha} for row in won]

    async def make(rows: Sequence[Row]) -> list[Row]:
        found = []
        for row in rows:
            each = in_turn([item_of(student, row)])
            found.append({"divergence": mean_divergence(student, each)})
        return found

    rows = await run_stage(folder / STAGES / "divergence.jsonl", work, make, progress=progress)
    check_divergence(sum(row["divergence"] for row in rows) / len(rows))
    return rows
