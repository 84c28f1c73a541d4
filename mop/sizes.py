"""Sizes: how many tokens the prompts have that a search tries, and their answers. Knows the stages, not the model."""

from __future__ import annotations

import re
from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING, NamedTuple

from mop.prompts import TOKENS_PER_MESSAGE, Demo, estimate_tokens

if TYPE_CHECKING:
    from mop.examples import Splits
    from mop.search.plan import Plan
    from mop.settings import Settings

#: Tokens of an instruction that a model wrote: real ones took 15 to 25.
INSTRUCTION = 20
#: Tokens of a chat template around the whole conversation.
FRAME = 3
#: Tokens by which an answer without demos is longer than the known ones, if it has room: models explain themselves.
TALK = 12
#: What is about one token: a word of up to seven letters with what joins it to the one before, a digit, a sign.
_PIECE = re.compile(r"_?[A-Za-z]{1,7}|\d|[^\x00-\x7f]{1,2}|[^\w\s]|_")


def count_tokens(text: str) -> int:
    """Return about as many tokens as a model counts in ``text``.

    `mop.prompts.estimate_tokens`, by which prompts are bounded, is on the safe side: a fifth above it in plain English.
    """
    return len(_PIECE.findall(text))


class Size(NamedTuple):
    """Tokens of a prompt and of its answer."""

    prompt: float
    completion: float


def mean_size(parts: Sequence[tuple[float, Size]]) -> Size:
    """Return the mean of sizes, each with its weight."""
    whole = sum(weight for weight, _ in parts) or 1.0
    return Size(*(sum(weight * size[place] for weight, size in parts) / whole for place in (0, 1)))


class Sizes:
    """Mean estimated tokens of the prompts that a search tries, and of their answers."""

    def __init__(self, settings: Settings, splits: Splits) -> None:
        from mop.search.demos import closed_answers
        from mop.search.layouts import FEW_ANSWERS

        examples = splits.train
        self._demo = fmean(
            count_tokens(one.input) + count_tokens(one.output) + 2 * TOKENS_PER_MESSAGE for one in examples
        )
        # What a demo counts against the limit on a prompt's demos.
        self._bounded = fmean(Demo.of(one).tokens for one in examples)
        self._fit = settings.prompt_tokens
        self._instructed = settings.instruction is not None
        self._train = len(examples)
        self.most = settings.max_demos
        self._answers = closed_answers(examples)
        self._projected = len(self._answers) > FEW_ANSWERS
        self._answer = fmean(count_tokens(one.output) for one in examples) + 1
        longest = max(estimate_tokens(one.output) for one in (*examples, *splits.validation))
        room = settings.answer_tokens or max(16, longest * 3 // 2 + 4)
        instruction = count_tokens(settings.instruction) if settings.instruction else INSTRUCTION
        query = fmean(count_tokens(one.input) for one in examples)
        #: A prompt without demos, and one that lists the answers.
        self.plain = Size(
            instruction + query + 2 * TOKENS_PER_MESSAGE + FRAME,
            min((self._answer + room) / 2, self._answer + TALK),
        )
        self._list = count_tokens(f"Answer with one of: {', '.join(self._answers)}.") if self._answers else 0
        self.listed = Size(self.plain.prompt + self._list, self._answer if self._answers else self.plain.completion)

    def with_demos(self, count: float, *, listed: bool = False, budgets: int = 1, more: float = 0.0) -> Size:
        """Return the size with ``count`` demos, in ``budgets`` times their limit, and ``more`` after them."""
        shown = min(count, budgets * self._fit / self._bounded) + more
        base = self.listed if listed else self.plain
        return Size(base.prompt + shown * self._demo, self._answer if shown else base.completion)

    def published(self) -> Size:
        """Return the size with as many demos as the published prompts show."""
        return self.with_demos(min(self.most, max(1, self._train // 10)))

    def searched(self, plan: Plan, retrieved: int) -> Size:
        """Return the mean over a search for a mixture or, with one expert, for a single prompt."""
        from mop.search.race import schedule

        kinds = self._singles(plan)
        shown = [number for number in kinds if number] or [0.0]
        # Without demos a prompt seldom wins.
        winner = fmean(shown)
        raced, seen = schedule(plan.single_arms, plan.validation, plan.single_calls)
        single = (
            fmean([self._single(number).prompt for number in kinds]),
            fmean([self._single(number).completion for number in kinds]),
        )
        parts = [(float(raced), Size(*single)), (float(plan.validation - seen), self._single(winner))]
        if not plan.layout_arms:
            return mean_size([parts[0], (float(plan.reachable - plan.proposals - raced), self._single(winner))])
        left = max(0, plan.reachable - plan.proposals - raced - (plan.validation - seen))
        layouts = self._layouts(plan, winner, retrieved)
        return mean_size([*parts, (float(left), mean_size([(1.0, one) for one in layouts]))])

    def _singles(self, plan: Plan) -> list[float]:
        """Return the numbers of demos of the single prompts that race (`mop.search.singles`)."""
        from mop.search.singles import kinds_raced

        labels, shown = len(self._answers), min(self.most, self._fit / self._bounded)
        # Where an expert's demos show every label there is no wide prompt.
        wide = labels > shown
        raced = kinds_raced(
            plan.proposals,
            plan.single_arms,
            described=self._instructed,
            closed=labels > 0,
            wide=wide,
            demos=self.most > 0,
            halved=shown >= 2,
        )
        numbers = {
            "no": 0.0,
            "few": shown / 2,
            "wide": self._wide(labels) if wide else 0.0,
        }
        return [numbers.get(kind, float(self.most)) for _, kind in raced]

    def _wide(self, labels: int) -> float:
        # In units of demos that fit the limit once, so that `with_demos` doesn't cut what may take four times as much.
        from mop.search.singles import WIDE_FACTOR

        return min(labels, WIDE_FACTOR * self._fit / self._bounded)

    def _single(self, demos: float) -> Size:
        from mop.search.singles import WIDE_FACTOR

        limit = self._fit / self._bounded
        return self.with_demos(demos, listed=True, budgets=WIDE_FACTOR if demos > limit and self._answers else 1)

    def _layouts(self, plan: Plan, head: float, retrieved: int) -> list[Size]:
        """Return the sizes of the experts of the layouts that race (`mop.search.layouts`)."""
        sizes = []
        for place, regions in enumerate(plan.region_counts):
            own = min(self.most, self._train / regions, self._fit / self._bounded)
            alone = self._expert(own, own + retrieved)
            stacked = self.with_demos(min(head, self._fit / self._bounded), listed=True, more=own + retrieved)
            first = [alone] if self._projected else [stacked]
            if retrieved and not place:
                first.append(self.with_demos(min(head, self._fit / self._bounded), listed=True, more=retrieved))
            sizes += [*first, *([alone] if retrieved else []), *([stacked] if self._projected else []), alone]
        return sizes[: plan.layout_arms]

    def _expert(self, own: float, shown: float) -> Size:
        """Return the size of an expert that lists the answers which its own demos show."""
        listed = self._list * min(1.0, own / max(1, len(self._answers)))
        return Size(self.plain.prompt + listed + shown * self._demo, self._answer)
