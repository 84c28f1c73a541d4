"""Losses of what is learned from texts. Knows nothing of where the texts came from, nor of optimizers."""

from __future__ import annotations

import inspect
from typing import Any

from mop.students.batches import IGNORED


def answer_loss(model: Any, batch: dict[str, Any]) -> Any:
    """Return the mean cross-entropy, in nats a token, of the tokens whose label counts; a scalar tensor.

    The vocabulary's logits are computed only from the first position that counts on: questions cost no memory there.

    Args:
        model: A causal model, with an adapter or without.
        batch: ``input_ids``, ``attention_mask`` and ``labels`` of shape (rows, tokens); see
            `mop.students.batches.collate`.
    """
    from torch.nn import functional

    targets = batch["labels"][:, 1:]
    first = int((targets != IGNORED).any(dim=0).nonzero()[0])
    kept = targets.shape[1] - first
    # Positions, and one more for the last token, which predicts nothing here.
    given = {"logits_to_keep": kept + 1} if can_keep(model) else {}
    logits = model(
        input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False, **given
    ).logits
    wanted = targets[:, first:]
    counts = wanted != IGNORED
    # Picked before they become 32-bit: padding and questions in between would be most of the memory.
    return functional.cross_entropy(logits[:, -(kept + 1) : -1][counts].float(), wanted[counts])


def can_keep(model: Any) -> bool:
    """Whether the model can be told at how many of the last positions its logits are wanted."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    return "logits_to_keep" in inspect.signature(base.forward).parameters
