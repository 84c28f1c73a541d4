"""Estimate: what a run will take, before anything is sent. Knows prompts' sizes, not the model.

How far off it is: `python -m benchmarks.estimates` compares it with simulated runs, and with real ones of a grid.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from mop.errors import BudgetExceeded
from mop.prompts import TOKENS_PER_MESSAGE
from mop.scoring import calls_per_score
from mop.search.methods import DEFAULT_METHOD, get_method
from mop.sizes import FRAME, INSTRUCTION, Sizes, count_tokens, mean_size

if TYPE_CHECKING:
    from mop.examples import Splits
    from mop.search.plan import Plan
    from mop.settings import Settings

#: Part of the calls of the published mixture that is made without demos.
WITHOUT_DEMOS = 1 / 3
#: Examples in a question for an instruction: of ``mop``, of the published mixture, of all others.
SHOWN, SHOWN_BY_PAPER, SHOWN_BY_APE = 8, 5, 10
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


def call_tokens(settings: Settings, splits: Splits, plan: Plan | None = None) -> tuple[int, int]:
    """Return the (prompt, completion) tokens that an average trial takes, estimated from the examples.

    ``plan`` is that of the run; without one, it is about the one that the caps come to. Each trial of experts is
    counted with the retrieved demos, where the method has them.
    """
    sizes = Sizes(settings, splits)
    method = settings.method
    if method in (DEFAULT_METHOD, "mop-fixed"):
        size = sizes.searched(plan or _usual_plan(settings, splits), settings.retrieved if method == "mop" else 0)
    elif method.startswith("mop-paper"):
        size = mean_size([(WITHOUT_DEMOS, sizes.plain), (1 - WITHOUT_DEMOS, sizes.published())])
    elif method.endswith("-fair"):
        size = sizes.published()
    elif method == "random-demos":
        size = sizes.with_demos(sizes.most, listed=True)
    else:
        size = sizes.listed if method == "zero-shot" else sizes.plain
    return round(size.prompt), max(1, round(size.completion))


def question_tokens(settings: Settings, splits: Splits) -> tuple[int, int]:
    """Return the (prompt, completion) tokens of an average question for an instruction."""
    from mop.search.proposers import MAX_SHOWN_CHARACTERS, WORKED, after_worked, from_demos

    if settings.method in (DEFAULT_METHOD, "mop-fixed"):
        shown = SHOWN
        wording = count_tokens(after_worked(())) + sum(count_tokens(text) + TOKENS_PER_MESSAGE for _, text in WORKED)
    else:
        shown = SHOWN_BY_PAPER if settings.method.startswith("mop-paper") else SHOWN_BY_APE
        wording = count_tokens(from_demos(()))
    most = MAX_SHOWN_CHARACTERS
    each = fmean(count_tokens(f"Input: {one.input[:most]} Output: {one.output[:most]}") for one in splits.train)
    asked = wording + min(shown, len(splits.train)) * each + TOKENS_PER_MESSAGE + FRAME
    return round(asked), INSTRUCTION + 2


def _usual_plan(settings: Settings, splits: Splits) -> Plan:
    """Return about the plan that the caps will come to: the sizes of calls depend on it, and it on them."""
    from mop.search.plan import MIN_CALLS, Plan

    def plan_of(calls: float) -> Plan:
        return Plan.of(
            max(MIN_CALLS, int(calls)),
            train=len(splits.train),
            validation=len(splits.validation),
            experts=settings.experts,
            proposals=settings.proposals,
        )

    first = plan_of(settings.budget or 600)
    by_size = [cap / each for cap, each, _ in _sizes_of_caps(settings, splits, first)]
    calls = [settings.budget] if settings.budget is not None else []
    return plan_of(min([*calls, *by_size], default=600))


def judge_tokens(settings: Settings, splits: Splits) -> tuple[int, int]:
    """Return the (prompt, completion) tokens of all the calls that one score takes; zeros where no judge scores."""
    calls = calls_per_score(settings.metric)
    if not calls:
        return 0, 0
    from mop.judge.criteria import get_criteria

    given = fmean(count_tokens(one.input) for one in splits.train)
    answer = fmean(count_tokens(one.output) for one in splits.train)
    # A grade shows a right answer and the one to grade, a comparison shows two answers.
    shown = count_tokens(get_criteria(settings.criteria).text) + given + 2 * answer
    return round(calls * (JUDGE_FRAME + shown)), calls * JUDGE_REPLY


def affordable_trials(settings: Settings, splits: Splits) -> int:
    """Return how many calls of the plan the caps allow, each with those that its score takes: the budget, or what
    tokens and money come to at the estimated size.

    The search corrects the size as it goes (`mop.search.allowance`).
    """
    by_size = [int(cap / each) for cap, each, _ in _sizes_of_caps(settings, splits)]
    calls = [settings.budget // (1 + calls_per_score(settings.metric))] if settings.budget is not None else []
    return min([*calls, *by_size], default=600)


def planned_calls(settings: Settings, splits: Splits) -> int:
    """Return what `affordable_trials` does, if a cap on tokens or money is worth the calls that a plan takes at least.

    Raises BudgetExceeded.
    """
    from mop.lm.caps import amount
    from mop.search.plan import MIN_CALLS

    for cap, each, unit in _sizes_of_caps(settings, splits):
        if cap < MIN_CALLS * each:
            raise BudgetExceeded(
                f"{amount(cap, unit)} come to about {int(cap / each)} model calls here, too few to compare prompts; "
                f"give at least {amount(1.01 * MIN_CALLS * each, unit)}, enough for {MIN_CALLS}. Nothing was sent."
            )
    return affordable_trials(settings, splits)


def _sizes_of_caps(settings: Settings, splits: Splits, plan: Plan | None = None) -> list[tuple[float, float, str]]:
    """Return each cap on tokens and money, what a trial with its score is expected to take of it, and its unit."""
    if settings.tokens is None and settings.usd is None:
        return []
    trial, score = call_tokens(settings, splits, plan), judge_tokens(settings, splits)
    found: list[tuple[float, float, str]] = []
    if settings.tokens is not None:
        found.append((settings.tokens, sum(trial) + sum(score), "tokens"))
    if settings.usd is not None:
        cost = _cost(settings, trial, "model") + _cost(settings, score, "judge")
        if cost:
            found.append((settings.usd, cost, "USD"))
    return found


def _cost(settings: Settings, tokens: tuple[int, int], role: str) -> float:
    """Return what (prompt, completion) tokens of a role cost: "model", "proposer" or "judge". Raises UnknownPrice."""
    from mop.lm.prices import Prices
    from mop.lm.request import Usage

    if not any(tokens):
        return 0.0
    model = getattr(settings, role) or settings.model
    return Prices().cost(Usage(tokens[0], 0, tokens[1]), model)


def estimate(settings: Settings, splits: Splits) -> Estimate:
    """Return what `mop.optimize` would take with these settings and examples."""
    from mop.errors import UnknownPrice
    from mop.optimization import make_plan

    plan = make_plan(settings, splits)
    asked, trials = _calls(settings, plan, len(splits.validation))
    parts = [
        ("model", trials, call_tokens(settings, splits, plan)),
        ("proposer", asked, question_tokens(settings, splits)),
        ("judge", trials, judge_tokens(settings, splits)),
    ]
    prompt, completion = (sum(calls * size[place] for _, calls, size in parts) for place in (0, 1))
    try:
        usd = sum(_cost(settings, (calls * size[0], calls * size[1]), role) for role, calls, size in parts)
    except UnknownPrice:
        usd = None
    judge_calls = trials * calls_per_score(settings.metric)
    return Estimate(plan, asked + trials + judge_calls, prompt, completion, usd, judge_calls)


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
    if settings.method.startswith("instructzero"):
        return 0, plan.calls
    asked = proposals_for(plan.calls, settings.proposals)
    if settings.method.startswith("mop-paper"):
        from mop.search.baselines.mop_paper import EXAMPLES, KEPT
        from mop.search.baselines.paper_regions import MOST_EXPERTS

        joint = (KEPT + 1) * max(validation, EXAMPLES * (settings.experts or MOST_EXPERTS))
        return asked, min(plan.calls - asked, asked * min(EXAMPLES, validation) + joint)
    arms = asked + (settings.instruction is not None)
    return asked, schedule(max(1, arms), validation, plan.calls - asked)[0]
