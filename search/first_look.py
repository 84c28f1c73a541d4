"""First look: is a mixture so far behind the best single prompt that the rest of a budget is better spent on prompts?

On tasks without regions a mixture's experts are prompts like others, chosen among none; what judging them takes is then
lacking for trying sets of demos (benchmarks/LOG.md, "The grid").
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mop.search.judging import Judging
from mop.search.race import Arm
from mop.stats import lower_bound

#: Examples of a first look at most.
LOOK = 20
#: Fewer examples prove nothing.
FEWEST = 8
#: One-sided confidence that a mixture is behind, with which it is given up.
CONFIDENCE = 0.8


@dataclass(frozen=True)
class FirstLook:
    """Paired scores of the best single prompt and of a mixture, on a few validation examples."""

    single: NDArray[np.float64]
    mixture: NDArray[np.float64]

    @property
    def hopeless(self) -> bool:
        """Whether the mixture is behind with confidence."""
        return len(self.single) >= FEWEST and lower_bound(self.single - self.mixture, CONFIDENCE) > 0

    def report(self, name: str) -> dict[str, object]:
        """Return what was seen of the mixture, as plain data."""
        score, single = float(self.mixture.mean()), float(self.single.mean())
        return {"name": name, "examples": len(self.mixture), "score": score, "single": single, "given_up": True}


async def first_look(judging: Judging, single: Arm, mixture: Arm) -> FirstLook:
    """Ask both on the first validation examples that ``single`` has not answered yet, in the order of races.

    On those that it has answered it was chosen as the best of many, so that any mixture would look worse there than it
    is. What is asked here is known when both are judged, or when the prompt races others.
    """
    known = judging.known(single)
    fresh = [int(i) for i in judging.order if not np.isfinite(known[i])][:LOOK]
    scores = await judging.score([(arm.prompts[i], i) for arm in (single, mixture) for i in fresh])
    return FirstLook(np.array(scores[: len(fresh)]), np.array(scores[len(fresh) :]))
