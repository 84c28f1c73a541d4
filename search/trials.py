"""Trials: one prompt on one example, scored. The only place of the search that calls the model to execute.

Trials of one prefix are sent together, so that prefix caches serve all but the first; a trial that the run has
already seen is neither sent nor charged again.
"""

from __future__ import annotations

from collections.abc import Sequence

from mop.decoding import Decoding
from mop.examples import Example
from mop.lm.client import ModelClient
from mop.lm.request import Request
from mop.prompts import TOKENS_PER_MESSAGE, Prompt, estimate_tokens
from mop.scoring import Scorer

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

    async def score(self, trials: Sequence[Trial]) -> list[float]:
        """Return the score of each trial, in order; one model call, and what its score takes, for each that is new."""
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
        replies = await self._client.complete_many([self.request(trial) for trial in pending])
        answers = [reply.text.strip() for reply in replies]
        scores = await self._scorer.score(answers, [example for _, example in pending])
        for trial, score, answer in zip(pending, scores, answers, strict=True):
            self._known[trial] = (score, answer)
            prompt, answered = self.size(trial)
            self.sizes = (self.sizes[0] + prompt, self.sizes[1] + answered)
