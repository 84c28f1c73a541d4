"""Distillation: what a model says with a persona in its prompt is taught to its adapter, without the persona there.

The teacher is the base model reading persona and query, adapter off. The student is the same model reading the query
alone, adapter on. Both go on with the same answer, and the loss is the Kullback–Leibler divergence of their next-token
distributions at the answer's tokens, softened by a temperature T and scaled by T² (Hinton et al., arXiv 1503.02531).
If both saw the same prompt the loss would be zero and nothing would be learned; `first_divergence` tells.
Knows nothing of how answers were chosen.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mop.errors import DataError
from mop.students.generating import positions
from mop.students.prompting import answer_ids, ids_before

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Softens both distributions, as in PRISM.
TEMPERATURE = 2.0
#: A divergence before the first step below this (nats a token, at temperature 1) means that the persona changes
#: nothing: a teacher without its persona gives 0, a half-billion-parameter model with a persona that it obeys 0.6.
LEAST_DIVERGENCE = 0.02
#: Tokens of an answer that are taught.
MOST_ANSWER_TOKENS = 512


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


def collate(items: Sequence[Item], device: Any = "cpu") -> dict[str, Any]:
    """Return the tensors of a batch.

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
    return {name: tensor.to(device) for name, tensor in batch.items()}


def answer_logits(model: Any, batch: dict[str, Any], side: str) -> Any:
    """Return the logits that predict each token of the answers: shape (rows, answer, vocabulary).

    The first is read off the prompt's last token. ``side`` is "teacher" or "student".
    """
    mask = batch[f"{side}_mask"]
    width = batch["answer_mask"].shape[1]
    found = model(
        input_ids=batch[f"{side}_ids"],
        attention_mask=mask,
        position_ids=positions(mask),
        use_cache=False,
        logits_to_keep=width + 1,
    )
    return found.logits[:, -(width + 1) : -1]


def divergence(model: Any, batch: dict[str, Any], temperature: float = TEMPERATURE) -> Any:
    """Return the loss of a batch: T² times the mean divergence of the student from the teacher over answer tokens.

    ``model`` is one of peft; its adapter is off while the teacher speaks, and on again afterwards.
    """
    from torch.nn import functional

    with _teaching(model):
        teacher = answer_logits(model, batch, "teacher").float()
    student = answer_logits(model, batch, "student").float()
    each = functional.kl_div(
        functional.log_softmax(student / temperature, dim=-1),
        functional.log_softmax(teacher / temperature, dim=-1),
        reduction="none",
        log_target=True,
    ).sum(dim=-1)
    mask = batch["answer_mask"]
    return temperature**2 * (each * mask).sum() / mask.sum()


def mean_divergence(model: Any, batches: Iterable[dict[str, Any]]) -> float:
    """Return the divergence at temperature 1 in nats a token, over all answer tokens of ``batches``."""
    import torch

    total, tokens = 0.0, 0.0
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            for batch in batches:
                count = float(batch["answer_mask"].sum())
                total += float(divergence(model, batch, 1.0)) * count
                tokens += count
    finally:
        model.train(was_training)
    if not tokens:
        raise DataError("There are no answers to compare teacher and student on.")
    return total / tokens


def first_divergence(model: Any, batches: Iterable[dict[str, Any]]) -> float:
    """Return `mean_divergence` before the first step, having checked that there is something to learn.

    Raises DataError if teacher and student agree already.
    """
    found = mean_divergence(model, batches)
    if found < LEAST_DIVERGENCE:
        raise DataError(
            f"Teacher and student agree before any training: their divergence is {found:.4f} nats a token, below "
            f"{LEAST_DIVERGENCE}. The persona doesn't change what this model says; give personas that do, or a model "
            "that heeds them."
        )
    return found


@contextmanager
def _teaching(model: Any) -> Iterator[None]:
    """The base model as it is: adapter off, dropout off, no gradients; all as before afterwards."""
    import torch

    peft = getattr(model, "module", model)  # several GPUs wrap it once more
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad(), peft.disable_adapter():
            yield
    finally:
        model.train(was_training)
