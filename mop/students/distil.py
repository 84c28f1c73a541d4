"""Distillation: what a model says with a persona in its prompt is taught to its adapter, without the persona there.

The teacher is the base model reading persona and query, adapter off. The student is the same model reading the query
alone, adapter on. Both go on with the same answer, and the loss is the Kullback–Leibler divergence of their next-token
distributions at the answer's tokens, softened by a temperature T and scaled by T² (Hinton et al., arXiv 1503.02531).
If both saw the same prompt the loss would be zero and nothing would be learned; `check_divergence` tells.
Knows nothing of how answers were chosen.
"""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from mop.errors import DataError
from mop.students.distil_batches import OPENING
from mop.students.generating import positions
from mop.students.losses import can_keep

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mop.students.batches import Batches
    from mop.students.models import Student

#: Softens both distributions. PRISM's 2 goes with its teacher's 64 likeliest tokens; over a whole vocabulary 2 leaves
#: 0.13 of a first token that had 0.98 (half a billion parameters), and what is taught is mostly how unlikely words are.
TEMPERATURE = 1.0
#: A divergence before the first step below this (nats a token, at temperature 1) means that the persona changes
#: nothing: a teacher without its persona gives 0, a half-billion-parameter model with a persona that it obeys 0.6.
LEAST_DIVERGENCE = 0.02


def answer_logits(model: Any, batch: dict[str, Any], side: str) -> Any:
    """Return the logits that predict each token of the answers: shape (rows, answer, vocabulary).

    The first is read off the prompt's last token. ``side`` is "teacher" or "student".
    """
    mask = batch[f"{side}_mask"]
    width = batch["answer_mask"].shape[1]
    given = {"logits_to_keep": width + 1} if can_keep(model) else {}
    found = model(
        input_ids=batch[f"{side}_ids"], attention_mask=mask, position_ids=positions(mask), use_cache=False, **given
    )
    return found.logits[:, -(width + 1) : -1]


def divergence(model: Any, batch: dict[str, Any], temperature: float = TEMPERATURE) -> Any:
    """Return the loss of a batch: T² times the mean divergence of the student from the teacher over answer tokens.

    The adapter of ``model`` is off while the teacher speaks, and on again afterwards. A model without an adapter counts
    as a student before its first step. A batch may bring what the teacher says (``teacher_logits``) and what each token
    weighs (``answer_weight``); see `mop.students.distil_batches.DistilBatches`.
    """
    from torch.nn import functional

    taught = batch["answer_mask"].bool()
    if "teacher_logits" in batch:
        teacher = batch["teacher_logits"][taught].float()
    else:
        with teaching(model):
            teacher = answer_logits(model, batch, "teacher")[taught].float()
    student = answer_logits(model, batch, "student")[taught].float()
    each = functional.kl_div(
        functional.log_softmax(student / temperature, dim=-1),
        functional.log_softmax(teacher / temperature, dim=-1),
        reduction="none",
        log_target=True,
    ).sum(dim=-1)
    weight = batch["answer_weight"][taught] if "answer_weight" in batch else each.new_ones(each.shape)
    return temperature**2 * (each * weight).sum() / weight.sum()


def mean_divergence(student: Student, batches: Batches) -> float:
    """Return the divergence at temperature 1 in nats a token, over all answer tokens of ``batches``.

    Raises DataError if there are none.
    """
    return _mean(student, batches, lambda batch: (float(divergence(student.model, batch, 1.0)), batch["answer_mask"]))


def openings_met(student: Student, batches: Batches) -> float:
    """Return the share of answers whose first `OPENING` tokens the student finds likeliest, one after the other.

    A mean over tokens hides what goes wrong here: a student that would begin with another word knows every token
    after the first, because it is shown what stands before. Raises DataError if there are no answers.
    """

    def met(batch: dict[str, Any]) -> tuple[float, Any]:
        width, rows = batch["answer_mask"].shape[1], batch["answer_mask"][:, :1]
        likeliest = answer_logits(student.model, batch, "student").argmax(dim=-1)
        wrong = (likeliest != batch["student_ids"][:, -width:]) * batch["answer_mask"]
        return float((wrong[:, :OPENING].sum(dim=1) == 0).float().mean()), rows

    return _mean(student, batches, met)


def _mean(student: Student, batches: Batches, measure: Callable[[dict[str, Any]], tuple[float, Any]]) -> float:
    """Return the mean of what ``measure`` finds in each batch, weighed by the sum of what it returns beside it."""
    import torch

    total, whole = 0.0, 0.0
    was_training = student.model.training
    student.model.eval()
    try:
        with torch.inference_mode():
            for step in range(len(batches)):
                for batch in batches[step]:
                    tensors = {name: tensor.to(student.device) for name, tensor in batch.tensors.items()}
                    found, counts = measure(tensors)
                    weight = float(counts.sum())
                    total, whole = total + found * weight, whole + weight
    finally:
        student.model.train(was_training)
    if not whole:
        raise DataError("There are no answers to compare teacher and student on.")
    return total / whole


def check_divergence(found: float) -> None:
    """Raise DataError if the divergence before the first step says that there is nothing to learn."""
    if found < LEAST_DIVERGENCE:
        raise DataError(
            f"Teacher and student agree before any training: their divergence is {found:.4f} nats a token, below "
            f"{LEAST_DIVERGENCE}. The persona doesn't change what this model says; give personas that do, or a model "
            "that heeds them."
        )


@contextmanager
def teaching(model: Any) -> Iterator[None]:
    """Make the model the base model as it is: adapter off, dropout off, no gradients; all as before afterwards."""
    import torch

    was_training = model.training
    model.eval()
    without_adapter = model.disable_adapter() if hasattr(model, "disable_adapter") else nullcontext()
    try:
        with torch.no_grad(), without_adapter:
            yield
    finally:
        model.train(was_training)
