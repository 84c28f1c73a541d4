"""Estimate: what a run will take, before anything is sent. Knows prompts' sizes, not the model.

How far off it is: `python -m benchmarks.estimates` compares it with real runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from mop.prompts import TOKENS_PER_MESSAGE, Demo, estimate_tokens
from mop.scoring import calls_per_score
from mop.search.methods import DEFAULT_METHOD, get_method

if TYPE_CHECKING:
    from mop.examples import Splits
    from mop.search.plan import Plan
    from mop.settings import Settings

#: Part of the trials that run single prompts, in a search for a mixture: their race, and one of two final looks.
SINGLES = 0.45
#: Estimated tokens of an instruction that a model wrote, with the message around it.
INSTRUCTION = 40
#: Part of the calls of the published mixture that is made without demos.
WITHOUT_DEMOS = 1 / 3
#: Estimated tokens of a judge's question without the texts that it shows and without its criteria, and of its reply.
JUDGE_FRAME, JUDGE_REPLY = 120, 2


@dataclass(frozen=True)
class Estimate:
    """What a run is expected to take in calls (never more than its budget), tokens and money.

    ``usd`` assumes no prompt caching and is None where the price of a model isn't known. ``judge_calls`` are those of
    ``calls`` that score answers.
    """

    plan: Plan
    calls: int
    prompt_tokens: int
    completion_tokens: int
    usd: float | None
    judge_calls: int = 0


def call_tokens(settings: Settings, splits: Splits) -> tuple[int, int]:
    """Return the (prompt, completion) tokens that an average trial takes, estimated from the examples.

    Each trial of experts is counted with the retrieved demos, where the method has them.
    """
    sizes = _Sizes(settings, splits)
    method = settings.method
    if method in ("mop", "mop-fixed"):
        retrieved = settings.retrieved if method == "mop" else 0
        single, expert = sizes.single(), sizes.expert(retrieved)
        prompt = single if settings.experts == 1 else SINGLES * single + (1 - SINGLES) * expert
    elif method.startswith("mop-paper"):
        prompt = sizes.plain + (1 - WITHOUT_DEMOS) * sizes.published()
    elif method.endswith("-fair"):
        prompt = sizes.plain + sizes.published()
    elif method == "random-demos":
        prompt = sizes.listed + sizes.demos(sizes.most)
    else:
        prompt = sizes.listed if method == "zero-shot" else sizes.plain
    return round(prompt), max(1, round(sizes.answer))


class _Sizes:
    """Mean estimated tokens of the prompts that a search tries."""

    def __init__(self, settings: Settings, splits: Splits) -> None:
        from mop.search.demos import closed_answers
        from mop.search.plan import region_counts

        examples = splits.train
        self._demo = fmean(Demo.of(example).tokens for example in examples)
        self._fit = settings.prompt_tokens
        self._train = len(examples)
        self.most = settings.max_demos
        self.answer = fmean(estimate_tokens(example.output) for example in examples)
        self._answers = closed_answers(examples)
        #: A prompt without demos, and one that lists the answers.
        self.plain = INSTRUCTION + TOKENS_PER_MESSAGE + fmean(estimate_tokens(one.input) for one in examples)
        self.listed = self.plain + estimate_tokens(", ".join(self._answers))
        counts = region_counts(self._train, len(splits.validation), settings.budget or 600)
        self._experts = settings.experts or counts[0]

    def demos(self, count: float, budgets: int = 1) -> float:
        """Return the tokens of ``count`` demos, as far as ``budgets`` times the demos' limit goes."""
        return min(count * self._demo, budgets * self._fit)

    def published(self) -> float:
        """Return the tokens of as many demos as the published prompts show."""
        return self.demos(min(self.most, max(1, self._train // 10)))

    def single(self) -> float:
        """Return the mean over the kinds of single prompts (`mop.search.singles`)."""
        if not self.most:
            return self.listed
        if not self._answers:
            return self.plain + fmean([self.demos(self.most), 0.0, self.demos(self.most)])
        drawn = self.demos(min(self.most, len(self._answers)))
        kinds = [drawn, self.demos(len(self._answers), 4), 0.0, self.demos(self.most), drawn]
        return self.listed + fmean(kinds)

    def expert(self, retrieved: int) -> float:
        """Return the size of an expert's prompt: its region's demos and their answers, and what it looks up."""
        count = min(self.most, self._train / self._experts)
        shown = (self.listed - self.plain) * min(1.0, count / max(1, len(self._answers)))
        return self.plain + shown + self.demos(count) + retrieved * self._demo


def judge_tokens(settings: Settings, splits: Splits) -> tuple[int, int]:
    """Return the (prompt, completion) tokens of all the calls that one score takes; zeros where no judge scores."""
    calls = calls_per_score(settings.metric)
    if not calls:
        return 0, 0
    from mop.judge.criteria import get_criteria

    given = fmean(estimate_tokens(one.input) for one in splits.train)
    answer = fmean(estimate_tokens(one.output) for one in splits.train)
    # A grade shows a right answer and the one to grade, a comparison shows two answers.
    shown = estimate_tokens(get_criteria(settings.criteria).text) + given + 2 * answer
    return round(calls * (JUDGE_FRAME + shown)), calls * JUDGE_REPLY


def affordable_trials(settings: Settings, splits: Splits) -> int:
    """Return how many calls of the plan the caps allow, each with those that its score takes: the budget, or what
    tokens and money come to at the estimated size.

    The search corrects the size as it goes (`mop.search.allowance`).
    """
    trial, score = call_tokens(settings, splits), judge_tokens(settings, splits)
    caps = [settings.budget // (1 + calls_per_score(settings.metric))] if settings.budget is not None else []
    if settings.tokens is not None:
        caps.append(int(settings.tokens / (sum(trial) + sum(score))))
    if settings.usd is not None:
        cost = _cost(settings, trial) + _cost(settings, score, judging=True)
        if cost:
            caps.append(int(settings.usd / cost))
    return min(caps) if caps else 600


def _cost(settings: Settings, tokens: tuple[int, int], *, judging: bool = False) -> float:
    """Return what (prompt, completion) tokens cost in USD; raises UnknownPrice."""
    from mop.lm.prices import Prices
    from mop.lm.request import Usage

    if not any(tokens):
        return 0.0
    model = (settings.judge or settings.model) if judging else settings.model
    return Prices().cost(Usage(tokens[0], 0, tokens[1]), model)


def estimate(settings: Settings, splits: Splits) -> Estimate:
    """Return what `mop.optimize` would take with these settings and examples."""
    from mop.errors import UnknownPrice
    from mop.optimization import make_plan

    plan = make_plan(settings, splits)
    trial, score = call_tokens(settings, splits), judge_tokens(settings, splits)
    asked, trials = _calls(settings, plan, len(splits.validation))
    own = (asked + trials) * trial[0], (asked + trials) * trial[1]
    judge = trials * score[0], trials * score[1]
    try:
        usd = _cost(settings, own) + _cost(settings, judge, judging=True)
    except UnknownPrice:
        usd = None
    judge_calls = trials * calls_per_score(settings.metric)
    return Estimate(plan, asked + trials + judge_calls, own[0] + judge[0], own[1] + judge[1], usd, judge_calls)


def _calls(settings: Settings, plan: Plan, validation: int) -> tuple[int, int]:
    """Return the calls that the method is expected to find use for: those for instructions, and those for answers."""
    from mop.search.baselines.parts import proposals_for
    from mop.search.race import schedule

    if settings.method in (DEFAULT_METHOD, "mop-fixed"):
        return plan.proposals, plan.reachable - plan.proposals
    if not get_method(settings.method).asks:
        return 0, 0
    if settings.method == "random-demos":
        from mop.search.baselines.random_demos import draws_for

        return 0, schedule(draws_for(plan.calls), validation, plan.calls)[0]
    asked = proposals_for(plan.calls, settings.proposals)
    if settings.method.startswith("mop-paper"):
        from mop.search.baselines.mop_paper import EXAMPLES, KEPT
        from mop.search.baselines.paper_regions import MOST_EXPERTS

        joint = (KEPT + 1) * max(validation, EXAMPLES * (settings.experts or MOST_EXPERTS))
        return asked, min(plan.calls - asked, asked * min(EXAMPLES, validation) + joint)
    arms = asked + (settings.instruction is not None)
    return asked, schedule(max(1, arms), validation, plan.calls - asked)[0]
