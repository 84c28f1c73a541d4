"""``mop-paper``: Mixture-of-Prompts as published (arXiv 2407.00256): the method, without the released code's slips.

1. Demos are clustered in embedding space; scaled inertia chooses the number of experts.
2. For each expert the model writes instructions from the demos that this expert does *not* show.
3. All candidates are tried without demos on the same validation examples; the best four and the empty instruction stay.
4. Region-based joint search: each expert tries each of them together with its own demos on the validation examples
   that are routed to it, topped up with the nearest others where there are few.
5. A query goes to the nearest centroid. Every region keeps its expert; nothing falls back.

The released code compares candidates on different examples, tries topped-up examples with another expert's prompt,
takes a wrong complement for all experts but the first, ends with the word "None" where all candidates score zero, and
repeats demos of small clusters. None of that is here. Further differences from the paper: the calls of all stages come
from one budget, which may leave fewer than 20 candidates or examples, and validation examples are the same for all.
``mop-paper-chance`` also raises the penalty of scaled inertia on few examples (see `paper_regions`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mop.embeddings.regions import Regions
from mop.errors import BudgetExceeded
from mop.mixture import Expert
from mop.prompts import Demo, Layout, Prompt
from mop.search.allowance import Allowance
from mop.search.baselines.paper_parts import expert_demos, find_paper_regions, paper_questions
from mop.search.baselines.paper_regions import nearest_members
from mop.search.baselines.parts import by_size, proposal_count, propose
from mop.search.capped import unless_capped
from mop.search.learning import Learned, Session
from mop.search.proposers import Candidate
from mop.search.trials import Trial
from mop.search.words import region_words

#: A prompt and the position of the validation example that it answers.
_Cell = tuple[Prompt, int]

#: The paper's numbers: candidates kept, validation examples of the first stage and of a small region.
KEPT = 4
EXAMPLES = 20
#: Part of the calls for the first stage; published runs come to 400 of 1,400.
FIRST_STAGE = 1 / 3


async def mop_paper(session: Session) -> Learned:
    """Run the published search with demos as chat turns."""
    return await _PaperSearch(session, "chat").run()


async def mop_paper_block(session: Session) -> Learned:
    """Run the published search with the published one-block layout."""
    return await _PaperSearch(session, "block").run()


async def mop_paper_chance(session: Session) -> Learned:
    """Run the published search with as many experts as scaled inertia gives beyond chance."""
    return await _PaperSearch(session, "chat", chance=True).run()


@dataclass(frozen=True)
class _Chosen:
    """The candidate of one region, its mean score there, and how many examples judged it."""

    candidate: Candidate
    score: float | None
    examples: int


class _PaperSearch:
    def __init__(self, session: Session, layout: Layout, *, chance: bool = False) -> None:
        self.session, self.layout, self.chance = session, layout, chance
        self.problem = session.problem
        self.order = session.order

    async def run(self) -> Learned:
        session = self.session
        regions = await find_paper_regions(session, chance=self.chance)
        demos = expert_demos(session, regions)
        asked = proposal_count(session)
        questions = await paper_questions(session, regions, demos, asked)
        candidates = await propose(session, questions)
        alone = session.ablations.selection == "independent"
        share = 1.0 if alone else FIRST_STAGE
        bare, shown = self._cells(candidates, [()]), self._cells(candidates[:KEPT], demos)
        pool, scores = await self._without_demos(candidates, self._left(asked, share, bare, shown))
        if alone:
            chosen = [_Chosen(pool[0], None, 0)] * len(regions)
        else:
            shown = self._cells(pool, demos)
            chosen = await self._joint_search(regions, demos, pool, self._left(asked, 0.0, bare, shown))
        return self._learned(regions, demos, pool, scores, chosen)

    def _cells(self, candidates: list[Candidate], demos: Sequence[tuple[Demo, ...]]) -> list[_Cell]:
        """Return what it takes to try each candidate with each of ``demos`` on all examples."""
        prompts = [self._prompt(one, some) for one in candidates for some in demos]
        return [(prompt, int(place)) for prompt in prompts for place in self.order]

    def _left(self, asked: int, share: float, bare: list[_Cell], shown: list[_Cell]) -> int:
        """Return the calls that are left after ``asked`` questions and what was tried so far.

        Where tokens or money are capped, it is what they are worth if ``share`` of the calls are like ``bare``, on
        average, and the others like ``shown``.
        """
        session, allowance = self.session, self.session.allowance
        if allowance is None or not allowance.by_size:
            return session.plan.calls - asked - session.trials.done
        spare = max(0.0, allowance.spare(self._trials([*bare, *shown] if share else shown)))
        each = [allowance.cost(self._trials(cells)) / len(cells) for cells in (bare, shown)]
        return int(spare / (share * each[0] + (1 - share) * each[1]))

    # -- the stages

    async def _without_demos(self, candidates: list[Candidate], left: int) -> tuple[list[Candidate], list[float]]:
        """Return the best four candidates and the empty one, and the scores of the former.

        Where nothing follows, this stage gets all calls that are ``left``.
        """
        self.session.listener.stage("trying instructions without demos")
        alone = self.session.ablations.selection == "independent"
        whole = left if by_size(self.session) else self.session.plan.calls
        calls = left if alone else min(left, int(whole * FIRST_STAGE))
        each = calls // len(candidates)
        seen = self.order[: max(1, each if alone else min(EXAMPLES, each))]
        candidates = candidates[: max(1, calls)]
        cells = [(self._prompt(one, ()), int(place)) for one in candidates for place in seen]
        rows = (await self._score(cells)).reshape(len(candidates), len(seen))
        # A candidate that a cap left with fewer examples than others isn't compared with them.
        counts = np.isfinite(rows).sum(axis=1)
        rows = rows[counts == counts.max()]
        candidates = [one for one, count in zip(candidates, counts, strict=True) if count == counts.max()]
        means = np.nanmean(rows, axis=1)
        best = np.argsort(-means, kind="stable")[:KEPT]
        self.session.listener.best(float(means[best[0]]))
        kept = [candidates[int(place)] for place in best]
        return [*kept, Candidate("", "empty")], [float(means[place]) for place in best]

    async def _joint_search(
        self, regions: Regions, demos: list[tuple[Demo, ...]], pool: list[Candidate], calls: int
    ) -> list[_Chosen]:
        """Return the best candidate of each region, tried with the region's demos on the region's examples."""
        self.session.listener.stage("choosing instructions by region")
        tried = pool[: max(1, min(len(pool), calls // len(regions)))]
        judged = self._judged(regions, calls // len(tried))
        if (allowance := self.session.allowance) is not None and allowance.by_size:
            # Regions differ in what their demos take.
            while calls > 0 and not self._affordable(allowance, tried, demos, judged):
                calls -= len(tried)
                judged = self._judged(regions, max(0, calls) // len(tried))
        cells = self._joint_cells(tried, demos, judged)
        every = [cell for part in cells for cell in part]
        scores = await unless_capped(self._score(every), np.full(len(every), np.nan))
        chosen = []
        for places, here in zip(judged, np.split(scores, np.cumsum([len(part) for part in cells])[:-1]), strict=True):
            rows = here.reshape(len(tried), len(places))
            # Where a cap ended it, what all candidates have answered decides.
            rows = rows[:, np.isfinite(rows).all(axis=0)]
            if not rows.size:
                chosen.append(_Chosen(pool[0], None, 0))
                continue
            means = rows.mean(axis=1)
            best = int(np.argmax(means))
            chosen.append(_Chosen(tried[best], float(means[best]), rows.shape[1]))
        return chosen

    def _joint_cells(
        self, tried: list[Candidate], demos: list[tuple[Demo, ...]], judged: list[NDArray[np.intp]]
    ) -> list[list[_Cell]]:
        """Return what each region asks in the joint search, candidate by candidate."""
        return [
            [(self._prompt(one, demos[region]), int(place)) for one in tried for place in places]
            for region, places in enumerate(judged)
        ]

    def _affordable(
        self,
        allowance: Allowance,
        tried: list[Candidate],
        demos: list[tuple[Demo, ...]],
        judged: list[NDArray[np.intp]],
    ) -> bool:
        trials = self._trials([cell for part in self._joint_cells(tried, demos, judged) for cell in part])
        return allowance.cost(trials) <= allowance.spare(trials)

    def _judged(self, regions: Regions, calls: int) -> list[NDArray[np.intp]]:
        """Return each region's validation examples: ``calls`` at most in all, twenty each if that can be afforded."""
        distances = regions.distances(self.problem.validation_vectors)
        routed = distances.argmin(axis=1)
        if self.session.ablations.selection == "joint-global":
            return [self.order[: calls // len(regions)]] * len(regions)
        least = min(EXAMPLES, calls // len(regions), len(self.order))
        judged: list[NDArray[np.intp]] = []
        for drawn in range(len(self.order), -1, -1):
            judged = [
                nearest_members(distances[:, region], part[routed[part] == region], least)
                for part in [self.order[:drawn]]
                for region in range(len(regions))
            ]
            if sum(map(len, judged)) <= calls:
                break
        return judged

    # -- results

    def _learned(
        self,
        regions: Regions,
        demos: list[tuple[Demo, ...]],
        pool: list[Candidate],
        scores: list[float],
        chosen: list[_Chosen],
    ) -> Learned:
        problem, count = self.problem, len(regions)
        assigned = regions.members(problem.train_vectors)
        sizes = np.bincount(assigned, minlength=count)
        words = region_words([example.input for example in problem.train], assigned, count)
        experts = [
            Expert(
                prompt=self._prompt(one.candidate, demos[region]),
                size=int(sizes[region]),
                validation=one.examples,
                words=words[region],
                proposer=one.candidate.proposer,
                score=one.score,
            )
            for region, one in enumerate(chosen)
        ]
        generalist = self._prompt(pool[0], ())
        report = {
            "generalist": {"name": pool[0].instruction, "score": scores[0]},
            "kept": [{"name": one.instruction, "score": score} for one, score in zip(pool, scores, strict=False)],
            "candidates": [one.instruction for one in pool],
        }
        return Learned(experts, generalist, generalist, regions.centroids, None, report)

    def _prompt(self, candidate: Candidate, demos: tuple[Demo, ...]) -> Prompt:
        return Prompt(candidate.instruction, demos, self.layout)

    def _trials(self, cells: Sequence[_Cell]) -> list[Trial]:
        return [(prompt, self.problem.validation[place]) for prompt, place in cells]

    async def _score(self, cells: list[_Cell]) -> NDArray[np.float64]:
        """Return the scores, NaN from where a cap refused a call; raises BudgetExceeded if there is none."""
        trials = self._trials(cells)
        try:
            return np.asarray(await self.session.trials.score(trials))
        except BudgetExceeded:
            known = np.asarray(self.session.trials.known(trials))
            if not np.isfinite(known).any():
                raise
            return known
