"""What a search does about the borders of its regions: few calls, on or off by what validation showed."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest
from fake_endpoint import FakeEndpoint
from simulated import nearest_demo_answer, splits
from small import WordEncoder

from mop.embeddings.regions import Regions
from mop.limits import Limits
from mop.lm.budget import Budget
from mop.lm.client import ModelClient
from mop.lm.ledger import Ledger
from mop.metrics import get_metric
from mop.scoring import MetricScorer
from mop.search.borders import Found, find_limits
from mop.search.experts import DemoPool, Layout, Recipe
from mop.search.judging import Judging
from mop.search.learning import Session
from mop.search.plan import Plan
from mop.search.problem import Problem
from mop.search.selection import gate
from mop.search.trials import Trials

REGIONS = 4


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOP_API_KEY", "key")


def limits_of(
    *, coverage: float = 0.9, calls: int = 600, used: int = 0, lucky: bool = False, answer: Any = nearest_demo_answer,
    retrieved: int = 1, **options: Any,
) -> tuple[Limits | None, int]:  # fmt: skip
    """Return the limits of a mixture whose centroids are four messages, and the calls that they took.

    ``lucky``: every judged answer was right, so nothing can be better; else every judged one was wrong.
    """
    data, encoder = splits(), WordEncoder(64)
    train, validation = data.train[:100], data.validation
    vectors = encoder.encode([example.input for example in train])
    problem = Problem(
        train, validation, vectors, encoder.encode([e.input for e in validation]), get_metric("exact_match")
    )
    with FakeEndpoint(answer) as endpoint:
        client = ModelClient("simulated", ledger=Ledger.in_memory(), base_url=endpoint.base_url, budget=Budget(calls))
        plan = Plan.of(calls, train=len(train), validation=len(validation))
        trials = Trials(client, problem.decoding, MetricScorer(problem.metric))
        judging = Judging(Session(problem, plan, trials, client, coverage=coverage, **options))
        judging.allowance.used = used
        recipe = Recipe(REGIONS, 3, 0, retrieved=retrieved)
        layout = Layout.build(recipe, Regions(vectors[:REGIONS]), None, DemoPool(train, vectors), problem.answers)
        scores = np.full(len(validation), float(lucky))
        generalist = scores - 0.5 if lucky else scores
        result = gate(scores, generalist, layout.assign(problem.validation_vectors), REGIONS, confidence=0.8)
        if not lucky:
            # Open, so that experts answer, although they have been wrong.
            result = gate(scores + 0.5, generalist, layout.assign(problem.validation_vectors), REGIONS, confidence=0.8)
        prompts = [layout.prompt(region, "Name it.") for region in range(REGIONS)]

        async def found() -> Limits | None:
            limits = await find_limits(judging, Found(layout, prompts, scores, generalist, result))
            await client.aclose()
            return limits

        return asyncio.run(found()), endpoint.served


def test_thresholds_take_no_calls_and_flag_few_validation_examples() -> None:
    limits, calls = limits_of(border_share=0)
    assert limits is not None
    assert calls == 0
    assert limits.measure == "demo"
    assert len(set(limits.thresholds)) == 1
    assert np.isfinite(limits.thresholds[0])
    assert 0 <= limits.measured["thresholds"]["flagged"] <= 0.1
    assert (limits.margin, limits.width) == (None, None)


def test_too_few_validation_examples_for_the_coverage_give_no_threshold() -> None:
    limits, _ = limits_of(coverage=0.99, border_share=0)
    assert limits is not None
    assert not np.isfinite(limits.thresholds).any()


def test_nothing_asked_for_is_nothing_kept() -> None:
    assert limits_of(coverage=0, border_share=0) == (None, 0)


def test_a_second_demo_is_shown_where_validation_is_answered_better_with_it() -> None:
    limits, calls = limits_of(soft=0.9, border_share=0.25)
    assert limits is not None
    routes = limits.measured["routes"]
    assert routes["tried"]["second demo"]["low"] > 0
    assert routes["chosen"] == "second demo"
    assert limits.margin is not None
    assert 8 <= calls == routes["calls"] <= 0.25 * 600


def test_where_nothing_is_better_everything_stays_as_it_was() -> None:
    limits, calls = limits_of(soft=0.9, border_share=0.25, lucky=True)
    assert limits is not None
    assert calls > 0
    assert limits.measured["routes"]["chosen"] == "nearest"
    assert (limits.margin, limits.width) == (None, None)


@pytest.mark.parametrize("options", [{"border_share": 0.005}, {"border_share": 0.25, "used": 597}])
def test_without_calls_enough_to_tell_nothing_is_tried(options: dict[str, Any]) -> None:
    limits, calls = limits_of(soft=0.9, **options)
    assert limits is not None
    assert calls == 0
    assert limits.measured["routes"]["chosen"] == "nearest"


def test_a_mixture_that_retrieves_nothing_measures_to_centroids_and_shows_no_second_demo() -> None:
    limits, _ = limits_of(soft=0.9, border_share=0.25, retrieved=0)
    assert limits is not None
    assert limits.measure == "centroid"
    assert set(limits.measured["routes"]["tried"]) == {"kernel"}
