"""Allowance: what a run may still use, reckoned in calls of the size that its plan was made for.

Under a cap on calls every call counts one. Where a judge scores, a trial takes its calls too, more of them if a reply
couldn't be read and fewer if it was known, so what is left follows from what was asked. Under a cap on tokens or money
a trial counts what its prompt is expected to take of the cap: its estimated size, corrected by what the trials so far
took of what they were estimated to take. So a plan in calls holds under every cap, and short prompts leave more of it
for others. All of it follows from prompts and replies, never from time, so that a resumed run takes the same decisions.
Knows nothing of stages.

>>> Allowance(600).cost([])
0
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from mop.errors import BudgetExceeded
from mop.lm.budget import Spend
from mop.lm.caps import Caps, amount
from mop.lm.client import ModelClient
from mop.lm.request import Role
from mop.lm.wire import most_prompt_tokens
from mop.prompts import TOKENS_PER_MESSAGE, estimate_tokens
from mop.search.proposers import MAX_INSTRUCTION_TOKENS
from mop.search.trials import Trial, Trials

#: Expected cost is raised by this share before it is compared with what is left: sizes are estimates.
CAUTION = 0.03
#: Most tokens that the messages of a question, its worked examples among them, and a template add to its text.
QUESTION_FRAME = 200
#: Trials after which what they took corrects the estimates.
FEW_TRIALS = 5
#: A prompt stays out of a comparison if one call of it could take a larger part of a cap: it would block the others.
LARGEST = 0.25
#: Part of what is left that questions for instructions may take, as expected and at the very most.
ASKING, ASKING_AT_MOST = 1 / 3, 1 / 2
#: The most that a judge's calls could take, for what they are expected to take: bytes for tokens.
SCORE_AT_MOST = 4.0


class Rate(NamedTuple):
    """What a token of a prompt and a token of its answer take of a cap."""

    prompt: float = 0.0
    completion: float = 0.0

    def of(self, prompt: float, completion: float) -> float:
        """Return what so many tokens take."""
        return self.prompt * prompt + self.completion * completion


FREE = Rate()


@dataclass(frozen=True)
class Cap:
    """One cap of a budget: its ``room`` for this run, what a call takes of it and what tokens do.

    ``answers`` are the tokens of trials, ``questions`` those that ask for instructions; ``score`` is what scoring one
    trial is expected to take.
    """

    name: str
    room: float
    call: float = 0.0
    answers: Rate = FREE
    questions: Rate = FREE
    score: float = 0.0

    def takes(self, prompt: float, completion: float) -> float:
        """Return what a trial with so many tokens takes."""
        return self.call + self.answers.of(prompt, completion)

    def asks(self, prompt: float, completion: float) -> float:
        """Return what a question with so many tokens takes."""
        return self.call + self.questions.of(prompt, completion)

    def of(self, spend: Spend) -> float:
        """Return what ``spend`` is of it."""
        return {"calls": spend.calls, "tokens": spend.tokens, "usd": spend.usd or 0.0}[self.name]


class Allowance:
    """What is left of a plan of ``calls`` calls; with a ``budget`` that caps tokens or money, of its caps.

    ``trials`` executes the run's prompts; ``clients`` are all that the run asks: what they gave to this process counts,
    whatever others use of a shared budget. ``models`` are those that answer, write instructions and judge: their prices
    count under a cap on money. ``score`` are the (prompt, completion) tokens that a score takes. ``kept`` calls aren't
    spare until a stage takes them.
    """

    def __init__(
        self,
        calls: int,
        *,
        budget: Caps | None = None,
        trials: Trials | None = None,
        clients: Sequence[ModelClient] = (),
        models: Models = ("", "", ""),
        score: tuple[int, int] = (0, 0),
        kept: int = 0,
    ) -> None:
        self.calls = calls
        #: Calls that are kept for a later stage, which sets this to 0.
        self.kept = kept
        #: Calls so far.
        self.used = 0
        self._trials, self._clients = trials, clients
        judged = trials is not None and trials.calls_each > 1
        self._caps = [] if budget is None or trials is None else _caps(budget, models, score if judged else None)
        #: The smallest plan: trials for which questions leave room.
        self._least: Sequence[Trial] = ()

    @property
    def in_calls(self) -> bool:
        """Whether every call counts one."""
        return not self._caps

    @property
    def by_size(self) -> bool:
        """Whether calls count by their size: tokens or money are capped."""
        return any(cap.name != "calls" for cap in self._caps)

    def check(self, least: Sequence[Trial], what: str) -> None:
        """Check that there is room for ``least``, the trials of the smallest plan; ``what`` says which they are.

        Raises BudgetExceeded, before anything is sent.
        """
        self._least = least
        if not self.by_size:
            return
        for cap in self._caps:
            largest = self._largest(cap, least)
            needed = (1 + CAUTION) * self._expected(cap, least) + largest
            if needed > cap.room - self._spent(cap):
                unit = "USD" if cap.name == "usd" else cap.name
                given = amount(cap.room - self._spent(cap), unit)
                takes, most = amount(needed - largest, unit), amount(largest, unit)
                raise BudgetExceeded(
                    f"{given} are too few to learn from: {what} takes about {takes}, and a call is only "
                    f"sent if all that it could take is left, here {most}. "
                    f"Give at least {amount(1.01 * needed, unit)}. Nothing was sent."
                )

    def fits(self, trials: Sequence[Trial]) -> bool:
        """Return whether no call of ``trials`` could take so much of a cap that it blocks all others."""
        return all(self._largest(cap, trials) <= LARGEST * cap.room for cap in self._caps if cap.name != "calls")

    def askable(self, questions: Sequence[str], most_tokens: int = MAX_INSTRUCTION_TOKENS) -> int:
        """Return how many of ``questions``, from the first, can be asked; what judges their answers stays affordable.

        ``most_tokens`` are the most tokens of a reply.
        """
        count = len(questions)
        while self.by_size and count and not self._leaves_room(questions[:count], most_tokens):
            count -= 1
        return count

    def cost(self, trials: Sequence[Trial]) -> float:
        """Return what ``trials`` are expected to take, in calls of the plan."""
        if self.in_calls:
            return len(trials)
        assert self._trials is not None
        return self.calls * max(self._expected(cap, trials) / cap.room for cap in self._caps)

    def question_cost(self, questions: Sequence[str], model_tokens: int = MAX_INSTRUCTION_TOKENS) -> float:
        """Return what it takes to ask ``questions`` for instructions, in calls of the plan."""
        if self.in_calls:
            return len(questions)
        tokens = sum(estimate_tokens(question) + TOKENS_PER_MESSAGE for question in questions)
        expected = [
            self._correction(cap) * cap.asks(tokens, model_tokens * len(questions))
            if cap.name != "calls"
            else len(questions) * cap.call
            for cap in self._caps
        ]
        return self.calls * max(one / cap.room for one, cap in zip(expected, self._caps, strict=True))

    def spare(
        self,
        trials: Sequence[Trial] = (),
        questions: Sequence[str] = (),
        question_tokens: int = MAX_INSTRUCTION_TOKENS,
    ) -> float:
        """Return the calls of the plan that are left for such ``trials`` and ``questions``.

        A call is sent only if the most that it could take is left, which is several times what it will take. So the
        largest of these calls is kept free under every cap.
        """
        if self.in_calls:
            return self.calls - self.used - self.kept
        left = []
        for cap in self._caps:
            most = max(self._largest(cap, trials), self._largest_question(cap, questions, question_tokens))
            left.append((cap.room - self._spent(cap) - most) / cap.room)
        return self.calls * min(left) / (1 + CAUTION) - self.kept

    def worth(self, calls: float, trials: Sequence[Trial]) -> int:
        """Return how many trials like ``trials``, on average, ``calls`` calls of the plan are worth."""
        if self.in_calls or not trials:
            return int(calls)
        return int(calls * len(trials) / self.cost(trials))

    def _expected(self, cap: Cap, trials: Sequence[Trial]) -> float:
        """Return what ``trials`` are expected to take of a cap."""
        assert self._trials is not None
        if cap.name == "calls":
            return len(trials) * self._calls_each() * cap.call
        sizes = [self._trials.size(trial) for trial in trials]
        prompt, completion = sum(size[0] for size in sizes), sum(size[1] for size in sizes)
        return self._correction(cap) * (cap.answers.of(prompt, completion) + len(trials) * cap.score)

    def _leaves_room(self, questions: Sequence[str], most_tokens: int) -> bool:
        """Return whether these questions leave room, whatever they take, for the smallest plan and more."""
        if self.question_cost(questions, most_tokens) > ASKING * self.spare((), questions, most_tokens):
            return False
        for cap in self._caps:
            left = cap.room - self._spent(cap)
            most = sum(cap.asks(*_most_of(question, most_tokens)) for question in questions)
            least = (1 + CAUTION) * self._expected(cap, self._least) + self._largest(cap, self._least)
            if most > ASKING_AT_MOST * left or most + least > left:
                return False
        return True

    def _calls_each(self) -> float:
        """Return the calls of a trial with its score: more than expected if a judge had to be asked again."""
        assert self._trials is not None
        each, done = self._trials.calls_each, self._trials.done
        if each == 1 or done < FEW_TRIALS:
            return each
        spends = [one.spent.by_role.get(role, Spend()) for one in self._clients for role in ("execute", "judge")]
        return max(each, sum(spend.calls for spend in spends) / done)

    def _correction(self, cap: Cap) -> float:
        """Return what the trials so far took of what they were estimated to take; 1 while there are few."""
        assert self._trials is not None
        if self._trials.done < FEW_TRIALS:
            return 1.0
        # What scoring takes is part of what a trial takes.
        expected = cap.answers.of(*self._trials.sizes) + self._trials.done * cap.score
        taken = self._spent(cap, "execute") + self._spent(cap, "judge")
        # A ledger of an older version may have replies that count nothing; trials that cost nothing can't be planned.
        return taken / expected if taken else 1.0

    def _spent(self, cap: Cap, role: Role | None = None) -> float:
        """Return what this run's own calls took of a cap, those of all roles or of one."""
        spends = [one.spent if role is None else one.spent.by_role.get(role, Spend()) for one in self._clients]
        return sum(cap.of(spend) for spend in spends)

    def _largest(self, cap: Cap, trials: Sequence[Trial]) -> float:
        """Return the most that the largest call of ``trials`` could take of a cap."""
        if not trials:
            return 0.0
        assert self._trials is not None
        size = self._trials.size
        request = self._trials.request(max(trials, key=lambda trial: sum(size(trial))))
        return max(cap.takes(most_prompt_tokens(request), request.max_tokens), SCORE_AT_MOST * cap.score)

    @staticmethod
    def _largest_question(cap: Cap, questions: Sequence[str], most_tokens: int) -> float:
        return max((cap.asks(*_most_of(question, most_tokens)) for question in questions), default=0.0)


def _most_of(question: str, most_tokens: int) -> tuple[int, int]:
    """Return the most tokens of a question and of its answer."""
    return len(question.encode()) + QUESTION_FRAME, most_tokens


#: Names of the models that answer, write instructions and judge.
Models = tuple[str, str, str]


def _caps(budget: Caps, models: Models, score: tuple[int, int] | None) -> list[Cap]:
    """Return the caps of a budget; none if it caps nothing but calls and no judge asks, which a plan does by itself.

    ``score`` are the tokens of a score where a judge gives it.
    """
    # A budget of one process may have served another search before; one that is shared belongs to this run alone.
    spent, caps = budget.spent if budget.account is None else Spend(), []
    if budget.tokens is not None:
        room, each = max(1.0, budget.tokens - spent.tokens), Rate(1.0, 1.0)
        caps.append(Cap("tokens", room, 0.0, each, each, each.of(*(score or (0, 0)))))
    if budget.usd is not None:
        answers, questions, judge = (_rate(budget, model) for model in models)
        # Where trials are free, it is no matter of size; `mop.search.proposers.ask` stops at such a cap by itself.
        if any(answers) or (score and any(judge)):
            room = max(1e-12, budget.usd - (spent.usd or 0.0))
            caps.append(Cap("usd", room, 0.0, answers, questions, judge.of(*(score or (0, 0)))))
    if (caps or score is not None) and budget.calls is not None:
        caps.append(Cap("calls", max(1.0, budget.calls - spent.calls), 1.0))
    return caps


def _rate(budget: Caps, model: str) -> Rate:
    price = budget.prices.get(model)
    return Rate(price.input / 1e6, price.output / 1e6)
