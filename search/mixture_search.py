"""The default method, ``mop``: find the best single prompt, then a mixture that beats it, region by region.

1. Propose instructions from demos.
2. Race single prompts; the winner is the generalist.
3. Race layouts (how many regions, how their demos are chosen) under the generalist's instruction.
4. Region-based joint search (arXiv 2407.00256, section 4.3): try further instructions together with each region's
   demos on that region's validation examples; candidates are shared across regions, and written anew from a hard
   region's failures and from the demos that it does not show.
5. Gate: regions that show no gain over the generalist fall back to it; a mixture without gain is one prompt.

All comparisons are paired on the same validation examples.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mop.embeddings.projection import fit_projection, project
from mop.embeddings.regions import Regions, find_regions
from mop.mixture import Expert
from mop.prompts import Prompt
from mop.search import proposers
from mop.search.experts import DemoPool, Layout, Recipe
from mop.search.learning import Learned, Session
from mop.search.proposers import Candidate, Failure
from mop.search.race import Arm, RaceResult, race
from mop.search.selection import Gate, choose_candidates, gate, hardest
from mop.search.singles import SinglePrompt, single_prompts
from mop.search.words import region_words
from mop.seeds import stream
from mop.stats import proportion_interval

#: Used when the user gives no instruction of their own and proposes none.
DEFAULT_INSTRUCTION = "Answer as the examples do. Give the answer only."


async def learn(session: Session) -> Learned:
    """Run the whole search."""
    return await _Search(session).run()


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
        order = stream(self.problem.seed, "validation order").permutation(len(self.problem.validation))
        #: Validation examples that take part, in the order in which races see them.
        self.order = np.asarray(order[: self.plan.validation], dtype=np.intp)
        self.pool = DemoPool(self.problem.train, self.problem.train_vectors)
        self.used = 0

    async def run(self) -> Learned:
        candidates = await self._propose()
        singles, single_race = await self._race_singles(candidates)
        winner = singles[single_race.winner]
        self.session.listener.best(single_race.mean(single_race.winner))
        zero_shot = next(
            (singles[arm].prompt for arm in single_race.ranking if not singles[arm].prompt.demos),
            winner.prompt,
        )
        generalist = await self._judge(Arm.single("generalist", winner.prompt, len(self.problem.validation)))
        report: dict[str, object] = {
            "singles": _race_report([single.name for single in singles], single_race),
            "generalist": {"name": winner.name, "score": float(np.nanmean(generalist))},
        }
        if self.plan.region_counts == (1,):
            return self._one_prompt(winner.prompt, zero_shot, generalist, report)
        best, layouts = await self._race_layouts(winner.candidate.instruction)
        self.session.listener.best(float(np.nanmean(best.scores)))
        chosen, scores = await self._choose_instructions(
            best, _ranked_candidates(singles, single_race, winner.candidate)
        )
        return self._gated(best.layout, chosen, scores, winner.prompt, zero_shot, generalist, {**report, **layouts})

    # -- the stages

    async def _propose(self) -> list[Candidate]:
        self.session.listener.stage("proposing instructions")
        given = Candidate(self.problem.description or DEFAULT_INSTRUCTION, "given")
        questions = [
            (
                "demos",
                proposers.from_demos(proposers.sample(self.problem.train, 8, self.problem.seed, "demos", number)),
            )
            for number in range(self.plan.proposals)
        ]
        self.used += len(questions)
        written = await proposers.ask(self.session.proposer, questions, seed=self.problem.seed)
        return [given, *(candidate for candidate in written if candidate.instruction != given.instruction)]

    async def _race_singles(self, candidates: Sequence[Candidate]) -> tuple[list[SinglePrompt], RaceResult]:
        self.session.listener.stage("racing single prompts")
        singles = single_prompts(
            self.problem,
            candidates,
            arms=self.plan.single_arms,
            max_demos=self.session.max_demos,
            token_budget=self.session.token_budget,
        )
        arms = [Arm.single(single.name, single.prompt, len(self.problem.validation)) for single in singles]
        return singles, await self._race(arms, self.plan.single_calls)

    async def _race_layouts(self, instruction: str) -> tuple[_Best, dict[str, object]]:
        self.session.listener.stage("racing numbers of experts")
        layouts = self._layouts()
        arms = [layout.arm(_layout_name(layout), instruction, self.problem.validation_vectors) for layout in layouts]
        spare = self.plan.calls - self.used - len(self.order)
        result = await self._race(arms, max(len(arms), min(self.plan.layout_calls, spare)))
        winner = layouts[result.winner]
        scores = await self._judge(arms[result.winner])
        return _Best(winner, scores), {"layouts": _race_report([arm.name for arm in arms], result)}

    def _layouts(self) -> list[Layout]:
        """Return the layouts to race, without those that turn out equal."""
        answers = self.problem.answers
        projection = (
            fit_projection(self.problem.train_vectors, [example.output for example in self.problem.train])
            if answers
            else None
        )
        layouts: list[Layout] = []
        for recipe in self._recipes(projected=projection is not None):
            view = projection if recipe.projected else None
            layout = Layout.build(recipe, self._regions(recipe.regions, view), view, self.pool, answers)
            if not any(_same(layout, other) for other in layouts):
                layouts.append(layout)
            if len(layouts) == self.plan.layout_arms:
                break
        return layouts

    def _recipes(self, *, projected: bool) -> Iterator[Recipe]:
        """Yield the recipes worth trying, the most promising first (benchmarks/LOG.md, "Recipes")."""
        demos, tokens = self.session.max_demos, self.session.token_budget
        lent = demos * 3 // 10
        for count in self.plan.region_counts:
            if projected:
                yield Recipe(count, demos - lent, lent, tokens, projected=True)
            yield Recipe(count, demos, 0, tokens)
        if self.problem.answers:
            for count in self.plan.region_counts:
                yield Recipe(count, demos - lent, lent, tokens, answers="all", projected=projected)

    def _regions(self, count: int, projection: NDArray[np.float32] | None) -> Regions:
        return find_regions(
            project(self.problem.train_vectors, projection),
            count,
            seed=self.problem.seed,
            held_out=project(self.problem.validation_vectors, projection)[self.order],
        )

    async def _choose_instructions(
        self, best: _Best, shared: Sequence[Candidate]
    ) -> tuple[list[Candidate], NDArray[np.float64]]:
        """Return the instruction of each region and the mixture's scores under these choices."""
        self.session.listener.stage("choosing instructions by region")
        layout, problem = best.layout, self.problem
        regions = layout.assign(problem.validation_vectors)
        candidates, rows = [shared[0]], [best.scores]
        spare = self.plan.calls - self.used
        for candidate in shared[1:]:
            if spare < len(self.order):
                break
            rows.append(await self._judge(layout.arm("shared", candidate.instruction, problem.validation_vectors)))
            candidates.append(candidate)
            spare = self.plan.calls - self.used
        for region in hardest(best.scores, regions, len(layout.regions)):
            members = [int(i) for i in self.order if regions[i] == region]
            # Two proposals, each tried on the region's validation examples.
            if spare < 2 + 2 * len(members):
                break
            for candidate in await self._propose_for(region, layout, shared[0], members, best.scores):
                row = np.full(len(problem.validation), np.nan)
                prompt = layout.prompt(region, candidate.instruction)
                row[members] = await self._score([(prompt, i) for i in members])
                candidates.append(candidate)
                rows.append(row)
            spare = self.plan.calls - self.used
        table = np.vstack(rows)
        choice = choose_candidates(table, regions, len(layout.regions))
        chosen = np.asarray(choice)[regions]
        return [candidates[c] for c in choice], table[chosen, np.arange(len(problem.validation))]

    async def _propose_for(
        self,
        region: int,
        layout: Layout,
        incumbent: Candidate,
        members: Sequence[int],
        scores: NDArray[np.float64],
    ) -> list[Candidate]:
        """Ask for two instructions for a region: from its failures, and from what its demos do not show."""
        problem = self.problem
        prompt = layout.prompt(region, incumbent.instruction)
        wrong = [i for i in members if scores[i] < 0.5][:4]
        answers = await self.session.trials.answers([(prompt, problem.validation[i]) for i in wrong])
        failures = [Failure(problem.validation[i], answer) for i, answer in zip(wrong, answers, strict=True)]
        outside = layout.assign(problem.train_vectors) != region
        complement = [example for example, out in zip(problem.train, outside, strict=True) if out]
        inside = [example for example, out in zip(problem.train, outside, strict=True) if not out]
        questions = [
            (
                "complement",
                proposers.from_complement(
                    proposers.sample(complement, 5, problem.seed, "complement", region),
                    proposers.sample(inside, 3, problem.seed, "shown", region),
                ),
            )
        ]
        if failures:
            questions.insert(0, ("failures", proposers.from_failures(incumbent.instruction, failures)))
        self.used += len(questions)
        return await proposers.ask(self.session.proposer, questions, seed=problem.seed)

    # -- trials

    async def _race(self, arms: Sequence[Arm], calls: int) -> RaceResult:
        before = self.session.trials.done
        result = await race(
            arms,
            self.problem.validation,
            self.order,
            self.session.trials,
            calls=min(calls, self.plan.calls - self.used),
        )
        self.used += self.session.trials.done - before
        return result

    async def _judge(self, arm: Arm) -> NDArray[np.float64]:
        """Return the arm's score on every validation example that takes part, NaN elsewhere."""
        scores = np.full(len(self.problem.validation), np.nan)
        scores[self.order] = await self._score([(arm.prompts[i], int(i)) for i in self.order])
        return scores

    async def _score(self, cells: Sequence[tuple[Prompt, int]]) -> list[float]:
        before = self.session.trials.done
        scores = await self.session.trials.score([(prompt, self.problem.validation[i]) for prompt, i in cells])
        self.used += self.session.trials.done - before
        return scores

    # -- results

    def _one_prompt(
        self, prompt: Prompt, zero_shot: Prompt, scores: NDArray[np.float64], report: dict[str, object]
    ) -> Learned:
        centroid = self.problem.train_vectors.mean(axis=0, keepdims=True)
        expert = Expert(
            prompt=prompt,
            size=len(self.problem.train),
            validation=len(self.order),
            score=float(np.nanmean(scores)),
            generalist_score=float(np.nanmean(scores)),
            fallback=True,
        )
        return Learned([expert], prompt, zero_shot, centroid, None, report)

    def _gated(
        self,
        layout: Layout,
        chosen: Sequence[Candidate],
        scores: NDArray[np.float64],
        generalist: Prompt,
        zero_shot: Prompt,
        generalist_scores: NDArray[np.float64],
        report: dict[str, object],
    ) -> Learned:
        count = len(layout.regions)
        judged = self.order
        regions = layout.assign(self.problem.validation_vectors)[judged]
        result = gate(scores[judged], generalist_scores[judged], regions, count, confidence=self.session.confidence)
        report = {**report, "gate": _gate_report(result, scores[judged], generalist_scores[judged], layout)}
        if not result.open:
            return self._one_prompt(generalist, zero_shot, generalist_scores, report)
        final = layout.refitted(self._everything()) if self.session.refit else layout
        sizes = np.bincount(layout.assign(self.problem.train_vectors), minlength=count)
        words = region_words(
            [example.input for example in self.problem.train],
            layout.assign(self.problem.train_vectors),
            count,
        )
        experts = []
        for region, shrunk in enumerate(result.gains):
            here = regions == region
            experts.append(
                Expert(
                    prompt=final.prompt(region, chosen[region].instruction),
                    size=int(sizes[region]),
                    validation=int(here.sum()),
                    words=words[region],
                    proposer=chosen[region].proposer,
                    score=float(scores[judged][here].mean()) if here.any() else None,
                    generalist_score=float(generalist_scores[judged][here].mean()) if here.any() else None,
                    gain=shrunk.mean,
                    gain_low=max(-1.0, shrunk.low),
                    gain_high=min(1.0, shrunk.high),
                    fallback=result.falls_back(region),
                )
            )
        return Learned(experts, generalist, zero_shot, layout.regions.centroids, layout.projection, report)

    def _everything(self) -> DemoPool:
        return DemoPool(
            (*self.problem.train, *self.problem.validation),
            np.vstack([self.problem.train_vectors, self.problem.validation_vectors]),
        )


def _ranked_candidates(singles: Sequence[SinglePrompt], result: RaceResult, incumbent: Candidate) -> list[Candidate]:
    """Return the distinct candidates from best to worst in the race of single prompts, the incumbent first."""
    ranked = [singles[arm].candidate for arm in result.ranking]
    return list(dict.fromkeys([incumbent, *ranked]))


def _same(one: Layout, other: Layout) -> bool:
    """Whether two layouts differ in name only (regions that were dissolved can leave the same ones)."""
    return one.demos == other.demos and np.array_equal(one.regions.centroids, other.regions.centroids)


def _layout_name(layout: Layout) -> str:
    space = "by topic and answer" if layout.recipe.projected else "by topic"
    borrowed = f", {layout.recipe.borrowed} demos borrowed" if layout.answers and layout.recipe.borrowed else ""
    listed = f", {layout.recipe.answers} answers listed" if layout.answers else ""
    return f"{len(layout.regions)} experts {space}{borrowed}{listed}"


def _race_report(names: Sequence[str], result: RaceResult) -> list[dict[str, object]]:
    return [
        {
            "name": names[arm],
            "examples": int(np.isfinite(result.scores[arm]).sum()),
            "score": result.mean(arm) if np.isfinite(result.scores[arm]).any() else None,
        }
        for arm in result.ranking
    ]


def _gate_report(
    result: Gate, experts: NDArray[np.float64], generalist: NDArray[np.float64], layout: Layout
) -> dict[str, object]:
    interval = proportion_interval(experts)
    return {
        "layout": _layout_name(layout),
        "validation": len(experts),
        "mixture": float(experts.mean()),
        "mixture_low": interval.low,
        "mixture_high": interval.high,
        "generalist": float(generalist.mean()),
        "gain": result.gain,
        "gain_low": result.low,
        "open": result.open,
    }
