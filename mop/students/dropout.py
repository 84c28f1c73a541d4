"""Depth dropout: dropout of residual branches that rises with depth, from nothing at the first layer.

The schedule of Self-Prompt Tuning's base recipe (LIMA, arXiv 2305.11206, section 3): rates from 0 at the bottom to 0.3
at the top, 0.2 for smaller models. It works on any model whose layers have an attention and a feed-forward part by one
of the usual names, and only in training mode. Knows nothing of adapters.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mop.errors import SettingsError

#: What the two branches of a layer are called, in the usual families.
_BRANCHES = ("self_attn", "attn", "attention", "mlp", "feed_forward", "block_sparse_moe", "linear_attn")


def rates(layers: int, top: float) -> list[float]:
    """Return each layer's rate: 0 at the first, ``top`` at the last, linear between."""
    return [top * place / max(1, layers - 1) for place in range(layers)]


def blocks(model: Any) -> tuple[str, Any]:
    """Return the name and the list of a model's layers.

    Raises SettingsError if nothing in it looks like a list of layers.
    """
    import torch

    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    count = base.config.get_text_config().num_hidden_layers
    for name, module in base.named_modules():
        if isinstance(module, torch.nn.ModuleList) and len(module) == count:
            return name, module
    raise SettingsError(
        f"No list of {count} layers was found in a model of type {type(base).__name__}, so its adapter has no place. "
        "Give a decoder-only transformer."
    )


@contextmanager
def depth_dropout(model: Any, top: float) -> Iterator[None]:
    """Drop parts of each layer's branches while inside, where the model is in training mode.

    Raises SettingsError if a layer's branches aren't found.
    """
    from torch.nn import functional

    hooks = []
    try:
        if top > 0:
            found = blocks(model)[1]
            for block, rate in zip(found, rates(len(found), top), strict=True):
                branches = [getattr(block, name) for name in _BRANCHES if hasattr(block, name)]
                if len(branches) < 2:
                    raise SettingsError(
                        f"The layers of {type(block).__name__} have no branches by a known name "
                        f"({', '.join(_BRANCHES)}), so dropout by depth can't be applied; set it to 0."
                    )

                def drop(module: Any, _given: Any, output: Any, rate: float = rate) -> Any:
                    if not module.training or rate == 0:
                        return output
                    if isinstance(output, tuple):  # attention also returns its weights
                        return functional.dropout(output[0], rate), *output[1:]
                    return functional.dropout(output, rate)

                hooks += [branch.register_forward_hook(drop) for branch in branches]
        yield
    finally:
        for hook in hooks:
            hook.remove()
