"""Trials: one prompt on one example, scored. The only place of the search that calls the model to execute.

Trials of one prefix are sent together, so that prefix caches serve all but the first; a trial that the run has
already seen is neither sent nor charged again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from mop.decoding import Decoding
from mop.errors import BudgetExceeded
from mop.examples import Example
from mop.lm.client import ModelClient
from mop.lm.request import Reply, Request
from mop.prompts import TOKENS_PER_MESSAGE, Prompt, estimate_tokens
from mop.scoring import Scorer
from mop.search.capped import unless_capped

Trial = tuple[Prompt, Example]


class Trials:
    """Runs and scores trials; remembers all of them."""

    def __init__(
        self,
        client: ModelClient,
        decoding: Decoding,
        scorer: Scorer,
    ) -> None:
        self._client = client
        self._decoding = decoding
        self._scorer = scorer
        self._known: dict[Trial, tuple[float, str]] = {}
        self._prefix_tokens: dict[Prompt, int] = {}
        #: Estimated tokens (prompt, answer) of all trials so far.
        self.sizes = (0, 0)

    @property
    def client(self) -> ModelClient:
        """The client of the model that executes."""
        return self._client

    @property
    def done(self) -> int:
        """Number of different trials so far; each took one model call, and those that the scorer makes."""
        return len(self._known)

    @property
    def calls_each(self) -> int:
        """Model calls that a new trial takes: one, and those of its score."""
        return 1 + self._scorer.calls

    def size(self, trial: Trial) -> tuple[int, int]:
        """Return the estimated tokens of a trial's prompt and of its answer."""
        prompt, example = trial
        prefix = prompt.prefix
        if prefix not in self._prefix_tokens:
            self._prefix_tokens[prefix] = prefix.tokens
        query = estimate_tokens(example.input) + TOKENS_PER_MESSAGE + sum(demo.tokens for demo in prompt.retrieved)
        return self._prefix_tokens[prefix] + query, estimate_tokens(example.output) + 1

    def request(self, trial: Trial) -> Request:
        """Return the call that a trial makes."""
        return self._decoding.request(self._client.model, trial[0], trial[1].input)

    def known(self, trials: Sequence[Trial]) -> list[float]:
        """Return the score of each trial that was run, NaN for the others."""
        return [self._known[trial][0] if trial in self._known else math.nan for trial in trials]

    async def score(self, trials: Sequence[Trial]) -> list[float]:
        """Return the score of each trial, in order; one model call, and what its score takes, for each that is new.

        Raises BudgetExceeded where a cap refuses a call; trials that were answered before it are known.
        """
        await self._run(trials)
        return [self._known[trial][0] for trial in trials]

    async def answers(self, trials: Sequence[Trial]) -> list[str]:
        """Return the model's answer of each trial, in order."""
        await self._run(trials)
        return [self._known[trial][1] for trial in trials]

    async def _run(self, trials: Sequence[Trial]) -> None:
        by_prefix: dict[Prompt, list[Trial]] = {}
        for trial in dict.fromkeys(trials):
            if trial not in self._known:
                by_prefix.setdefault(trial[0].prefix, []).append(trial)
        pending = [trial for group in by_prefix.values() for trial in group]
        replies: dict[int, Reply] = {}
        refusal: BudgetExceeded | None = None
        try:
            await self._client.complete_many([self.request(trial) for trial in pending], replies.__setitem__)
        except BudgetExceeded as error:
            refusal = error
        answered = [(pending[place], replies[place].text.strip()) for place in sorted(replies)]
        try:
            scores = await self._scores(answered)
        except BudgetExceeded as error:
            refusal = error
            scores = await self._scores_one_by_one(answered)
        for (trial, answer), score in zip(answered, scores, strict=False):
            self._known[trial] = (score, answer)
            prompt, completion = self.size(trial)
            self.sizes = (self.sizes[0] + prompt, self.sizes[1] + completion)
        if refusal is not None:
            raise refusal

    async def _scores(self, answered: Sequence[tuple[Trial, str]]) -> list[float]:
        return await self._scorer.score([answer for _, answer in answered], [example for (_, example), _ in answered])

    async def _scores_one_by_one(self, answered: Sequence[tuple[Trial, str]]) -> list[float]:
        """Return the scores of the first trials, as far as the caps allow a judge to go; nothing is paid for twice."""
        scores: list[float] = []
        for one in answered:
            found = await unless_capped(self._scores([one]), None)
            if found is None:
                break
            scores += found
        return scores
