"""InstructZero (arXiv 2306.03082): a small model writes instructions under soft prompts, and Bayesian optimization
over these finds the ones whose instructions work; the model that answers stays a black box.

A latent of ten numbers becomes five soft tokens before a question with five examples. The white box answers it
greedily, the instruction is scored on up to 20 validation examples, and the next latents are those with the largest
expected improvement (`mop.search.baselines.latent_search`). Two latents with one instruction pay for its score once.

As with APE here, the budget decides the numbers, and all candidates see the same examples. Two thirds of the calls are
for the search; with the rest, the best few meet on more examples. The comparison paper (arXiv 2407.00256) ran 20
instructions on 20 examples each, 11 of them to start with: so do 600 calls. Demos are attached after selection as
published, or stand there during it (``fair``).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from mop.errors import BudgetExceeded, SettingsError
from mop.lm.soft_prompts import SoftPrompt
from mop.lm.white_box import WhiteBox
from mop.prompts import Demo, Prompt
from mop.search import proposers
from mop.search.baselines.ape import centroid_demos
from mop.search.baselines.parts import (
    Contender,
    by_size,
    given_instruction,
    one_prompt,
    published_demo_count,
    random_demos,
)
from mop.search.generalist import DEFAULT_INSTRUCTION
from mop.search.learning import Learned, Session
from mop.search.race import Arm, RaceResult, race
from mop.search.trials import Trial

#: The paper's numbers (section 4.1): numbers in a latent, examples in the question, validation examples.
DIMENSION, SHOWN, EXAMPLES = 10, 5, 20
#: What the white box's answer begins with (APE's template), so that even a small model writes an instruction, and the
#: most tokens that follow: the instructions of small models that are longer repeat themselves.
OPENING, MAX_TOKENS = "The instruction was to", 64
#: Soft tokens; the paper chooses among 3, 5 and 10 by validation, its code for the comparison takes 5.
TOKENS = 5
#: One instruction for this many calls, and how many there are at least and at most.
CALLS_PER_INSTRUCTION, FEWEST, MOST = 30, 4, 40
#: Part of the calls for the search; the rest decides among the best.
SEARCH_SHARE = 2 / 3
#: Part of the instructions that start the search, and the rounds of the others (11 and 3 × 3 of 20).
START_SHARE, ROUNDS = 0.55, 3
#: The search ends after this many latents for each instruction that it wants: many latents give the same one.
LATENTS_PER_INSTRUCTION = 2


async def instructzero(session: Session) -> Learned:
    """Find the best instruction; no demos."""
    return await _learn(session)


async def instructzero_random(session: Session) -> Learned:
    """Find the best instruction without demos, then attach random ones."""
    return await _learn(session, after=_random(session))


async def instructzero_random_fair(session: Session) -> Learned:
    """Find the best instruction with random demos in place."""
    return await _learn(session, during=_random(session))


async def instructzero_kcentroids(session: Session) -> Learned:
    """Find the best instruction without demos, then attach the demos nearest to K centroids."""
    return await _learn(session, after=centroid_demos(session))


async def instructzero_kcentroids_fair(session: Session) -> Learned:
    """Find the best instruction with the demos nearest to K centroids in place."""
    return await _learn(session, during=centroid_demos(session))


def _imperative(text: str) -> str | None:
    """Return the first line of what follows the opening as an instruction, ``None`` if there is none in it."""
    line = text.strip().partition("\n")[0].strip()
    instruction = proposers.clean(line)
    return None if instruction is None else instruction[0].upper() + instruction[1:]


def _random(session: Session) -> tuple[Demo, ...]:
    # The same demos as APE's, so that the two differ in their instructions alone.
    return random_demos(session, published_demo_count(session), "ape random")


async def _learn(session: Session, *, during: tuple[Demo, ...] = (), after: tuple[Demo, ...] | None = None) -> Learned:
    search = _Search(session, during)
    result = await search.run()
    contenders = search.contenders
    instruction = contenders[result.winner].prompt.instruction
    learned = one_prompt(session, contenders, result, zero_shot=Prompt(instruction), demos=after)
    written = {"name": search.box.name, "sha256": search.box.sha256, "latents": len(search.chosen)}
    report = {**learned.report, "white_box": {**written, "instructions": len(search.rows)}}
    return Learned(learned.experts, learned.generalist, learned.zero_shot, learned.centroids, None, report)


class _Search:
    """One run. ``contenders`` are the distinct prompts, ``rows`` their scores, ``chosen`` those of the latents."""

    def __init__(self, session: Session, demos: tuple[Demo, ...]) -> None:
        if session.white_box is None:
            raise SettingsError("InstructZero needs a white-box model; give one with white_box.")
        self.session, self.demos = session, demos
        self.box: WhiteBox = session.white_box
        problem, calls = session.problem, self._calls()
        wanted = max(FEWEST, min(MOST, calls // CALLS_PER_INSTRUCTION))
        self.wanted = wanted if session.proposals is None else max(1, min(session.proposals, calls // 3))
        self.order = session.order
        #: Calls of the plan that are left for the final when the search begins.
        self.kept = (1 - SEARCH_SHARE) * session.plan.calls
        share = int(calls * SEARCH_SHARE) // self.wanted
        self.seen = self.order[: max(1, min(EXAMPLES, share))]
        self.question = proposers.bare(proposers.sample(problem.train, SHOWN, problem.seed, "instructzero"))
        self.contenders: list[Contender] = []
        self.rows: list[list[float]] = []
        self.answers: list[list[str]] = []
        self.latents = np.empty((0, DIMENSION))
        self.chosen: list[int | None] = []

    def _calls(self) -> int:
        """Return the calls to plan for; where tokens or money are capped, as many as the caps are worth."""
        session = self.session
        if session.allowance is None or not session.allowance.by_size:
            return session.plan.calls
        usual = Prompt(given_instruction(session), self.demos)
        trials = [(usual, session.problem.validation[int(place)]) for place in session.order]
        return session.allowance.worth(max(0.0, session.allowance.spare(trials)), trials)

    async def run(self) -> RaceResult:
        from mop.search.baselines.latent_search import sobol

        seed = self.session.problem.seed
        own = self.session.problem.description
        if own is not None:
            await self._contender(own, "given")
        self.session.listener.stage("writing instructions")
        start = max(2, math.ceil(START_SHARE * self.wanted))
        await self._try(sobol(start, DIMENSION, seed, "start"))
        most = LATENTS_PER_INSTRUCTION * self.wanted
        batch = max(1, math.ceil((self.wanted - start) / ROUNDS))
        while len(self.rows) < self.wanted and len(self.chosen) < most:
            await self._try(await self._next(min(batch, most - len(self.chosen))))
        if not self.rows:
            await self._contender(DEFAULT_INSTRUCTION, "given")
        return await self._decide()

    async def _next(self, count: int) -> NDArray[np.float64]:
        import asyncio

        from mop.search.baselines.coupled_kernel import answer_similarity
        from mop.search.baselines.latent_search import suggest

        # Where nothing usable was written, nothing is answered: worst score, like no instruction but its own kind.
        nothing = ["(nothing usable)"] * len(self.seen)
        answers = [nothing if number is None else self.answers[number] for number in self.chosen]
        scores = [0.0 if number is None else float(np.mean(self.rows[number])) for number in self.chosen]
        similarity = answer_similarity(answers)
        seed = self.session.problem.seed
        return await asyncio.to_thread(suggest, self.latents, np.asarray(scores), similarity, count, seed)

    async def _try(self, latents: NDArray[np.float64]) -> None:
        """Have an instruction written for each latent and score those that are new, until there are enough."""
        known = {one.prompt.instruction.casefold(): number for number, one in enumerate(self.contenders)}
        for latent in latents:
            if len(self.rows) == self.wanted:
                return
            soft = SoftPrompt(tuple(map(float, latent)), TOKENS, self.session.problem.seed)
            reply = await self.box.answer(soft, self.question, OPENING, MAX_TOKENS)
            text = None if reply.finish_reason == "length" else _imperative(reply.text)
            number = None if text is None else known.get(text.casefold())
            if text is not None and number is None and not self._affords(text):
                # What is left is for the final.
                self.wanted = len(self.rows)
                return
            if text is not None and number is None:
                if not await self._contender(text, "white box"):
                    self.wanted = len(self.rows)
                    return
                number = known[text.casefold()] = len(self.rows) - 1
            self.latents = np.vstack([self.latents, latent])
            self.chosen.append(number)

    def _affords(self, instruction: str) -> bool:
        """Return whether the caps have room for one more instruction and for the final."""
        allowance = self.session.allowance
        if allowance is None or not allowance.by_size or not self.rows:
            return True
        trials = self._trials(Prompt(instruction, self.demos), self.seen)
        # One instruction alone needs no final.
        kept = self.kept if len(self.rows) > 1 else 0.0
        return allowance.fits(trials) and allowance.cost(trials) <= allowance.spare(trials) - kept

    def _trials(self, prompt: Prompt, places: NDArray[np.intp]) -> list[Trial]:
        return [(prompt, self.session.problem.validation[int(place)]) for place in places]

    async def _contender(self, instruction: str, author: str) -> bool:
        """Judge an instruction, and return whether the caps allowed it; raises BudgetExceeded if they allow none."""
        contender = Contender(Prompt(instruction, self.demos), author, instruction)
        trials = self._trials(contender.prompt, self.seen)
        try:
            row = await self.session.trials.score(trials)
        except BudgetExceeded:
            row = [score for score in self.session.trials.known(trials) if math.isfinite(score)]
            if self.rows:
                return False
            if not row:
                raise
            # All instructions are judged on the same examples, so on those that this one got.
            self.seen, trials = self.seen[: len(row)], trials[: len(row)]
        self.rows.append(row)
        self.answers.append(await self.session.trials.answers(trials))
        self.contenders.append(contender)
        self.session.listener.best(max(float(np.mean(row)) for row in self.rows))
        return True

    async def _decide(self) -> RaceResult:
        """Let the best few meet on more examples, with the calls that are left."""
        validation = self.session.problem.validation
        scores = np.full((len(self.rows), len(validation)), np.nan)
        scores[:, self.seen] = self.rows
        ranking = sorted(range(len(self.rows)), key=lambda one: (-float(np.mean(self.rows[one])), one))
        allowance = self.session.allowance if by_size(self.session) else None
        left: float = self.session.plan.calls - len(self.rows) * len(self.seen)
        if allowance is not None:
            best = self._trials(self.contenders[ranking[0]].prompt, self.order)
            left = allowance.worth(max(0.0, allowance.spare(best)), best)
        few = ranking[: _finalists(len(ranking), len(self.seen), left)]
        if len(few) > 1:
            self.session.listener.stage("racing single prompts")
            arms = [Arm.single(self.contenders[one].name, self.contenders[one].prompt, len(validation)) for one in few]
            # What they have seen already is in the account of the race, but isn't asked again.
            calls = left + len(few) * len(self.seen)
            if allowance is not None:
                known = [trial for one in few for trial in self._trials(self.contenders[one].prompt, self.seen)]
                ahead = [trial for one in few for trial in self._trials(self.contenders[one].prompt, self.order)]
                calls = max(0.0, allowance.spare(ahead)) + allowance.cost(known)
            final = await race(arms, validation, self.order, self.session.trials, calls=calls, allowance=allowance)
            scores[few] = np.where(np.isnan(final.scores), scores[few], final.scores)
            ranking = [few[arm] for arm in final.ranking] + ranking[len(few) :]
            self.session.listener.best(float(np.nanmean(scores[ranking[0]])))
        return RaceResult(scores, tuple(ranking))


def _finalists(candidates: int, seen: int, left: float) -> int:
    """Return how many of the best race: four if each of them gets new examples in the first rung, else two."""
    return min(candidates, 4 if left >= 4 * seen else 2)
