"""How many single prompts to race: the simulation tells ways apart that differ, and calls others equal."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_endpoint import FakeEndpoint
from simulated import nearest_demo_answer, task

from benchmarks import measured_prompts, questions, race_simulation
from benchmarks.race_simulation import TRAIN, VALIDATION, World, simulate, winners, worlds_of
from mop.errors import DataError
from mop.search.plan import Plan
from mop.seeds import stream


def test_answers_are_right_as_often_as_their_prompts_true_accuracy_says() -> None:
    world = World.draw(stream(0, "test"), 0.6, 0.15)
    assert np.abs(world.right.mean(axis=1) - world.accuracy).mean() < 0.1
    assert np.ptp(world.accuracy) > 0.3


def test_many_prompts_find_a_better_one_than_three_where_prompts_differ() -> None:
    same, differing = (asyncio.run(simulate(worlds_of(spread, seed=0), 200, draws=8)) for spread in (0.0, 0.25))
    assert list(same.values()) == pytest.approx([np.mean(race_simulation.MEANS)] * len(same))
    few, many = (next(name for name in differing if name.startswith(f"{count} prompts")) for count in (3, 15))
    assert differing[many] > differing[few] + 0.03


def test_a_measured_world_keeps_kinds_of_prompts_in_their_places_and_shows_the_same_scores() -> None:
    rows = [
        {"name": name, "scores": [float(place <= one) for place in range(8)]}
        for one, name in enumerate(["given, random demos", "given, no demos", "given, random demos", "demos, no demos"])
    ]
    worlds = [World.measured(stream(seed, "test"), rows) for seed in range(20)]
    assert {tuple(world.accuracy[[1, 3]]) for world in worlds} == {(0.25, 0.5)}
    assert {tuple(world.accuracy[[0, 2]]) for world in worlds} == {(0.125, 0.375), (0.375, 0.125)}
    assert all(list(world.plain) == [0, 2] for world in worlds)


def test_a_measured_world_is_the_same_in_every_process() -> None:
    code = (
        "import numpy as np; from benchmarks.race_simulation import World;"
        "rows = [{'name': f'{kind}, random demos', 'scores': [float(i % n == 0) for i in range(12)]}"
        " for kind in 'abcdef' for n in (1, 2, 3, 4, 6)];"
        "print(World.measured(np.random.default_rng(0), rows).accuracy.tolist())"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
            cwd=Path(__file__).parent.parent,
        ).stdout
        for seed in ("0", "1", "2")
    }
    assert len(said) == 1


def states(folder: Path) -> Path:
    """Write a task of states of things, and return the data folder."""
    own = folder / "data" / "own"
    own.mkdir(parents=True)
    rows = [{"input": one.input, "output": list(one.outputs)} for one in task(12, 0)]
    (own / "states.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    index = {"states": {"files": {"states.jsonl": len(rows)}, "metric": "exact_match"}}
    (own / "tasks.json").write_text(json.dumps(index), encoding="utf-8")
    return folder / "data"


def test_every_measured_prompt_answers_the_same_examples_and_a_second_run_asks_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOP_API_KEY", "key")
    out = tmp_path / "prompts.json"
    command = ["--data", str(states(tmp_path)), "--task", "own/states", "--model", "simulated", "--prompts", "4"]
    with FakeEndpoint(nearest_demo_answer) as endpoint:
        command += ["--base-url", endpoint.base_url, "--encoder", "tfidf", "--max-demos", "6", "--out", str(out)]
        measured_prompts.main(command)
        asked, first = endpoint.served, out.read_text(encoding="utf-8")
        measured_prompts.main(command)
        assert endpoint.served == asked
    assert out.read_text(encoding="utf-8") == first
    measured = json.loads(first)
    assert measured[0]["name"] == race_simulation.PLAIN
    assert measured[0]["demos"] == 6
    assert {len(row["scores"]) for row in measured} == {measured_prompts.EXAMPLES}


def test_both_questions_for_instructions_are_judged_on_the_same_examples_and_a_second_run_asks_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOP_API_KEY", "key")
    out = tmp_path / "questions.json"

    def answer(messages: list[dict[str, Any]]) -> str:
        said = messages[-1]["content"]
        if said.startswith("Which instruction"):
            return f"Name its state, way {len(said)}."
        return "Say nothing at all." if said.endswith("Do not repeat the examples.") else nearest_demo_answer(messages)

    command = ["--data", str(states(tmp_path)), "--tasks", "states", "--model", "simulated", "--count", "2"]
    with FakeEndpoint(answer) as endpoint:
        command += ["--base-url", endpoint.base_url, "--encoder", "tfidf", "--out", str(out)]
        questions.main(command)
        asked, first = endpoint.served, out.read_text(encoding="utf-8")
        queries: dict[str, list[str]] = {}
        for body in endpoint.bodies:
            queries.setdefault(body["messages"][0]["content"], []).append(body["messages"][-1]["content"])
        questions.main(command)
        assert endpoint.served == asked
    assert out.read_text(encoding="utf-8") == first
    rows = json.loads(first)
    assert [row["question"] for row in rows] == ["forward", *["worked"] * (len(rows) - 1)]
    assert len(rows) in (2, 3), "the same instruction is judged once"
    judged = [queries[row["instruction"]] for row in rows]
    assert all(len(one) == questions.EXAMPLES and sorted(one) == sorted(judged[0]) for one in judged)


def test_a_file_with_too_few_prompts_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "few.json"
    path.write_text(json.dumps([{"name": "given, random demos", "scores": [1.0]}] * 12), encoding="utf-8")
    with pytest.raises(DataError, match="has 12 prompts, 12 of them"):
        race_simulation.main(["--measured", str(path)])


async def test_the_former_race_may_begin_with_one_example() -> None:
    # On the first example all prompts fail; the best of them is the last, so that equals by place lose it.
    right = np.zeros((40, 40))
    right[11, 1:] = 1.0
    world = World(right.mean(axis=1), right, range(8))
    found, raced = (await winners(world, 200)).items(), Plan.of(200, train=TRAIN, validation=VALIDATION).single_arms
    assert [winner == 11 for name, winner in found if name.endswith("short first rung")] == [False]
    assert [winner == 11 for name, winner in found if name.startswith(f"{raced} prompts")] == [True]


def test_the_former_share_of_calls_follows_the_budget(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(race_simulation, "SPREADS", (0.15,))
    race_simulation.main(["--budget", "100", "--draws", "1"])
    assert "3 prompts, 23 calls" in capsys.readouterr().out
