"""A first look at a mixture: where it is behind, the rest of a small budget goes into the single prompt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_endpoint import FakeEndpoint
from hypothesis import given
from hypothesis import strategies as st
from test_persona_gate import learn, luck

from mop.cli import main
from mop.mixture import Mixture
from mop.optimization import Run
from mop.report.racing import races
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


def learned(
    right_where_mixed: float, right_elsewhere: float, budget: int | str = 200, used: Run | None = None, **options: Any
) -> Mixture:
    with FakeEndpoint(answers(right_where_mixed, right_elsewhere)) as endpoint:
        mixture = learn(endpoint, used, **{"personas": "off", "budget": budget, "experts": None, **options})
        assert used is None or used.spend.calls == endpoint.served
        return mixture


def test_a_mixture_that_is_behind_is_given_up_and_its_calls_go_into_single_prompts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    used = Run()
    mixture = learned(0.9, 0.3, used=used)
    assert len(mixture) == 1
    (layout,) = mixture.report["layouts"]
    assert layout["given_up"]
    assert layout["score"] < layout["single"]
    assert layout["examples"] <= LOOK
    assert "gate" not in mixture.report
    assert len(mixture.report["crossed"]) >= 2
    assert 150 < used.spend.calls <= 200
    # All that the run knows of the one prompt counts, not what the last race saw.
    assert mixture.experts[0].validation > LOOK
    mixture.save(tmp_path / "m.mop")
    assert main(["show", str(tmp_path / "m.mop")]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "A mixture was behind at a first look" in said
    assert "no mixture was" not in said
    (race,) = [one for one in races(mixture) if one.title == "Layouts"]
    assert "given up" in race.words
    assert not any(one.won for one in race.runners)


def test_a_mixture_that_is_ahead_is_judged_and_used() -> None:
    used = Run()
    mixture = learned(0.3, 0.9, used=used)
    assert len(mixture) > 1
    assert mixture.report["gate"]["open"]
    assert "given_up" not in mixture.report["layouts"][0]
    assert not mixture.report["crossed"]
    assert used.spend.calls <= 200


@pytest.mark.parametrize("budget", [200, "60k tokens"])
def test_a_mixture_that_is_level_is_judged_on_more_examples_than_the_first_look(budget: int | str) -> None:
    assert learned(0.6, 0.6, budget).report["gate"]["validation"] > LOOK


@pytest.mark.parametrize(
    "options", [{"experts": 2}, {"max_demos": 0, "retrieved": 0}, {"budget": 359}, {"budget": 600}]
)
def test_a_mixture_is_judged_whole_where_it_was_asked_for_or_where_there_are_calls_for_both(
    options: dict[str, Any],
) -> None:
    mixture = learned(0.9, 0.3, **options)
    assert not any("given_up" in layout for layout in mixture.report["layouts"])
    assert "gate" in mixture.report


@pytest.mark.parametrize("mixed", [0.9, 0.3])
@pytest.mark.parametrize("calls", [20, 30, 60, 100])
def test_a_cap_on_calls_holds_whatever_the_first_look_shows(calls: int, mixed: float) -> None:
    used = Run()
    learned(mixed, 1.2 - mixed, calls, used)
    assert used.spend.calls <= calls


@pytest.mark.parametrize("mixed", [0.9, 0.3])
@pytest.mark.parametrize("thousand", [20, 50])
def test_a_cap_on_tokens_holds_whatever_the_first_look_shows(thousand: int, mixed: float) -> None:
    used = Run()
    learned(mixed, 1.2 - mixed, f"{thousand}k tokens", used)
    assert used.spend.tokens <= 1000 * thousand


def test_a_first_look_is_at_examples_that_did_not_choose_the_single_prompt() -> None:
    # Every single prompt is as good as the mixture; the best of twelve looks better on what chose it.
    given_up = [bool(learned(0.6, 0.6, seed=seed).report["layouts"][0].get("given_up")) for seed in range(6)]
    assert not any(given_up)


scores = st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=1, max_size=LOOK)


@given(scores)
def test_a_mixture_that_is_nowhere_worse_is_never_hopeless(single: list[float]) -> None:
    assert not FirstLook(np.array(single), np.array(single)).hopeless
    assert not FirstLook(np.array(single), np.ones(len(single))).hopeless


@pytest.mark.parametrize("count", [0, 1, FEWEST - 1])
def test_a_few_examples_prove_nothing(count: int) -> None:
    assert not FirstLook(np.ones(count), np.zeros(count)).hopeless
    assert FirstLook(np.ones(FEWEST), np.zeros(FEWEST)).hopeless
