"""Estimate: what a run will take, before anything is sent. Knows prompts' sizes, not the model.

How far off it is: `python -m benchmarks.estimates` compares it with real runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from mop.prompts import TOKENS_PER_MESSAGE, Demo, estimate_tokens
from mop.search.methods import DEFAULT_METHOD

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


@dataclass(frozen=True)
class Estimate:
    """What a run is expected to take in calls (never more than its budget), tokens and money.

    ``usd`` assumes no prompt caching and is None where the model's price isn't known.
    """

    plan: Plan
    calls: int
    prompt_tokens: int
    completion_tokens: int
    usd: float | None


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


def affordable_calls(settings: Settings, splits: Splits) -> int:
    """Return how many calls the caps allow: the budget, or what tokens and money come to at the estimated size.

    The search corrects the size as it goes (`mop.search.allowance`).
    """
    prompt, completion = call_tokens(settings, splits)
    caps = [settings.budget] if settings.budget is not None else []
    if settings.tokens is not None:
        caps.append(int(settings.tokens / (prompt + completion)))
    if settings.usd is not None:
        from mop.lm.prices import Prices
        from mop.lm.request import Usage

        cost = Prices().cost(Usage(prompt, 0, completion), settings.model)
        if cost:
            caps.append(int(settings.usd / cost))
    return min(caps) if caps else 600


def estimate(settings: Settings, splits: Splits) -> Estimate:
    """Return what `mop.optimize` would take with these settings and examples."""
    from mop.lm.prices import Prices
    from mop.lm.request import Usage
    from mop.optimization import make_plan

    plan = make_plan(settings, splits)
    prompt, completion = call_tokens(settings, splits)
    calls = _calls(settings, plan, len(splits.validation))
    usage = Usage(calls * prompt, 0, calls * completion)
    prices = Prices()
    known = prices.find(settings.model) is not None
    return Estimate(
        plan,
        calls,
        usage.prompt_tokens,
        usage.completion_tokens,
        prices.cost(usage, settings.model) if known else None,
    )


def _calls(settings: Settings, plan: Plan, validation: int) -> int:
    """Return the calls that the method is expected to find use for."""
    from mop.search.baselines.parts import proposals_for
    from mop.search.race import schedule

    if settings.method in (DEFAULT_METHOD, "mop-fixed"):
        return plan.reachable
    if settings.method == "knn":
        return 0
    if settings.method == "random-demos":
        from mop.search.baselines.random_demos import draws_for

        return schedule(draws_for(plan.calls), validation, plan.calls)[0]
    asked = proposals_for(plan.calls, settings.proposals)
    if settings.method.startswith("mop-paper"):
        from mop.search.baselines.mop_paper import EXAMPLES, KEPT
        from mop.search.baselines.paper_regions import MOST_EXPERTS

        joint = (KEPT + 1) * max(validation, EXAMPLES * (settings.experts or MOST_EXPERTS))
        return min(plan.calls, asked + asked * min(EXAMPLES, validation) + joint)
    arms = asked + (settings.instruction is not None)
    return asked + schedule(max(1, arms), validation, plan.calls - asked)[0]
