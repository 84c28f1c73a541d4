"""The default method, ``mop``: find the best single prompt, then a mixture that beats it, region by region.

1. Propose instructions from demos.
2. Race single prompts; the winner is the generalist. With one expert, or where the only layout that the budget bears is
   behind at its first look (`mop.search.first_look`), the best instructions and demos are then crossed and raced again,
   so that the whole budget goes into the one prompt (`mop.search.generalist`).
3. Race layouts (how many regions, how their demos are chosen) under the generalist's instruction.
4. Region-based joint search (arXiv 2407.00256, section 4.3): try further instructions together with each region's
   demos on that region's validation examples; candidates are shared across regions, and written anew from a hard
   region's failures and from the demos that it does not show.
5. If asked for: personas, used only in regions where they are proven to help (`mop.search.persona_gate`).
6. Gate: regions that show no gain over the generalist fall back to it; a mixture without gain is one prompt.
7. Borders: a distance beyond which the generalist answers; other routes if they are better (`mop.search.borders`).

All comparisons are paired on the same validation examples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mop.embeddings.index import EXACT_MOST
from mop.mixture import Expert
from mop.search.borders import Found, find_limits
from mop.search.capped import unless_capped
from mop.search.experts import DemoPool, Layout
from mop.search.first_look import first_look
from mop.search.generalist import Generalist, find_generalist
from mop.search.instructions import RegionInstructions
from mop.search.judging import Judging, race_report
from mop.search.layouts import Layouts, layout_name
from mop.search.learning import Learned, Session
from mop.search.persona_gate import Chosen, PersonaGate
from mop.search.proposers import Candidate
from mop.search.race import Arm, mean_seen
from mop.search.selection import Gate, gate
from mop.search.singles import SinglePrompt
from mop.search.words import region_words
from mop.stats import proportion_interval


async def learn(session: Session) -> Learned:
    """Run the whole search."""
    return await _Search(session).run()


#: Share of what a cap on tokens or money leaves after the race of single prompts that judging the best one and the
#: dearest layout may take: where a race of layouts follows, and where none does.
JUDGED, JUDGED_ALONE = 0.8, 0.95


@dataclass(frozen=True)
class _Best:
    """The winner of the layout race and the scores of its arm on all judged validation examples."""

    layout: Layout
    scores: NDArray[np.float64]


class _Search:
    def __init__(self, session: Session) -> None:
        self.session = session
        self.problem = session.problem
        self.plan = session.plan
        self.judging = Judging(session)
        self.layouts: list[Layout] = []
        self.arms: list[Arm] = []
        #: What the report says of the layout that was given up at its first look.
        self.given_up: dict[str, object] = {}
        self.pool = DemoPool(self.problem.train, self.problem.train_vectors)

    async def run(self) -> Learned:
        divided = self.plan.region_counts != (1,)
        generalist = await find_generalist(self.judging, self._promising if divided else None)
        if not divided or self.given_up:
            return self._one_prompt(generalist, {**generalist.report, **self.given_up})
        best, layouts = await unless_capped(self._race_layouts(), (None, {}))
        if best is None:
            return self._one_prompt(generalist, generalist.report)
        self.session.say_best(mean_seen(best.scores))
        candidates, scores, tried = await self._instructions(best, generalist)
        chosen, scores, personas = await self._personas(best.layout, candidates, scores)
        instructions = {"instructions": tried.report([one.candidate for one in chosen])} if tried else {}
        report = {**generalist.report, **layouts, **instructions, **personas}
        return await self._gated(best.layout, chosen, scores, generalist, report)

    # -- the stages

    async def _instructions(
        self, best: _Best, generalist: Generalist
    ) -> tuple[list[Candidate], NDArray[np.float64], RegionInstructions | None]:
        """Return the instruction of each region, the scores of the experts with them, and what was tried."""
        if self.session.ablations.selection == "independent":
            return [generalist.candidates[0]] * len(best.layout.regions), best.scores, None
        self.session.listener.stage("choosing instructions by region")
        choice = RegionInstructions(self.judging, best.layout, best.scores, generalist.candidates, generalist.untried)
        chosen, scores = await choice.choose()
        return chosen, scores, choice

    async def _personas(
        self, layout: Layout, candidates: Sequence[Candidate], scores: NDArray[np.float64]
    ) -> tuple[list[Chosen], NDArray[np.float64], dict[str, object]]:
        """Return what each region's expert is told, the experts' scores with it, and a report."""
        if not self.session.personas:
            return [Chosen(one) for one in candidates], scores, {}
        self.session.listener.stage("trying personas by region")
        self.judging.allowance.kept = 0
        chosen, scores, report = await PersonaGate(self.judging, layout, candidates, scores).choose()
        return chosen, scores, {"personas": report}

    async def _promising(self, generalist: SinglePrompt) -> bool:
        """Make the layouts to race, and say whether they are worth it: a race sees what the only one doesn't."""
        single = Arm.single("generalist", generalist.prompt, len(self.problem.validation))
        self._lay_out(generalist, single)
        if len(self.arms) != 1 or not self._may_give_up(single):
            return bool(self.arms)
        self.session.listener.stage("a first look at a mixture")
        look = await unless_capped(first_look(self.judging, single, self.arms[0]), None)
        if look is None or not look.hopeless:
            return True
        self.given_up = {"layouts": [look.report(self.arms[0].name)]}
        return False

    def _may_give_up(self, single: Arm) -> bool:
        """Return whether the only layout may be given up: nobody asked for it, and prompts could use what it takes."""
        session, judging = self.session, self.judging
        # Regions that gain nothing bare may gain by a persona. Without demos there are no further prompts to race.
        asked_for = session.experts is not None or session.personas or bool(session.ablations.given())
        if self.plan.layout_arms > 1 or asked_for or not session.max_demos:
            return False
        cells = [cell for arm in (single, self.arms[0]) for cell in judging.unknown(judging.cells(arm))]
        left = judging.allowance.spare(judging.trials(cells)) - judging.allowance.cost(judging.trials(cells))
        return left < judging.cost(self.arms[0])

    def _lay_out(self, generalist: SinglePrompt, single: Arm) -> None:
        """Make the layouts to race, and settle how many validation examples can judge the winner and one of them."""
        self.layouts = Layouts(self.judging, self.pool).to_race(generalist.prompt.demos)
        validation = self.problem.validation_vectors
        instruction = generalist.candidate.instruction
        self.arms = [layout.arm(layout_name(layout), instruction, validation) for layout in self.layouts]
        kept = [place for place, arm in enumerate(self.arms) if self.judging.fits(arm)]
        self.layouts, self.arms = [self.layouts[place] for place in kept], [self.arms[place] for place in kept]
        if self.arms:
            dearest = max(self.arms, key=self.judging.cost)
            self.judging.fit([single, dearest], JUDGED_ALONE if len(self.arms) == 1 else JUDGED)

    async def _race_layouts(self) -> tuple[_Best | None, dict[str, object]]:
        if not self.arms:
            return None, {}
        self.session.listener.stage("racing numbers of experts")
        layouts, arms, allowance = self.layouts, self.arms, self.judging.allowance
        dearest = max(arms, key=self.judging.cost)
        look = self.judging.cost(dearest)
        spare = allowance.spare(self.judging.trials(self.judging.cells(dearest))) - look
        known = 0.0
        if len(arms) == 1:
            unknown = self.judging.unknown(self.judging.cells(dearest))
            known = look - allowance.cost(self.judging.trials(unknown))
        calls = max(len(arms), min(self.plan.layout_calls, spare + known) - known)
        result = await self.judging.race(arms, calls, known=known)
        winner = layouts[result.winner]
        if not self.judging.affords(self.judging.unknown(self.judging.cells(arms[result.winner]))):
            self.judging.fit([arms[result.winner]], 1.0)
        scores = await self.judging.settle(arms[result.winner])
        return _Best(winner, scores), {"layouts": race_report([arm.name for arm in arms], result)}

    # -- results

    def _one_prompt(self, generalist: Generalist, report: dict[str, object]) -> Learned:
        prompt = generalist.single.prompt
        score = mean_seen(generalist.scores)
        expert = Expert(
            prompt=prompt,
            size=len(self.problem.train),
            validation=int(np.isfinite(generalist.scores).sum()),
            score=score,
            generalist_score=score,
            fallback=True,
        )
        centroid = self.problem.train_vectors.mean(axis=0, keepdims=True)
        return Learned([expert], prompt, generalist.zero_shot, centroid, None, report)

    async def _gated(
        self,
        layout: Layout,
        chosen: Sequence[Chosen],
        scores: NDArray[np.float64],
        found: Generalist,
        report: dict[str, object],
    ) -> Learned:
        generalist_scores = found.scores
        count = len(layout.regions)
        judged = self.judging.order
        regions = layout.assign(self.problem.validation_vectors)[judged]
        result = gate(scores[judged], generalist_scores[judged], regions, count, confidence=self.session.confidence)
        report = {**report, "gate": _gate_report(result, scores[judged], generalist_scores[judged], layout)}
        if not result.open:
            return self._one_prompt(found, report)
        prompts = [one.prompt(layout, region) for region, one in enumerate(chosen)]
        limits = await find_limits(self.judging, Found(layout, prompts, scores, generalist_scores, result))
        final = layout.refitted(self._everything()) if self.session.refit else layout
        members = layout.members(self.problem.train_vectors)
        sizes = np.bincount(members, minlength=count)
        words = region_words(
            [example.input for example in self.problem.train],
            members,
            count,
        )
        # The scores were made without validation examples among the demos to retrieve; a query may have them all.
        retrieval = layout.retrieval_of(self._everything())
        if retrieval is not None and len(retrieval.demos) > EXACT_MOST:
            report["retrieval"] = retrieval.facts()
        experts = []
        for region, shrunk in enumerate(result.gains):
            here = regions == region
            experts.append(
                Expert(
                    prompt=chosen[region].prompt(final, region),
                    size=int(sizes[region]),
                    validation=int(here.sum()),
                    words=words[region],
                    proposer=chosen[region].candidate.proposer,
                    score=float(scores[judged][here].mean()) if here.any() else None,
                    generalist_score=float(generalist_scores[judged][here].mean()) if here.any() else None,
                    gain=shrunk.mean,
                    gain_low=max(-1.0, shrunk.low),
                    gain_high=min(1.0, shrunk.high),
                    fallback=result.falls_back(region),
                    persona=chosen[region].persona,
                )
            )
        return Learned(
            experts=experts,
            generalist=found.single.prompt,
            zero_shot=found.zero_shot,
            centroids=layout.regions.centroids,
            projection=layout.projection,
            report=report,
            retrieval=retrieval,
            limits=limits,
        )

    def _everything(self) -> DemoPool:
        return DemoPool(
            (*self.problem.train, *self.problem.validation),
            np.vstack([self.problem.train_vectors, self.problem.validation_vectors]),
        )


def _gate_report(
    result: Gate, experts: NDArray[np.float64], generalist: NDArray[np.float64], layout: Layout
) -> dict[str, object]:
    interval = proportion_interval(experts)
    return {
        "layout": layout_name(layout),
        "validation": len(experts),
        "mixture": float(experts.mean()),
        "mixture_low": interval.low,
        "mixture_high": interval.high,
        "generalist": float(generalist.mean()),
        "gain": result.gain,
        "gain_low": result.low,
        "open": result.open,
    }
