"""add, for mixtures with limits, a map, a judge or rules: what is tried is what will answer, and nothing goes stale."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from fake_endpoint import FakeEndpoint
from simulated import nearest_demo_answer
from small import TOPICS, WordEncoder, small_mixture
from test_adding import BASE, ENCODER, NEW, STATES, added, endpoint, mixture, options, records, rows

from mop.adding import plan_addition
from mop.embeddings.region_map import SAMPLE, draw_map
from mop.examples import Example
from mop.limits import FAR, Limits
from mop.mixture import Mixture
from mop.prompts import Prompt
from mop.search.adding import EXPERT, GENERALIST, NEW_DEMOS

__all__ = ["endpoint"]  # a fixture


def changed(before: Mixture, **changes: Any) -> Mixture:
    return replace(before, **changes).with_known_encoder(before.encoder)


def test_queries_like_the_added_examples_are_far_no_longer_and_foreign_ones_still_are(endpoint: FakeEndpoint) -> None:
    strange = [Example(one.input.replace("my card card is", "oh card,"), one.outputs) for one in NEW]
    before = changed(BASE, limits=Limits((0.15, 0.15, 0.15), coverage=0.9, measure="demo"))
    query, foreign = "oh card, bent today once more", "card zebras sing underwater operas loudly"
    assert before.route(query).reason == FAR
    assert before.route(foreign).reason == FAR
    after = added(before, strange, endpoint)[1].mixture
    assert after.limits is not None
    assert after.limits.thresholds[0] > 0.15
    assert after.route(query).reason is None
    assert after.route(foreign).reason == FAR
    assert (after.limits.coverage, after.limits.measure) == (0.9, "demo")


def test_the_map_shows_the_added_examples_where_they_route(endpoint: FakeEndpoint) -> None:
    old = ENCODER.encode([one.input for topic in STATES for one in rows(topic, STATES[topic], 5, "old")])
    before = changed(BASE, region_map=draw_map(BASE.centroids, old))
    found = added(before, NEW, endpoint)[1].mixture.region_map
    assert found is not None
    assert before.region_map is not None
    np.testing.assert_array_equal(found.places, before.region_map.places)
    np.testing.assert_array_equal(found.sample[:15], before.region_map.sample)
    assert found.regions[15:].tolist() == [0] * 24


def test_a_map_never_keeps_more_examples_than_one_that_was_just_drawn() -> None:
    vectors = np.random.default_rng(0).standard_normal((SAMPLE, ENCODER.dimension)).astype(np.float32)
    drawn = draw_map(BASE.centroids, vectors).joined(vectors[:50], BASE.centroids)
    assert drawn.sample.shape == (SAMPLE, 2)
    assert len(drawn.regions) == SAMPLE


def test_under_a_kernel_examples_are_tried_where_it_sends_them_and_gains_do_not_grow(endpoint: FakeEndpoint) -> None:
    plain = mixture(retrieved=0)
    experts = (replace(plain.experts[0], gain=0.05, gain_low=0.01, gain_high=0.1), *plain.experts[1:])
    near = changed(plain, experts=experts, limits=Limits((math.inf,) * 3, width=1e-3))
    result = added(near, NEW, endpoint)[1].results[0]
    assert (result.task.region, result.changed) == (0, True)
    assert (result.expert.gain, result.expert.gain_low, result.expert.gain_high) == (0.05, 0.01, 0.1)
    assert added(plain, NEW, endpoint)[1].results[0].expert.gain > 0.05
    # A kernel so wide that the largest gain takes all.
    experts = (experts[0], replace(experts[1], gain=0.9), experts[2])
    wide = changed(plain, experts=experts, limits=Limits((math.inf,) * 3, width=1e6))
    assert {route.expert for route in wide.route([one.input for one in NEW])} == {1}
    assert [task.region for task in plan_addition(wide, NEW, options()).plan.tasks] == [1]


def test_near_a_border_candidates_are_judged_with_the_second_regions_demo() -> None:
    between = [Example(one.input + " parcel", one.outputs) for one in NEW]
    before = changed(BASE, limits=Limits((math.inf,) * 3, margin=3.0))
    (task,) = plan_addition(before, between, options()).plan.tasks
    for arm in task.arms:
        shown = [prompt.retrieved for prompt in arm.prompts]
        assert [len(one) for one in shown] == [0 if arm.name == GENERALIST else 2] * len(task.judged)
        for example, demos in zip(task.judged, shown, strict=True):
            assert example.input not in {demo.input for demo in demos}
    (plain,) = plan_addition(BASE, between, options()).plan.tasks
    assert {len(prompt.retrieved) for prompt in plain.arms[0].prompts} == {1}


@pytest.mark.parametrize(("metric", "calls"), [("judge", 1), ("judge:pairwise", 2)])
def test_a_judge_of_its_own_scores_and_its_calls_are_planned(metric: str, calls: int) -> None:
    def answer(messages: list[dict[str, str]]) -> str:
        question = messages[-1]["content"]
        return ("10" if calls == 1 else "TIE") if "[End of answer" in question else nearest_demo_answer(messages)

    before = changed(BASE, metric=metric)
    with FakeEndpoint(answer) as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOP_API_KEY", "k")
        planned, _, used = added(before, NEW, server, judge="another", budget=200)
        assert {body["model"] for body in server.bodies} == {"simulated", "another"}
    assert planned.calls == planned.plan.calls * (1 + calls)
    assert 0 < planned.plan.calls < used.spend.calls <= planned.calls <= 200
    assert used.sent == used.spend.calls
    plain = plan_addition(BASE, NEW, options(budget=planned.plan.calls))
    assert planned.prompt_tokens / planned.calls == pytest.approx(plain.prompt_tokens / plain.calls, rel=0.25)


def test_rules_never_become_demos(endpoint: FakeEndpoint) -> None:
    rules = json.dumps({"max_words": 6})
    new = [Example(one.input, (rules,)) for one in NEW]
    planned, addition, _ = added(changed(BASE, metric="checks"), new, endpoint)
    (task,) = planned.plan.tasks
    assert (task.names, len(task.judged) >= len(new)) == ((EXPERT, GENERALIST), True)
    assert planned.completion_tokens == planned.plan.calls * BASE.decoding.max_tokens
    shown = [demo for arm in task.arms for prompt in arm.prompts for demo in (*prompt.demos, *prompt.retrieved)]
    assert rules not in {demo.output for demo in shown}
    assert addition.mixture.retrieval is BASE.retrieval
    assert all(rules not in record for record in records(addition.mixture))


def test_where_all_candidates_are_one_prompt_nothing_is_tried(endpoint: FakeEndpoint) -> None:
    only = Prompt("Do it.")
    alike = small_mixture(
        experts=tuple(replace(one, prompt=only, fallback=True) for one in small_mixture().experts), generalist=only
    )
    assert isinstance(alike.encoder, WordEncoder)
    alike = changed(alike, provenance={"settings": {"max_demos": 0, "prompt_tokens": 0}})
    new = [Example(f"{TOPICS[0]} number {number}", ("x",)) for number in range(12)]
    planned, _, used = added(alike, new, endpoint)
    assert planned.plan.alike == (0,)
    assert (planned.plan.tasks, planned.plan.beyond_budget, used.spend.calls) == ((), (), 0)


def test_names_of_candidates_stay_in_the_order_of_the_table() -> None:
    (task,) = plan_addition(BASE, NEW, options()).plan.tasks
    assert task.names == (EXPERT, NEW_DEMOS, GENERALIST)
