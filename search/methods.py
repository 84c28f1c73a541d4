"""Methods: every way to learn a prompt or a mixture, by name. Knows nothing of how they work.

A method is a coroutine function from a `Session` to a `Learned`. To add one: write it, add an entry to `METHODS`.

>>> "ape-kcentroids" in METHODS
True
"""

from __future__ import annotations

import difflib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, cast

from mop.errors import SettingsError

if TYPE_CHECKING:
    from mop.search.learning import Learned, Session

Learner = Callable[["Session"], Awaitable["Learned"]]

DEFAULT_METHOD = "mop"


@dataclass(frozen=True)
class Method:
    """A way to learn: what it is in a sentence, where its coroutine function is, and the search settings it heeds.

    ``parts`` are the parts of it that can be exchanged (`mop.search.ablations`), each with what it has itself; None
    where that is none of the choices. ``asks``: it asks a model at all.
    """

    summary: str
    home: str
    heeds: frozenset[str] = frozenset()
    parts: Mapping[str, str | None] = field(default_factory=dict)
    asks: bool = True

    def load(self) -> Learner:
        """Return the coroutine function; its module is imported now and not before."""
        module, _, function = self.home.partition(":")
        return cast(Learner, getattr(import_module(module), function))


#: Settings of `mop.settings.Settings` that not every method can follow.
PARTICULAR = (
    "experts",
    "proposals",
    "retrieved",
    "confidence",
    "refit",
    "coverage",
    "soft",
    "border_share",
    "personas",
    "persona",
    "white_box",
)

_PROPOSES = frozenset({"proposals"})
_WHITE_BOX = frozenset({"white_box"})
_BASELINES = "mop.search.baselines"
#: What ``mop`` has: its proposer sees both what an expert doesn't show and what went wrong.
_MOP = {"assignment": "kmeans", "counting": "held-out", "view": None, "selection": "joint-region"}
_PAPER = {"assignment": "kmeans", "counting": "scaled-inertia", "view": "complement", "selection": "joint-region"}

METHODS: Mapping[str, Method] = {
    "mop": Method(
        "region-based joint search, shipped only where it beats the best single prompt",
        "mop.search.mixture_search:learn",
        frozenset(PARTICULAR) - _WHITE_BOX,
        _MOP,
    ),
    "mop-fixed": Method(
        "mop without retrieval: no prompt depends on the query but by its region",
        f"{_BASELINES}.knn:mop_fixed",
        frozenset(PARTICULAR) - {"retrieved", "soft"} - _WHITE_BOX,
        _MOP,
    ),
    "knn": Method(
        "the 15 nearest labelled examples of each query as its demos; no search", f"{_BASELINES}.knn:knn", asks=False
    ),
    "zero-shot": Method("the best instruction, without demos", f"{_BASELINES}.zero_shot:zero_shot", _PROPOSES),
    "random-demos": Method(
        "the best of several random few-shot prompts", f"{_BASELINES}.random_demos:best_random_demos"
    ),
    "ape": Method("APE: the best of the model's instructions, without demos", f"{_BASELINES}.ape:ape", _PROPOSES),
    "ape-random": Method("APE, random demos attached after selection", f"{_BASELINES}.ape:ape_random", _PROPOSES),
    "ape-random-fair": Method(
        "APE, random demos in place during selection", f"{_BASELINES}.ape:ape_random_fair", _PROPOSES
    ),
    "ape-kcentroids": Method(
        "APE, the demos nearest to K centroids attached after selection",
        f"{_BASELINES}.ape:ape_kcentroids",
        _PROPOSES,
    ),
    "ape-kcentroids-fair": Method(
        "APE, the demos nearest to K centroids in place during selection",
        f"{_BASELINES}.ape:ape_kcentroids_fair",
        _PROPOSES,
    ),
    "instructzero": Method(
        "InstructZero: the best instruction of a small local model under optimized soft prompts, without demos",
        f"{_BASELINES}.instructzero:instructzero",
        _PROPOSES | _WHITE_BOX,
    ),
    "instructzero-random": Method(
        "InstructZero, random demos attached after selection",
        f"{_BASELINES}.instructzero:instructzero_random",
        _PROPOSES | _WHITE_BOX,
    ),
    "instructzero-random-fair": Method(
        "InstructZero, random demos in place during selection",
        f"{_BASELINES}.instructzero:instructzero_random_fair",
        _PROPOSES | _WHITE_BOX,
    ),
    "instructzero-kcentroids": Method(
        "InstructZero, the demos nearest to K centroids attached after selection",
        f"{_BASELINES}.instructzero:instructzero_kcentroids",
        _PROPOSES | _WHITE_BOX,
    ),
    "instructzero-kcentroids-fair": Method(
        "InstructZero, the demos nearest to K centroids in place during selection",
        f"{_BASELINES}.instructzero:instructzero_kcentroids_fair",
        _PROPOSES | _WHITE_BOX,
    ),
    "mop-paper": Method(
        "Mixture-of-Prompts as published (demos as chat turns; same examples for all candidates; the budget is shared)",
        f"{_BASELINES}.mop_paper:mop_paper",
        frozenset({"experts", "proposals"}),
        _PAPER,
    ),
    "mop-paper-block": Method(
        "mop-paper with everything in one block of text",
        f"{_BASELINES}.mop_paper:mop_paper_block",
        frozenset({"experts", "proposals"}),
        _PAPER,
    ),
    "mop-paper-chance": Method(
        "mop-paper with fewer experts on small data: the penalty per cluster covers what chance explains",
        f"{_BASELINES}.mop_paper:mop_paper_chance",
        frozenset({"experts", "proposals"}),
        _PAPER,
    ),
}


def get_method(name: str) -> Method:
    """Return the method called ``name``; raises SettingsError if there is none."""
    try:
        return METHODS[name]
    except KeyError:
        close = difflib.get_close_matches(name.lower().replace("_", "-"), METHODS, n=1)
        hint = f" Did you mean {close[0]}?" if close else ""
        raise SettingsError(f"There is no method {name!r}.{hint} Methods: {', '.join(METHODS)}.") from None
