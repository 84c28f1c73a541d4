"""Problem: everything about a task that the search may look at. Knows nothing of models."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from mop.decoding import Decoding
from mop.embeddings.encoders import Vectors
from mop.examples import Example
from mop.metrics import Metric, answers
from mop.prompts import estimate_tokens
from mop.search.demos import closed_answers


@dataclass(frozen=True)
class Problem:
    """A labelled task: demo pool, validation examples, their vectors and the metric.

    ``train_vectors`` and ``validation_vectors`` have one unit-norm row per example.
    ``description`` is the user's own instruction, if there is one.
    """

    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    train_vectors: Vectors
    validation_vectors: Vectors
    metric: Metric
    seed: int = 0
    description: str | None = None
    answer_tokens: int | None = None

    @cached_property
    def answers(self) -> tuple[str, ...]:
        """The closed set of answers (labels) of the task, or ``()`` when answers are free text."""
        return closed_answers(self.train)

    @cached_property
    def decoding(self) -> Decoding:
        """How answers are decoded: half as many tokens again as the longest known answer, and at least 16.

        An answer ends with its line if no known answer has more than one line. Where ``answer_tokens`` are given, the
        known answers say nothing of length or lines.
        """
        if self.answer_tokens is not None:
            return Decoding(max_tokens=self.answer_tokens)
        examples = (*self.train, *self.validation)
        outputs = [output for example in examples for output in answers(self.metric, example.outputs)]
        longest = max(map(estimate_tokens, outputs))
        multiline = any("\n" in output for output in outputs)
        return Decoding(max_tokens=max(16, longest * 3 // 2 + 4), stop=() if multiline else ("\n",))
