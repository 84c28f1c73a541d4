"""Estimates: what a run takes, before anything is sent."""

from __future__ import annotations

import json
import re
from pathlib import Path

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulated import splits

from mop.cli import main
from mop.errors import BudgetExceeded, UnknownPrice
from mop.estimate import affordable_trials, call_tokens, estimate, question_tokens
from mop.examples import Splits
from mop.lm.prices import Prices
from mop.lm.request import Usage
from mop.prompts import Demo, Prompt, estimate_tokens
from mop.search.demos import closed_answers
from mop.search.experts import with_answers
from mop.settings import Settings, make_settings

SPLITS = splits()


def settings(**options: object) -> Settings:
    return make_settings({"model": "gpt-4o-mini", **options}, environment={})


def test_a_budget_in_calls_is_what_is_planned() -> None:
    found = estimate(settings(budget=300), SPLITS)
    assert found.calls == found.plan.calls == 300


def test_tokens_are_those_of_average_trials_and_questions() -> None:
    found = estimate(settings(budget=300), SPLITS)
    trial, question = call_tokens(settings(budget=300), SPLITS, found.plan), question_tokens(settings(), SPLITS)
    asked = found.plan.proposals
    both = [asked * question[place] + (300 - asked) * trial[place] for place in (0, 1)]
    assert [found.prompt_tokens, found.completion_tokens] == both
    assert question[0] > 100, "eight examples and what is asked about them"


def test_an_average_call_is_about_as_long_as_a_real_prompt() -> None:
    options = settings(max_demos=5, prompt_tokens=10_000, method="random-demos")
    prompt, completion = call_tokens(options, SPLITS)
    demos = tuple(Demo.of(example) for example in SPLITS.train[:5])
    real = Prompt(
        with_answers("Name the thing and its state.", closed_answers(SPLITS.train)), demos
    ).tokens + estimate_tokens(SPLITS.train[5].input)
    assert prompt == pytest.approx(real, rel=0.35)
    assert completion == pytest.approx(estimate_tokens(SPLITS.train[0].output), rel=0.5)


def test_fewer_demos_make_smaller_calls() -> None:
    sizes = [call_tokens(settings(max_demos=demos), SPLITS)[0] for demos in (0, 5, 10)]
    assert sizes == sorted(set(sizes))


def test_money_is_the_price_of_the_tokens_without_any_cache() -> None:
    found = estimate(settings(budget=300), SPLITS)
    usage = Usage(found.prompt_tokens, 0, found.completion_tokens)
    assert found.usd == pytest.approx(Prices().cost(usage, "gpt-4o-mini"))


def test_a_local_model_costs_nothing_and_an_unknown_one_nobody_knows_what() -> None:
    assert estimate(settings(model="local/smollm2-135m-instruct"), SPLITS).usd == 0
    assert estimate(settings(model="nobody-knows"), SPLITS).usd is None


@hypothesis.settings(max_examples=25, deadline=None)
@given(st.integers(20_000, 10**7))
def test_a_cap_on_tokens_plans_all_of_it(tokens: int) -> None:
    options = settings(budget=f"{tokens} tokens")
    calls = affordable_trials(options, SPLITS)
    each = sum(call_tokens(options, SPLITS))
    assert calls * each <= tokens < (calls + 1) * each


@hypothesis.settings(max_examples=25, deadline=None)
@given(st.floats(0.01, 100))
def test_a_cap_on_money_plans_all_of_it(usd: float) -> None:
    options = settings(budget=None, usd=usd)
    each = Prices().cost(Usage(*[(sizes := call_tokens(options, SPLITS))[0], 0, sizes[1]]), "gpt-4o-mini")
    calls = affordable_trials(options, SPLITS)
    assert calls == min(600, int(usd / each))


def test_the_tightest_cap_decides() -> None:
    assert affordable_trials(settings(budget=50, tokens=10**9), SPLITS) == 50
    assert affordable_trials(settings(budget=10**6, tokens=10_000), SPLITS) < 200


def test_a_cap_on_money_needs_a_known_price() -> None:
    with pytest.raises(UnknownPrice, match="nobody-knows"):
        estimate(settings(model="nobody-knows", budget="2 USD"), SPLITS)


def test_money_does_not_limit_a_model_that_costs_nothing() -> None:
    assert affordable_trials(settings(model="local/smollm2-135m-instruct", budget="1 USD"), SPLITS) == 600


def test_a_budget_that_compares_nothing_is_refused_before_anything_is_sent() -> None:
    with pytest.raises(BudgetExceeded, match="at least 20"):
        estimate(settings(budget=5), SPLITS)


def test_few_validation_examples_bound_what_a_large_budget_can_use() -> None:
    few = Splits(SPLITS.train[:40], SPLITS.validation[:8], ())
    found = estimate(settings(budget=5000), few)
    assert found.plan.calls == 5000
    assert found.calls < 1000


def test_retrieved_demos_are_counted() -> None:
    one, six = (call_tokens(settings(retrieved=count), SPLITS)[0] for count in (1, 6))
    demo = sum(Demo.of(example).tokens for example in SPLITS.train) / len(SPLITS.train)
    assert 0.2 * 5 * demo < six - one < 0.7 * 5 * demo, "the trials of experts have them"
    assert call_tokens(settings(method="mop-fixed"), SPLITS) == call_tokens(settings(retrieved=0), SPLITS)


def test_every_method_has_its_own_size_and_its_own_end() -> None:
    names = ("ape", "ape-random-fair", "zero-shot", "random-demos", "mop-paper", "mop", "knn")
    found = {name: estimate(settings(budget=5000, method=name), SPLITS) for name in names}
    sizes = {name: call_tokens(settings(method=name), SPLITS)[0] for name in names}
    assert sizes["ape"] < sizes["zero-shot"] < sizes["random-demos"]
    assert sizes["ape"] < sizes["mop-paper"] < sizes["ape-random-fair"]
    assert found["knn"].calls == 0
    assert all(one.calls < 5000 for one in found.values()), "sixty validation examples are soon used up"


@pytest.mark.parametrize(("metric", "each"), [("judge", 1), ("judge:pairwise", 2)])
def test_the_calls_and_tokens_of_a_judge_are_counted(metric: str, each: int) -> None:
    plain, judged = estimate(settings(budget=300), SPLITS), estimate(settings(budget=300, metric=metric), SPLITS)
    trials = judged.plan.calls - judged.plan.proposals
    assert judged.judge_calls == each * trials > 0 == plain.judge_calls
    assert plain.plan.calls == 300
    assert judged.calls == judged.plan.proposals + (1 + each) * trials <= 300
    prompt, completion = call_tokens(settings(budget=300), SPLITS)
    assert judged.prompt_tokens > judged.plan.calls * prompt + 100 * judged.judge_calls
    assert judged.completion_tokens > judged.plan.calls * completion


def test_the_price_of_the_judge_is_its_own() -> None:
    cheap, dear = (estimate(settings(budget=300, metric="judge", judge=name), SPLITS) for name in (None, "gpt-4o"))
    assert dear.calls == cheap.calls
    assert dear.usd is not None
    assert cheap.usd is not None
    assert dear.usd > 2 * cheap.usd
    assert estimate(settings(metric="judge", judge="nobody-knows"), SPLITS).usd is None
    with pytest.raises(UnknownPrice):
        estimate(settings(metric="judge", judge="nobody-knows", budget="2 USD"), SPLITS)


def test_a_cap_on_tokens_or_money_leaves_room_for_the_judge() -> None:
    for cap in ("200k tokens", "0.05 USD"):
        alone, judged = (
            estimate(settings(budget=cap, metric=name), SPLITS) for name in ("exact_match", "judge:pairwise")
        )
        assert judged.plan.calls < alone.plan.calls
        assert judged.usd is not None
        used, most = (judged.usd, 0.05) if "USD" in cap else (judged.prompt_tokens + judged.completion_tokens, 200_000)
        assert 0.8 * most < used <= 1.02 * most


def test_an_estimate_says_which_part_of_the_budget_few_examples_leave_unused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = tmp_path / "few.jsonl"
    few.write_text("".join(f"{json.dumps({'input': one.input, 'output': one.output})}\n" for one in SPLITS.train[:60]))
    for budget, unused in (("5000", True), ("60", False)):
        assert main(["estimate", str(few), "--model", "m", "--budget", budget, "--encoder", "tfidf"]) == 0
        shown = capsys.readouterr().out
        [whole] = re.findall(r"About ([\d,]+) calls", shown)
        parts = [int(one.replace(",", "")) for one in re.findall(r"^ +(-?[\d,]+)  ", shown, re.MULTILINE)]
        assert sum(parts) == int(whole.replace(",", ""))
        assert ("find no use" in shown) == unused
