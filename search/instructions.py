"""Region-based joint search: which instruction each region's expert gets (arXiv 2407.00256, section 4.3).

Instructions are tried together with a region's demos on that region's validation examples. Those that are shared are
tried everywhere; others are written for one hard region, from its failures and from the demos that it does not show.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mop.search import proposers
from mop.search.capped import unless_capped
from mop.search.experts import Layout
from mop.search.judging import Cell, Judging
from mop.search.plan import TURNS
from mop.search.proposers import Candidate, Failure
from mop.search.regionwise import Turn, take_turns
from mop.search.selection import choose_candidates, hardest

Scores = NDArray[np.float64]


class RegionInstructions:
    """Chooses an instruction for every region of a layout.

    Args:
        judging: Asks the models and keeps the account of calls.
        layout: The regions and their demos.
        scores: Of the layout under the first of ``shared``, one for each validation example; NaN where not judged.
        shared: Instructions to try everywhere, best first.
        untried: Instructions to try everywhere with what is left in the end.
    """

    def __init__(
        self,
        judging: Judging,
        layout: Layout,
        scores: Scores,
        shared: Sequence[Candidate],
        untried: Sequence[Candidate] = (),
    ) -> None:
        self._judging = judging
        self._problem = judging.problem
        self._layout = layout
        self._candidates = [shared[0]]
        self._rows = [scores.copy()]
        self._shared, self._untried = shared[1:], untried
        self._regions = layout.assign(self._problem.validation_vectors)
        # Found once for all: the same prompts for every candidate, whatever else is looked up beside them.
        self._retrieved = layout.retrieved(self._problem.validation_vectors)

    async def choose(self) -> tuple[list[Candidate], Scores]:
        """Return the instruction of each region and the scores of all experts under these choices."""
        count = len(self._layout.regions)
        # What was judged before a cap ends it is enough to choose from.
        await unless_capped(self._try(), None)
        if self._judging.session.ablations.selection == "joint-global":
            best = int(np.argmax([np.nanmean(row) for row in self._rows]))
            return [self._candidates[best]] * count, self._rows[best]
        choice = choose_candidates(np.vstack(self._rows), self._regions, count)
        choice = await unless_capped(self._confirmed(choice), [0] * count)
        chosen = np.asarray(choice)[self._regions]
        scores = np.vstack(self._rows)[chosen, np.arange(len(self._regions))]
        return [self._candidates[candidate] for candidate in choice], scores

    def report(self, choice: Sequence[Candidate]) -> list[dict[str, object]]:
        """Return what was tried, as plain data: each instruction, its mean score and number of trials by region.

        ``choice`` is the candidate of each region; a score is None where there was no trial.
        """
        rows: list[dict[str, object]] = []
        for candidate, row in zip(self._candidates, self._rows, strict=True):
            seen = [row[(self._regions == region) & np.isfinite(row)] for region in range(len(self._layout.regions))]
            rows.append(
                {
                    "instruction": candidate.instruction,
                    "proposer": candidate.proposer,
                    "scores": [float(scores.mean()) if len(scores) else None for scores in seen],
                    "trials": [len(scores) for scores in seen],
                    "chosen": [region for region, one in enumerate(choice) if one == candidate],
                }
            )
        return rows

    async def _try(self) -> None:
        await self._try_everywhere(self._shared)
        if self._judging.session.ablations.selection != "joint-global":
            await self._try_written()
            await self._try_everywhere(self._untried)

    async def _try_everywhere(self, candidates: Sequence[Candidate]) -> None:
        for candidate in candidates:
            arm = self._layout.arm("shared", candidate.instruction, self._problem.validation_vectors)
            if not self._judging.affords(self._judging.cells(arm)):
                break
            self._rows.append(await self._judging.judge(arm))
            self._candidates.append(candidate)

    async def _try_written(self) -> None:
        for turn in range(TURNS):
            await self._write_for_hardest(turn)

    async def _write_for_hardest(self, turn: int) -> None:
        turns, deciding = [], {}
        for region in hardest(self._rows[0], self._regions, len(self._layout.regions)):
            here = self._judged(region)
            # What the proposer has seen can't judge its proposals: one half shows failures, the other half decides.
            shown, members = here[::2], here[1::2]
            if not members:
                continue
            # Two questions, two candidates on the deciding half, and the winner on the other half.
            cells = self._cells(region, self._candidates[0], (*members, *members, *shown))
            questions = await self._questions_for(region, shown, turn)
            turns.append(Turn(region, cells, len(questions) * (1 + len(members)), questions))
            deciding[region] = members

        async def write(group: Sequence[Turn]) -> None:
            written = await self._judging.propose_each([one.questions for one in group])
            pairs = [(one.region, new) for one, found in zip(group, written, strict=True) for new in found]
            rows = await self._scores_in([(region, new, deciding[region]) for region, new in pairs])
            self._candidates.extend(new for _, new in pairs)
            self._rows.extend(rows)

        await take_turns(self._judging, turns, write)

    async def _questions_for(self, region: int, shown: Sequence[int], turn: int) -> list[tuple[str, str]]:
        """Return the questions for a region's instructions: on failures among ``shown``, on what it doesn't show."""
        problem, incumbent = self._problem, self._candidates[0]
        prompt = self._layout.prompt(region, incumbent.instruction)
        again = (turn,) if turn else ()
        wrong = [i for i in shown if self._rows[0][i] < 0.5][4 * turn : 4 * turn + 4]
        trials = [(prompt.retrieving(self._retrieved[i]), problem.validation[i]) for i in wrong]
        answers = await self._judging.session.trials.answers(trials)
        failures = [Failure(problem.validation[i], answer) for i, answer in zip(wrong, answers, strict=True)]
        view = self._judging.session.ablations.view
        if view == "pool":
            draws = [(region, draw, *again) for draw in range(2)]
            samples = [proposers.sample(problem.train, 8, problem.seed, "pool", *draw) for draw in draws]
            return [("pool", proposers.from_demos(examples)) for examples in samples]
        outside = self._layout.members(problem.train_vectors) != region
        complement = [example for example, out in zip(problem.train, outside, strict=True) if out]
        inside = [example for example, out in zip(problem.train, outside, strict=True) if not out]
        questions = [
            (
                "complement",
                proposers.from_complement(
                    proposers.sample(complement, 5, problem.seed, "complement", region, *again),
                    proposers.sample(inside, 3, problem.seed, "shown", region, *again),
                ),
            )
        ]
        if failures and view != "complement":
            failed = ("failures", proposers.from_failures(incumbent.instruction, failures))
            questions = [failed, *(questions if view is None else [])]
        return questions

    async def _confirmed(self, choice: Sequence[int]) -> list[int]:
        """Judge each region's choice on what it has not been judged on; return it where it is still better, else 0."""
        confirmed, turns, missing = list(choice), [], {}
        for region, candidate in enumerate(choice):
            if unseen := [i for i in self._judged(region) if np.isnan(self._rows[candidate][i])]:
                cells = self._cells(region, self._candidates[candidate], unseen)
                turns.append(Turn(region, cells, len(cells)))
                missing[region] = unseen

        async def judge(group: Sequence[Turn]) -> None:
            asked = [(one.region, self._candidates[choice[one.region]], missing[one.region]) for one in group]
            for (region, _, unseen), scores in zip(asked, await self._scores_in(asked), strict=True):
                row, here = self._rows[choice[region]], self._judged(region)
                row[unseen] = scores[unseen]
                confirmed[region] = choice[region] if row[here].sum() > self._rows[0][here].sum() else 0

        for turn in await take_turns(self._judging, turns, judge):
            confirmed[turn.region] = 0
        return confirmed

    async def _scores_in(self, asked: Sequence[tuple[int, Candidate, Sequence[int]]]) -> list[Scores]:
        """Return each candidate's scores on these validation examples of its region, NaN elsewhere."""
        cells = [self._cells(*one) for one in asked]
        scores = iter(await self._judging.score([cell for part in cells for cell in part]))
        rows = []
        for _, _, members in asked:
            row = np.full(len(self._regions), np.nan)
            row[list(members)] = [next(scores) for _ in members]
            rows.append(row)
        return rows

    def _cells(self, region: int, candidate: Candidate, members: Sequence[int]) -> list[Cell]:
        prompt = self._layout.prompt(region, candidate.instruction)
        return [(prompt.retrieving(self._retrieved[i]), i) for i in members]

    def _judged(self, region: int) -> list[int]:
        return [int(i) for i in self._judging.order if self._regions[i] == region]
