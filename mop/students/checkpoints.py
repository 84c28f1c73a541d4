"""Checkpoints: what a training run needs to go on as if nothing had happened, in one file of plain numbers.

Adapter, both averages of AdamW, the losses so far and the number of steps done; rates and random numbers follow from
that number. The file replaces the last one at once and is never half there. Knows nothing of losses or data.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mop.errors import ArtifactError

NAME = "checkpoint.safetensors"
#: What AdamW keeps for each parameter.
_AVERAGES = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class Resumed:
    """Where a run was: steps done, what is known of each, the validation loss at the start, and what the run was."""

    steps: int
    history: list[dict[str, float]]
    validated: float | None
    run: dict[str, Any]


def save(
    folder: Path,
    parameters: Mapping[str, Any],
    optimizer: Any,
    history: list[dict[str, float]],
    validated: float | None,
    run: Mapping[str, Any],
) -> None:
    """Write the state after ``len(history)`` steps. Raises ArtifactError if it can't be written."""
    from safetensors.torch import save_file

    tensors = {f"parameter/{name}": tensor.detach().cpu().contiguous() for name, tensor in parameters.items()}
    for name, tensor in parameters.items():
        state = optimizer.state.get(tensor, {})
        tensors |= {f"{kind}/{name}": state[kind].cpu().contiguous() for kind in _AVERAGES if kind in state}
    about = {"run": json.dumps(run), "history": json.dumps(history), "validated": json.dumps(validated)}
    part = folder / f".{NAME}.part"
    try:
        save_file(tensors, part, metadata=about)
        with part.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(part, folder / NAME)
    except OSError as error:
        raise ArtifactError(f"The checkpoint can't be written to {folder}: {error.strerror or error}.") from error


def peek(folder: Path) -> Resumed | None:
    """Return what the checkpoint in ``folder`` is of, without its numbers; None if there is none.

    Raises ArtifactError if it is damaged.
    """
    from safetensors import SafetensorError, safe_open

    path = folder / NAME
    if not path.exists():
        return None
    try:
        with safe_open(path, "pt") as file:
            about = file.metadata() or {}
        history = json.loads(about["history"])
        return Resumed(len(history), history, json.loads(about["validated"]), json.loads(about["run"]))
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise ArtifactError(f"{path} is damaged ({error}). Delete it; the training then begins again.") from error


def restore(folder: Path, parameters: Mapping[str, Any], optimizer: Any, steps: int) -> None:
    """Give parameters and optimizer the numbers of the checkpoint in ``folder``, which is of ``steps`` steps.

    Raises ArtifactError if it is of other parameters.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(folder / NAME)
        with torch.no_grad():
            for name, tensor in parameters.items():
                tensor.copy_(tensors[f"parameter/{name}"])
                kept = {kind: tensors[f"{kind}/{name}"].to(tensor.device) for kind in _AVERAGES}
                optimizer.state[tensor] = {"step": torch.tensor(float(steps)), **kept}
    except (OSError, KeyError, RuntimeError, SafetensorError) as error:
        raise ArtifactError(
            f"{folder / NAME} doesn't fit this adapter ({error}). Delete it; the training then begins again."
        ) from error


def remove(folder: Path) -> None:
    """Remove the checkpoint of a run that is over."""
    (folder / NAME).unlink(missing_ok=True)
