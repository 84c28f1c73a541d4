"""The whole search against a deterministic endpoint: what it finds, that it repeats, that nothing is paid twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from fake_endpoint import FakeEndpoint, Fault
from simulated import nearest_demo_answer, splits, task

import mop
from mop.artifact import to_bytes
from mop.errors import DataError, ModelError
from mop.evaluation import evaluate
from mop.examples import Example
from mop.lm.ledger import Ledger
from mop.mixture import Mixture
from mop.optimization import Run, aoptimize, prepare
from mop.settings import make_settings
from mop.sync import run

INSTRUCTION = "Name the thing and its state."


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, encoder_path: Path) -> None:
    monkeypatch.setenv("MOP_API_KEY", "key")
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")


def learn(endpoint: FakeEndpoint, ledger: Ledger, used: Run | None = None, **options: Any) -> Mixture:
    settings = make_settings(
        {
            "model": "simulated",
            "base_url": endpoint.base_url,
            "instruction": INSTRUCTION,
            "budget": 400,
            "prompt_tokens": 200,
            **options,
        }
    )
    return run(aoptimize(splits(), settings, ledger=ledger, used=used))


@pytest.fixture(scope="module")
def learned() -> tuple[Mixture, Run, int]:
    used = Run()
    with FakeEndpoint(nearest_demo_answer) as endpoint, pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOP_API_KEY", "key")
        mixture = learn(endpoint, Ledger.in_memory(), used)
    return mixture, used, endpoint.served


def test_a_mixture_beats_one_prompt_where_one_prompt_cannot_show_everything(
    learned: tuple[Mixture, Run, int],
) -> None:
    mixture = learned[0]
    with FakeEndpoint(nearest_demo_answer) as endpoint:
        from mop.connect import connect

        client = connect("simulated", ledger=Ledger.in_memory(), base_url=endpoint.base_url)
        result = evaluate(mixture, splits().test, client)
    assert len(mixture) > 3
    assert result.difference("mixture", "generalist").low > 0
    assert mixture.kept >= len(mixture) // 2


def test_the_budget_holds_and_every_call_of_it_is_counted_once(learned: tuple[Mixture, Run, int]) -> None:
    mixture, used, served = learned
    assert served <= 400
    assert used.spend.calls == used.sent == served
    assert mixture.provenance["calls"] == served


def test_the_same_seed_gives_the_same_bytes_at_any_concurrency_and_without_the_ledger() -> None:
    with FakeEndpoint(nearest_demo_answer) as endpoint:
        one = learn(endpoint, Ledger.in_memory(), concurrency=1)
        eight = learn(endpoint, Ledger.in_memory(), concurrency=8)
        other = learn(endpoint, Ledger.in_memory(), seed=1)
    assert to_bytes(one) == to_bytes(eight)
    assert to_bytes(one) != to_bytes(other)


def test_a_second_run_sends_nothing_and_gives_the_same_mixture(tmp_path: Path) -> None:
    with FakeEndpoint(nearest_demo_answer) as endpoint:
        first = learn(endpoint, Ledger(tmp_path / "ledger.sqlite"))
        served = endpoint.served
        used = Run()
        second = learn(endpoint, Ledger(tmp_path / "ledger.sqlite"), used)
        assert endpoint.served == served
    assert used.sent == 0
    assert used.from_ledger == served
    assert to_bytes(first) == to_bytes(second)


SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
from simulated import splits
from mop.optimization import aoptimize
from mop.settings import make_settings
from mop.sync import run
settings = make_settings(dict(model="simulated", base_url={url!r}, instruction={instruction!r}, budget=400,
                              prompt_tokens=200, concurrency=4))
run(aoptimize(splits(), settings, ledger={ledger!r})).save({out!r})
"""


def test_a_killed_run_goes_on_where_it_was_and_pays_for_nothing_twice(tmp_path: Path) -> None:
    def script_for(endpoint: FakeEndpoint, ledger: str, out: str) -> str:
        here = str(Path(__file__).parent)
        return SCRIPT.format(tests=here, url=endpoint.base_url, instruction=INSTRUCTION, ledger=ledger, out=out)

    ledger, out = str(tmp_path / "ledger.sqlite"), str(tmp_path / "mixture.mop")
    with FakeEndpoint(nearest_demo_answer, latency=0.02) as endpoint:
        script = script_for(endpoint, ledger, out)
        process = subprocess.Popen([sys.executable, "-c", script], env={**os.environ, "OPENBLAS_NUM_THREADS": "2"})
        deadline = time.monotonic() + 60
        while endpoint.served < 60 and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not Path(out).exists()
        at_kill = endpoint.served
        recorded = sum(total.calls for total in Ledger(ledger).totals().values())
        subprocess.run([sys.executable, "-c", script], check=True, env={**os.environ, "OPENBLAS_NUM_THREADS": "2"})
        whole = endpoint.served
    with FakeEndpoint(nearest_demo_answer) as fresh:
        whole_out = str(tmp_path / "uninterrupted.mop")
        script = script_for(fresh, str(tmp_path / "fresh.sqlite"), whole_out)
        # The vectors in the file don't depend on the number of NumPy's threads either.
        subprocess.run([sys.executable, "-c", script], check=True, env={**os.environ, "OPENBLAS_NUM_THREADS": "1"})
        needed = fresh.served
    assert at_kill - recorded <= 4, "only calls in flight may be lost"
    assert whole - at_kill == needed - recorded, "what was recorded is not sent again"
    # Not with == in the assertion: to explain the difference of two files would take minutes.
    same = Path(out).read_bytes() == Path(whole_out).read_bytes()
    assert same, "a killed run must end with the file of an uninterrupted one"


def test_one_expert_spends_the_budget_on_the_best_single_prompt() -> None:
    with FakeEndpoint(nearest_demo_answer) as endpoint:
        mixture = learn(endpoint, Ledger.in_memory(), experts=1)
        assert endpoint.served <= 400
    assert len(mixture) == 1
    assert mixture.route("anything at all").fallback
    assert mixture.prompt_of(mixture.route("anything")) == mixture.generalist


def test_a_mixture_that_is_no_better_is_not_shipped() -> None:
    with FakeEndpoint(lambda _: "always the same answer") as endpoint:
        mixture = learn(endpoint, Ledger.in_memory())
    assert len(mixture) == 1
    assert mixture.report["gate"]["open"] is False


def test_an_endpoint_that_refuses_ends_the_run_with_what_to_do() -> None:
    refuse = lambda _number, _body: Fault.error(401, "bad key")  # noqa: E731
    with (
        FakeEndpoint(nearest_demo_answer, faults=refuse) as endpoint,
        pytest.raises(ModelError, match="API_KEY"),
    ):
        learn(endpoint, Ledger.in_memory())
    assert endpoint.served < 50


def test_ten_examples_in_all_give_one_good_prompt() -> None:
    rows = task(rows_per_answer=1)[:10]
    with FakeEndpoint(nearest_demo_answer) as endpoint:
        mixture = mop.optimize(
            rows, model="simulated", budget=40, base_url=endpoint.base_url, ledger=Ledger.in_memory()
        )
    assert len(mixture) == 1


def test_free_text_answers_are_learned_as_well() -> None:
    rows = [Example(f"word{i} and more text {i % 7}", (f"answer number {i}",)) for i in range(80)]
    with FakeEndpoint(lambda messages: messages[-1]["content"]) as endpoint:
        mixture = mop.optimize(
            rows,
            model="simulated",
            budget=120,
            base_url=endpoint.base_url,
            ledger=Ledger.in_memory(),
            metric="token_f1",
        )
    assert all("Answer with one of" not in expert.prompt.instruction for expert in mixture.experts)
    assert mixture.projection is None


def test_the_result_does_not_depend_on_pythons_hash_seed(tmp_path: Path) -> None:
    outputs = []
    with FakeEndpoint(nearest_demo_answer) as endpoint:
        for hash_seed in ("1", "2"):
            out = tmp_path / f"{hash_seed}.mop"
            script = SCRIPT.format(
                tests=str(Path(__file__).parent),
                url=endpoint.base_url,
                instruction=INSTRUCTION,
                ledger=str(tmp_path / f"{hash_seed}.sqlite"),
                out=str(out),
            )
            subprocess.run([sys.executable, "-c", script], check=True, env={**os.environ, "PYTHONHASHSEED": hash_seed})
            outputs.append(out.read_bytes())
    assert outputs[0] == outputs[1]


def test_rows_marked_as_test_rows_never_become_demos() -> None:
    rows = [Example(f"text {i}", ("a" if i % 2 else "b",), "test" if i < 10 else None) for i in range(40)]
    validation = [Example(f"other {i}", ("a",)) for i in range(10)]
    prepared = prepare(rows, validation)
    assert len(prepared.train) == 30
    assert len(prepared.test) == 10
    assert not {one.input for one in prepared.test} & {one.input for one in prepared.train}


def test_what_validation_or_test_repeats_is_no_training_row_so_that_nothing_retrieves_its_own_answer() -> None:
    rows = [Example(f"text {i}", ("a" if i % 2 else "b",), "test" if i < 5 else None) for i in range(30)]
    validation = [Example(f" TEXT {i}!", ("a",)) for i in range(20, 30)]
    prepared = prepare([*rows, Example("Text 0.", ("b",), "train")], validation)
    assert [one.input for one in prepared.train] == [f"text {i}" for i in range(5, 20)]
    assert (len(prepared.validation), len(prepared.test)) == (10, 5)
    with pytest.raises(DataError, match=r"25 training examples.*validation or test"):
        prepare(rows, rows)


def test_a_run_on_few_examples_uses_no_more_calls_than_estimated() -> None:
    from mop.estimate import estimate
    from mop.examples import Splits

    whole, used = splits(), Run()
    few = Splits(whole.train[:60], whole.validation[:24], ())
    with FakeEndpoint(nearest_demo_answer) as endpoint:
        options = {"model": "simulated", "base_url": endpoint.base_url, "budget": 3000, "prompt_tokens": 200}
        settings = make_settings(options)
        run(aoptimize(few, settings, ledger=Ledger.in_memory(), used=used))
    assert used.spend.calls <= estimate(settings, few).calls < 3000


def test_an_instruction_written_for_one_region_can_win_there() -> None:
    def needs_care(messages: list[dict[str, Any]]) -> str:
        if len(messages) == 1:
            return "Name the state with care."
        if "garden" in messages[-1]["content"] and "with care" not in messages[0]["content"]:
            return "unknown"
        return nearest_demo_answer(messages)

    with FakeEndpoint(needs_care) as endpoint:
        mixture = learn(endpoint, Ledger.in_memory(), proposals=0, budget=700, experts=8)
    written = [expert for expert in mixture.experts if expert.proposer in ("failures", "complement")]
    assert written
    assert all("with care" in expert.prompt.instruction and "garden" in expert.words for expert in written)
    assert all(expert.score is not None and expert.score > (expert.generalist_score or 0) for expert in written)


def test_one_expert_that_retrieves_is_raced_beside_the_regions() -> None:
    with FakeEndpoint(nearest_demo_answer) as endpoint:
        report = learn(endpoint, Ledger.in_memory(), budget=600).report
    names = [entry["name"] for entry in report["layouts"]]
    assert any(name.startswith("one expert") and "1 retrieved" in name for name in names)
    assert any("experts by" in name for name in names)


def test_few_answers_are_never_projected() -> None:
    rows = [Example(f"message {i} about {'cards' if i % 2 else 'parcels'}", ("ab"[i % 2],)) for i in range(120)]
    with FakeEndpoint(nearest_demo_answer) as endpoint:
        settings = make_settings(
            {"model": "simulated", "base_url": endpoint.base_url, "budget": 600, "prompt_tokens": 100}
        )
        mixture = run(aoptimize(prepare(rows), settings, ledger=Ledger.in_memory()))
    assert mixture.projection is None
    assert not any("answer" in entry["name"].split(",")[0] for entry in mixture.report.get("layouts", []))
