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

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mop.embeddings.regions import Regions
from mop.mixture import Expert
from mop.prompts import Demo, Layout, Prompt
from mop.search.baselines.paper_parts import expert_demos, find_paper_regions, paper_questions
from mop.search.baselines.paper_regions import nearest_members
from mop.search.baselines.parts import proposal_count, propose
from mop.search.learning import Learned, Session
from mop.search.proposers import Candidate
from mop.search.words import region_words
from mop.seeds import stream

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
        self.order = stream(self.problem.seed, "validation order").permutation(len(self.problem.validation))

    async def run(self) -> Learned:
        session = self.session
        regions = await find_paper_regions(session, chance=self.chance)
        demos = expert_demos(session, regions)
        asked = proposal_count(session)
        questions = await paper_questions(session, regions, demos, asked)
        candidates = await propose(session, questions)
        pool, scores = await self._without_demos(candidates, session.plan.calls - asked - session.trials.done)
        if session.ablations.selection == "independent":
            chosen = [_Chosen(pool[0], None, 0)] * len(regions)
        else:
            left = session.plan.calls - asked - session.trials.done
            chosen = await self._joint_search(regions, demos, pool, left)
        return self._learned(regions, demos, pool, scores, chosen)

    # -- the stages

    async def _without_demos(self, candidates: list[Candidate], left: int) -> tuple[list[Candidate], list[float]]:
        """Return the best four candidates and the empty one, and the scores of the former.

        Where nothing follows, this stage gets all calls that are ``left``.
        """
        self.session.listener.stage("trying instructions without demos")
        alone = self.session.ablations.selection == "independent"
        calls = left if alone else min(left, int(self.session.plan.calls * FIRST_STAGE))
        each = calls // len(candidates)
        seen = self.order[: max(1, each if alone else min(EXAMPLES, each))]
        candidates = candidates[: max(1, calls)]
        cells = [(self._prompt(one, ()), int(place)) for one in candidates for place in seen]
        means = (await self._score(cells)).reshape(len(candidates), len(seen)).mean(axis=1)
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
        cells = [
            [(self._prompt(one, demos[region]), int(place)) for one in tried for place in places]
            for region, places in enumerate(judged)
        ]
        scores = await self._score([cell for part in cells for cell in part])
        chosen = []
        for places, here in zip(judged, np.split(scores, np.cumsum([len(part) for part in cells])[:-1]), strict=True):
            if not len(places):
                chosen.append(_Chosen(pool[0], None, 0))
                continue
            means = here.reshape(len(tried), len(places)).mean(axis=1)
            best = int(np.argmax(means))
            chosen.append(_Chosen(tried[best], float(means[best]), len(places)))
        return chosen

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

    async def _score(self, cells: list[tuple[Prompt, int]]) -> NDArray[np.float64]:
        trials = [(prompt, self.problem.validation[place]) for prompt, place in cells]
        return np.asarray(await self.session.trials.score(trials))
