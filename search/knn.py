"""Retrieved few-shot prompts: the nearest labelled examples of each query as its demos. The mixture's costly rival.

Every query has a prompt of its own, so no prefix cache can serve it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mop.embeddings.encoders import Encoder
from mop.examples import Example
from mop.prompts import Prompt
from mop.search.demos import closed_answers, nearest_demos
from mop.search.experts import with_answers


class NearestDemos:
    """Makes the prompt of each query from its ``k`` nearest examples, the nearest one last.

    With ``list_answers``, the instruction lists the answers that the demos show if answers form a closed set, as the
    mixture's experts do.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        encoder: Encoder,
        instruction: str,
        *,
        k: int = 15,
        token_budget: int = 10_000,
        list_answers: bool = True,
    ) -> None:
        self._examples = tuple(examples)
        self._encoder = encoder
        self._vectors = encoder.encode([example.input for example in examples])
        self._instruction = instruction
        self._k = k
        self._token_budget = token_budget
        self._list = list_answers and bool(closed_answers(self._examples))

    def __call__(self, queries: Sequence[str]) -> list[Prompt]:
        """Return the prompt of each query."""
        similarity = self._encoder.encode(list(queries)) @ self._vectors.T
        return [self._prompt(np.argsort(-row, kind="stable")) for row in similarity]

    def _prompt(self, order: Sequence[int] | np.ndarray[tuple[int], np.dtype[np.intp]]) -> Prompt:
        demos = nearest_demos(
            self._examples, order, token_budget=self._token_budget, max_demos=self._k, per_answer=None
        )
        shown = [demo.output for demo in demos]
        instruction = with_answers(self._instruction, shown) if self._list else self._instruction
        return Prompt(instruction, tuple(reversed(demos)))
