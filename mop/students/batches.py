"""Batches: rendered conversations as the steps of a training run. Knows tokens and an order; no models and no losses.

The whole run is laid out before it begins: step k has the same rows in every process and after every restart, so that
"where it was" is one number.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from mop.errors import SettingsError
from mop.seeds import stream
from mop.students.rendering import Rendered

#: Labels of tokens that the loss leaves out, as in transformers.
IGNORED = -100


@dataclass(frozen=True)
class Batch:
    """What fits on the device at a time: tensors by name, and what its mean loss weighs in its step's mean."""

    tensors: Mapping[str, Any]
    weight: float


class Batches(Protocol):
    """The steps of a training run, all known beforehand."""

    @property
    def fingerprint(self) -> str:
        """Changes when any step would hold anything else."""

    def __len__(self) -> int:
        """Return the number of optimizer steps."""

    def __getitem__(self, step: int) -> Sequence[Batch]:
        """Return the batches of one step, whose gradients are added up: the same ones at every call."""


class TextBatches:
    """Conversations as batches for `mop.students.losses.answer_loss`.

    Args:
        rows: The conversations.
        order: Numbers of the rows of each step (`lay_out`).
        pad: Id of the padding token.
        micro: Rows on the device at a time. A step's rows are sorted by length first, so that little is padding;
            a batch weighs as many tokens as count in it, so the step's gradient doesn't depend on ``micro``.
    """

    def __init__(self, rows: Sequence[Rendered], order: Sequence[Sequence[int]], *, pad: int, micro: int) -> None:
        if micro < 1:
            raise SettingsError(f"{micro} rows at a time were asked for; give at least 1.")
        self._rows, self._order, self._pad, self._micro = rows, order, pad, micro
        self.fingerprint = _hash(rows, order, micro)

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, step: int) -> list[Batch]:
        rows = sorted((self._rows[number] for number in self._order[step]), key=lambda row: len(row.ids))
        return [collate(rows[start : start + self._micro], self._pad) for start in range(0, len(rows), self._micro)]


def collate(rows: Sequence[Rendered], pad: int) -> Batch:
    """Return rows padded on the right: ``input_ids``, ``attention_mask`` and ``labels`` of shape (rows, longest)."""
    import torch

    longest = max(len(row.ids) for row in rows)
    shape = (len(rows), longest)
    ids = torch.full(shape, pad, dtype=torch.long)
    mask = torch.zeros(shape, dtype=torch.long)
    labels = torch.full(shape, IGNORED, dtype=torch.long)
    for place, row in enumerate(rows):
        found, counts = torch.tensor(row.ids), torch.tensor(row.counts)
        ids[place, : len(found)], mask[place, : len(found)] = found, 1
        labels[place, : len(found)] = torch.where(counts, found, IGNORED)
    weight = sum(sum(row.counts[1:]) for row in rows)  # nothing predicts the first token
    return Batch({"input_ids": ids, "attention_mask": mask, "labels": labels}, float(weight))


def lay_out(stages: Sequence[Sequence[int]], *, epochs: int, batch: int, seed: int) -> list[list[int]]:
    """Return the numbers of the rows of each step, stage after stage, each epoch in an order of its own.

    Args:
        stages: Numbers of the rows of each stage: one stage for data that is mixed, two for one after the other.
        epochs: How often each stage sees its rows.
        batch: Rows of a step; an epoch's last step may have fewer.
        seed: Seed of the orders.
    """
    if epochs < 1 or batch < 1:
        raise SettingsError(f"epochs={epochs} and batch={batch} must be at least 1.")
    steps: list[list[int]] = []
    for number, stage in enumerate(stages):
        for epoch in range(epochs):
            order = [stage[place] for place in stream(seed, "order", number, epoch).permutation(len(stage))]
            steps += [order[start : start + batch] for start in range(0, len(order), batch)]
    return steps


def in_turn(rows: Sequence[Rendered], *, pad: int, batch: int) -> TextBatches:
    """Return each row once, in order: for a loss that is only looked at."""
    order = [list(range(start, min(start + batch, len(rows)))) for start in range(0, len(rows), batch)]
    return TextBatches(rows, order, pad=pad, micro=batch)


def _hash(rows: Sequence[Rendered], order: Sequence[Sequence[int]], micro: int) -> str:
    digest = hashlib.sha256(f"{micro} {order}".encode())
    for row in rows:
        digest.update(repr((row.ids, row.counts)).encode())
    return digest.hexdigest()
