"""Teacher: what the base model says to each answer with its persona in the prompt, worked out once and kept.

It never changes while its adapter learns, so saying it anew in every epoch is time for nothing. Each answer is read by
itself, so that what is kept doesn't depend on the answers beside it, and a run that goes on after a stop finds the
same. Knows nothing of training.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mop.students.distil import answer_logits, teaching
from mop.students.distil_batches import Item, collate

if TYPE_CHECKING:
    from mop.students.models import Student

#: Bytes that may be kept; with more to keep, the teacher speaks in every step.
MOST_BYTES = 2 * 1024**3


class Teacher:
    """Logits at the tokens of an answer, shape (answer, vocabulary), in the type of the model's weights.

    Args:
        student: Carries the base model; its adapter, if there is one by then, is off while the teacher speaks.
    """

    def __init__(self, student: Student) -> None:
        self._student = student
        self._kept: dict[Item, Any] = {}

    def __call__(self, item: Item) -> Any:
        """Return the logits of one answer."""
        if item not in self._kept:
            model = self._student.model
            batch = {name: one.to(self._student.device) for name, one in collate([item]).tensors.items()}
            with teaching(model):
                self._kept[item] = answer_logits(model, batch, "teacher")[0].clone()
        return self._kept[item]


def teacher_of(student: Student, items: Sequence[Item]) -> Teacher | None:
    """Return a teacher that keeps what it says on these items; None if that is more than `MOST_BYTES`."""
    tokens = sum(len(one.answer) for one in items)
    width = student.model.get_input_embeddings().weight
    return Teacher(student) if tokens * width.shape[0] * width.element_size() <= MOST_BYTES else None
