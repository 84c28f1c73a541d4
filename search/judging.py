"""Judging: the validation examples that take part, and the count of calls that a method has used so far."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mop.prompts import Prompt
from mop.search import proposers
from mop.search.learning import Session
from mop.search.proposers import Candidate
from mop.search.race import Arm, RaceResult, mean_seen, race
from mop.seeds import stream


class Judging:
    """Asks the session's models and keeps the account.

    ``order`` holds the positions of the validation examples that take part, in the order in which races see them.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self.problem = session.problem
        self.plan = session.plan
        order = stream(self.problem.seed, "validation order").permutation(len(self.problem.validation))
        self.order = np.asarray(order[: self.plan.validation], dtype=np.intp)
        self.used = 0

    @property
    def spare(self) -> int:
        """Calls of the plan that are left."""
        return self.plan.calls - self.used

    async def propose(self, questions: Sequence[tuple[str, str]]) -> list[Candidate]:
        """Ask the proposer every (name, question); one call each."""
        self.used += len(questions)
        return await proposers.ask(self.session.proposer, questions, seed=self.problem.seed)

    async def race(self, arms: Sequence[Arm], calls: int) -> RaceResult:
        """Race arms in at most ``calls`` calls, and no more than are left."""
        before = self.session.trials.done
        result = await race(
            arms, self.problem.validation, self.order, self.session.trials, calls=min(calls, self.spare)
        )
        self.used += self.session.trials.done - before
        return result

    async def judge(self, arm: Arm) -> NDArray[np.float64]:
        """Return the arm's score on every validation example that takes part, NaN elsewhere."""
        scores = np.full(len(self.problem.validation), np.nan)
        scores[self.order] = await self.score([(arm.prompts[i], int(i)) for i in self.order])
        return scores

    async def score(self, cells: Sequence[tuple[Prompt, int]]) -> list[float]:
        """Return the score of each prompt on the validation example at its position."""
        before = self.session.trials.done
        scores = await self.session.trials.score([(prompt, self.problem.validation[i]) for prompt, i in cells])
        self.used += self.session.trials.done - before
        return scores


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
