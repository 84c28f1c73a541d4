"""Evaluate: score a mixture and its opponents on labelled examples, paired, with intervals and costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mop.connect import connected
from mop.errors import DataError, SettingsError
from mop.examples import Example
from mop.lm.prices import Prices
from mop.lm.request import Reply, Usage
from mop.metrics import BUILT_IN, CODE, Metric, get_metric
from mop.prompts import Prompt
from mop.scoring import Scorer, make_scorer
from mop.stats import Interval, PairedDifference, paired_difference, proportion_interval
from mop.sync import run

if TYPE_CHECKING:
    from mop.judge import Judge
    from mop.lm.client import ModelClient
    from mop.mixture import Mixture

#: Picks the prompt of each of the queries.
Prompter = Callable[[Sequence[str]], Sequence[Prompt]]


@dataclass(frozen=True)
class SystemScore:
    """How one system did.

    ``scores`` has one entry per example; ``usage`` sums the tokens as the endpoint reported them; ``seconds`` is the
    mean time of a call. ``usd_per_1000`` is what 1,000 such queries cost with prompt caching as it happened,
    ``usd_per_1000_uncached`` without any; None where the price isn't known.
    """

    name: str
    scores: NDArray[np.float64]
    answers: tuple[str, ...]
    accuracy: float
    interval: Interval
    calls: int
    usage: Usage
    seconds: float
    usd_per_1000: float | None
    usd_per_1000_uncached: float | None

    @property
    def fresh_tokens(self) -> float:
        """Prompt tokens per query that no cache served."""
        return self.usage.fresh_tokens / len(self.scores)

    @property
    def prompt_tokens(self) -> float:
        """Prompt tokens per query, cached or not."""
        return self.usage.prompt_tokens / len(self.scores)


@dataclass(frozen=True)
class Evaluation:
    """Scores of several systems on the same examples, and how far the first is from each of the others."""

    systems: tuple[SystemScore, ...]

    def difference(self, name: str, other: str) -> PairedDifference:
        """Return the paired difference of two systems, ``name`` minus ``other``."""
        by_name = {system.name: system for system in self.systems}
        return paired_difference(by_name[name].scores, by_name[other].scores)

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the single answers as plain data."""
        first = self.systems[0]
        return {
            "examples": len(first.scores),
            "systems": [
                {
                    "name": system.name,
                    "accuracy": system.accuracy,
                    "low": system.interval.low,
                    "high": system.interval.high,
                    "calls": system.calls,
                    "prompt_tokens_per_query": system.prompt_tokens,
                    "fresh_tokens_per_query": system.fresh_tokens,
                    "completion_tokens_per_query": system.usage.completion_tokens / len(system.scores),
                    "seconds_per_query": system.seconds,
                    "usd_per_1000": system.usd_per_1000,
                    "usd_per_1000_uncached": system.usd_per_1000_uncached,
                }
                for system in self.systems
            ],
            "differences": [
                {
                    "of": first.name,
                    "to": system.name,
                    "mean": difference.mean,
                    "low": difference.low,
                    "high": difference.high,
                    "p_value": difference.p_value,
                    "wins": difference.wins,
                    "losses": difference.losses,
                    "ties": difference.ties,
                }
                for system in self.systems[1:]
                for difference in [self.difference(first.name, system.name)]
            ],
        }


def mixture_prompter(mixture: Mixture) -> Prompter:
    """Return the prompter that routes each query through ``mixture``."""
    return lambda queries: [mixture.prompt_of(route) for route in mixture.route(list(queries))]


def single_prompter(prompt: Prompt) -> Prompter:
    """Return the prompter that answers every query with one prompt."""
    return lambda queries: [prompt] * len(queries)


def retrieving_prompter(prompt: Prompt, mixture: Mixture) -> Prompter:
    """Return the prompter that answers with one prompt and the demos that ``mixture`` retrieves.

    What it lacks beside ``mixture`` are the experts. Raises SettingsError if the mixture retrieves nothing.
    """
    retrieval = mixture.retrieval
    if retrieval is None:
        raise SettingsError("This mixture retrieves no demos; it was learned with retrieved = 0.")

    def prompts(queries: Sequence[str]) -> list[Prompt]:
        from mop.embeddings.projection import project

        vectors = project(mixture.encoder.encode(list(queries)), mixture.projection)
        return [prompt.retrieving(demos) for demos in retrieval.nearest(vectors)]

    return prompts


def evaluate(
    mixture: Mixture,
    examples: Sequence[Example],
    client: ModelClient | None = None,
    *,
    against: Mapping[str, Prompter] | None = None,
    metric: str | Metric | None = None,
    replay: bool = False,
    allow_code: bool = False,
) -> Evaluation:
    """Score ``mixture`` on ``examples``, beside its generalist and the systems ``against`` it (name → prompter).

    One model call for each example and system, unless two systems ask the same thing. ``metric`` defaults to the
    mixture's own; one that is a function must be given, because a file doesn't get to say which code runs.
    With ``replay`` nothing is sent: every answer comes from the ledger, and one that isn't there raises NotRecorded.
    ``allow_code`` lets the metric ``python_tests`` run what the model writes, in a sandbox.
    Raises DataError without examples, SettingsError for such a metric, ModelError if the model can't answer.
    """
    return run(
        aevaluate(mixture, examples, client, against=against, metric=metric, replay=replay, allow_code=allow_code)
    )


async def aevaluate(
    mixture: Mixture,
    examples: Sequence[Example],
    client: ModelClient | None = None,
    *,
    against: Mapping[str, Prompter] | None = None,
    metric: str | Metric | None = None,
    on_reply: Callable[[str], None] | None = None,
    generalist: bool = True,
    replay: bool = False,
    judge: Judge | None = None,
    allow_code: bool = False,
) -> Evaluation:
    """Score ``mixture``; the async form of `evaluate`.

    ``judge`` scores where the metric is one of `mop.metrics.JUDGED`; its calls are not in the systems' costs.
    ``on_reply`` hears the system's name at every reply; without ``generalist`` the mixture's own isn't scored.
    """
    import asyncio

    if not examples:
        raise DataError("There are no examples to evaluate on; give at least one.")
    found = _metric_of(mixture, allow_code) if metric is None else get_metric(metric, allow_code=allow_code)
    scorer = make_scorer(found, judge)
    systems: dict[str, Prompter] = {
        "mixture": mixture_prompter(mixture),
        **({"generalist": single_prompter(mixture.generalist)} if generalist else {}),
        **(against or {}),
    }
    scored = []
    async with connected(client, mixture.model, mixture.provenance, replay=replay) as live:
        for name, prompter in systems.items():
            prompts = await asyncio.to_thread(prompter, [example.input for example in examples])
            scored.append(await score_prompts(name, mixture, examples, prompts, live, scorer, on_reply))
    return Evaluation(tuple(scored))


def _metric_of(mixture: Mixture, allow_code: bool) -> Metric:
    if mixture.metric.partition(":")[0] not in (*BUILT_IN, CODE):
        raise SettingsError(
            f"The mixture names the metric {mixture.metric!r}, a function that would be imported and run. "
            "If you trust it, give it as the metric to evaluate with."
        )
    return get_metric(mixture.metric, allow_code=allow_code)


async def score_prompts(
    name: str,
    mixture: Mixture,
    examples: Sequence[Example],
    prompts: Sequence[Prompt],
    client: ModelClient,
    scorer: Scorer,
    on_reply: Callable[[str], None] | None = None,
) -> SystemScore:
    """Score the system ``name``, which answers each example with the prompt at its place; else as in `aevaluate`."""
    first_use = {prompt.prefix: place for place, prompt in reversed(list(enumerate(prompts)))}
    order = sorted(range(len(examples)), key=lambda place: (first_use[prompts[place].prefix], place))
    requests = [mixture.decoding.request(client.model, prompts[i], examples[i].input) for i in order]
    tell = None if on_reply is None else lambda _place, _reply: on_reply(name)
    in_order = await client.complete_many(requests, tell)
    replies: list[Reply] = [reply for _, reply in sorted(zip(order, in_order, strict=True), key=lambda pair: pair[0])]
    answers = tuple(reply.text.strip() for reply in replies)
    scores = np.array(await scorer.score(answers, examples), dtype=float)
    usage = reduce(lambda total, reply: total + reply.usage, replies, Usage())
    prices = Prices()
    known = prices.find(client.model) is not None
    per_1000 = 1000 / len(examples)
    return SystemScore(
        name=name,
        scores=scores,
        answers=answers,
        accuracy=float(scores.mean()),
        interval=proportion_interval(scores),
        calls=len({reply.key for reply in replies}),
        usage=usage,
        seconds=float(np.mean([reply.seconds for reply in replies])),
        usd_per_1000=prices.cost(usage, client.model) * per_1000 if known else None,
        usd_per_1000_uncached=prices.cost_without_cache(usage, client.model) * per_1000 if known else None,
    )
