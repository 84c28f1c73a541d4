"""Persona gate: a region's expert is told to be somebody only where that is proven to help; else it stays bare.

Expert personas help with style and hurt with recall and reasoning (arXiv 2603.18507), so each region is asked by
itself. Every guise (`mop.search.guises`), with the region's demos and without, answers the same validation examples as
the bare prompt. A persona is used where its paired gain over the best of the bare prompts, shrunk toward its gain over
all regions, has a positive lower bound; several are tried, so each bound is wider for that (Bonferroni). A persona
that the user gives counts like any other: the more are tried, the more each has to show. The region's own examples must
prove the gain as well, by how far they differ among themselves: in a region of requests of several kinds a persona may
help some and harm others, which the variance within all regions together, that shrinkage goes by, hides.

The user's own persona is tried under the search's first instruction as well where it isn't behind already; where calls
are few, in the regions where it gained most. What that instruction gains bare counts as bare.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mop.persona import Persona
from mop.prompts import Prompt
from mop.search.capped import unless_capped
from mop.search.experts import Layout
from mop.search.guises import BARE, UNDER, Guise, Wardrobe, own_label, write_guises
from mop.search.judging import Cell, Judging
from mop.search.proposers import Candidate
from mop.stats import Shrunk, lower_bound, shrink

Scores = NDArray[np.float64]
#: What is tried: the label of a guise, which is its kind or names the user's own, and whether the region's demos are
#: shown.
Form = tuple[str, bool]
PLAIN: Form = ("bare", True)
STRIPPED: Form = ("bare", False)
FIRST: Form = (f"bare{UNDER}", True)
_BARE = (PLAIN, STRIPPED, FIRST)
#: Order of trying: what helps most often first, for the calls may end. A persona without demos needs `STRIPPED`.
FORMS: tuple[Form, ...] = (
    ("expert", True),
    ("generic", True),
    ("role-play", True),
    STRIPPED,
    ("expert", False),
    ("generic", False),
    ("role-play", False),
)
_KINDS = {label for label, _ in FORMS}
#: One-sided confidence that any of the personas tried must reach, all together.
CONFIDENCE = 0.9
#: A region with fewer validation examples proves nothing.
FEWEST = 5
#: One-sided confidence that a persona is behind in a region, with which it isn't tried there in another way.
BEHIND = 0.8


@dataclass(frozen=True)
class Tried:
    """What a form gained over bare in a region: the mean of its paired differences, and that after shrinkage.

    ``own_low`` is the lower bound of the mean by the region's examples alone.
    """

    form: Form
    examples: int
    mean: float
    shrunk: Shrunk
    own_low: float

    @property
    def low(self) -> float:
        """Lower bound of the gain, above zero only if both are; where the shrunk one isn't, that says why."""
        return min(self.shrunk.low, self.own_low) if self.shrunk.low > 0 else self.shrunk.low


@dataclass(frozen=True)
class Pick:
    """The form that a region uses, and all personas that were tried there on enough examples."""

    form: Form
    tried: tuple[Tried, ...]

    @property
    def best(self) -> Tried | None:
        """The persona in use, or else the one that gained most."""
        own = [one for one in self.tried if one.form == self.form]
        return own[0] if own else max(self.tried, key=lambda one: one.shrunk.mean, default=None)


@dataclass(frozen=True)
class Chosen:
    """What a region's expert is told: an instruction, a guise, and the record of both; None where none was tried."""

    candidate: Candidate
    guise: Guise = BARE
    persona: Persona | None = None

    def prompt(self, layout: Layout, region: int) -> Prompt:
        """Return the region's prompt in a layout."""
        return self.guise.wear(layout.prompt(region, self.candidate.instruction))


def in_order(own: Iterable[str]) -> tuple[Form, ...]:
    """Return all forms in the order of trying: the user's ``own`` personas (names) before those of `FORMS`."""
    names = list(own)
    bare = FORMS.index(STRIPPED) + 1
    shown, hidden = ([(own_label(name), demos) for name in names] for demos in (True, False))
    first = [FIRST, *((own_label(name) + UNDER, True) for name in names)] if names else []
    return (*shown, *first, *FORMS[:bare], *hidden, *FORMS[bare:])


def pick_personas(rows: Mapping[Form, Scores], regions: NDArray[np.intp], count: int) -> list[Pick]:
    """Choose the form of each region.

    Args:
        rows: Scores by form, one for each validation example, NaN where not judged; `PLAIN` is there.
        regions: The region of each validation example.
        count: Number of regions.
    """
    plain = rows[PLAIN]
    forms = [PLAIN] * count
    better = plain.copy()
    others = [form for form in _BARE if form in rows and form != PLAIN]
    for form in others:
        other = rows[form]
        for region, gain in enumerate(_shrunk(other - plain, regions, count, len(others))):
            here = (regions == region) & np.isfinite(other) & np.isfinite(plain)
            # A persona is compared with the bare prompt that did best here, whether that is proven or not.
            if here.any() and other[here].mean() > better[here].mean():
                better[regions == region] = other[regions == region]
                if here.sum() >= FEWEST and gain.low > 0:
                    forms[region] = form
    # The user's own come first, in the order in which they were tried.
    personas = [form for form in rows if form[0] not in _KINDS and form not in _BARE]
    personas += [form for form in FORMS if form in rows and form not in _BARE]
    tried: list[list[Tried]] = [[] for _ in range(count)]
    for form in personas:
        differences = rows[form] - better
        for region, gain in enumerate(_shrunk(differences, regions, count, len(personas))):
            inside = differences[(regions == region) & np.isfinite(differences)]
            if len(inside) >= FEWEST:
                alone = lower_bound(inside, 1 - (1 - CONFIDENCE) / len(personas))
                tried[region].append(Tried(form, len(inside), float(inside.mean()), gain, alone))
    picks = []
    for form, here in zip(forms, tried, strict=True):
        proven = [one for one in here if one.low > 0]
        best = max(proven, key=lambda one: one.shrunk.mean, default=None)
        picks.append(Pick(best.form if best else form, tuple(here)))
    return picks


def _shrunk(differences: Scores, regions: NDArray[np.intp], count: int, arms: int) -> list[Shrunk]:
    """Return the gains of all regions with bounds that hold for ``arms`` arms at once; none if nothing was judged."""
    groups = [differences[(regions == region) & np.isfinite(differences)] for region in range(count)]
    if not any(len(group) for group in groups):
        return []
    return shrink(groups, level=1 - 2 * (1 - CONFIDENCE) / arms)


class PersonaGate:
    """Tries the guises of a layout's experts and chooses one for each region.

    Args:
        judging: Asks the models and keeps the account of calls.
        layout: The regions and their demos.
        chosen: The instruction of each region.
        scores: Of the bare experts, one for each validation example; NaN where not judged.
    """

    def __init__(self, judging: Judging, layout: Layout, chosen: Sequence[Candidate], scores: Scores) -> None:
        self._judging, self._layout, self._chosen = judging, layout, chosen
        vectors = judging.problem.validation_vectors
        self._regions = layout.assign(vectors)
        self._retrieved = layout.retrieved(vectors)
        self._bare = [layout.prompt(region, one.instruction) for region, one in enumerate(chosen)]
        self._rows: dict[Form, Scores] = {PLAIN: scores}
        self._own = [one.name for one in judging.session.own_personas]

    async def choose(self) -> tuple[list[Chosen], Scores, dict[str, object]]:
        """Return what each region's expert is told, the scores of all experts, and what was tried as plain data."""
        instructions = [one.instruction for one in self._chosen]
        wardrobes = await write_guises(self._judging, self._layout, instructions)
        missing = []
        for form in in_order(self._own):
            cells = self._cells(form, wardrobes)
            if not cells or (not form[1] and form != STRIPPED and STRIPPED not in self._rows):
                continue
            if form == FIRST:
                cells = self._affordable(cells)
            if not cells or not self._judging.affords(cells):
                missing.append(self._name(form))
                continue
            row = np.full(len(self._regions), np.nan)
            scored = await unless_capped(self._judging.score(cells), None)
            if scored is None:
                missing.append(self._name(form))
                continue
            row[[i for _, i in cells]] = scored
            self._rows[form] = row
        picks = pick_personas(self._rows, self._regions, len(self._chosen))
        scores = self._rows[PLAIN].copy()
        chosen = []
        for region, (candidate, pick) in enumerate(zip(self._chosen, picks, strict=True)):
            here = self._regions == region
            scores[here] = self._rows[pick.form][here]
            guise = _guise(pick.form, wardrobes[region])
            if guise.instruction:
                candidate = Candidate(guise.instruction, "given")
            shown = guise.demos and bool(self._bare[region].demos)
            chosen.append(Chosen(candidate, guise, _persona(pick, guise, wardrobes[region], shown)))
        return chosen, scores, self._report(picks, missing)

    def _cells(self, form: Form, wardrobes: Sequence[Wardrobe]) -> list[Cell]:
        """Return what a form is asked: nothing where a region lacks the guise, or has no demos to leave out."""
        cells = []
        for i in map(int, self._judging.order):
            region = int(self._regions[i])
            bare = self._bare[region]
            if (form[0] != "bare" and form[0] not in wardrobes[region]) or not (form[1] or bare.demos):
                continue
            guise = _guise(form, wardrobes[region])
            if guise.instruction:
                told = self._layout.prompt(region, guise.instruction)
                if told == bare or not self._worth_the_first(form, region):
                    continue
                bare = told
            if np.isfinite(self._rows[PLAIN][i]):
                cells.append((guise.wear(bare).retrieving(self._retrieved[i]), i))
        return cells

    def _worth_the_first(self, form: Form, region: int) -> bool:
        """Return whether a form is worth trying under the first instruction: a persona isn't behind under the other.

        A persona has to be compared with that instruction alone.
        """
        if form == FIRST:
            return any(self._level((own_label(name), True), region) for name in self._own)
        return len(self._gains(FIRST, region)) > 0 and self._level((form[0].removesuffix(UNDER), True), region)

    def _level(self, form: Form, region: int) -> bool:
        """Return whether a form was tried in a region and isn't behind there."""
        gains = self._gains(form, region)
        return len(gains) > 0 and lower_bound(-gains, BEHIND) <= 0

    def _gains(self, form: Form, region: int) -> Scores:
        """Return the paired gains of a form over the region's prompt, where it was tried."""
        if form not in self._rows:
            return np.empty(0)
        gains: Scores = (self._rows[form] - self._rows[PLAIN])[self._regions == region]
        return gains[np.isfinite(gains)]

    def _affordable(self, cells: Sequence[Cell]) -> list[Cell]:
        """Return the cells of the regions where the user's personas gained most, as many as there are calls for.

        Each persona takes as many calls again.
        """
        most = {
            region: max(self._gains((own_label(name), True), region).sum() for name in self._own)
            for region in {int(self._regions[i]) for _, i in cells}
        }
        kept = sorted(most, key=lambda region: (-most[region], region))
        while kept:
            part = [one for one in cells if self._regions[one[1]] in kept]
            beside = len(self._own) * self._judging.allowance.cost(self._judging.trials(part))
            if self._judging.affords(part, beside=beside):
                return part
            kept.pop()
        return []

    def _name(self, form: Form, region: int | None = None) -> str:
        # Where an expert, or all, have no demos of their own, there are none to show or to leave out.
        if not any(prompt.demos for prompt in (self._bare if region is None else [self._bare[region]])):
            return form[0]
        return f"{form[0]} {'with' if form[1] else 'without'} demos"

    def _report(self, picks: Sequence[Pick], missing: Sequence[str]) -> dict[str, object]:
        personas = sum(form not in _BARE for form in self._rows)
        own = {"own": [own_label(name) for name in self._own], "bounds_together": personas} if self._own else {}
        return {
            "confidence": CONFIDENCE,
            **own,
            "tried": [self._name(form) for form in self._rows],
            "no_calls_left_for": list(missing),
            "regions": [
                {
                    "used": self._name(pick.form, region),
                    "tried": [
                        {
                            "persona": self._name(one.form, region),
                            "examples": one.examples,
                            "mean": one.mean,
                            "gain": one.shrunk.mean,
                            "gain_low": max(-1.0, one.shrunk.low),
                            "gain_high": min(1.0, one.shrunk.high),
                            "own_low": one.own_low,
                        }
                        for one in pick.tried
                    ],
                }
                for region, pick in enumerate(picks)
            ],
        }


def _guise(form: Form, wardrobe: Wardrobe) -> Guise:
    return replace(BARE if form[0] == "bare" else wardrobe[form[0]], demos=form[1])


def _persona(pick: Pick, guise: Guise, wardrobe: Wardrobe, shown: bool) -> Persona:
    best = pick.best
    if best is None:
        return Persona(guise.kind, shown, guise.text, "bare", 0, 0.0, 0.0, 0.0)
    low, high = max(-1.0, best.low), min(1.0, best.shrunk.high)
    gain = best.shrunk.mean
    tried = wardrobe[best.form[0]]
    figures = float(gain), float(low), float(high)
    return Persona(guise.kind, shown, guise.text, tried.kind, best.examples, *figures, tried.name)
