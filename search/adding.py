"""Adding: new labelled examples for a mixture that is learned already; only regions that got enough are tried again.

In such a region half of the new examples are set apart to judge, with up to twice as many old ones that no candidate
shows; the other half may become demos. On the judged ones what answers now is raced against the expert's prompt with
new demos, and against the expert as it is or the generalist. It is replaced only by what beats it with confidence.
Centroids never move, and nothing of another region changes. Knows nothing of files or ledgers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mop.embeddings.encoders import Vectors
from mop.embeddings.projection import project
from mop.embeddings.regions import Regions
from mop.embeddings.routers import two_nearest
from mop.examples import Example
from mop.limits import RegionDemos
from mop.mixture import Mixture
from mop.prompts import Demo, Prompt
from mop.retrieval import Retrieval
from mop.search.race import Arm
from mop.search.refitting import with_new_demos
from mop.seeds import stream

#: A region with fewer new examples is left as it is: four to judge and four to show are the least that can tell.
LEAST = 8
#: Old examples that judge, for each new one that does.
OLD_PER_NEW = 2
GENERALIST, EXPERT, NEW_DEMOS = "the generalist", "the old expert", "the expert with new demos"


@dataclass(frozen=True)
class RegionTask:
    """What is tried in one region.

    ``names`` and ``prompts`` are the candidates; the first one is what answers now. ``arms`` are their prompts for each
    of the ``judged`` examples, retrieved demos included. ``new`` counts the region's new examples.
    """

    region: int
    new: int
    names: tuple[str, ...]
    prompts: tuple[Prompt, ...]
    judged: tuple[Example, ...]
    arms: tuple[Arm, ...]

    @property
    def calls(self) -> int:
        """Most model calls that it takes."""
        return len(self.arms) * len(self.judged)

    @property
    def prompt_tokens(self) -> int:
        """Estimated prompt tokens of all its calls."""
        shown = sum(demo.tokens for arm in self.arms for prompt in arm.prompts for demo in prompt.retrieved)
        queries = len(self.arms) * sum(Demo.of(example).tokens for example in self.judged)
        return sum(prompt.tokens for prompt in self.prompts) * len(self.judged) + shown + queries


@dataclass(frozen=True)
class AddPlan:
    """Regions that are tried, those with too few new examples, and those for which the budget has no calls.

    ``alike`` are regions in which there is nothing to choose from: all candidates are one prompt.
    """

    tasks: tuple[RegionTask, ...]
    too_few: tuple[int, ...]
    beyond_budget: tuple[int, ...]
    alike: tuple[int, ...] = ()

    @property
    def calls(self) -> int:
        """Most model calls that it takes."""
        return sum(task.calls for task in self.tasks)


@dataclass(frozen=True)
class Limits:
    """Most demos of an expert, their tokens, the trials that there are, the seed, and the confidence to replace.

    ``shown``: new examples may become demos, for their outputs are answers.
    """

    max_demos: int
    token_budget: int
    calls: int
    seed: int
    confidence: float
    shown: bool = True


def plan_regions(
    mixture: Mixture, examples: Sequence[Example], vectors: Vectors, limits: Limits, *, least: int = LEAST
) -> AddPlan:
    """Say what will be tried; regions with most new examples come first. ``vectors`` are the encoder's of the examples.

    The mixture's encoder is asked for the demos of experts; no model is.
    """
    regions = mixture.router.regions(project(vectors, mixture.projection))
    counts = np.bincount(regions, minlength=len(mixture))
    order = sorted((int(region) for region in np.flatnonzero(counts)), key=lambda region: (-counts[region], region))
    tasks, too_few, beyond, alike, left = [], [], [], [], limits.calls
    for region in order:
        if counts[region] < least:
            too_few.append(region)
            continue
        here = np.flatnonzero(regions == region)
        task = _task(mixture, region, [examples[int(i)] for i in here], vectors[here], limits, left)
        if task is None:
            beyond.append(region)
        elif len(task.arms) < 2:
            alike.append(region)
        else:
            tasks.append(task)
            left -= task.calls
    return AddPlan(tuple(tasks), tuple(sorted(too_few)), tuple(sorted(beyond)), tuple(sorted(alike)))


def grown(
    retrieval: Retrieval, examples: Sequence[Example], vectors: Vectors, *, token_budget: int
) -> tuple[Retrieval, NDArray[np.intp]]:
    """Return the retrieval with new demos after the old ones, and the position of each example among its demos.

    Examples beyond ``token_budget`` estimated tokens stay out; their position is -1. ``vectors`` are in the space in
    which queries are routed.
    """
    demos = [Demo.of(example) for example in examples]
    kept = [place for place, demo in enumerate(demos) if demo.tokens <= token_budget]
    places = np.full(len(demos), -1, np.intp)
    places[kept] = len(retrieval.demos) + np.arange(len(kept))
    if not kept:
        return retrieval, places
    pool = Retrieval(
        (*retrieval.demos, *(demos[place] for place in kept)),
        np.vstack([retrieval.vectors, vectors[kept]]).astype(np.float32),
        retrieval.count,
    )
    return pool, places


# -- one region


def _task(
    mixture: Mixture, region: int, examples: Sequence[Example], vectors: Vectors, limits: Limits, left: int
) -> RegionTask | None:
    """Return what is tried in a region in at most ``left`` calls, or None if they are too few."""
    projected = project(vectors, mixture.projection)
    order = stream(limits.seed, "add", region).permutation(len(examples))
    half = len(order) // 2 if limits.shown else len(order)
    judging, showing = order[:half], order[half:]
    shown = [examples[int(place)] for place in showing]
    names, prompts = _candidates(mixture, region, shown, projected[showing], limits)
    most = left // len(prompts)
    if most < len(judging):
        return None
    judged = [(examples[int(place)], projected[int(place)]) for place in judging]
    taken = {demo.input for prompt in prompts for demo in prompt.demos}
    # Demos of the pool have answers; rules could not be told from them.
    count = min(most - len(judged), OLD_PER_NEW * len(judged)) if limits.shown else 0
    judged += _old_examples(mixture, region, taken, count, limits.seed)
    mixed = stream(limits.seed, "add order", region).permutation(len(judged))
    judged = [judged[int(place)] for place in mixed]
    pool = mixture.retrieval
    if pool is not None:
        pool, _ = grown(pool, shown, projected[showing], token_budget=limits.token_budget)
    retrieved = _retrieved(mixture, pool, judged)
    arms = tuple(
        Arm(
            name,
            tuple(prompt if name == GENERALIST else prompt.retrieving(demos) for demos in retrieved),
        )
        for name, prompt in zip(names, prompts, strict=True)
    )
    return RegionTask(region, len(examples), names, prompts, tuple(example for example, _ in judged), arms)


def _candidates(
    mixture: Mixture, region: int, shown: Sequence[Example], vectors: Vectors, limits: Limits
) -> tuple[tuple[str, ...], tuple[Prompt, ...]]:
    """Return the names and prompts of the candidates; what answers now comes first."""
    expert = mixture.experts[region]
    refitted = with_new_demos(
        mixture, region, shown, vectors, max_demos=limits.max_demos, token_budget=limits.token_budget
    )
    found = [(EXPERT, expert.prompt), (NEW_DEMOS, refitted), (GENERALIST, mixture.generalist)]
    if expert.fallback:
        found = [found[2], found[1], found[0]]
        # A mixture of one prompt holds it twice.
        if expert.prompt == mixture.generalist and mixture.retrieval is None:
            found = found[:2]
    if refitted == expert.prompt or not limits.shown:
        # There was no room for new demos, or none may be shown.
        found = [pair for pair in found if pair[0] != NEW_DEMOS]
    return tuple(name for name, _ in found), tuple(prompt for _, prompt in found)


def _old_examples(
    mixture: Mixture, region: int, shown: set[str], count: int, seed: int
) -> list[tuple[Example, NDArray[np.float32]]]:
    """Return at most ``count`` of the region's old examples that no candidate shows, with their vectors."""
    retrieval = mixture.retrieval
    if retrieval is None or count <= 0:
        return []
    regions = mixture.router.regions(retrieval.vectors)
    usable = [int(i) for i in np.flatnonzero(regions == region) if retrieval.demos[int(i)].input not in shown]
    drawn = stream(seed, "add old", region).permutation(len(usable))[:count]
    places = [usable[int(place)] for place in drawn]
    return [
        (Example(demo.input, (demo.output,)), retrieval.vectors[place])
        for place in places
        for demo in [retrieval.demos[place]]
    ]


def _retrieved(
    mixture: Mixture, pool: Retrieval | None, judged: Sequence[tuple[Example, NDArray[np.float32]]]
) -> list[tuple[Demo, ...]]:
    """Return what each judged example retrieves from the pool, itself left out."""
    if pool is None:
        return [()] * len(judged)
    wider = Retrieval(pool.demos, pool.vectors, pool.count + 1)
    vectors = np.stack([vector for _, vector in judged])
    shown = [
        tuple(demo for demo in demos if demo.input != example.input)[-pool.count :]
        for demos, (example, _) in zip(wider.nearest(vectors), judged, strict=True)
    ]
    limits = mixture.limits
    if limits is None or limits.margin is None:
        return shown
    # An example's own demo is in the nearest region, never in the second.
    regions = Regions(mixture.centroids)
    demos = RegionDemos(pool, regions.assign(pool.vectors))
    _, second, margins = two_nearest(regions.distances(vectors))
    for row in np.flatnonzero(margins <= limits.margin):
        shown[row] = demos.beside(shown[row], vectors[row], int(second[row]))
    return shown
