"""Adapter: LoRA on all layers of a causal model but the first, and the checks that it is one that a gate can sit before.

The first layer is what the gate looks at, so nothing may change it. Knows nothing of training or gates.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mop.errors import ArtifactError, ModelError
from mop.seeds import stream
from mop.students.features import blocks, blocks_by_name
from mop.students.generating import ADAPTER

if TYPE_CHECKING:
    from mop.students.models import Student

#: Why a gated adapter can't be merged.
NO_MERGE = (
    "A gated adapter can't be merged into the model: merged weights answer every query, and the gate has nothing left "
    "to switch off. Keep the folder and load it as it is, or train an adapter without a gate."
)


def wrap(student: Student, *, rank: int = 16, alpha: int = 32, dropout: float = 0.05, seed: int = 0) -> Student:
    """Return the student with a new adapter, which changes nothing until it is trained.

    All linear parts of every layer but the first get one, as in PRISM. The base weights are shared with ``student``.
    Raises ModelError if the model has but one layer.
    """
    import torch
    from peft import LoraConfig, get_peft_model

    first = int(stream(seed, "adapter").integers(2**31))
    # The library draws the first weights from the global stream; it is put back afterwards.
    with torch.random.fork_rng():
        torch.manual_seed(first)
        model = get_peft_model(
            student.model,
            LoraConfig(
                r=rank,
                lora_alpha=alpha,
                lora_dropout=dropout,
                bias="none",
                task_type="CAUSAL_LM",
                **targets(student.model),
            ),
            adapter_name=ADAPTER,
        )
    check_adapter(model)
    return replace(student, model=model.eval())


def targets(model: Any) -> dict[str, Any]:
    """Return the fields of a LoRA configuration that say where: every linear part of all layers but the first.

    Raises ModelError if the model has but one layer, or no linear parts in its layers.
    """
    from torch.nn import Linear

    name, layers = blocks_by_name(model)
    if len(layers) < 2:
        raise ModelError("The model has one layer; a gated adapter leaves the first alone, so it needs two or more.")
    parts = sorted({one.rpartition(".")[2] for one, module in layers.named_modules() if isinstance(module, Linear)})
    if not parts:
        raise ModelError(f"The layers of {type(model).__name__} have no linear parts; adapters need some.")
    return {
        "target_modules": parts,
        "layers_to_transform": list(range(1, len(layers))),
        "layers_pattern": name.rpartition(".")[2],
    }


def adapted_layers(model: Any) -> list[int]:
    """Return the numbers of the layers that an adapter changes, in order."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    return [
        number
        for number, block in enumerate(blocks(model))
        if any(isinstance(module, BaseTunerLayer) for module in block.modules())
    ]


def check_adapter(model: Any) -> None:
    """Raise ArtifactError if the adapter of ``model`` is merged, or changes what a gate looks at."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    if list(getattr(model, "peft_config", {})) != [ADAPTER]:
        raise ArtifactError(f"A gated model has one adapter, called {ADAPTER!r}; this one has another or none.")
    name, _ = blocks_by_name(model)
    adapted = {one: module for one, module in model.named_modules() if isinstance(module, BaseTunerLayer)}
    if any(module.merged for module in adapted.values()):
        raise ArtifactError(NO_MERGE)
    if 0 in adapted_layers(model) or any(not one.startswith(f"{name}.") for one in adapted):
        raise ArtifactError(
            "This adapter changes the first layer or what stands before it, which is what a gate looks at; "
            "train a gated adapter on all layers but the first."
        )
