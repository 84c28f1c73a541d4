"""Methods by name through the fronts: `mop.optimize`, the command line, settings that a method can't follow."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from fake_endpoint import FakeEndpoint
from simulated import nearest_demo_answer, splits

from mop.artifact import from_bytes, load, to_bytes
from mop.cli import main
from mop.errors import SettingsError
from mop.examples import Example, Splits
from mop.lm.ledger import Ledger
from mop.mixture import Mixture
from mop.optimization import Run, aoptimize
from mop.settings import make_settings
from mop.sync import run


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOP_API_KEY", "key")
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")


def optimized(endpoint: FakeEndpoint, used: Run | None = None, **options: Any) -> Mixture:
    settings = make_settings(
        {
            "model": "simulated",
            "base_url": endpoint.base_url,
            "encoder": f"endpoint:fake@{endpoint.base_url}",
            "budget": 60,
            **options,
        },
        environment={},
    )
    return run(aoptimize(splits(), settings, ledger=Ledger.in_memory(), used=used))


def test_knn_answers_with_retrieved_demos() -> None:
    with FakeEndpoint(nearest_demo_answer) as endpoint:
        mixture = optimized(endpoint, method="knn")
        loaded = from_bytes(to_bytes(mixture))
        route = mixture.route(splits().test[0].input)
        assert len(mixture.prompt_of(route).retrieved) == 15
        assert loaded.retrieval is not None
        assert len(loaded.retrieval.demos) == len(mixture.retrieval.demos)  # type: ignore[union-attr]


@pytest.mark.parametrize("budget", [90, 500])
def test_a_number_of_experts_that_is_given_is_the_only_one_that_races(budget: int) -> None:
    def coarse(rows: Sequence[Example]) -> tuple[Example, ...]:
        return tuple(Example(one.input, (one.output.partition("_")[0],)) for one in rows)

    data = splits()
    few_answers = Splits(coarse(data.train), coarse(data.validation))
    with FakeEndpoint(nearest_demo_answer) as endpoint:
        asked = {"model": "simulated", "base_url": endpoint.base_url, "encoder": f"endpoint:fake@{endpoint.base_url}"}
        settings = make_settings({**asked, "budget": budget, "experts": 4}, environment={})
        mixture = run(aoptimize(few_answers, settings, ledger=Ledger.in_memory()))
    names = [layout["name"] for layout in mixture.report["layouts"]]
    assert names
    assert all("experts" in name for name in names)


@pytest.mark.parametrize("name", ["ape-kcentroids", "mop-paper"])
def test_a_method_by_name_gives_a_mixture_that_says_how_it_was_learned(name: str) -> None:
    used = Run()
    with FakeEndpoint(nearest_demo_answer) as endpoint:
        mixture = optimized(endpoint, used, method=name)
        assert used.spend.calls == sum("messages" in body for body in endpoint.bodies)
    assert mixture.provenance["method"] == name
    assert mixture.provenance["calls"] == used.spend.calls
    assert mixture.provenance["prompt_tokens"] > 0
    loaded = from_bytes(to_bytes(mixture))
    assert loaded.experts == mixture.experts


def test_an_unknown_method_is_named_with_the_nearest_known_one() -> None:
    with pytest.raises(SettingsError, match=r"no method 'ape_random'\. Did you mean ape-random"):
        make_settings({"method": "ape_random"}, environment={})


@pytest.mark.parametrize(
    ("method", "option"),
    [
        ("ape", {"experts": 4}),
        ("mop-paper", {"refit": True}),
        ("ape", {"retrieved": 2}),
        ("random-demos", {"proposals": 3}),
        ("ape", {"white_box": "local/smollm2-135m-instruct"}),
        ("mop", {"white_box": "local/smollm2-135m-instruct"}),
    ],
)
def test_a_setting_that_a_method_cannot_follow_is_refused(method: str, option: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=f"{method} takes no notice of {next(iter(option))}"):
        make_settings({"method": method, **option}, environment={})
    assert make_settings({"method": "ape", "experts": 1}, environment={}).experts == 1


def test_the_command_line_learns_by_another_method_and_shows_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"input": example.input, "output": example.output} for example in splits().train[:80]]
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    with FakeEndpoint(nearest_demo_answer) as endpoint:
        command = ["optimize", str(data), "--method", "mop-paper", "--model", "simulated", "--budget", "40"]
        command += ["--base-url", endpoint.base_url, "--encoder", f"endpoint:fake@{endpoint.base_url}"]
        assert main([*command, "--ledger", str(tmp_path / "ledger.sqlite"), "--quiet"]) == 0
    assert load(tmp_path / "rows.mop").provenance["method"] == "mop-paper"
    capsys.readouterr()
    assert main(["show", str(tmp_path / "rows.mop")]) == 0
    shown = capsys.readouterr().out
    assert "method mop-paper" in shown
    assert "largest gain" not in shown, "nothing was compared with one prompt"


def test_an_estimate_for_another_method_names_no_stages_of_the_default_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "rows.jsonl"
    rows = [{"input": example.input, "output": example.output} for example in splits().train[:40]]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    command = ["estimate", str(data), "--budget", "60", "--model", "simulated", "--base-url", "http://127.0.0.1:1/v1"]
    assert main([*command, "--method", "ape"]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"About [1-5]?\d calls", shown), "ten examples are soon used up"
    assert "to race" not in shown
