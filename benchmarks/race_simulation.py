"""How many single prompts should a small budget race? A simulation with the search's own races and plan; asks no model.

A prompt's true accuracy is drawn around a mean, with a spread; examples are easy or hard for all prompts alike. Each
row is a spread, each column a way to spend a budget on prompts, each cell the mean true accuracy of the prompt that
wins. The three ways of `mop` are those of a budget in which a mixture is looked at as well: three prompts (what it did
before), as many as it races now, and those and what follows where the mixture is given up. `random-demos` spends all on
one race.

    python -m benchmarks.race_simulation --budget 200 --draws 300
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from mop.examples import Example
from mop.prompts import Prompt
from mop.search.baselines.random_demos import draws_for
from mop.search.first_look import LOOK
from mop.search.plan import Plan
from mop.search.race import Arm, race
from mop.search.trials import Trial
from mop.seeds import stream

SPREADS = (0.04, 0.08, 0.15, 0.25)
MEANS = (0.35, 0.6, 0.8)
#: Part of the variance of "right or wrong" that prompts share because examples are easy or hard.
SHARED = 0.4
TRAIN, VALIDATION = 450, 150
#: Prompts that are there to be tried, and those of the former plan, with the part of the calls that their race got.
POOL, BEFORE, BEFORE_SHARE = 64, 3, 0.24


@dataclass(frozen=True)
class World:
    """The prompts' true accuracies, and whether each answers each example right."""

    accuracy: NDArray[np.float64]
    right: NDArray[np.float64]

    @classmethod
    def draw(cls, rng: np.random.Generator, mean: float, spread: float) -> World:
        """Draw a world of `POOL` prompts."""
        accuracy = np.clip(rng.normal(mean, spread, POOL), 0.02, 0.98)
        easy = rng.normal(size=VALIDATION) * np.sqrt(SHARED)
        own = rng.normal(size=(POOL, VALIDATION)) * np.sqrt(1 - SHARED)
        return cls(accuracy, (norm.ppf(accuracy)[:, None] + easy + own > 0).astype(float))

    async def score(self, trials: Sequence[Trial]) -> list[float]:
        """Return the scores of trials, as `mop.search.trials.Trials` does."""
        return [float(self.right[int(prompt.instruction), int(example.input)]) for prompt, example in trials]

    async def run(self, prompts: Sequence[int], calls: float) -> tuple[int, int]:
        """Race some prompts; return the winner and how many examples it saw."""
        arms = [Arm.single(str(one), Prompt(str(one)), VALIDATION) for one in prompts]
        result = await race(arms, EXAMPLES, np.arange(VALIDATION), self, calls=calls)  # type: ignore[arg-type]
        return prompts[result.winner], int(np.isfinite(result.scores[result.winner]).sum())


EXAMPLES = [Example(str(place), ("right",)) for place in range(VALIDATION)]


async def given_up(world: World, plan: Plan, winner: int, seen: int) -> int:
    """Return the winner where the mixture is given up: the best prompt races new ones, as `find_generalist` has it."""
    left = plan.calls - plan.proposals - plan.single_calls - 2 * LOOK - plan.validation // 4
    fresh, known = plan.crossed_race(left)
    new = [plan.single_arms + place for place in range(fresh)]
    return (await world.run([winner, *new], left + min(known, seen + LOOK)))[0]


async def simulate(budget: int, draws: int, seed: int) -> dict[str, list[float]]:
    """Return by way the mean true accuracy of the prompt that wins, for each of `SPREADS`."""
    plan = Plan.of(budget, train=TRAIN, validation=VALIDATION)
    baseline = draws_for(budget)
    before = int((budget - plan.proposals) * BEFORE_SHARE)
    ways: dict[str, list[float]] = {}
    for spread in SPREADS:
        found: dict[str, list[float]] = {}
        for mean in MEANS:
            for draw in range(draws):
                world = World.draw(stream(seed, "race", round(1000 * spread), round(1000 * mean), draw), mean, spread)
                first, seen = await world.run(range(plan.single_arms), plan.single_calls)
                winners = {
                    f"{BEFORE} prompts, {before} calls": (await world.run(range(BEFORE), before))[0],
                    f"{plan.single_arms} prompts, {plan.single_calls} calls": first,
                    "the same, mixture given up": await given_up(world, plan, first, seen),
                    f"random-demos: {baseline} prompts, {budget} calls": (await world.run(range(baseline), budget))[0],
                }
                for way, winner in winners.items():
                    found.setdefault(way, []).append(float(world.accuracy[winner]))
        for way, values in found.items():
            ways.setdefault(way, []).append(float(np.mean(values)))
    return ways


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.race_simulation", description=__doc__)
    parser.add_argument("--budget", type=int, default=200, help="calls, fewer than 360")
    parser.add_argument("--draws", type=int, default=300, help="worlds for each mean and spread")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    ways = asyncio.run(simulate(options.budget, options.draws, options.seed))
    print(f"| spread of prompts | {' | '.join(ways)} |\n| {' | '.join(['---'] * (len(ways) + 1))} |")
    for place, spread in enumerate(SPREADS):
        print(f"| {spread} | {' | '.join(f'{values[place]:.3f}' for values in ways.values())} |")


if __name__ == "__main__":
    main()
