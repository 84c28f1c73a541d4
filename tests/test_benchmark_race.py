"""How many single prompts to race: the simulation tells ways apart that differ, and calls others equal."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from benchmarks import race_simulation
from benchmarks.race_simulation import World, simulate, winners, worlds_of
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


async def test_the_former_race_may_begin_with_one_example() -> None:
    # On the first example all prompts fail; the best of them is the last, so that equals by place lose it.
    right = np.zeros((40, 40))
    right[11, 1:] = 1.0
    world = World(right.mean(axis=1), right, range(8))
    named = {name.split(",")[-1].strip(): winner for name, winner in (await winners(world, 200)).items()}
    assert named["first rung of one"] != 11
    assert named["94 calls"] == 11


def test_the_former_share_of_calls_follows_the_budget(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(race_simulation, "SPREADS", (0.15,))
    race_simulation.main(["--budget", "100", "--draws", "1"])
    assert "3 prompts, 23 calls" in capsys.readouterr().out
