"""Ablations: parts of a search that can be exchanged, to see what each is worth. Knows nothing of how they are done.

None leaves a part as the method has it. A user of ``mop optimize`` has no need of these; they are options of
``python -m benchmarks run``.

>>> Ablations.of({"selection": "independent"}).selection
'independent'
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

from mop.errors import SettingsError

#: Every choice of every part.
CHOICES: Mapping[str, tuple[str, ...]] = {
    "assignment": ("random", "kmeans", "kmeans-limited"),
    "counting": ("scaled-inertia", "held-out"),
    "view": ("pool", "complement", "failures"),
    "selection": ("independent", "joint-global", "joint-region"),
}


@dataclass(frozen=True)
class Ablations:
    """Parts of a search that differ from the method's own.

    ``assignment``: how demos come to experts: at random, by K-means, or by K-means with regions of equal size.
    ``counting``: how the number of experts is chosen: by scaled inertia, or by held-out examples.
    ``view``: what the proposer of instructions sees: examples of the whole pool, those that an expert doesn't show, or
    what went wrong. ``selection``: an expert's instruction is the best without its demos (independent), the best with
    them on all validation examples (joint-global), or the best with them on its region's (joint-region).
    """

    assignment: str | None = None
    counting: str | None = None
    view: str | None = None
    selection: str | None = None

    @classmethod
    def of(cls, given: Mapping[str, str | None]) -> Ablations:
        """Return the ablations that are ``given`` by name; raises SettingsError for a name or choice there isn't."""
        for name, choice in given.items():
            if name not in CHOICES:
                raise SettingsError(f"There is no ablation {name!r}; there are {', '.join(CHOICES)}.")
            if choice is not None and choice not in CHOICES[name]:
                raise SettingsError(f"{name} is {choice!r}; expected one of {', '.join(CHOICES[name])}.")
        return cls(**given)

    def given(self) -> dict[str, str]:
        """Return what differs from the method's own, by name."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if value is not None}
