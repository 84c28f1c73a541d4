"""Judging: the validation examples that take part, and the count of calls that a method has used so far."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mop.errors import BudgetExceeded
from mop.prompts import Message, Prompt
from mop.search import proposers
from mop.search.allowance import Allowance
from mop.search.learning import Session
from mop.search.proposers import MAX_INSTRUCTION_TOKENS, Candidate
from mop.search.race import Arm, RaceResult, mean_seen, race
from mop.search.trials import Trial

#: A prompt and the position of the validation example that it answers.
Cell = tuple[Prompt, int]


class Judging:
    """Asks the session's models and keeps the account.

    ``order`` holds the positions of the validation examples that take part, in the order in which races see them.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self.problem = session.problem
        self.plan = session.plan
        self._everything = session.order
        self.order = self._everything[: self.plan.validation]
        self.allowance = session.allowance or Allowance(self.plan.calls, kept=self.plan.kept)

    def affords(
        self,
        cells: Sequence[Cell],
        *,
        beside: float = 0.0,
        questions: Sequence[str] = (),
        question_tokens: int = MAX_INSTRUCTION_TOKENS,
    ) -> bool:
        """Return whether there are calls left for ``cells``, for ``questions`` and for ``beside`` other calls.

        ``question_tokens`` are the most tokens of a reply to a question.
        """
        trials = self.trials(cells)
        needed = self.allowance.cost(trials) + self.allowance.question_cost(questions, question_tokens) + beside
        return needed <= self.allowance.spare(trials, questions, question_tokens)

    def cost(self, arm: Arm) -> float:
        """Return what it takes to judge ``arm`` on the examples that take part, in calls of the plan."""
        return self.allowance.cost(self.trials(self.cells(arm)))

    def cells(self, arm: Arm) -> list[Cell]:
        """Return the prompts with which ``arm`` answers the examples that take part."""
        return [(arm.prompts[i], int(i)) for i in self.order]

    def unknown(self, cells: Sequence[Cell]) -> list[Cell]:
        """Return the cells that this run has not asked yet."""
        known = self.session.trials.known(self.trials(cells))
        return [cell for cell, score in zip(cells, known, strict=True) if not np.isfinite(score)]

    def fits(self, arm: Arm) -> bool:
        """Return whether the caps are so large that no call of ``arm`` blocks all others."""
        return self.allowance.fits(self.trials(self.cells(arm)))

    def fit(self, looks: Sequence[Arm], share: float) -> None:
        """Let as many examples take part as all of ``looks`` can be judged on for a share of what is left.

        What is known takes nothing. Nothing changes where every call counts one: the plan knew what a look takes.
        """
        if self.allowance.in_calls:
            return
        columns = [self.trials(self.unknown([(arm.prompts[i], int(i)) for arm in looks])) for i in self._everything]
        left = share * self.allowance.spare([trial for column in columns for trial in column])
        fitting = np.cumsum([self.allowance.cost(column) for column in columns]) <= left
        self.order = self._everything[: max(1, int(fitting.sum()))]

    async def propose(self, questions: Sequence[tuple[str, str]], *, before: Sequence[Message] = ()) -> list[Candidate]:
        """Ask every (name, question) after the turns ``before``, as far as the caps allow it; one call each."""
        head = "".join(f"{text}\n" for _, text in before)
        questions = questions[: self.allowance.askable([head + question for _, question in questions])]
        return (await self.propose_each([questions], before=before))[0]

    async def propose_each(
        self, groups: Sequence[Sequence[tuple[str, str]]], *, before: Sequence[Message] = ()
    ) -> list[list[Candidate]]:
        """Ask the questions of several groups at once, each after ``before``; each group has candidates of its own."""
        self.allowance.used += sum(map(len, groups))
        return await proposers.ask_each(self.session.proposer, groups, seed=self.problem.seed, before=before)

    async def race(self, arms: Sequence[Arm], calls: float, *, known: float = 0.0) -> RaceResult:
        """Race arms in at most ``calls`` calls, and no more than are left.

        ``known`` is the part of the race, in calls, that takes none because its answers are known.
        """
        before = self.session.trials.done
        spare = self.allowance.spare(self.trials([cell for arm in arms for cell in self.cells(arm)]))
        result = await race(
            arms,
            self.problem.validation,
            self.order,
            self.session.trials,
            calls=max(0, min(calls, spare)) + known,
            allowance=self.allowance,
        )
        self.allowance.used += self.session.trials.done - before
        return result

    async def judge(self, arm: Arm) -> NDArray[np.float64]:
        """Return the arm's score on every validation example that takes part, NaN elsewhere."""
        scores = np.full(len(self.problem.validation), np.nan)
        scores[self.order] = await self.score(self.cells(arm))
        return scores

    async def settle(self, arm: Arm) -> NDArray[np.float64]:
        """Return what `judge` does. If a cap ends it, only the examples that were judged take part from now on."""
        try:
            return await self.judge(arm)
        except BudgetExceeded:
            return self.narrow(self.known(arm))

    def known(self, arm: Arm) -> NDArray[np.float64]:
        """Return the arm's score on every validation example on which it was judged before, NaN elsewhere."""
        scores = np.full(len(self.problem.validation), np.nan)
        scores[self.order] = self.session.trials.known(self.trials(self.cells(arm)))
        return scores

    def narrow(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Let only the examples take part that have a score, and return the scores.

        Raises BudgetExceeded if none has one.
        """
        self.order = self.order[np.isfinite(scores[self.order])]
        if not len(self.order):
            raise BudgetExceeded("The caps left no room to judge a prompt; raise them and run the same command again.")
        return scores

    async def score(self, cells: Sequence[Cell]) -> list[float]:
        """Return the score of each prompt on the validation example at its position."""
        before = self.session.trials.done
        try:
            return await self.session.trials.score(self.trials(cells))
        finally:
            self.allowance.used += self.session.trials.done - before

    def trials(self, cells: Sequence[Cell]) -> list[Trial]:
        """Return the trials that ``cells`` stand for."""
        return [(prompt, self.problem.validation[i]) for prompt, i in cells]


def race_report(names: Sequence[str], result: RaceResult) -> list[dict[str, object]]:
    """Return what a race saw, best arm first, as plain data."""
    return [
        {
            "name": names[arm],
            "examples": int(np.isfinite(result.scores[arm]).sum()),
            "score": mean_seen(result.scores[arm]),
        }
        for arm in result.ranking
    ]
