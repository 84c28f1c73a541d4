"""Ablations: each does what its name says, makes a cell of its own, and no more than that."""

from __future__ import annotations

import asyncio
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_endpoint import FakeEndpoint
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated import nearest_demo_answer, splits
from test_methods import learn, session
from test_methods_front import optimized

from benchmarks.cells import Cell
from benchmarks.grid import plan_cells
from benchmarks.routing import ROUTINGS, Routing
from mop.artifact import from_bytes, to_bytes
from mop.connect import connect
from mop.embeddings.assignment import limited_regions, random_regions
from mop.embeddings.encoders import Vectors
from mop.embeddings.tfidf import TfidfEncoder
from mop.encoding import resolve_encoder
from mop.errors import ArtifactError, SettingsError
from mop.limits import Limits
from mop.lm.ledger import Ledger
from mop.metrics import get_metric
from mop.mixture import Mixture
from mop.prompts import Prompt
from mop.scoring import MetricScorer
from mop.search.ablations import CHOICES, Ablations
from mop.search.baselines.paper_parts import expert_demos, find_paper_regions
from mop.search.methods import METHODS
from mop.sync import run

MIXTURES = ["mop", "mop-paper"]


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOP_API_KEY", "key")
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")


def points(count: int, seed: int = 0) -> Vectors:
    rows = np.random.default_rng(seed).normal(size=(count, 8)).astype(np.float32)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


# --- assignment


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 60), st.integers(1, 16), st.integers(0, 3))
def test_regions_of_limited_size_differ_by_one_at_most(rows: int, count: int, seed: int) -> None:
    for divide in (limited_regions, random_regions):
        regions = divide(points(rows, seed), count, seed=seed)
        sizes = np.bincount(regions.members(points(rows, seed)), minlength=len(regions))
        assert len(regions) == min(count, rows)
        assert sizes.max() - sizes.min() <= 1


def test_limited_regions_keep_near_things_together_and_random_ones_do_not() -> None:
    rows = np.repeat(np.eye(4, 8, dtype=np.float32), 10, axis=0)
    of_limited = limited_regions(rows, 4, seed=0).members(rows).reshape(4, 10)
    assert [len(set(row)) for row in of_limited.tolist()] == [1, 1, 1, 1]
    of_random = random_regions(rows, 4, seed=0).members(rows).reshape(4, 10)
    assert min(len(set(row)) for row in of_random.tolist()) > 1


@pytest.mark.parametrize("assignment", CHOICES["assignment"])
def test_experts_of_the_published_mixture_show_demos_of_their_own_group(assignment: str) -> None:
    with FakeEndpoint(nearest_demo_answer) as endpoint:
        asked = session(endpoint, experts=5, ablations=Ablations(assignment=assignment))
        regions = run(find_paper_regions(asked, chance=False))
    vectors = asked.problem.train_vectors
    home = dict(zip([one.input for one in asked.problem.train], regions.members(vectors), strict=True))
    every = expert_demos(asked, regions)
    assert all({home[demo.input] for demo in demos} == {region} for region, demos in enumerate(every))
    sizes = np.bincount(regions.members(vectors))
    assert (sizes.max() - sizes.min() <= 1) == (assignment != "kmeans")


# --- every choice through both mixtures


@pytest.mark.parametrize("name", MIXTURES)
@pytest.mark.parametrize(("part", "choice"), [(part, one) for part, choices in CHOICES.items() for one in choices])
def test_a_mixture_with_another_part_keeps_to_its_budget(name: str, part: str, choice: str) -> None:
    with FakeEndpoint(nearest_demo_answer) as endpoint:
        learned, _ = learn(name, endpoint, calls=90, ablations=Ablations.of({part: choice}))
        assert 45 <= endpoint.served <= 90  # a cap that is passed would raise
    assert len(learned.experts) == len(learned.centroids)
    assert learned.generalist.instruction


def asked_for_instructions(endpoint: FakeEndpoint) -> list[str]:
    return [body["messages"][0]["content"] for body in endpoint.bodies if body["messages"][0]["role"] == "user"]


def test_the_proposer_sees_what_the_view_says() -> None:
    seen = {}
    for view in CHOICES["view"]:
        with FakeEndpoint(nearest_demo_answer) as endpoint:
            learned, _ = learn("mop-paper", endpoint, calls=300, experts=4, ablations=Ablations(view=view))
            seen[view] = asked_for_instructions(endpoint)
        proposers = {expert.proposer for expert in learned.experts} - {"empty"}
        assert proposers <= {view, "complement", "given"}
    assert all("Wrong output" not in question for view in ("pool", "complement") for question in seen[view])
    assert any("Wrong output" in question for question in seen["failures"])
    assert seen["pool"] != seen["complement"]


@pytest.mark.parametrize("name", MIXTURES)
def test_an_instruction_chosen_independently_is_the_same_for_all(name: str) -> None:
    for selection in ("independent", *(["joint-global"] if name == "mop" else [])):
        with FakeEndpoint(nearest_demo_answer) as endpoint:
            chosen = Ablations(selection=selection)
            learned, asked = learn(name, endpoint, calls=400, train=180, description="Name it.", ablations=chosen)
        closed = asked.problem.answers
        without = {expert.prompt.instruction.split(" Answer with one of")[0] for expert in learned.experts}
        assert closed or name == "mop-paper"
        assert len(learned.experts) > 1
        assert len(without) == 1


def test_candidates_that_are_selected_globally_are_tried_on_the_same_examples_in_every_region() -> None:
    with FakeEndpoint(nearest_demo_answer) as endpoint:
        _, asked = learn("mop-paper", endpoint, calls=200, experts=4, ablations=Ablations(selection="joint-global"))
    tried: dict[Prompt, set[str]] = {}
    for prompt, example in asked.trials._known:
        if prompt.demos:
            tried.setdefault(prompt, set()).add(example.input)
    assert len({prompt.demos for prompt in tried}) == 4
    assert len({frozenset(inputs) for inputs in tried.values()}) == 1


def test_held_out_examples_can_choose_one_expert_and_scaled_inertia_cannot() -> None:
    def knows_everything(messages: list[dict[str, str]]) -> str:
        words = messages[-1]["content"].split()
        return f"{words[1]}_{words[3]}" if len(messages) > 1 else "Name the thing and its state."

    counts = {}
    for counting in CHOICES["counting"]:
        with FakeEndpoint(knows_everything) as endpoint:
            learned, _ = learn("mop-paper", endpoint, calls=200, ablations=Ablations(counting=counting))
        counts[counting] = len(learned.experts)
    # Where demos make no difference all numbers tie, and the smallest wins.
    assert counts["held-out"] == 1
    assert counts["scaled-inertia"] > 1


def test_an_ablation_is_in_the_files_provenance_and_none_leaves_no_trace() -> None:
    from mop.optimization import aoptimize
    from mop.settings import make_settings

    with FakeEndpoint(nearest_demo_answer) as endpoint:
        plain = optimized(endpoint, method="mop-paper")
        given = make_settings(
            {
                "model": "simulated",
                "base_url": endpoint.base_url,
                "encoder": f"endpoint:fake@{endpoint.base_url}",
                "budget": 60,
                "method": "mop-paper",
            },
            environment={},
        )
        chosen = Ablations(selection="independent")
        other = run(aoptimize(splits(), given, ledger=Ledger.in_memory(), ablations=chosen))
    assert "ablations" not in plain.provenance
    assert from_bytes(to_bytes(other)).provenance["ablations"] == {"selection": "independent"}


def test_a_part_or_a_choice_that_is_none_is_named() -> None:
    with pytest.raises(SettingsError, match="no ablation 'selecting'"):
        Ablations.of({"selecting": "independent"})
    with pytest.raises(SettingsError, match=r"view is 'all'; expected one of pool"):
        Ablations.of({"view": "all"})


# --- cells


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "own"
    folder.mkdir()
    rows = [{"input": f"word {n}", "output": [str(n % 3)]} for n in range(60)]
    (folder / "numbers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (folder / "tasks.json").write_text('{"numbers": {"files": {"numbers.jsonl": 60}, "metric": "exact_match"}}')
    return folder


def cells(data: Path, method: str, options: dict[str, Any] | None = None, **parts: str) -> list[Cell]:
    return plan_cells(data, ["numbers"], [method], [0], {"budget": "40", **(options or {})}, parts=parts)


def test_a_part_that_a_method_has_anyway_or_has_not_makes_no_other_cell(data: Path) -> None:
    for method in METHODS:
        (plain,) = cells(data, method)
        own = METHODS[method].parts
        for part, choices in {**CHOICES, "routing": ROUTINGS}.items():
            for choice in choices:
                (cell,) = cells(data, method, **{part: choice})
                same = not own or choice == {**own, "routing": "nearest-centroid"}[part]
                assert (cell.key == plain.key) == same, (method, part, choice)
                assert (dict(cell.parts) == {}) == same


def test_bounds_change_no_cell(data: Path) -> None:
    keys = {plan_cells(data, ["numbers"], ["mop"], [0], {}, bounds=count)[0].key for count in (0, 10)}
    assert len(keys) == 1


@pytest.mark.parametrize(
    ("options", "parts", "message"),
    [
        ({"experts": 3}, {"counting": "held-out"}, "leave one of them out"),
        ({}, {"routing": "nearest"}, "routing is 'nearest'"),
        ({"refit": True}, {"assignment": "random"}, "--refit"),
    ],
)
def test_parts_that_do_not_fit_are_refused(
    data: Path, options: dict[str, Any], parts: dict[str, str], message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        cells(data, "mop", options, **parts)


# --- routing and its bounds


@pytest.fixture(scope="module")
def published() -> Mixture:
    with FakeEndpoint(nearest_demo_answer) as endpoint, pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOP_API_KEY", "key")
        return optimized(endpoint, method="mop-paper", budget=120, experts=4)


def routed(mixture: Mixture, ask: Any) -> tuple[Any, int]:
    """Return what ``ask`` gives for the mixture's routing, and the calls that it took."""
    with FakeEndpoint(nearest_demo_answer) as endpoint:
        client = connect("simulated", ledger=Ledger.in_memory(), base_url=endpoint.base_url)
        encoder = resolve_encoder(f"endpoint:fake@{endpoint.base_url}")
        scorer = MetricScorer(get_metric("exact_match"))
        router = Routing(mixture.with_known_encoder(encoder), splits(), client, 0, scorer)
        result = asyncio.run(ask(router))
        return result, sum("messages" in body for body in endpoint.bodies)


def test_the_oracle_and_chance_bound_every_routing(published: Mixture) -> None:
    examples = splits().test[:40]

    async def every(router: Routing) -> dict[str, float]:
        return {name: (await router.score(examples, name)).accuracy for name in ROUTINGS}

    scores, _ = routed(published, every)
    for name in ("nearest-centroid", "nearest-demo", "random"):
        assert scores[name] <= scores["oracle"]
    assert scores["nearest-centroid"] > scores["random"]
    assert len(set(scores.values())) > 2


def test_the_kernel_goes_by_gains_and_to_the_nearest_region_where_there_are_none(published: Mixture) -> None:
    examples = splits().test[:40]

    async def both(router: Routing) -> tuple[tuple[str, ...], tuple[str, ...]]:
        return tuple((await router.score(examples, "kernel")).answers), tuple((await router.score(examples)).answers)

    none = replace(published, experts=tuple(replace(one, gain=0.0) for one in published.experts))
    by_kernel, by_nearest = routed(none, both)[0]
    assert by_kernel == by_nearest
    gains = (0.9, 0.01, 0.01, 0.01)
    unequal = replace(
        published, experts=tuple(replace(one, gain=gain) for one, gain in zip(published.experts, gains, strict=True))
    )
    by_kernel, by_nearest = routed(unequal, both)[0]
    assert by_kernel != by_nearest


@pytest.mark.parametrize("limits", [None, Limits((0.0,) * 4, 0.99), Limits((math.inf,) * 4, width=5.0)])
def test_a_cell_scores_a_mixture_by_the_routes_that_it_serves(published: Mixture, limits: Limits | None) -> None:
    examples = splits().test[:30]
    gains = (0.0, 0.9, 0.1, 0.1)
    experts = tuple(replace(one, gain=gain) for one, gain in zip(published.experts, gains, strict=True))
    mixture = replace(published, limits=limits, experts=experts)

    async def both(router: Routing) -> tuple[list[str], list[str], float]:
        scored = await router.score(examples)
        served = await router.mixture.apredict([one.input for one in examples], router._client)
        bounds = await router.bounds(examples, 30)
        assert bounds is not None
        assert bounds["routed"] == scored.accuracy
        return list(scored.answers), [one.text for one in served], scored.accuracy

    (scored, served, accuracy), _ = routed(mixture, both)
    assert scored == served
    (_, _, plain), _ = routed(replace(mixture, limits=None), both)
    assert (accuracy == plain) == (limits is None)


def test_bounds_say_on_how_many_examples_they_stand_and_what_they_cost(published: Mixture) -> None:
    examples = splits().test[:30]
    found, calls = routed(published, lambda router: router.bounds(examples, 5))
    assert found["calls"] >= calls > 0
    assert (found["random_examples"], found["examples"], found["experts"]) == (30, 5, 4)
    assert found["any_expert"] <= found["routed"] <= found["oracle"]
    matrix, asked = routed(published, lambda router: router.outcomes(examples[:5]))
    assert matrix.shape == (5, 4)
    assert asked == 20
    assert found["oracle"] == matrix.max(axis=1).mean()
    assert found["any_expert"] == matrix.mean()


def test_nothing_is_asked_where_there_is_nothing_to_route(published: Mixture) -> None:
    with FakeEndpoint(nearest_demo_answer) as endpoint:
        single = optimized(endpoint, method="ape-random")
    for mixture, count in ((single, 10), (published, 0)):
        assert routed(mixture, lambda router, count=count: router.bounds(splits().test[:5], count)) == (None, 0)


# --- TF-IDF


def test_rare_words_weigh_more_and_order_does_not_count() -> None:
    encoder = TfidfEncoder.fit(["the card", "the parcel", "the garden", "the meeting"])
    common, rare, both = encoder.encode(["the", "card", "card the"])
    assert both @ rare > both @ common
    assert np.allclose(encoder.encode(["the card"]), encoder.encode(["card, THE!"]))


@given(st.lists(st.text(), min_size=1, max_size=5))
def test_every_text_has_a_unit_vector(texts: list[str]) -> None:
    vectors = TfidfEncoder.fit(texts).encode(texts)
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_what_tfidf_has_learned_is_in_the_file_and_routes_alike() -> None:
    queries = [example.input for example in splits().test[:20]]
    with FakeEndpoint(nearest_demo_answer) as endpoint:
        mixture = optimized(endpoint, method="mop-paper", encoder="tfidf", budget=120)
        assert not any("input" in body for body in endpoint.bodies)
    loaded = from_bytes(to_bytes(mixture))
    assert len({route.expert for route in loaded.route(queries)}) > 1
    assert loaded.route(queries) == mixture.route(queries)
    assert loaded.encoder_record.identity.startswith("tfidf:1024@")
    assert to_bytes(loaded) == to_bytes(mixture)


def test_tfidf_alone_is_no_encoder_and_another_ones_state_is_no_mixture() -> None:
    from dataclasses import replace

    with pytest.raises(SettingsError, match="fitted on training examples"):
        resolve_encoder("tfidf")
    with FakeEndpoint(nearest_demo_answer) as endpoint:
        mixture = optimized(endpoint, method="mop-paper", encoder="tfidf")
    short = replace(mixture.encoder_record, state=np.ones((1, 5), np.float32))
    with pytest.raises(ArtifactError, match="shapes"):
        to_bytes(replace(mixture, encoder_record=short))
