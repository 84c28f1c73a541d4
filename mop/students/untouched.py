"""Untouched: the checks that an adapter is one that a gate can sit before.

The first layer is what the gate looks at, so the adapter may not change it, and merged weights can't be switched off.
Knows nothing of training or gates.
"""

from __future__ import annotations

from typing import Any

from mop.errors import ArtifactError
from mop.students.dropout import blocks
from mop.students.generating import ADAPTER

#: Why a gated adapter can't be merged.
NO_MERGE = (
    "A gated adapter can't be merged into the model: merged weights answer every query, and the gate has nothing left "
    "to switch off. Keep the folder and load it as it is, or train an adapter without a gate."
)


def adapted_layers(model: Any) -> list[int]:
    """Return the numbers of the layers that an adapter changes, in order."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    return [
        number
        for number, block in enumerate(blocks(model)[1])
        if any(isinstance(module, BaseTunerLayer) for module in block.modules())
    ]


def check_adapter(model: Any) -> None:
    """Raise ArtifactError if the adapter of ``model`` is merged, or changes what a gate looks at."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    if list(getattr(model, "peft_config", {})) != [ADAPTER]:
        raise ArtifactError(f"A gated model has one adapter, called {ADAPTER!r}; this one has another or none.")
    name, _ = blocks(model)
    base = model.get_base_model()
    adapted = {one: module for one, module in base.named_modules() if isinstance(module, BaseTunerLayer)}
    if any(module.merged for module in adapted.values()):
        raise ArtifactError(NO_MERGE)
    if 0 in adapted_layers(model) or any(not one.startswith(f"{name}.") for one in adapted):
        raise ArtifactError(
            "This adapter changes the first layer or what stands before it, which is what a gate looks at; "
            "train a gated adapter on all layers but the first (first_layer=1)."
        )
