"""How many single prompts should a small budget race? A simulation with the search's own races and plan; asks no model.

A prompt's true accuracy is drawn around a mean, with a spread; examples are easy or hard for all prompts alike. Each
row is a spread, each column a way to spend a budget on prompts, each cell the mean true accuracy of the prompt that
wins. The ways of `mop` are those of a budget in which a mixture is looked at as well: three prompts, and twelve whose
first rung may be a single example (what it did before), as many as it races now, and those and what follows where the
mixture is given up. `random-demos` spends all on one race.

    python -m benchmarks.race_simulation --budget 200 --draws 300

With ``--measured`` a row is a file of `benchmarks.measured_prompts`: its prompts' scores instead of drawn ones, in the
order in which the search races them; sets of demos of one kind are exchanged at random, and so are the examples.
"True" is the mean over all examples there, those of the race among them: a race that sees all of them takes the best of
its prompts for certain, so that longer races look better than they are.

    python -m benchmarks.race_simulation --measured benchmarks/results/rhymes_prompts.json
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from mop.errors import DataError
from mop.examples import Example
from mop.prompts import Prompt
from mop.search import race as races
from mop.search.baselines.random_demos import draws_for
from mop.search.first_look import LOOK
from mop.search.plan import MOST_ARMS, Plan
from mop.search.race import Arm, race
from mop.search.singles import DRAWN
from mop.search.trials import Trial
from mop.seeds import stream

SPREADS = (0.04, 0.08, 0.15, 0.25)
MEANS = (0.35, 0.6, 0.8)
#: Part of the variance of "right or wrong" that prompts share because examples are easy or hard.
SHARED = 0.4
TRAIN, VALIDATION = 450, 150
#: Name of the measured prompts that `random-demos` would race.
PLAIN = "given, random demos"
#: Prompts that are there to be tried, and those of the first plan, with the part of the calls that their race got.
POOL, BEFORE, BEFORE_SHARE = 64, 3, 0.24
#: Prompts of the plan after it, at most; its first rung could be a single example.
FORMER = 12


@dataclass(frozen=True)
class World:
    """The prompts' true accuracies, and whether each answers each example right.

    ``plain`` are those that `random-demos` would race.
    """

    accuracy: NDArray[np.float64]
    right: NDArray[np.float64]
    plain: Sequence[int] = field(default_factory=lambda: range(POOL))

    @classmethod
    def draw(cls, rng: np.random.Generator, mean: float, spread: float) -> World:
        """Draw a world of `POOL` prompts."""
        accuracy = np.clip(rng.normal(mean, spread, POOL), 0.02, 0.98)
        easy = rng.normal(size=VALIDATION) * np.sqrt(SHARED)
        own = rng.normal(size=(POOL, VALIDATION)) * np.sqrt(1 - SHARED)
        return cls(accuracy, (norm.ppf(accuracy)[:, None] + easy + own > 0).astype(float))

    @classmethod
    def measured(cls, rng: np.random.Generator, rows: Sequence[dict[str, Any]]) -> World:
        """Return a world of the prompts of a file, each kind's sets of demos in another order."""
        place = np.arange(len(rows))
        drawn = tuple(f"{kind} demos" for kind in DRAWN)
        for kind in dict.fromkeys(row["name"] for row in rows if row["name"].endswith(drawn)):
            same = [i for i, row in enumerate(rows) if row["name"] == kind]
            place[same] = rng.permutation(same)
        right = np.array([rows[i]["scores"] for i in place])[:, rng.permutation(len(rows[0]["scores"]))]
        plain = [i for i, row in enumerate(rows) if row["name"] == PLAIN]
        return cls(right.mean(axis=1), right, plain)

    async def score(self, trials: Sequence[Trial]) -> list[float]:
        """Return the scores of trials, as `mop.search.trials.Trials` does."""
        return [float(self.right[int(prompt.instruction), int(example.input)]) for prompt, example in trials]

    async def run(self, prompts: Sequence[int], calls: float) -> tuple[int, int]:
        """Race some prompts; return the winner and how many examples it saw."""
        size = self.right.shape[1]
        arms = [Arm.single(str(one), Prompt(str(one)), size) for one in prompts]
        result = await race(arms, EXAMPLES[:size], np.arange(size), self, calls=calls)  # type: ignore[arg-type]
        return prompts[result.winner], int(np.isfinite(result.scores[result.winner]).sum())


EXAMPLES = [Example(str(place), ("right",)) for place in range(VALIDATION)]


async def given_up(world: World, plan: Plan, winner: int, seen: int) -> int:
    """Return the winner where the mixture is given up: the best prompt races new ones, as `find_generalist` has it."""
    left = plan.calls - plan.proposals - plan.single_calls - 2 * LOOK - plan.validation // 4
    fresh, known = plan.crossed_race(left)
    new = range(plan.single_arms, len(world.right))[:fresh]
    return (await world.run([winner, *new], left + min(known, seen + LOOK)))[0]


async def winners(world: World, budget: int) -> dict[str, int]:
    """Return by way the prompt that wins."""
    plan = Plan.of(budget, train=TRAIN, validation=VALIDATION)
    draws = draws_for(budget)
    before = int((budget - plan.proposals) * BEFORE_SHARE)
    former = min(FORMER, plan.single_arms)
    with patch.object(races, "FIRST_RUNG", 0):
        before_last = (await world.run(range(former), plan.single_calls))[0]
    first, seen = await world.run(range(plan.single_arms), plan.single_calls)
    return {
        f"{BEFORE} prompts, {before} calls": (await world.run(range(BEFORE), before))[0],
        f"{former} prompts, {plan.single_calls} calls, short first rung": before_last,
        f"{plan.single_arms} prompts, {plan.single_calls} calls": first,
        "the same, mixture given up": await given_up(world, plan, first, seen),
        f"random-demos: {draws} prompts, {budget} calls": (await world.run(world.plain[:draws], budget))[0],
    }


async def simulate(worlds: Sequence[Callable[[int], World]], budget: int, draws: int) -> dict[str, float]:
    """Return by way the mean true accuracy of the prompt that wins, over so many draws of each of ``worlds``."""
    found: dict[str, list[float]] = {}
    for make in worlds:
        for draw in range(draws):
            world = make(draw)
            for way, winner in (await winners(world, budget)).items():
                found.setdefault(way, []).append(float(world.accuracy[winner]))
    return {way: float(np.mean(values)) for way, values in found.items()}


def worlds_of(spread: float, seed: int) -> list[Callable[[int], World]]:
    """Return what draws worlds of one spread, for each of `MEANS`."""

    def around(mean: float) -> Callable[[int], World]:
        key = (round(1000 * spread), round(1000 * mean))
        return lambda draw: World.draw(stream(seed, "race", *key, draw), mean, spread)

    return [around(mean) for mean in MEANS]


def measured_worlds(path: str, seed: int, budget: int) -> list[Callable[[int], World]]:
    """Return what draws worlds from a file of measured prompts; raises DataError if it has too few for a budget."""
    rows = json.loads(Path(path).read_text(encoding="utf-8"))
    plain = sum(row["name"] == PLAIN for row in rows)
    if len(rows) <= MOST_ARMS or plain < draws_for(budget):
        raise DataError(
            f"{path} has {len(rows)} prompts, {plain} of them {PLAIN!r}; more than {MOST_ARMS} and at least "
            f"{draws_for(budget)} are needed. Measure more (python -m benchmarks.measured_prompts --prompts)."
        )
    return [lambda draw: World.measured(stream(seed, "measured race", draw), rows)]


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.race_simulation", description=__doc__)
    parser.add_argument("--budget", type=int, default=200, help="calls, fewer than 360")
    parser.add_argument("--draws", type=int, default=300, help="worlds for each mean and spread, or each file")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--measured", nargs="+", default=[], metavar="FILE", help="files of benchmarks.measured_prompts"
    )
    options = parser.parse_args(arguments)
    rows = {Path(path).stem: measured_worlds(path, options.seed, options.budget) for path in options.measured}
    rows = rows or {str(spread): worlds_of(spread, options.seed) for spread in SPREADS}
    for place, (name, worlds) in enumerate(rows.items()):
        means = asyncio.run(simulate(worlds, options.budget, options.draws))
        if not place:
            first = "prompts" if options.measured else "spread of prompts"
            print(f"| {first} | {' | '.join(means)} |\n| {' | '.join(['---'] * (len(means) + 1))} |")
        print(f"| {name} | {' | '.join(f'{value:.3f}' for value in means.values())} |", flush=True)


if __name__ == "__main__":
    main()
