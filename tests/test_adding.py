"""add: new examples change the regions that got enough of them, if that helps, and nothing else."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_endpoint import FakeEndpoint
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated import FILLER, nearest_demo_answer
from small import WordEncoder

from mop.adding import Addition, Planned, aadd, plan_addition, screen
from mop.cli import main
from mop.errors import BudgetExceeded, DataError
from mop.examples import Example
from mop.handwritten import Bank, make_mixture
from mop.lm.ledger import Ledger
from mop.manifest import manifest_text
from mop.mixture import Mixture
from mop.optimization import Run, make_budget, reference_of
from mop.prompts import Demo, Prompt
from mop.search.adding import GENERALIST, LEAST, NEW_DEMOS
from mop.seeds import stream
from mop.settings import Settings, make_settings

ENCODER = WordEncoder(256)
STATES = {"card": ("lost", "stolen"), "parcel": ("late", "wet"), "meeting": ("moved", "boring")}


def rows(topic: str, states: Sequence[str], count: int, seed: str) -> list[Example]:
    rng = stream(0, "rows", topic, seed)
    made = []
    for number in range(count):
        filler = " ".join(rng.choice(FILLER, size=3, replace=False))
        state = states[number % len(states)]
        made.append(Example(f"my {topic} {topic} is {state} {filler}", (f"{topic}_{state}",)))
    return made


def bank(retrieved: int = 1) -> dict[str, Any]:
    return {
        "model": "simulated",
        "encoder": "words",
        "retrieved": retrieved,
        "generalist": {"instruction": "Name it.", "demos": [{"input": "my garden is dry", "output": "garden_dry"}]},
        "experts": [
            {
                "name": topic,
                "instruction": f"Name the {topic}. Answer with one of: {', '.join(f'{topic}_{s}' for s in states)}.",
                "demos": [{"input": one.input, "output": one.output} for one in rows(topic, states, 4, "demos")],
                "examples": [{"input": one.input, "output": one.output} for one in rows(topic, states, 8, "pool")],
            }
            for topic, states in STATES.items()
        ],
    }


def mixture(retrieved: int = 1, encoder: Any = ENCODER) -> Mixture:
    return make_mixture(Bank.model_validate(bank(retrieved)), encoder).with_known_encoder(encoder)


BASE = mixture()
#: Three answers that the mixture has never seen, all about cards.
NEW = rows("card", ("bent", "cloned", "scratched"), 24, "new")


@pytest.fixture(scope="module")
def endpoint() -> Iterator[FakeEndpoint]:
    with FakeEndpoint(nearest_demo_answer) as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOP_API_KEY", "k")
        yield server


def options(endpoint: FakeEndpoint | None = None, **more: Any) -> Settings:
    url = None if endpoint is None else endpoint.base_url
    return make_settings({"model": "simulated", "base_url": url, **more}, environment={})


def added(
    before: Mixture, examples: Sequence[Example], endpoint: FakeEndpoint, ledger: Ledger | None = None, **more: Any
) -> tuple[Planned, Addition, Run]:
    chosen, used = options(endpoint, **more), Run()
    planned = plan_addition(before, examples, chosen)
    book = ledger or Ledger.in_memory()
    work = aadd(before, planned, chosen, ledger=book, budget=make_budget(chosen), used=used)
    return planned, asyncio.run(work), used


def records(one: Mixture) -> list[str]:
    """Return each expert as the file has it."""
    return [json.dumps(expert) for expert in json.loads(manifest_text(one, "x"))["experts"]]


def test_a_region_learns_new_answers_and_nothing_else_changes(endpoint: FakeEndpoint) -> None:
    base = mixture(retrieved=0)
    planned, addition, used = added(base, NEW, endpoint)
    after = addition.mixture
    (result,) = addition.results
    assert (result.task.region, result.changed, result.task.names[result.winner]) == (0, True, NEW_DEMOS)
    assert {"card_bent", "card_cloned", "card_scratched"} <= {demo.output for demo in after.experts[0].prompt.demos}
    assert "card_bent, card_cloned, card_lost, card_scratched, card_stolen." in after.experts[0].prompt.instruction
    assert records(after)[1:] == records(base)[1:]
    assert after.centroids.tobytes() == base.centroids.tobytes()
    assert (after.generalist, after.retrieval) == (base.generalist, None)
    assert used.spend.calls <= planned.plan.calls
    assert after.experts[0].generalist_score is not None
    assert after.experts[0].gain > 0


def test_the_pool_grows_and_keeps_what_it_had(endpoint: FakeEndpoint) -> None:
    before, after = BASE.retrieval, added(BASE, NEW, endpoint)[1].mixture.retrieval
    assert before is not None
    assert after is not None
    assert after.demos[: len(before.demos)] == before.demos
    assert {demo.input for demo in after.demos[len(before.demos) :]} == {example.input for example in NEW}
    np.testing.assert_array_equal(after.vectors[: len(before.vectors)], before.vectors)


def test_where_retrieving_the_new_examples_is_enough_the_expert_stays(endpoint: FakeEndpoint) -> None:
    _, addition, _ = added(BASE, NEW, endpoint)
    before = addition.results[0].scores[0]
    assert before is not None
    assert before >= 0.8
    assert records(addition.mixture) == records(BASE)


def test_an_expert_that_nothing_beats_stays_as_it_was(endpoint: FakeEndpoint) -> None:
    _, addition, used = added(BASE, rows("card", STATES["card"], 12, "more"), endpoint)
    assert used.spend.calls > 0
    assert not addition.results[0].changed
    assert records(addition.mixture) == records(BASE)
    assert addition.mixture.provenance["additions"][0]["changed"] == []


def test_the_generalist_takes_over_where_it_is_better(endpoint: FakeEndpoint) -> None:
    demos = tuple(Demo(one.input, one.output) for one in rows("card", ("bent", "cloned"), 8, "known"))
    bad = replace(BASE.experts[0], prompt=Prompt("Name it.", (Demo("my card", "card_lost"),)))
    before = replace(
        mixture(retrieved=0), experts=(bad, *BASE.experts[1:]), generalist=Prompt("Name it.", demos)
    ).with_known_encoder(ENCODER)
    # With no room for demos, the candidates are the bad expert and the generalist.
    before = replace(before, provenance={"settings": {"max_demos": 0, "prompt_tokens": 0}}).with_known_encoder(ENCODER)
    _, addition, _ = added(before, rows("card", ("bent", "cloned"), 24, "new"), endpoint)
    (result,) = addition.results
    assert result.task.names[result.winner] == GENERALIST
    assert addition.mixture.experts[0].fallback
    assert addition.mixture.experts[0].prompt == bad.prompt
    assert addition.mixture.experts[0].gain < 0


def test_a_region_that_fell_back_can_win_its_expert_back(endpoint: FakeEndpoint) -> None:
    before = replace(BASE, experts=tuple(replace(one, fallback=True) for one in BASE.experts))
    _, addition, _ = added(before.with_known_encoder(ENCODER), NEW, endpoint)
    assert addition.results[0].task.names[0] == GENERALIST
    assert not addition.mixture.experts[0].fallback
    assert addition.mixture.experts[1].fallback


def test_too_few_new_examples_call_no_model(endpoint: FakeEndpoint) -> None:
    planned, addition, used = added(BASE, NEW[: LEAST - 1], endpoint)
    assert planned.plan.too_few == (0,)
    assert used.spend.calls == 0
    assert records(addition.mixture) == records(BASE)
    assert addition.mixture.retrieval is not None
    assert BASE.retrieval is not None
    assert len(addition.mixture.retrieval.demos) == len(BASE.retrieval.demos) + LEAST - 1


def test_a_second_run_pays_nothing_and_gives_the_same_file(
    endpoint: FakeEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    ledger = Ledger.in_memory()
    first = added(BASE, NEW, endpoint, ledger)
    second = added(BASE, NEW, endpoint, ledger)
    assert first[2].sent > 0
    assert second[2].sent == 0
    assert manifest_text(second[1].mixture, "x") == manifest_text(first[1].mixture, "x")


def test_what_was_added_is_expected_from_then_on(endpoint: FakeEndpoint) -> None:
    held = ENCODER.encode([one.input for one in rows("parcel", STATES["parcel"], 6, "held")])
    before = replace(BASE, reference=reference_of(BASE, held)).with_known_encoder(ENCODER)
    after = added(before, NEW, endpoint)[1].mixture
    assert before.reference is not None
    assert after.reference is not None
    assert before.reference.counts == (0, 6, 0)
    assert after.reference.counts == (24, 6, 0)


def test_duplicates_and_contradictions_are_told_apart() -> None:
    shown = BASE.experts[0].prompt.demos[0]
    found = screen(
        BASE,
        [
            Example(f"  {shown.input.upper()}! ", (shown.output,)),
            Example(shown.input, ("other",)),
            Example("brand new", ("a",)),
            Example("Brand new.", ("a", "b")),
            Example("brand new", ("c",)),
        ],
    )
    assert [one.input for one in found.new] == ["brand new"]
    assert len(found.duplicates) == 2
    assert [(one.known, one.given) for one in found.conflicts] == [(shown.output, "other"), ("a", "c")]


def test_nothing_new_is_an_error_before_anything_is_done() -> None:
    shown = BASE.experts[0].prompt.demos[0]
    with pytest.raises(DataError, match="None of the 1 examples is new"):
        plan_addition(BASE, [Example(shown.input, (shown.output,))], options())


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 120), st.lists(st.sampled_from(sorted(STATES)), min_size=8, max_size=60), st.integers(0, 3))
def test_a_plan_keeps_to_the_calls_and_judges_nothing_that_it_shows(
    calls: int, topics: list[str], retrieved: int
) -> None:
    before = mixture(retrieved)
    examples = [rows(topic, ("torn", "new"), number + 1, "p")[number] for number, topic in enumerate(topics)]
    plan = plan_addition(before, examples, options(budget=calls)).plan
    assert plan.calls <= calls
    for task in plan.tasks:
        judged = {example.input for example in task.judged}
        assert not judged & {demo.input for prompt in task.prompts for demo in prompt.demos}
        for arm in task.arms:
            for prompt, example in zip(arm.prompts, task.judged, strict=True):
                assert example.input not in {demo.input for demo in prompt.retrieved}
                if arm.name != GENERALIST:
                    assert len(prompt.retrieved) == retrieved
    tried = {task.region for task in plan.tasks}
    assert not tried & {*plan.too_few, *plan.beyond_budget}


def test_a_cap_that_the_estimate_missed_stops_before_it_is_passed(endpoint: FakeEndpoint) -> None:
    chosen = options(endpoint)
    planned = plan_addition(BASE, NEW, chosen)
    budget = make_budget(options(budget=3))
    with pytest.raises(BudgetExceeded):
        asyncio.run(aadd(BASE, planned, chosen, ledger=Ledger.in_memory(), budget=budget))
    assert budget.spent.calls <= 3


# -- the command


@pytest.fixture
def files(tmp_path: Path, endpoint: FakeEndpoint, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MOP_LEDGER", str(tmp_path / "ledger"))
    document = {**bank(), "encoder": f"endpoint:words@{endpoint.base_url}"}
    (tmp_path / "bank.json").write_text(json.dumps(document))
    lines = [json.dumps({"input": one.input, "output": one.output}) for one in NEW]
    (tmp_path / "new.jsonl").write_text("\n".join(lines))
    assert main(["import", "bank.json", "--quiet"]) == 0
    return tmp_path


def test_the_command_estimates_first_then_adds_and_says_what_changed(
    files: Path, endpoint: FakeEndpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    known = {"input": BASE.experts[0].prompt.demos[0].input, "output": "other"}
    with Path("new.jsonl").open("a") as file:
        file.write("\n" + json.dumps(known))
    asked = len(endpoint.bodies)
    capsys.readouterr()
    assert main(["add", "bank.mop", "new.jsonl", "--estimate", "--json"]) == 0
    estimate = json.loads(capsys.readouterr().out)
    assert estimate["conflicts"] == [{"input": known["input"], "known": "card_lost", "given": "other"}]
    assert not any("messages" in body for body in endpoint.bodies[asked:])
    assert main(["add", "bank.mop", "new.jsonl"]) == 2
    assert main(["add", "bank.mop", "new.jsonl", "-o", "missing/x.mop"]) == 7
    command = ["add", "bank.mop", "new.jsonl", "-o", "new.mop", "--base-url", endpoint.base_url]
    capsys.readouterr()
    assert main(command) == 0
    said = capsys.readouterr()
    assert "1 example contradicts" in said.err
    assert "At most" in said.err
    assert "+ demo" in said.out
    assert main([*command, "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert (again["sent"], again["diff"]["experts"]["added"]) == (0, [])
    assert [one["after"] for one in again["diff"]["experts"]["changed"]] == [
        one["region"] for one in again["tried"] if one["changed"]
    ]
    assert main(["diff", "bank.mop", "new.mop"]) == 1


def test_an_interrupted_addition_goes_on_where_it_was(files: Path) -> None:
    with FakeEndpoint(nearest_demo_answer, latency=0.1) as slow:
        command = [
            sys.executable, "-m", "mop", "add", "bank.mop", "new.jsonl", "-o", "new.mop", "--base-url", slow.base_url,
            "--concurrency", "2", "--json", "--quiet",
        ]  # fmt: skip
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ)
        deadline = time.monotonic() + 60
        while len(slow.bodies) < 4 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
        assert process.returncode == 130, said
        assert "run the same command again" in said
        assert not Path("new.mop").exists()
        asked = len(slow.bodies)
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    document = json.loads(done.stdout)
    assert document["from_ledger"] == asked
    assert document["sent"] + asked == document["calls"]
