"""Training: from files of conversations to a trained student, by a recipe. Files are checked before a model is loaded.

>>> train_on_texts(get_recipe("expert"), "expert.jsonl", "out", base="local/smollm2-135m-instruct")  # doctest: +SKIP
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mop.errors import RowProblem, SettingsError
from mop.lm.weights import DEFAULT_WHITE_BOX
from mop.students import require_extra
from mop.students.batches import TextBatches, in_turn, lay_out
from mop.students.config import TrainerConfig
from mop.students.conversations import Conversation, bad_conversations, read_conversations
from mop.students.models import Student, load
from mop.students.recipes import Plan, Recipe
from mop.students.rendering import Rendered, prompt_text, render
from mop.students.trainer import Step, Trained, train

#: Its rendering is kept with a student, to tell whether the student is later asked in the words that it knows.
PROBE = ({"role": "user", "content": "What is the capital of France?"},)


@dataclass(frozen=True)
class Prepared:
    """A loaded model with all that its training takes. ``cut`` conversations lost their end; ``tokens`` count."""

    student: Student
    recipe: Recipe
    config: TrainerConfig
    plan: Plan
    batches: TextBatches
    validation: TextBatches | None
    conversations: int
    tokens: int
    cut: int

    def train(self, folder: Path, listener: Callable[[Step], None] | None = None) -> Trained:
        """Train and save the adapter; raises as `mop.students.trainer.train` does."""
        from mop.students.losses import answer_loss

        about = {
            "recipe": self.recipe.name,
            "plan": self.plan.model_dump(mode="json"),
            "conversations": self.conversations,
            "probe": prompt_text(self.student.tokenizer, PROBE),
        }
        return train(
            self.student,
            self.batches,
            answer_loss,
            self.config,
            folder,
            validation=self.validation,
            listener=listener,
            about=about,
        )


def prepare(
    recipe: Recipe,
    data: str | os.PathLike[str],
    *,
    base: str = DEFAULT_WHITE_BOX,
    standard: str | os.PathLike[str] | None = None,
    validation: str | os.PathLike[str] | None = None,
    system: bool = False,
    chosen: Mapping[str, Any] | None = None,
    device: str = "auto",
    dtype: str = "auto",
) -> Prepared:
    """Check the files, load the model and lay the training out.

    Args:
        recipe: What the student is to say.
        data: Conversations as JSON lines (`mop.students.conversations`).
        base: The model, by any name that `mop.students.models.load` takes.
        standard: More conversations, for the curriculum.
        validation: Conversations whose loss is measured before and after.
        system: Whether the conversations may begin with a system turn.
        chosen: Settings of `TrainerConfig` and `Plan` by name, in place of the recipe's.
        device: As for `load`.
        dtype: As for `load`.

    Raises:
        DataError: A file can't be used; every bad line is listed.
        SettingsError: A setting can't be used, or the extra isn't installed.
        WeightsError: The model isn't here.
        ModelError: The model can't be loaded.
    """
    require_extra()
    recipe.settings(0, chosen or {})  # a wrong one is told before anything is read
    files = [str(file) for file in (data, standard) if file is not None]
    parts = [read_conversations(file, system=system, annotated=recipe.annotated) for file in files]
    held_out = read_conversations(validation, system=system, annotated=recipe.annotated) if validation else []
    student = load(base, device=device, dtype=dtype)
    config, plan = recipe.settings(student.model.num_parameters(), chosen or {})
    rendered = [_render(student, recipe, plan, part, file) for part, file in zip(parts, files, strict=True)]
    rows = [row for part in rendered for row in part]
    whole = list(range(len(rows)))
    first = len(rendered[0])
    stages = [whole] if plan.curriculum == "mixed" or standard is None else [whole[:first], whole[first:]]
    pad = int(student.tokenizer.pad_token_id)
    cut = [_cut(row, plan.max_tokens) for row in rows]
    batches = TextBatches(
        cut, lay_out(stages, epochs=plan.epochs, batch=plan.batch, seed=config.seed), pad=pad, micro=plan.micro
    )
    looked_at = None
    if held_out:
        shown = [_cut(row, plan.max_tokens) for row in _render(student, recipe, plan, held_out, str(validation))]
        looked_at = in_turn(shown, pad=pad, batch=plan.micro)
    return Prepared(
        student,
        recipe,
        config,
        plan,
        batches,
        looked_at,
        len(rows),
        sum(sum(row.counts) for row in cut),
        sum(len(one.ids) < len(row.ids) for one, row in zip(cut, rows, strict=True)),
    )


def train_on_texts(
    recipe: Recipe, data: str | os.PathLike[str], folder: str | os.PathLike[str], **given: Any
) -> Trained:
    """Prepare and train in one call; takes what `prepare` takes, and raises as it and `train` do."""
    return prepare(recipe, data, **given).train(Path(folder))


def _render(
    student: Student, recipe: Recipe, plan: Plan, conversations: Sequence[Conversation], origin: str
) -> list[Rendered]:
    rows, problems = [], []
    for one in conversations:
        row = render(student.tokenizer, recipe.target(one, plan))
        before = row.counts.index(True)
        if before >= plan.max_tokens:
            reason = f"the question takes {before:,} tokens, and --max-tokens is {plan.max_tokens:,}"
            problems.append(RowProblem(one.line, reason))
        rows.append(row)
    if problems:
        raise bad_conversations(problems, origin, len(conversations))
    return rows


def _cut(row: Rendered, most: int) -> Rendered:
    """Return the row without what goes beyond ``most`` tokens; a cut answer teaches no end."""
    return row if len(row.ids) <= most else replace(row, ids=row.ids[:most], counts=row.counts[:most])


def require_known_words(student: Student, record: Mapping[str, Any], folder: Path) -> None:
    """Raise SettingsError unless the student is asked in the words that it was trained with."""
    if "probe" in record and record["probe"] != prompt_text(student.tokenizer, PROBE):
        raise SettingsError(
            f"{student.name} now writes its prompts in another way than when {folder} was trained: its chat template "
            "has changed. Train the student again, or load the model with the old template."
        )
