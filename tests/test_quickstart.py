"""The quick start on a part of its own messages, against a simulated model."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_endpoint import FakeEndpoint
from simulated import nearest_demo_answer

import mop
import mop.quickstart
from mop.cli import main
from mop.datasets import HELPDESK_INSTRUCTION, helpdesk
from mop.errors import SettingsError
from mop.examples import Example, Splits
from mop.quickstart import MIXTURE, QUERIES, SINGLE, ZERO_SHOT, Quickstart, aquickstart, quickstart_settings
from mop.settings import make_settings
from mop.sync import run

LABELS = 12


def small() -> Splits:
    """Return the help desk's messages of some labels."""
    whole = helpdesk()
    labels = sorted({example.output for example in whole.train})[:LABELS]

    def of(examples: tuple[Example, ...]) -> tuple[Example, ...]:
        return tuple(example for example in examples if example.output in labels)

    return Splits(of(whole.train), of(whole.validation), of(whole.test))


@pytest.fixture(scope="module")
def endpoint() -> Iterator[FakeEndpoint]:
    with FakeEndpoint(nearest_demo_answer) as server:
        yield server


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, encoder_path: Path) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("quickstart")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOP_LEDGER", str(path / "ledger.sqlite"))
        patch.setenv("MOP_API_KEY", "secret-key")
        patch.chdir(path)
        yield path


@pytest.fixture(scope="module")
def result(endpoint: FakeEndpoint, folder: Path) -> Quickstart:
    options = {"model": "simulated", "base_url": endpoint.base_url, "budget": 240, "prompt_tokens": 150}
    settings = quickstart_settings(make_settings(options, environment={}))
    return run(aquickstart(settings, out=folder / "helpdesk.mop", splits=small()))


def test_three_systems_are_scored_on_the_same_untouched_test(result: Quickstart) -> None:
    assert {system.name for system in result.evaluation.systems} == {MIXTURE, SINGLE, ZERO_SHOT}
    assert {len(system.scores) for system in result.evaluation.systems} == {len(small().test)}
    assert result.evaluation.difference(MIXTURE, SINGLE).n == len(small().test)


def test_both_searches_together_keep_to_the_budget(result: Quickstart) -> None:
    spent = [result.searches[name].spend.calls for name in (SINGLE, MIXTURE)]
    assert all(0 < calls <= 120 for calls in spent)
    assert len(result.single) == 1


def test_the_zero_shot_prompt_has_no_demos_and_says_the_best_instruction(
    result: Quickstart, endpoint: FakeEndpoint
) -> None:
    asked = [body["messages"] for body in endpoint.bodies]
    instruction = str(result.single.report["zero_shot"])
    test = {example.input for example in small().test}
    zero = [m for m in asked if m[0]["content"] == instruction and m[-1]["content"] in test and len(m) == 2]
    assert {messages[-1]["content"] for messages in zero} == test


def test_the_saved_mixture_routes_as_the_learned_one_does(result: Quickstart) -> None:
    loaded = mop.load(result.path)
    again = loaded.route(list(QUERIES))
    assert [one.expert for one in again] == [one.expert for _, one in result.routed]


def test_the_shown_queries_stand_in_no_split() -> None:
    whole = helpdesk()
    inputs = {example.input for example in (*whole.train, *whole.validation, *whole.test)}
    assert not inputs & set(QUERIES)


def test_a_second_run_sends_nothing_and_loads_no_encoder(
    result: Quickstart, folder: Path, endpoint: FakeEndpoint
) -> None:
    served = endpoint.served
    script = (
        "import json, sys\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "import mop.quickstart\n"
        "from test_quickstart import small\n"
        "mop.quickstart.helpdesk = small\n"
        "from mop.cli import main\n"
        "code = main(sys.argv[1:])\n"
        "print(code, 'torch' in sys.modules, file=sys.stderr)"
    )
    options = ["--model", "simulated", "--base-url", endpoint.base_url, "--budget", "240", "--prompt-tokens", "150"]
    command = [sys.executable, "-c", script, "quickstart", "--json", "--quiet", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder)
    assert done.stderr.splitlines()[-1] == "0 False"
    assert endpoint.served == served
    document = json.loads(done.stdout)
    assert document["sent"] == {SINGLE: 0, MIXTURE: 0, ZERO_SHOT: 0}
    assert document["systems"][0]["accuracy"] == result.evaluation.systems[0].accuracy
    assert set(document["seconds"]) >= {"models", MIXTURE, "test", "all"}


def test_the_drawing_has_all_that_was_promised(
    result: Quickstart,
    endpoint: FakeEndpoint,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(mop.quickstart, "helpdesk", small)
    options = ["--model", "simulated", "--base-url", endpoint.base_url, "--budget", "240", "--prompt-tokens", "150"]
    capsys.readouterr()
    assert main(["quickstart", *options]) == 0
    out, err = capsys.readouterr()
    for words in (ZERO_SHOT, SINGLE, "mixture − best single prompt: ", "helpdesk.mop", "mop ask ", "mop show "):
        assert words in out
    for query in QUERIES:
        assert query[:30] in out
    assert "scoring the test messages" in err


def test_only_what_nobody_set_has_the_quick_starts_own_values() -> None:
    filled = quickstart_settings(make_settings({}, environment={"MOP_MAX_DEMOS": "7"}))
    assert (filled.max_demos, filled.instruction) == (7, HELPDESK_INSTRUCTION)
    capped = quickstart_settings(make_settings({"budget": "100k tokens"}, environment={}))
    assert (capped.budget, capped.tokens) == (None, 100_000)
    with pytest.raises(SettingsError, match="divides"):
        quickstart_settings(make_settings({"budget": 1}, environment={}))
