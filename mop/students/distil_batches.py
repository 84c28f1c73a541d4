"""Distillation batches: winning answers as the steps of a training run. Knows tokens; no models and no losses."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from mop.errors import DataError, SettingsError
from mop.students.batches import Batch
from mop.students.prompting import answer_ids, ids_before

#: Tokens of an answer that are taught.
MOST_ANSWER_TOKENS = 512
#: Tokens that an answer opens with. What they are decides what follows; taught word for word, the rest is easy.
OPENING = 4


@dataclass(frozen=True, slots=True)
class Item:
    """One winning answer: what the teacher reads, what the student reads, and the answer's tokens."""

    teacher: tuple[int, ...]
    student: tuple[int, ...]
    answer: tuple[int, ...]


def make_item(tokenizer: Any, query: str, persona: str, answer: str, *, ended: bool = True) -> Item:
    """Return the tokens of one item. ``ended`` is False for an answer that was cut off, whose end isn't taught.

    Raises DataError if the persona leaves no trace in the teacher's prompt, or if the answer is empty.
    """
    teacher, student = ids_before(tokenizer, query, persona), ids_before(tokenizer, query)
    taught = answer_ids(tokenizer, answer, ended=ended)[:MOST_ANSWER_TOKENS]
    if teacher == student:
        raise DataError("Teacher and student would read the same prompt; the persona is empty or not shown.")
    if not answer.strip():
        raise DataError(f"The answer to {query[:60]!r} is empty; only answers with text can be taught.")
    return Item(tuple(teacher), tuple(student), tuple(taught))


class DistilBatches:
    """Items as batches for `mop.students.distil.divergence`.

    Args:
        items: The winning answers.
        order: Numbers of the items of each step (`mop.students.balance.even_order`).
        micro: Items on the device at a time.
        opening: What each of an answer's first `OPENING` tokens weighs beside a later one. Every answer weighs the
            same, however long it is. None weighs all tokens of all answers alike, so that long answers count for more.
        teacher: Says what the teacher says on an item, shape (answer, vocabulary); None leaves that to the loss.
    """

    def __init__(
        self,
        items: Sequence[Item],
        order: Sequence[Sequence[int]],
        *,
        micro: int,
        opening: float | None = None,
        teacher: Callable[[Item], Any] | None = None,
    ) -> None:
        if micro < 1:
            raise SettingsError(f"{micro} rows at a time were asked for; give at least 1.")
        if opening is not None and not opening > 0:
            raise SettingsError(
                f"The opening of an answer was to weigh {opening}; give a number above 0, 1 for no more."
            )
        self._items, self._order, self._micro = items, order, micro
        self._opening, self._teacher = opening, teacher
        digest = hashlib.sha256(f"{micro} {opening} {order}".encode())
        for one in items:
            digest.update(repr((one.teacher, one.student, one.answer)).encode())
        self.fingerprint = digest.hexdigest()

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, step: int) -> list[Batch]:
        items = sorted((self._items[number] for number in self._order[step]), key=lambda one: len(one.answer))
        parts = [items[start : start + self._micro] for start in range(0, len(items), self._micro)]
        return [self._batch(part) for part in parts]

    def _batch(self, items: Sequence[Item]) -> Batch:
        from torch.nn.utils.rnn import pad_sequence

        batch = collate(items)
        tensors, weight = dict(batch.tensors), batch.weight
        if self._opening is not None:
            tensors["answer_weight"] = _weights(tensors["answer_mask"], self._opening)
            weight = float(len(items))
        if self._teacher is not None:
            tensors["teacher_logits"] = pad_sequence([self._teacher(one) for one in items], batch_first=True)
        return Batch(tensors, weight)


def _weights(mask: Any, opening: float) -> Any:
    """Return what each token of the answers weighs; those of an answer add up to 1."""
    weight = mask.clone()
    weight[:, :OPENING] *= opening
    return weight / weight.sum(dim=1, keepdim=True)


def in_turn(items: Sequence[Item], *, micro: int = 4) -> DistilBatches:
    """Return each item once, in order: to look at."""
    order = [list(range(start, min(start + micro, len(items)))) for start in range(0, len(items), micro)]
    return DistilBatches(items, order, micro=micro)


def collate(items: Sequence[Item]) -> Batch:
    """Return the items as one batch.

    Prompts are padded on the left and answers on the right, so that each answer begins in the same column, for the
    teacher as for the student: ``*_ids`` and ``*_mask`` have shape (rows, prompt + answer), ``answer_mask``
    (rows, answer).
    """
    import torch

    longest = max(len(one.answer) for one in items)
    batch: dict[str, Any] = {"answer_mask": torch.zeros((len(items), longest))}
    for side in ("teacher", "student"):
        prompts = [getattr(one, side) for one in items]
        width = max(len(one) for one in prompts)
        ids = torch.zeros((len(items), width + longest), dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, (prompt, item) in enumerate(zip(prompts, items, strict=True)):
            whole = torch.tensor([*prompt, *item.answer])
            place = slice(width - len(prompt), width + len(item.answer))
            ids[row, place], mask[row, place] = whole, 1
            batch["answer_mask"][row, : len(item.answer)] = 1
        batch |= {f"{side}_ids": ids, f"{side}_mask": mask}
    return Batch(batch, float(batch["answer_mask"].sum()))
