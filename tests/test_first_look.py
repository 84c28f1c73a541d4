"""A first look at a mixture: where it is behind, the rest of a small budget goes into the single prompt."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fake_endpoint import FakeEndpoint
from hypothesis import given
from hypothesis import strategies as st
from test_persona_gate import learn, luck

from mop.mixture import Mixture
from mop.search.first_look import FEWEST, LOOK, FirstLook


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOP_API_KEY", "key")


def answers(right_where_mixed: float, right_elsewhere: float) -> Any:
    """Answers right as often as said under as many demos of each kind, and otherwise: an expert shows more of one."""

    def answer(messages: list[dict[str, str]]) -> str:
        asked = messages[-1]["content"]
        if not asked.startswith(("Say", "Compute")):
            return f"Answer with one word as asked, please, variant {luck(asked):.5f}."
        shown = [message["content"].split()[0] for message in messages[:-1] if message["role"] == "user"]
        balanced = abs(shown.count("Say") - shown.count("Compute")) <= 3
        share = right_where_mixed if balanced else right_elsewhere
        right, wrong = ("warm", "cold") if asked.startswith("Say") else ("even", "odd")
        return right if luck(asked) < share else wrong

    return answer


def learned(right_where_mixed: float, right_elsewhere: float, budget: int = 200, **options: Any) -> tuple[Mixture, int]:
    with FakeEndpoint(answers(right_where_mixed, right_elsewhere)) as endpoint:
        mixture = learn(endpoint, personas="off", budget=budget, **options)
        return mixture, endpoint.served


def test_a_mixture_that_is_behind_is_given_up_and_its_calls_go_into_single_prompts() -> None:
    mixture, served = learned(0.9, 0.3)
    assert len(mixture) == 1
    (layout,) = mixture.report["layouts"]
    assert layout["given_up"]
    assert layout["score"] < layout["single"]
    assert layout["examples"] <= LOOK
    assert "gate" not in mixture.report
    assert len(mixture.report["crossed"]) >= 2
    assert 150 < served <= 200


def test_a_mixture_that_is_ahead_is_judged_and_used() -> None:
    mixture, served = learned(0.3, 0.9)
    assert len(mixture) == 2
    assert mixture.report["gate"]["open"]
    assert "given_up" not in mixture.report["layouts"][0]
    assert not mixture.report["crossed"]
    assert served <= 200


def test_a_mixture_that_is_level_is_judged_on_all_examples() -> None:
    mixture, _ = learned(0.6, 0.6)
    assert mixture.report["gate"]["validation"] > LOOK


@pytest.mark.parametrize("budget", [20, 30, 60, "20k tokens"])
@pytest.mark.parametrize("mixed", [0.9, 0.3])
def test_the_smallest_budgets_hold_as_well(budget: Any, mixed: float) -> None:
    mixture, served = learned(mixed, 1.2 - mixed, budget=budget)
    assert len(mixture) >= 1
    if isinstance(budget, int):
        assert served <= budget


scores = st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=1, max_size=LOOK)


@given(scores)
def test_a_mixture_that_is_nowhere_worse_is_never_hopeless(single: list[float]) -> None:
    assert not FirstLook(np.array(single), np.array(single)).hopeless
    assert not FirstLook(np.array(single), np.ones(len(single))).hopeless


@pytest.mark.parametrize("count", [0, 1, FEWEST - 1])
def test_a_few_examples_prove_nothing(count: int) -> None:
    assert not FirstLook(np.ones(count), np.zeros(count)).hopeless
    assert FirstLook(np.ones(FEWEST), np.zeros(FEWEST)).hopeless
