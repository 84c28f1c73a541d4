"""MixtureOfPrompts: the search behind scikit-learn's estimator contract.

>>> from sklearn.base import clone
>>> clone(MixtureOfPrompts(budget=100)).get_params()["budget"]
100
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from mop.errors import DataError
from mop.lm.weights import DEFAULT_CHAT, DEFAULT_ENCODER

if TYPE_CHECKING:
    from mop.examples import Example
    from mop.lm.ledger import Ledger
    from mop.metrics import Metric
    from mop.mixture import Answer, Mixture


class MixtureOfPrompts(BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Learn a mixture with `fit`, answer with `predict`; ``X`` are texts, ``y`` their answers.

    An entry of ``y`` is a text, or a sequence of accepted texts. Parameters are those of `mop.settings.Settings` most
    people set; after `fit`, ``mixture_`` is the learned `mop.Mixture` and ``classes_`` the sorted distinct answers.
    """

    mixture_: Mixture
    classes_: NDArray[np.str_]

    def __init__(
        self,
        model: str = DEFAULT_CHAT,
        *,
        budget: int | str = 600,
        metric: str | Metric = "exact_match",
        instruction: str | None = None,
        experts: int | None = None,
        encoder: str = DEFAULT_ENCODER,
        proposer: str | None = None,
        base_url: str | None = None,
        concurrency: int = 8,
        max_demos: int = 20,
        prompt_tokens: int = 600,
        retrieved: int = 1,
        refit: bool = False,
        seed: int = 0,
        ledger: Ledger | str | os.PathLike[str] | None = None,
    ) -> None:
        self.model = model
        self.budget = budget
        self.metric = metric
        self.instruction = instruction
        self.experts = experts
        self.encoder = encoder
        self.proposer = proposer
        self.base_url = base_url
        self.concurrency = concurrency
        self.max_demos = max_demos
        self.prompt_tokens = prompt_tokens
        self.retrieved = retrieved
        self.refit = refit
        self.seed = seed
        self.ledger = ledger

    def fit(self, X: Sequence[str], y: Sequence[str | Sequence[str]]) -> MixtureOfPrompts:
        """Learn a mixture. Raises DataError, SettingsError, BudgetExceeded, ModelError as `mop.optimize` does."""
        from mop.optimization import optimize

        options = {name: value for name, value in self.get_params(deep=False).items() if name != "ledger"}
        examples = _examples(X, y)
        self.mixture_ = optimize(examples, ledger=self.ledger, **options)
        self.classes_ = np.unique([example.output for example in examples])
        return self

    def predict(self, X: Sequence[str]) -> NDArray[np.str_]:
        """Return the answer to each text: one model call each."""
        return np.asarray([answer.text for answer in self._answer(list(X))], dtype=np.str_)

    def score(self, X: Sequence[str], y: Sequence[str | Sequence[str]]) -> float:
        """Return the mean of the metric over ``X`` and ``y``."""
        from mop.metrics import get_metric

        metric = get_metric(self.metric)
        examples = _examples(X, y)
        answers = self.predict([example.input for example in examples])
        scores = [metric(str(text), example.outputs) for text, example in zip(answers, examples, strict=True)]
        return float(np.mean(scores))

    def __sklearn_clone__(self) -> MixtureOfPrompts:
        # Parameters are values or, like an open ledger, shared on purpose; the default clone would deep-copy them.
        return type(self)(**self.get_params(deep=False))

    def _answer(self, queries: list[str]) -> list[Answer]:
        from mop.connect import connect, open_ledger
        from mop.sync import run

        check_is_fitted(self, "mixture_")
        ledger = open_ledger(self.ledger)

        async def ask() -> list[Answer]:
            client = connect(self.model, ledger=ledger, base_url=self.base_url, concurrency=self.concurrency)
            try:
                return await self.mixture_.apredict(queries, client)
            finally:
                await client.aclose()

        try:
            return run(ask())
        finally:
            if ledger is not self.ledger:
                ledger.close()


def _examples(X: Sequence[str], y: Sequence[str | Sequence[str]]) -> list[Example]:
    """Return checked examples; an answer that is a number stands for its digits."""
    from mop.data import coerce_examples

    if len(X) != len(y):
        raise DataError(f"X has {len(X)} texts and y {len(y)} answers; they must be as many.")
    return coerce_examples([{"input": text, "output": answer} for text, answer in zip(X, y, strict=True)])
