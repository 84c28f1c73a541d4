"""Every method behind one interface: what it may spend, what it hands over, and the slips of the released code."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_endpoint import FakeEndpoint
from simulated import nearest_demo_answer, splits
from small import WordEncoder
from stand_in import StandIn

from mop.embeddings.regions import Regions
from mop.lm.budget import Budget
from mop.lm.client import ModelClient
from mop.lm.ledger import Ledger
from mop.lm.white_box import WhiteBox
from mop.metrics import get_metric
from mop.scoring import MetricScorer
from mop.search.baselines.ape import centroid_demos
from mop.search.baselines.mop_paper import mop_paper
from mop.search.baselines.paper_parts import complement, expert_demos, paper_questions
from mop.search.baselines.paper_regions import _fit, paper_regions
from mop.search.learning import Learned, Session
from mop.search.methods import METHODS, get_method
from mop.search.plan import Plan
from mop.search.problem import Problem
from mop.search.trials import Trials
from mop.seeds import stream
from mop.sync import run

OPPONENTS = [name for name in METHODS if name != "mop"]
#: Methods that ask nothing of the model while they learn.
NO_CALLS = ("knn",)
ONE_PROMPT = [name for name in OPPONENTS if not name.startswith("mop") and name not in NO_CALLS]


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOP_API_KEY", "key")
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    monkeypatch.setattr("mop.lm.causal.Causal", StandIn)


def session(
    endpoint: FakeEndpoint, *, calls: int = 90, train: int = 100, validation: int = 60, seed: int = 0, **options: Any
) -> Session:
    data, encoder = splits(), WordEncoder(64)
    problem = Problem(
        train=data.train[:train],
        validation=data.validation[:validation],
        train_vectors=encoder.encode([example.input for example in data.train[:train]]),
        validation_vectors=encoder.encode([example.input for example in data.validation[:validation]]),
        metric=get_metric("exact_match"),
        seed=seed,
        description=options.pop("description", None),
    )
    ledger = Ledger.in_memory()
    client = ModelClient("simulated", ledger=ledger, base_url=endpoint.base_url, budget=Budget(calls), concurrency=16)
    plan = Plan.of(calls, train=train, validation=validation)
    trials = Trials(client, problem.decoding, MetricScorer(problem.metric))
    options.setdefault("white_box", WhiteBox("local/smollm2-135m-instruct", ledger=ledger))
    return Session(problem=problem, plan=plan, trials=trials, proposer=client, **options)


def learn(name: str, endpoint: FakeEndpoint, **options: Any) -> tuple[Learned, Session]:
    given = session(endpoint, **options)
    return run(get_method(name).load()(given)), given  # type: ignore[arg-type]


@pytest.mark.parametrize("name", [name for name in OPPONENTS if name not in NO_CALLS])
@pytest.mark.parametrize("calls", [20, 90])
def test_a_method_keeps_to_its_budget_and_uses_most_of_it(name: str, calls: int) -> None:
    with FakeEndpoint(nearest_demo_answer) as endpoint:
        learned, _ = learn(name, endpoint, calls=calls)
        assert calls * 0.5 <= endpoint.served <= calls  # a cap that is passed would raise
    assert len(learned.experts) == len(learned.centroids)


@pytest.mark.parametrize("name", ONE_PROMPT)
def test_an_opponent_learns_one_prompt_that_answers_everything(name: str) -> None:
    with FakeEndpoint(nearest_demo_answer) as endpoint:
        learned, _ = learn(name, endpoint)
    (expert,) = learned.experts
    assert expert.prompt == learned.generalist
    assert expert.fallback
    assert bool(expert.prompt.demos) == ("random" in name or "kcentroids" in name)
    assert not learned.zero_shot.demos


def test_demos_are_attached_after_selection_as_published_or_stand_there_during_it() -> None:
    shown: dict[str, set[int]] = {}
    for name in ("ape-random", "ape-random-fair"):
        with FakeEndpoint(nearest_demo_answer) as endpoint:
            learned, _ = learn(name, endpoint)
            tried = [body for body in endpoint.bodies if body["messages"][0]["role"] == "system"]
        shown[name] = {sum(message["role"] == "assistant" for message in body["messages"]) for body in tried}
        assert len(learned.experts[0].prompt.demos) == 10
        # The score is that of the prompt that raced, and the report says whether that is the prompt in the file.
        assert learned.report["generalist"].get("demos") == (None if "fair" in name else "attached after the race")
    assert shown == {"ape-random": {0}, "ape-random-fair": {10}}


def test_knn_shows_the_nearest_labelled_examples_of_both_splits_and_searches_nothing() -> None:
    with FakeEndpoint(nearest_demo_answer) as endpoint:
        learned, given = learn("knn", endpoint, max_demos=20)
        few, _ = learn("knn", endpoint, max_demos=3, description="Name it.")
        assert endpoint.served == 0
    (expert,) = learned.experts
    assert (expert.prompt.demos, expert.fallback) == ((), False)
    assert learned.retrieval is not None
    assert learned.retrieval.count == 15
    problem = given.problem
    rows = {example.input for example in (*problem.train, *problem.validation)}
    assert {demo.input for demo in learned.retrieval.demos} == rows
    ((*_, nearest),) = learned.retrieval.nearest(problem.validation_vectors[:1])
    assert nearest.output == problem.validation[0].output
    assert all(answer in expert.prompt.instruction for answer in problem.answers)
    assert few.retrieval is not None
    assert few.retrieval.count == 3
    assert few.generalist.instruction.startswith("Name it.")


def test_the_fixed_mixture_retrieves_nothing() -> None:
    with FakeEndpoint(nearest_demo_answer) as endpoint:
        assert learn("mop-fixed", endpoint, calls=90)[0].retrieval is None


def test_published_and_fair_variants_show_the_same_demos() -> None:
    with FakeEndpoint(nearest_demo_answer) as endpoint:
        for kind in ("random", "kcentroids"):
            plain, _ = learn(f"ape-{kind}", endpoint)
            fair, _ = learn(f"ape-{kind}-fair", endpoint)
            assert plain.experts[0].prompt.demos == fair.experts[0].prompt.demos


def test_centroid_demos_come_from_different_parts_of_the_pool() -> None:
    with FakeEndpoint(nearest_demo_answer) as endpoint:
        demos = centroid_demos(session(endpoint))
    assert len({demo.output.split("_")[0] for demo in demos}) == 4


@pytest.mark.parametrize("name", ["zero-shot", "random-demos", "ape", "ape-kcentroids", "mop-paper"])
def test_candidates_are_compared_on_the_same_examples(name: str) -> None:
    # The released code draws 20 examples afresh for each candidate.
    with FakeEndpoint(nearest_demo_answer) as endpoint:
        given = session(endpoint, calls=150)
        run(get_method(name).load()(given))  # type: ignore[arg-type]
    seen: dict[Any, list[str]] = {}
    for prompt, example in given.trials._known:
        if name != "mop-paper" or not prompt.demos:
            seen.setdefault(prompt, []).append(example.input)
    rows = sorted(seen.values(), key=len)
    assert len(rows) > 2
    for fewer, more in itertools.pairwise(rows):
        assert set(fewer) <= set(more)


# --- the slips of the released mixture


def test_the_complement_of_every_expert_is_all_that_it_does_not_show() -> None:
    # The released code takes the number of experts from the length of a pair: expert 1 sees expert 0's demos only.
    with FakeEndpoint(nearest_demo_answer) as endpoint:
        given = session(endpoint)
    regions = paper_regions(given.problem.train_vectors, seed=0, count=6)
    for demos in (every := expert_demos(given, regions)):
        hidden = {example.input for example in complement(given, demos)}
        assert len(hidden) == 100 - len(demos)
        assert all(demo.input in hidden for others in every if others is not demos for demo in others)


def test_the_questions_for_an_expert_show_what_all_others_show_and_nothing_of_its_own() -> None:
    with FakeEndpoint(nearest_demo_answer) as endpoint:
        given = session(endpoint)
    regions = paper_regions(given.problem.train_vectors, seed=0, count=4)
    every = expert_demos(given, regions)
    questions = run(paper_questions(given, regions, every, 4 * 30))
    for expert, demos in enumerate(every):
        asked = {
            shown for _, text in questions[expert::4] for shown in re.findall(r"^Input: (.*)$", text, re.MULTILINE)
        }
        assert asked.isdisjoint(demo.input for demo in demos)
        for other in every:
            assert other is demos or asked & {demo.input for demo in other}


def test_an_expert_shows_demos_of_its_own_region_and_none_twice() -> None:
    with FakeEndpoint(nearest_demo_answer) as endpoint:
        given = session(endpoint)
    regions = paper_regions(given.problem.train_vectors, seed=0, count=8)
    home = dict(
        zip(
            [example.input for example in given.problem.train], regions.assign(given.problem.train_vectors), strict=True
        )
    )
    for region, demos in enumerate(expert_demos(given, regions)):
        assert 0 < len(demos) <= 10
        assert {home[demo.input] for demo in demos} == {region}
        assert len({demo.input for demo in demos}) == len(demos)


def test_topped_up_examples_are_tried_with_the_prompt_of_the_expert_under_trial() -> None:
    with FakeEndpoint(nearest_demo_answer) as endpoint:
        given = session(endpoint, calls=520, validation=24, experts=3)
        learned = run(mop_paper(given))
    by_demos: dict[Any, set[str]] = {}
    for prompt, example in given.trials._known:
        if prompt.demos:
            by_demos.setdefault(prompt.demos, set()).add(example.input)
    for expert in learned.experts:
        # 24 validation examples cannot be 20 or more in each of three regions, so some were topped up.
        assert len(by_demos[expert.prompt.demos]) == expert.validation
        assert expert.validation >= 20


@pytest.mark.parametrize("name", OPPONENTS)
def test_no_instruction_is_none_when_all_candidates_score_zero(name: str) -> None:
    def useless(messages: list[dict[str, str]]) -> str:
        return "Write the answer, please." if len(messages) == 1 else "never right"

    with FakeEndpoint(useless) as endpoint:
        learned, _ = learn(name, endpoint, calls=30)
    for prompt in (learned.generalist, *(expert.prompt for expert in learned.experts)):
        assert "None" not in prompt.instruction
        assert prompt.instruction or prompt.demos
    assert all(expert.score in (0, None) for expert in learned.experts)


@pytest.mark.parametrize("name", OPPONENTS)
def test_a_proposer_that_writes_nothing_usable_ends_no_run(name: str) -> None:
    with FakeEndpoint(lambda _: "") as endpoint:
        learned, _ = learn(name, endpoint, calls=20)
    assert learned.generalist.instruction


@pytest.mark.parametrize("experts", [1, 2, 16, 25, 500])
def test_any_number_of_experts_can_be_asked_of_the_published_mixture(experts: int) -> None:
    # One, and more than twenty, crash the released code.
    with FakeEndpoint(nearest_demo_answer) as endpoint:
        learned, _ = learn("mop-paper", endpoint, calls=120, experts=experts)
    assert len(learned.experts) <= min(experts, 100)
    assert len(learned.experts) == experts or experts > 20


@pytest.mark.parametrize("count", [8, 13, 20, 50])
def test_few_examples_of_noise_do_not_give_the_most_experts_if_chance_is_counted(count: int) -> None:
    for draw in range(3):
        noise = stream(draw, "noise", count).normal(size=(count, 384)).astype(np.float32)
        rows = noise / np.linalg.norm(noise, axis=1, keepdims=True)
        assert len(paper_regions(rows, seed=draw, chance=True)) <= 4


def test_the_published_penalty_is_the_rule() -> None:
    noise = stream(0, "noise", 20).normal(size=(20, 384)).astype(np.float32)
    rows = noise / np.linalg.norm(noise, axis=1, keepdims=True)
    total = float(((rows - rows.mean(axis=0)) ** 2).sum())
    found = len(paper_regions(rows, seed=0))
    left = {count: _fit(rows, count, 0)[1] / total + 0.02 * count for count in range(2, 11)}
    assert found == min(left, key=lambda count: left[count]) == 10
    assert len(paper_regions(rows, seed=0, chance=True)) < found


@pytest.mark.parametrize(("count", "chance"), [(20, True), (100, True), (100, False)])
def test_scaled_inertia_finds_clusters_that_are_there(count: int, chance: bool) -> None:
    rng = stream(0, "clusters", count)
    centres = np.eye(384)[rng.integers(3, size=count)]
    rows = (centres + 0.03 * rng.normal(size=(count, 384))).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    assert len(paper_regions(rows, seed=0, chance=chance)) == 3


def test_equal_inputs_leave_no_region_empty() -> None:
    rows = np.repeat(np.eye(3, 8, dtype=np.float32), 5, axis=0)
    for count in (None, 1, 3, 9):
        regions = paper_regions(rows, seed=0, count=count)
        assert set(regions.assign(rows)) == set(range(len(regions)))
    assert isinstance(paper_regions(rows[:5], seed=0), Regions)


def test_the_block_layout_is_one_message_and_is_in_the_file() -> None:
    with FakeEndpoint(lambda _: "card_blocked is the answer") as endpoint:
        learned, _ = learn("mop-paper-block", endpoint, calls=90)
        assert {len(body["messages"]) for body in endpoint.bodies} == {1}
    assert {expert.prompt.layout for expert in learned.experts} == {learned.generalist.layout} == {"block"}


def test_results_do_not_depend_on_the_hash_seed() -> None:
    script = (
        "import test_methods as t\n"
        "with t.FakeEndpoint(t.nearest_demo_answer) as endpoint:\n"
        "    for name in ('random-demos', 'ape-kcentroids-fair', 'mop-paper'):\n"
        "        learned, _ = t.learn(name, endpoint, calls=60)\n"
        "        print(learned.generalist, learned.experts, learned.report)\n"
    )

    def outcome(hash_seed: str) -> str:
        environment = os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(Path(__file__).parent)}
        return subprocess.run(
            [sys.executable, "-c", script], env=environment, check=True, capture_output=True, text=True
        ).stdout

    assert outcome("1") == outcome("2")


def test_another_seed_draws_other_demos() -> None:
    with FakeEndpoint(nearest_demo_answer) as endpoint:
        one, other = (learn("random-demos", endpoint, calls=20, seed=seed)[0] for seed in (0, 1))
    assert one.generalist.demos != other.generalist.demos


def test_the_given_instruction_takes_part() -> None:
    with FakeEndpoint(nearest_demo_answer) as endpoint:
        learn("ape", endpoint, calls=60, description="Say it in Latin.")
        systems = {body["messages"][0]["content"] for body in endpoint.bodies}
    assert "Say it in Latin." in systems


def test_the_user_decides_how_many_instructions_are_written() -> None:
    with FakeEndpoint(nearest_demo_answer) as endpoint:
        learn("ape", endpoint, calls=90, proposals=7)
        asked = [body for body in endpoint.bodies if "What was the instruction?" in body["messages"][0]["content"]]
    assert len(asked) == 7
