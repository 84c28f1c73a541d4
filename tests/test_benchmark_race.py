"""How many single prompts to race: the simulation tells ways apart that differ, and calls others equal."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from benchmarks import race_simulation
from benchmarks.race_simulation import World, simulate
from mop.seeds import stream


def test_answers_are_right_as_often_as_their_prompts_true_accuracy_says() -> None:
    world = World.draw(stream(0, "test"), 0.6, 0.15)
    assert np.abs(world.right.mean(axis=1) - world.accuracy).mean() < 0.1
    assert np.ptp(world.accuracy) > 0.3


def test_twelve_prompts_find_a_better_one_than_three_where_prompts_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(race_simulation, "SPREADS", (0.0, 0.25))
    ways = asyncio.run(simulate(200, draws=8, seed=0))
    assert {len(accuracies) for accuracies in ways.values()} == {2}
    assert [accuracies[0] for accuracies in ways.values()] == pytest.approx(
        [np.mean(race_simulation.MEANS)] * len(ways)
    )
    few, many = (next(name for name in ways if name.startswith(f"{count} prompts")) for count in (3, 12))
    assert ways[many][1] > ways[few][1] + 0.03


def test_the_former_share_of_calls_follows_the_budget(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(race_simulation, "SPREADS", (0.15,))
    race_simulation.main(["--budget", "100", "--draws", "1"])
    assert "3 prompts, 23 calls" in capsys.readouterr().out
