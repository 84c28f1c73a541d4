"""With one expert the whole budget goes into one prompt, also where few validation examples end races early."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_endpoint import FakeEndpoint
from simulated import nearest_demo_answer, splits

from mop.examples import Splits
from mop.lm.ledger import Ledger
from mop.mixture import Mixture
from mop.optimization import aoptimize, make_plan
from mop.search.proposers import WORKED
from mop.settings import make_settings
from mop.sync import run


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, encoder_path: Path) -> None:
    monkeypatch.setenv("MOP_API_KEY", "key")


def few(validation: int) -> Splits:
    whole = splits()
    return Splits(train=whole.train[:20], validation=whole.validation[:validation], test=())


def learned(validation: int, calls: int) -> tuple[Mixture, int, int]:
    """The mixture, the calls that it took and the calls that the plan expected."""
    with FakeEndpoint(nearest_demo_answer) as endpoint:
        settings = make_settings(
            {"model": "simulated", "base_url": endpoint.base_url, "budget": calls, "prompt_tokens": 200}
        )
        mixture = run(aoptimize(few(validation), settings, ledger=Ledger.in_memory()))
        return mixture, endpoint.served, make_plan(settings, few(validation)).reachable


@pytest.mark.parametrize("calls", [200, 400])
def test_few_validation_examples_leave_little_of_the_budget_unused(calls: int) -> None:
    _, served, expected = learned(60, calls)
    assert 0.9 * calls <= served <= calls
    assert served <= expected + calls // 10


def test_the_best_parts_are_raced_again_with_other_demos_while_there_are_calls() -> None:
    mixture, served, expected = learned(30, 400)
    assert served <= expected <= 400
    crossed = mixture.report["crossed"]
    assert isinstance(crossed, list)
    assert len(crossed) > 8, "one race has at most seven new prompts and the best one"


def test_the_search_shows_the_model_what_an_instruction_is_before_it_asks_for_one() -> None:
    with FakeEndpoint(nearest_demo_answer) as endpoint:
        settings = make_settings({"model": "simulated", "base_url": endpoint.base_url, "budget": 200})
        run(aoptimize(few(30), settings, ledger=Ledger.in_memory()))
        asked = [body["messages"] for body in endpoint.bodies if "Which instruction" in body["messages"][-1]["content"]]
    assert len(asked) == make_plan(settings, few(30)).proposals == 6
    for messages in asked:
        assert tuple((turn["role"], turn["content"]) for turn in messages[:-1]) == WORKED
