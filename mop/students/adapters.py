"""Adapters: a LoRA on a student, and folders of peft that hold one beside a record of how it was made.

``adapter_model.safetensors`` and ``adapter_config.json`` are peft's own; ``student.json`` is written last, so a folder
that has it is whole. Knows nothing of training.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mop.errors import ArtifactError, SettingsError
from mop.students.config import TrainerConfig
from mop.students.dropout import blocks
from mop.students.models import Student
from mop.students.randomness import drawn_from

RECORD = "student.json"
WEIGHTS = "adapter_model.safetensors"


def wrap(student: Student, config: TrainerConfig) -> Student:
    """Give the student a new adapter on every linear part of its layers from ``config.first_layer`` on; return it.

    The adapter changes nothing yet.

    Raises SettingsError if the model has fewer layers than that, or an adapter already.
    """
    import torch
    from peft import LoraConfig, PeftModel, get_peft_model
    from transformers.pytorch_utils import Conv1D

    if isinstance(student.model, PeftModel):
        raise SettingsError(f"{student.name} has an adapter already; detach it, or load the model anew.")
    name, found = blocks(student.model)
    if config.first_layer >= len(found):
        raise SettingsError(
            f"The adapter is to begin at layer {config.first_layer}, but {student.name} has {len(found)} layers "
            "counted from 0."
        )
    linear = {
        part.rpartition(".")[2]
        for part, module in found[config.first_layer].named_modules()
        if isinstance(module, (torch.nn.Linear, Conv1D))
    }
    layers: dict[str, Any] = {}
    if config.first_layer:
        layers["layers_to_transform"] = list(range(config.first_layer, len(found)))
        layers["layers_pattern"] = name.rpartition(".")[2]
    made = LoraConfig(
        task_type="CAUSAL_LM",
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.lora_dropout,
        target_modules=sorted(linear),
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in found.modules()),
        **layers,
    )
    with drawn_from(student.device, config.seed, "adapter"), _without_renaming():
        student.model = get_peft_model(student.model, made).eval()
    # Where the files are on this machine is nobody's business, and wrong on the next.
    made.base_model_name_or_path = student.name
    return student


def detach(student: Student) -> Student:
    """Take the adapter off the student, so that it is the base model again; return it."""
    from peft import PeftModel

    if isinstance(student.model, PeftModel):
        student.model = student.model.unload()
    return student


def save(student: Student, folder: Path, record: dict[str, Any]) -> None:
    """Write the adapter and its record into ``folder``, each file whole or not there.

    Raises ArtifactError if it can't be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=".saving-", dir=folder))
        try:
            # The vocabulary is the base model's; peft would look for its files under the student's name.
            student.model.save_pretrained(part, save_embedding_layers=False)
            about = {"base": student.name, "base_sha256": student.sha, **record}
            (part / RECORD).write_text(json.dumps(about, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
            for name in (WEIGHTS, "adapter_config.json", RECORD):
                with (part / name).open("rb") as file:
                    os.fsync(file.fileno())
                os.replace(part / name, folder / name)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    except OSError as error:
        raise ArtifactError(f"The adapter can't be written to {folder}: {error.strerror or error}.") from error


def read_record(folder: Path) -> dict[str, Any]:
    """Return the record of an adapter's folder. Raises ArtifactError if it isn't there or isn't one."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ArtifactError(
            f"{folder} holds no finished student ({RECORD} isn't there). Give a folder that `mop students train` wrote."
        ) from None
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{folder / RECORD} can't be read: {error}. Train the student again.") from error
    if not isinstance(record, dict) or not isinstance(record.get("base"), str):
        raise ArtifactError(f"{folder / RECORD} isn't the record of a student. Train the student again.")
    return record


def attach(student: Student, folder: Path) -> Student:
    """Give the student the adapter in ``folder``; return it.

    Raises ArtifactError if the files are damaged, or if the adapter was trained for another model.
    """
    from peft import PeftModel
    from safetensors import SafetensorError

    record = read_record(folder)
    if record.get("base_sha256") != student.sha:
        raise ArtifactError(
            f"The adapter in {folder} was trained for {record['base']} ({str(record.get('base_sha256'))[:12]}), the "
            f"model at hand is {student.name} ({student.sha[:12]}). Load it with the model that it was trained for."
        )
    if not (folder / WEIGHTS).is_file():
        raise ArtifactError(f"{folder} has no {WEIGHTS}; train the student again.")
    try:
        with _without_renaming():
            model = PeftModel.from_pretrained(detach(student).model, str(folder))
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError) as error:
        raise ArtifactError(f"The adapter in {folder} is damaged: {str(error)[:300]}. Train it again.") from error
    student.model = model.eval()
    return student


@contextmanager
def _without_renaming() -> Iterator[None]:
    """Keep quiet about a property that peft asks for by the name that transformers had for it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        yield
