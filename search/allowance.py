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

from mop.lm.budget import Spend
from mop.lm.caps import Caps
from mop.lm.client import ModelClient
from mop.lm.request import Role
from mop.lm.wire import most_prompt_tokens
from mop.prompts import TOKENS_PER_MESSAGE, estimate_tokens
from mop.search.proposers import MAX_INSTRUCTION_TOKENS
from mop.search.trials import Trial, Trials

#: Expected cost is raised by this share before it is compared with what is left: sizes are estimates.
CAUTION = 0.03
#: Trials after which what they took corrects the estimates.
FEW_TRIALS = 5


@dataclass(frozen=True)
class Cap:
    """One cap of a budget: its ``room`` for this run; what a call, a prompt token and an answer's token take of it."""

    name: str
    room: float
    call: float
    prompt: float
    completion: float

    def takes(self, prompt: float, completion: float) -> float:
        """Return what a call with so many tokens takes."""
        return self.call + self.prompt * prompt + self.completion * completion

    def of(self, spend: Spend) -> float:
        """Return what ``spend`` is of it."""
        return {"calls": spend.calls, "tokens": spend.tokens, "usd": spend.usd or 0.0}[self.name]


class Allowance:
    """What is left of a plan of ``calls`` calls; with a ``budget`` that caps tokens or money, of its caps.

    ``trials`` executes the run's prompts; ``clients`` are all that the run asks: what they gave to this process counts,
    whatever others use of a shared budget. ``model`` is the one whose price counts under a cap on money. ``kept`` calls
    aren't spare until a stage takes them.
    """

    def __init__(
        self,
        calls: int,
        *,
        budget: Caps | None = None,
        trials: Trials | None = None,
        clients: Sequence[ModelClient] = (),
        model: str = "",
        kept: int = 0,
    ) -> None:
        self.calls = calls
        #: Calls that are kept for a later stage, which sets this to 0.
        self.kept = kept
        #: Calls so far.
        self.used = 0
        self._trials, self._clients = trials, clients
        self._caps = [] if budget is None or trials is None else _caps(budget, model, judged=trials.calls_each > 1)

    @property
    def in_calls(self) -> bool:
        """Whether every call counts one."""
        return not self._caps

    def cost(self, trials: Sequence[Trial]) -> float:
        """Return what ``trials`` are expected to take, in calls of the plan."""
        if self.in_calls:
            return len(trials)
        assert self._trials is not None
        sizes = [self._trials.size(trial) for trial in trials]
        prompt, completion = sum(size[0] for size in sizes), sum(size[1] for size in sizes)
        return self._share(len(trials) * self._calls_each(), prompt, completion)

    def question_cost(self, questions: Sequence[str], model_tokens: int = MAX_INSTRUCTION_TOKENS) -> float:
        """Return what it takes to ask ``questions`` for instructions, in calls of the plan."""
        if self.in_calls:
            return len(questions)
        tokens = sum(estimate_tokens(question) + TOKENS_PER_MESSAGE for question in questions)
        return self._share(len(questions), tokens, model_tokens * len(questions))

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
            most = max((cap.takes(*size) for size in self._most(trials, questions, question_tokens)), default=0.0)
            left.append((cap.room - self._spent(cap) - most) / cap.room)
        return self.calls * min(left) / (1 + CAUTION) - self.kept

    def worth(self, calls: float, trials: Sequence[Trial]) -> int:
        """Return how many trials like ``trials``, on average, ``calls`` calls of the plan are worth."""
        if self.in_calls or not trials:
            return int(calls)
        return int(calls * len(trials) / self.cost(trials))

    def _share(self, calls: float, prompt: float, completion: float) -> float:
        return self.calls * max(
            self._correction(cap) * cap.takes(prompt, completion) / cap.room
            if cap.name != "calls"
            else calls * cap.call / cap.room
            for cap in self._caps
        )

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
        return (self._spent(cap, "execute") + self._spent(cap, "judge")) / cap.takes(*self._trials.sizes)

    def _spent(self, cap: Cap, role: Role | None = None) -> float:
        """Return what this run's own calls took of a cap, those of all roles or of one."""
        spends = [one.spent if role is None else one.spent.by_role.get(role, Spend()) for one in self._clients]
        return sum(cap.of(spend) for spend in spends)

    def _most(
        self, trials: Sequence[Trial], questions: Sequence[str], question_tokens: int
    ) -> list[tuple[float, float]]:
        assert self._trials is not None
        found: list[tuple[float, float]] = [(len(question.encode()) + 100, question_tokens) for question in questions]
        if trials:
            size = self._trials.size
            request = self._trials.request(max(trials, key=lambda trial: sum(size(trial))))
            found.append((most_prompt_tokens(request), request.max_tokens))
        return found


def _caps(budget: Caps, model: str, *, judged: bool) -> list[Cap]:
    """Return the caps of a budget; none if it caps nothing but calls and no judge asks, which a plan does by itself."""
    # A budget of one process may have served another search before; one that is shared belongs to this run alone.
    spent, caps = budget.spent if budget.account is None else Spend(), []
    if budget.tokens is not None:
        caps.append(Cap("tokens", max(1.0, budget.tokens - spent.tokens), 0.0, 1.0, 1.0))
    if budget.usd is not None and (price := budget.prices.get(model)).output + price.input > 0:
        room = max(1e-12, budget.usd - (spent.usd or 0.0))
        caps.append(Cap("usd", room, 0.0, price.input / 1e6, price.output / 1e6))
    if (caps or judged) and budget.calls is not None:
        caps.append(Cap("calls", max(1.0, budget.calls - spent.calls), 1.0, 0.0, 0.0))
    return caps
