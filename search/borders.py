"""Borders: what a mixture does where its regions end, decided by validation examples. See `mop.limits` for the what.

Thresholds take no model calls. Two other ways to route are tried: a kernel over regions, and a second region's demo
where two regions are about equally near. Only examples that they would answer with another prompt need a call; all
others are ties. The calls are a small share of the budget, and only those that the search has left over.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mop.embeddings.conformal import thresholds
from mop.embeddings.projection import project
from mop.embeddings.routers import SMALLEST, Kernel, kernel_width, two_nearest
from mop.limits import Limits, RegionDemos
from mop.prompts import Prompt
from mop.search.capped import unless_capped
from mop.search.experts import Layout
from mop.search.judging import Judging
from mop.search.selection import Gate, gate
from mop.stats import lower_bound

Scores = NDArray[np.float64]
#: Fewer answers than this decide nothing: three wins out of three are one case in eight by chance.
MIN_TRIED = 8
#: One-sided confidence that another way to route must reach; two are tried.
CONFIDENCE = 0.95
#: Encoding in another batch moves a squared distance by about a millionth; a threshold of zero would flag repeats.
ROUNDING = SMALLEST


@dataclass(frozen=True)
class Found:
    """What the search decided about a mixture, one entry for each validation example or region.

    ``scores`` are those of the region's expert, ``generalist`` those of the generalist, NaN where not judged;
    ``prompts`` are the experts' prompts.
    """

    layout: Layout
    prompts: Sequence[Prompt]
    scores: Scores
    generalist: Scores
    gate: Gate


async def find_limits(judging: Judging, found: Found) -> Limits | None:
    """Return the limits that validation supports; None where it supports none and nothing was measured."""
    borders = _Borders(judging, found)
    limits = borders.thresholds()
    share = judging.session.border_share
    if share and len(found.prompts) > 1:
        limits = await unless_capped(borders.try_routes(limits, math.floor(share * judging.plan.calls)), limits)
    return limits if limits.measured else None


@dataclass(frozen=True)
class Compared:
    """What another way to route showed: the share of queries that it would answer otherwise, how many of them were
    tried, and the gain over all queries with its one-sided lower bound, if they were enough.
    """

    differs: float
    tried: int
    gain: float | None = None
    low: float | None = None

    @property
    def better(self) -> bool:
        """Whether it is better with confidence."""
        return self.low is not None and self.low > 0


class _Borders:
    def __init__(self, judging: Judging, found: Found) -> None:
        self.judging, self.found, self.session = judging, found, judging.session
        layout, problem = found.layout, judging.problem
        self.vectors = project(problem.validation_vectors, layout.projection)
        self.distances = layout.regions.distances(self.vectors)
        self.regions, self.second, self.margins = two_nearest(self.distances)
        self.retrieved = layout.retrieved(problem.validation_vectors)
        self.falls_back = np.array([found.gate.falls_back(region) for region in range(len(found.prompts))])
        self.routed = np.where(self.falls_back[self.regions], found.generalist, found.scores)

    # -- thresholds

    def thresholds(self) -> Limits:
        """Return the limits with calibrated thresholds; the validation examples are all of them, judged or not."""
        coverage, count = self.session.coverage, len(self.found.prompts)
        unlimited = Limits((math.inf,) * count)
        if not coverage:
            return unlimited
        retrieval = self.found.layout.retrieval
        distance = self.distances.min(axis=1) if retrieval is None else retrieval.search(self.vectors)[0]
        trained = self.found.layout.assign(self.judging.problem.train_vectors)
        shares = np.bincount(trained, minlength=count) / max(1, len(trained))
        limits = np.maximum(thresholds(distance, self.regions, coverage, shares=shares), ROUNDING)
        far = distance > limits[self.regions]
        judged = np.isfinite(self.found.scores)
        tenth = judged & (distance >= np.quantile(distance, 0.9))
        gains = (self.found.scores - self.found.generalist)[tenth]
        report = {
            "validation": len(distance),
            "flagged": float(far.mean()),
            "regions_with_threshold": int(np.isfinite(limits).sum()),
            "farthest_tenth": {"examples": len(gains), "gain": float(gains.mean()) if len(gains) else None},
        }
        return Limits(
            tuple(map(float, limits)),
            coverage=coverage,
            measure="centroid" if retrieval is None else "demo",
            measured={"thresholds": report},
        )

    # -- other ways to route

    async def try_routes(self, limits: Limits, calls: int) -> Limits:
        """Return the limits with the better of the other ways to route, if one of them is better than none."""
        width, margin = kernel_width(self.margins), float(np.quantile(self.margins, self.session.soft))
        options = {"kernel": (self._kernel_cells(width), replace(limits, width=width))}
        if self.session.soft and self.found.layout.retrieval is not None:
            options["second demo"] = (self._second_cells(margin), replace(limits, margin=margin))
        tried: dict[str, Compared] = {}
        spent = 0.0
        for position, (name, (cells, _)) in enumerate(options.items()):
            # What the first leaves over, the second may use.
            trials = self.judging.trials(cells)
            left = min(calls - spent, self.judging.allowance.spare(trials)) / (len(options) - position)
            affordable = cells[: self.judging.allowance.worth(max(0.0, left), trials)]
            tried[name] = await self._compare(affordable, len(cells))
            spent += self.judging.allowance.cost(trials[: tried[name].tried])
        better = {name: compared.gain or 0.0 for name, compared in tried.items() if compared.better}
        chosen = max(better, key=lambda name: better[name]) if better else "nearest"
        routes = {
            "chosen": chosen,
            "calls": sum(compared.tried for compared in tried.values()),
            "confidence": CONFIDENCE,
            "tried": {name: asdict(compared) for name, compared in tried.items()},
        }
        best = options[chosen][1] if better else limits
        return replace(best, measured={**limits.measured, "routes": routes})

    def _kernel_cells(self, width: float) -> list[tuple[Prompt, int]]:
        """Return what the kernel would ask otherwise; an example has no part in the gains that route it."""
        cells = []
        order = self.judging.order
        for i in map(int, order):
            others = order[order != i]
            without = gate(
                self.found.scores[others],
                self.found.generalist[others],
                self.regions[others],
                len(self.found.prompts),
                confidence=self.session.confidence,
            )
            gains = [0.0 if without.falls_back(r) else shrunk.mean for r, shrunk in enumerate(without.gains)]
            kernel = Kernel(self.found.layout.regions.centroids, gains, width)
            region = int(kernel.choose(self.vectors[i : i + 1]).expert[0])
            if region != self.regions[i] and gains[region] > 0:
                cells.append((self.found.prompts[region].retrieving(self.retrieved[i]), i))
        return cells

    def _second_cells(self, margin: float) -> list[tuple[Prompt, int]]:
        """Return what is asked otherwise if queries within ``margin`` get the second region's nearest demo as well."""
        retrieval = self.found.layout.retrieval
        assert retrieval is not None
        demos = RegionDemos(retrieval, self.found.layout.regions.assign(retrieval.vectors))
        cells = []
        for i in map(int, self.judging.order):
            region = int(self.regions[i])
            if self.margins[i] > margin or self.falls_back[region]:
                continue
            shown = demos.beside(self.retrieved[i], self.vectors[i], int(self.second[i]))
            if shown != self.retrieved[i]:
                cells.append((self.found.prompts[region].retrieving(shown), i))
        return cells

    async def _compare(self, tried: Sequence[tuple[Prompt, int]], differing: int) -> Compared:
        """Return what ``tried``, of ``differing`` cells, show against the routes as they are.

        The cells are in the validation order, which is random: the first ones stand for all of them.
        """
        # Over all queries: where the two ways agree, nothing changes.
        share = differing / len(self.judging.order)
        if len(tried) < MIN_TRIED:
            return Compared(share, 0)
        positions = [i for _, i in tried]
        differences = np.asarray(await self.judging.score(tried)) - self.routed[positions]
        low = lower_bound(differences, CONFIDENCE)
        return Compared(share, len(tried), float(differences.mean()) * share, low * share)
