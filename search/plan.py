"""Plan: one dial, the budget in model calls, sets everything else. Knows nothing of data but its size.

>>> Plan.of(600, train=450, validation=200).validation
177
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from mop.errors import BudgetExceeded
from mop.search.race import schedule

#: Fewer calls than this cannot compare even two prompts on a handful of examples.
MIN_CALLS = 20
#: A region is given this many training examples on average at the largest number of regions that is tried.
EXAMPLES_PER_REGION = 12
MAX_REGIONS = 64
#: A race of single prompts has one arm for this many calls: the more sets of demos are tried, the better the best one
#: is, and halving soon leaves the worse ones behind (benchmarks/LOG.md, "The grid").
CALLS_PER_ARM = 6
MOST_ARMS = 16
#: The model is asked for up to `FEW_PROPOSALS` instructions, one for 30 calls; then for one for 60 calls, up to
#: `MOST_PROPOSALS`, or half as many where no mixture is tried: only one race has use for them there.
CALLS_PER_EARLY_PROPOSAL = 30
CALLS_PER_PROPOSAL = 60
FEW_PROPOSALS = 6
MOST_PROPOSALS = 16
#: One layout is raced for this many calls.
CALLS_PER_LAYOUT = 180
#: Most new arms of a race in which the best instructions meet the best demos.
CROSSED_ARMS = 7
#: Share of the calls that the race of single prompts leaves, what it saw of the winner included, that judging the
#: winner or the only layout may take.
JUDGED_SHARE = 0.48
#: Most such races, one after the other: with few validation examples, one doesn't use up the calls.
CROSSINGS = 3
#: How often each hard region gets instructions of its own, from other failures and examples each time, while there are
#: calls left.
TURNS = 3


@dataclass(frozen=True)
class Plan:
    """How many calls each stage of the search may use.

    ``proposals``: model-written instructions. ``single_arms`` / ``single_calls``: single prompts raced, and the calls
    of that race. ``crossing_calls``: further races, of the best instructions with the best demos, where no mixture is
    tried; where one is given up they get what is left. ``region_counts``: numbers of experts tried, best guess first.
    ``layout_arms`` / ``layout_calls``: mixtures raced; a single one is only judged. ``validation``:
    validation examples on which the final generalist and the final mixture are compared. What is left goes to the
    region-based choice of instructions. ``kept``: calls that no stage before the trial of personas may use.
    """

    calls: int
    proposals: int
    single_arms: int
    single_calls: int
    crossing_calls: int
    region_counts: tuple[int, ...]
    layout_arms: int
    layout_calls: int
    validation: int
    kept: int = 0

    @property
    def judging_calls(self) -> int:
        """Calls to judge the best single prompt and the best layout, where there are layouts."""
        if not self.layout_arms:
            return 0
        # A plan with one layout counts on what the race of single prompts saw of its winner.
        seen = schedule(self.single_arms, self.validation, self.single_calls)[1] if self.layout_arms == 1 else 0
        return 2 * self.validation - seen

    @property
    def reachable(self) -> int:
        """Calls that the stages are expected to find use for: with few validation examples, races end before they do.

        Arms that leave a race early and regions without failures need fewer.
        """
        calls = self.proposals
        for arms, most in [(self.single_arms, self.single_calls), (self.layout_arms, self.layout_calls)]:
            if arms:
                taken, seen = schedule(arms, self.validation, most)
                calls += taken + self.validation - seen
        if self.crossing_calls:
            for _ in range(CROSSINGS):
                fresh, _ = self.crossed_race(self.calls - calls - self.validation // 4)
                calls += min(self.calls - calls, fresh * self.validation)
        if self.layout_arms:
            # Every shared instruction everywhere, then two a turn for each region, judged on half its examples.
            written = 2 * max(self.region_counts) + self.validation
            calls += self.proposals * self.validation + TURNS * written
        return min(self.calls, calls + self.kept)

    @classmethod
    def of(
        cls,
        calls: int,
        *,
        train: int,
        validation: int,
        experts: int | None = None,
        proposals: int | None = None,
        keep: float = 0.0,
    ) -> Plan:
        """Divide ``calls`` for ``train`` demo examples and ``validation`` examples.

        ``experts`` fixes the number of experts, as far as each gets three training examples; 1 spends everything on the
        best single prompt. ``proposals`` may take a third of the calls at most. ``keep`` is the share of the calls that
        is kept for personas, where there are regions. Raises BudgetExceeded below 20 calls.
        """
        if calls < MIN_CALLS:
            raise BudgetExceeded(
                f"A budget of {calls} model calls is too small to compare prompts; give at least {MIN_CALLS}."
            )
        counts = region_counts(train, validation, calls) if experts is None else (max(1, min(experts, train // 3)),)
        most = MOST_PROPOSALS // 2 if counts == (1,) else MOST_PROPOSALS
        proposals = min(most, _proposals(calls)) if proposals is None else min(proposals, calls // 3)
        kept = 0 if counts == (1,) else int(keep * calls)
        left = calls - proposals - kept
        layouts = max(1, min(8, left // CALLS_PER_LAYOUT))
        if counts == (1,):
            first = left // 2
            arms = max(3, min(MOST_ARMS, first // CALLS_PER_ARM))
            judged = min(validation, left // 4)
            return cls(calls, proposals, arms, first, left - first, (1,), 0, 0, judged)
        if layouts == 1:
            single_calls = left * 48 // 100
            arms = max(3, min(MOST_ARMS, single_calls // CALLS_PER_ARM))
            taken, seen = schedule(arms, validation, single_calls)
            judged = min(validation, int(JUDGED_SHARE * (left - taken + seen)))
            layout_calls = judged
        else:
            # More than half of the budget is for two full looks at the judged examples, the generalist's and the
            # mixture's; what the races saw of them already is saved.
            single_calls = left * 25 // 100
            arms = max(3, min(MOST_ARMS, single_calls // CALLS_PER_ARM))
            judged = min(validation, left * 30 // 100)
            layout_calls = left * 30 // 100
        return cls(
            calls=calls,
            proposals=proposals,
            single_arms=arms,
            single_calls=single_calls,
            crossing_calls=0,
            region_counts=counts,
            layout_arms=layouts,
            layout_calls=layout_calls,
            validation=judged,
            kept=kept,
        )

    def crossed_race(self, calls: float) -> tuple[int, float]:
        """Return how many new arms race the best prompt in ``calls`` calls, and what the best prompt's part counts as.

        The best prompt's answers of the first rung are known: they take no call, but the race counts them.
        """
        fresh = min(CROSSED_ARMS, int(calls) // CALLS_PER_ARM)
        if fresh < 1:
            return 0, 0.0
        rungs = math.ceil(math.log2(fresh + 1))
        return fresh, calls / (rungs * (fresh + 1) - 1)


def _proposals(calls: int) -> int:
    return max(min(FEW_PROPOSALS, calls // CALLS_PER_EARLY_PROPOSAL), calls // CALLS_PER_PROPOSAL)


def region_counts(train: int, validation: int, calls: int) -> tuple[int, ...]:
    """Return the numbers of regions worth trying, best guess first; ``(1,)`` if there are too few examples to split.

    The largest number comes first, then a quarter of it, then those between and below.
    """
    largest = min(MAX_REGIONS, train // EXAMPLES_PER_REGION, validation // 3, max(2, calls // 10))
    halves: list[int] = []
    while largest >= 2:
        halves.append(largest)
        largest //= 2
    return (*halves[:1], *halves[2:3], *halves[1:2], *halves[3:]) or (1,)
