"""adding: new labelled examples for a mixture that is learned already. Puts the parts together.

What is new is told from what the mixture holds already; `mop.search.adding` says what is tried with it,
`mop.search.widening` which thresholds hold afterwards. The map of the regions shows the new examples as well; what
validation showed, the second region's demos and the kernel's width stay.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from statistics import fmean
from typing import TYPE_CHECKING, Any

from mop.connect import require_endpoint
from mop.data.normal_form import normal_form
from mop.errors import DataError
from mop.examples import Example
from mop.familiar import held
from mop.lm.caps import Caps
from mop.metrics import get_metric
from mop.mixture import Mixture
from mop.optimization import Run, reference_of
from mop.prompts import Demo, estimate_tokens
from mop.scoring import calls_per_score, make_scorer
from mop.settings import Settings

if TYPE_CHECKING:
    from mop.embeddings.encoders import Vectors
    from mop.lm.ledger import Ledger
    from mop.search.adding import AddPlan, Limits
    from mop.search.learning import Listener
    from mop.search.replacing import RegionResult

#: Share of a token or money cap that is planned; the rest is for calls that turn out longer than estimated.
PLANNED_SHARE = 0.8


@dataclass(frozen=True)
class Conflict:
    """A new example whose input the mixture knows with another answer. The old answer stays."""

    input: str
    known: str
    given: str


@dataclass(frozen=True)
class Screened:
    """New examples, those that the mixture (or an earlier row) holds already, and those that contradict it.

    Inputs count as the same up to case, spacing and punctuation.
    """

    new: tuple[Example, ...]
    duplicates: tuple[Example, ...]
    conflicts: tuple[Conflict, ...]


@dataclass(frozen=True)
class Addition:
    """A mixture with new examples, and what was tried for it."""

    mixture: Mixture
    results: tuple[RegionResult, ...]


@dataclass(frozen=True)
class Planned:
    """What adding will take, before any model is called: the screened examples, their vectors and the regions to try.

    ``calls`` are the most that there will be, those of a judge included; it is taken to read and write as much as the
    model that it judges. ``usd`` assumes no prompt caching and is None where the model's price isn't known.
    """

    screened: Screened
    vectors: Vectors
    limits: Limits
    plan: AddPlan
    prompt_tokens: int
    completion_tokens: int
    usd: float | None
    calls: int


def screen(mixture: Mixture, examples: Sequence[Example]) -> Screened:
    """Tell new examples from those that the mixture shows, can retrieve, or was just given."""
    known = held(mixture)
    new: list[Example] = []
    duplicates: list[Example] = []
    conflicts: list[Conflict] = []
    for example in examples:
        form = normal_form(example.input)
        if form not in known:
            known[form] = example.output
            new.append(replace(example, split=None))
        elif known[form] in example.outputs:
            duplicates.append(example)
        else:
            conflicts.append(Conflict(example.input, known[form], example.output))
    return Screened(tuple(new), tuple(duplicates), tuple(conflicts))


def plan_addition(mixture: Mixture, examples: Sequence[Example], settings: Settings) -> Planned:
    """Encode the new examples and say what will be tried within the budget of ``settings``. No model is called.

    The limits on demos, the confidence and the seed are those with which the mixture was learned.
    Raises DataError if nothing is new.
    """
    from mop.lm.prices import Prices
    from mop.lm.request import Usage
    from mop.search.adding import Limits, plan_regions

    screened = screen(mixture, examples)
    if not screened.new:
        raise DataError(
            f"None of the {len(examples)} examples is new ({len(screened.duplicates)} are in the mixture already, "
            f"{len(screened.conflicts)} contradict it); give examples that the mixture doesn't hold."
        )
    learned = mixture.provenance.get("settings")
    learned = learned if isinstance(learned, dict) else {}
    seed = mixture.provenance.get("seed")
    each = 1 + calls_per_score(mixture.metric)
    limits = Limits(
        max_demos=_number(learned.get("max_demos"), settings.max_demos),
        token_budget=_number(learned.get("prompt_tokens"), settings.prompt_tokens),
        calls=_affordable(mixture, screened.new, settings) // each,
        seed=_number(seed, 0),
        confidence=settings.confidence,
        shown=not _is_ruled(mixture),
    )
    vectors = mixture.encoder.encode([example.input for example in screened.new])
    plan = plan_regions(mixture, screened.new, vectors, limits)
    prompt_tokens = each * sum(task.prompt_tokens for task in plan.tasks)
    answers = each * sum(
        len(task.arms) * sum(_answer_tokens(mixture, example) for example in task.judged) for task in plan.tasks
    )
    prices = Prices()
    known = prices.find(mixture.model) is not None
    usd = prices.cost(Usage(prompt_tokens, 0, answers), mixture.model) if known else None
    return Planned(screened, vectors, limits, plan, prompt_tokens, answers, usd, each * plan.calls)


async def aadd(
    mixture: Mixture,
    planned: Planned,
    settings: Settings,
    *,
    ledger: Ledger,
    budget: Caps,
    used: Run | None = None,
    listener: Listener | None = None,
    replay: bool = False,
) -> Addition:
    """Run what is planned and return the mixture with the new examples.

    Interrupted, it goes on from the ledger when it is called again with the same things. Raises as `mop.optimize` does.
    """
    from mop.judge import Judge
    from mop.models import Models
    from mop.search.learning import Silence
    from mop.search.replacing import run_region
    from mop.search.trials import Trials

    listener, used = listener or Silence(), used if used is not None else Run()
    if planned.plan.tasks and not replay:
        require_endpoint(mixture.model, settings.base_url, mixture.provenance)
    results: list[RegionResult] = []
    if planned.plan.tasks:
        metric = get_metric(mixture.metric, allow_code=settings.allow_code)
        # One client for the judge too where it is the same model; nobody writes instructions.
        asked = settings.model_copy(update={"model": mixture.model, "proposer": None})
        name = f"add {_data_hash(planned.screened.new)[:12]}"
        models = await asyncio.to_thread(Models.connect, asked, ledger, budget, name, replay=replay)
        used.traffic = [one.traffic for one in models.distinct]
        trials = Trials(models.client, mixture.decoding, make_scorer(metric, Judge(models.judge, settings.criteria)))
        try:
            for number, task in enumerate(planned.plan.tasks, start=1):
                listener.stage(f"region {task.region} ({number} of {len(planned.plan.tasks)})")
                results.append(await run_region(mixture, task, trials, confidence=planned.limits.confidence))
        finally:
            used.spend = budget.spent
            used.sent = sum(one.sent for one in used.traffic)
            used.from_ledger = sum(one.from_ledger for one in used.traffic)
            await models.aclose()
    return Addition(_grown(mixture, planned, results, budget), tuple(results))


def _grown(mixture: Mixture, planned: Planned, results: Sequence[RegionResult], budget: Caps) -> Mixture:
    """Return the mixture with the experts of the races, more demos to retrieve, and what it expects of queries."""
    import numpy as np

    from mop.embeddings.projection import project
    from mop.search.adding import grown
    from mop.search.widening import widened

    experts = list(mixture.experts)
    for result in results:
        experts[result.task.region] = result.expert
    new, vectors = planned.screened.new, planned.vectors
    projected = project(vectors, mixture.projection)
    reference, drawn, pool = mixture.reference, mixture.region_map, mixture.retrieval
    places = np.full(len(new), -1)
    if planned.limits.shown and pool is not None:
        pool, places = grown(pool, new, projected, token_budget=planned.limits.token_budget)
    regions = mixture.router.nearest_regions(projected)
    limits = widened(mixture.limits, mixture.centroids, regions, projected, pool, places)
    record = {
        "created": _now(),
        "examples": len(new),
        "data_sha256": _data_hash(new),
        "calls": budget.spent.calls,
        "regions": [result.task.region for result in results],
        "changed": [result.task.region for result in results if result.changed],
    }
    before = mixture.provenance.get("additions")
    changed = replace(
        mixture,
        experts=tuple(experts),
        retrieval=pool,
        limits=limits,
        region_map=drawn and drawn.joined(projected, mixture.centroids, seed=planned.limits.seed),
        # What was added counts as expected from now on.
        reference=reference and reference.joined(reference_of(mixture, vectors)),
        provenance={**mixture.provenance, "additions": [*(before if isinstance(before, list) else []), record]},
    )
    return changed.with_known_encoder(mixture.encoder)


def _is_ruled(mixture: Mixture) -> bool:
    """Return whether outputs are rules that answers must keep, and no answers."""
    return mixture.metric.partition(":")[0] == "checks"


def _answer_tokens(mixture: Mixture, example: Example) -> int:
    return mixture.decoding.max_tokens if _is_ruled(mixture) else estimate_tokens(example.output)


def _affordable(mixture: Mixture, examples: Sequence[Example], settings: Settings) -> int:
    """Return the calls that the caps allow, those of a judge among them, at the size of an average call."""
    from mop.lm.prices import Prices
    from mop.lm.request import Usage

    prompts = [mixture.generalist, *(expert.prompt for expert in mixture.experts)]
    query = fmean(Demo.of(example).tokens for example in examples)
    retrieved = 0 if mixture.retrieval is None else mixture.retrieval.count
    prompt = round(fmean(one.tokens for one in prompts) + (1 + retrieved) * query)
    answer = max(1, round(fmean(_answer_tokens(mixture, example) for example in examples)))
    caps = [] if settings.budget is None else [settings.budget]
    if settings.tokens is not None:
        caps.append(int(settings.tokens * PLANNED_SHARE / (prompt + answer)))
    if settings.usd is not None and (cost := Prices().cost(Usage(prompt, 0, answer), mixture.model)):
        caps.append(int(settings.usd * PLANNED_SHARE / cost))
    return min(caps) if caps else 600


def _number(value: Any, default: int) -> int:
    """Return a number of a file's provenance, which may hold anything."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**9 else default


def _data_hash(examples: Sequence[Example]) -> str:
    text = json.dumps([[example.input, example.outputs] for example in examples])
    return hashlib.sha256(text.encode()).hexdigest()


def _now() -> str:
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    return (datetime.fromtimestamp(int(epoch), UTC) if epoch else datetime.now(UTC)).isoformat(timespec="seconds")
