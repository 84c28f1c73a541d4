"""Estimate: what a run will take, before anything is sent. Knows prompts' sizes, not the model."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from mop.prompts import TOKENS_PER_MESSAGE, Demo, estimate_tokens
from mop.search.methods import get_method

if TYPE_CHECKING:
    from mop.examples import Splits
    from mop.search.plan import Plan
    from mop.settings import Settings

#: Share of a token or money cap that the plan uses; the rest is for calls that turn out longer than estimated.
PLANNED_SHARE = 0.8


@dataclass(frozen=True)
class Estimate:
    """What a run will take at most in calls, and about in tokens and money.

    ``usd`` assumes no prompt caching and is None where the model's price isn't known.
    """

    plan: Plan
    calls: int
    prompt_tokens: int
    completion_tokens: int
    usd: float | None


def call_tokens(settings: Settings, splits: Splits) -> tuple[int, int]:
    """Return the (prompt, completion) tokens that an average trial takes, estimated from the examples.

    Each trial is counted with the retrieved demos, although single prompts race without them.
    """
    examples = splits.train
    demo = fmean(Demo.of(example).tokens for example in examples)
    query = fmean(estimate_tokens(example.input) for example in examples)
    answer = fmean(estimate_tokens(example.output) for example in examples)
    demos = min(settings.prompt_tokens, settings.max_demos * demo)
    if "retrieved" in get_method(settings.method).heeds:
        # Retrieved demos come on top of both limits.
        demos += settings.retrieved * demo
    instruction = 60 + 2 * TOKENS_PER_MESSAGE
    return round(demos + query + instruction), max(1, round(answer))


def affordable_calls(settings: Settings, splits: Splits) -> int:
    """Return how many calls the caps allow: the budget, or what tokens and money come to at the estimated size."""
    prompt, completion = call_tokens(settings, splits)
    caps = [settings.budget] if settings.budget is not None else []
    if settings.tokens is not None:
        caps.append(int(settings.tokens * PLANNED_SHARE / (prompt + completion)))
    if settings.usd is not None:
        from mop.lm.prices import Prices
        from mop.lm.request import Usage

        cost = Prices().cost(Usage(prompt, 0, completion), settings.model)
        if cost:
            caps.append(int(settings.usd * PLANNED_SHARE / cost))
    return min(caps) if caps else 600


def estimate(settings: Settings, splits: Splits) -> Estimate:
    """Return what `mop.optimize` would take with these settings and examples."""
    from mop.lm.prices import Prices
    from mop.lm.request import Usage
    from mop.optimization import make_plan
    from mop.search.methods import DEFAULT_METHOD

    plan = make_plan(settings, splits)
    prompt, completion = call_tokens(settings, splits)
    # Other methods have stages of their own, which no plan bounds.
    calls = plan.reachable if settings.method == DEFAULT_METHOD else plan.calls
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
