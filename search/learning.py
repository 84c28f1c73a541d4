"""What a search method gets and gives: the contract between methods and everything around them.

A method is a coroutine function from a `Session` to a `Learned`. It asks the model only through the session, whose
client keeps the ledger and the budget.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mop.embeddings.encoders import Encoder, Vectors
from mop.limits import Limits
from mop.lm.client import ModelClient
from mop.lm.white_box import WhiteBox
from mop.mixture import Expert
from mop.own_personas import OwnPersona
from mop.prompts import Prompt
from mop.retrieval import Retrieval
from mop.search.ablations import Ablations
from mop.search.allowance import Allowance
from mop.search.plan import Plan
from mop.search.problem import Problem
from mop.search.trials import Trials
from mop.seeds import stream


class Listener(Protocol):
    """Hears how a search goes on, for progress displays."""

    def stage(self, name: str) -> None:
        """A stage begins."""

    def best(self, score: float) -> None:
        """The best validation score so far."""


class Silence:
    """The listener that nobody looks at."""

    def stage(self, name: str) -> None:
        """Ignore the stage."""

    def best(self, score: float) -> None:
        """Ignore the score."""


@dataclass(frozen=True)
class Session:
    """Everything that a method works with.

    ``proposer`` is the client of the model that writes instructions; ``trials`` executes prompts. ``token_budget`` and
    ``max_demos`` bound the demos of one prompt, single or expert. ``refit``: choose the final demos from training
    and validation examples together. ``retrieved``: most demos that an expert's prompt may retrieve for a query.
    ``experts`` and ``proposals`` are the numbers that the user fixed, if any. ``coverage``, ``soft`` and
    ``border_share`` are about routes where regions end (`mop.search.borders`), 0 for off. ``ablations`` are the parts
    of the method that are exchanged for a comparison. ``personas``: try personas region by region; ``encoder`` is
    there if so, and measures identities; ``own_personas`` are tried beside the others. ``white_box`` is there for the
    methods that heed the setting of this name.
    """

    problem: Problem
    plan: Plan
    trials: Trials
    proposer: ModelClient
    max_demos: int = 20
    token_budget: int = 600
    confidence: float = 0.8
    refit: bool = False
    retrieved: int = 1
    experts: int | None = None
    proposals: int | None = None
    coverage: float = 0.99
    soft: float = 0.2
    border_share: float = 0.05
    personas: bool = False
    own_personas: Sequence[OwnPersona] = ()
    encoder: Encoder | None = None
    white_box: WhiteBox | None = None
    allowance: Allowance | None = None
    listener: Listener = field(default_factory=Silence)
    ablations: Ablations = field(default_factory=Ablations)

    @cached_property
    def order(self) -> NDArray[np.intp]:
        """Positions of the validation examples in the order in which every method and race sees them.

        Where tokens or money are capped, those that are too long for the cap take no part.
        """
        problem = self.problem
        order = stream(problem.seed, "validation order").permutation(len(problem.validation)).astype(np.intp)
        if self.allowance is None:
            return order
        bare = [(Prompt(""), example) for example in problem.validation]
        fits = np.array([self.allowance.fits([trial]) for trial in bare], dtype=np.bool_)
        return order[fits[order]] if fits.any() else order

    def say_best(self, score: float | None) -> None:
        """Tell the listener the best score so far; nothing is said where nothing was scored."""
        if score is not None and not math.isnan(score):
            self.listener.best(score)


@dataclass(frozen=True)
class Learned:
    """What a method found: the parts of a mixture that do not depend on encoder, model or files.

    ``zero_shot`` is the best prompt without demos that the search saw; ``report`` plain numbers for people.
    """

    experts: Sequence[Expert]
    generalist: Prompt
    zero_shot: Prompt
    centroids: Vectors
    projection: Vectors | None
    report: Mapping[str, Any]
    retrieval: Retrieval | None = None
    limits: Limits | None = None
