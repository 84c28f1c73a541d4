"""Spending: what the search used, by role, and when. Knows counts and times, no prices and no HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mop.lm.timeline import Paid
from mop.mixture import Mixture
from mop.views.view import number_of

#: Width and height of the picture on a wide screen and on a narrow one, in the units of an SVG.
SIZES = ((720.0, 220.0), (330.0, 220.0))
_LEFT, _RIGHT, _TOP, _BOTTOM = 44.0, 110.0, 14.0, 40.0
#: Most corners of one line.
_CORNERS = 200
#: What the roles are called.
ROLES = {"propose": "writing instructions", "execute": "trying prompts", "judge": "judging answers"}


@dataclass(frozen=True, slots=True)
class Line:
    """The calls of one role over time: a path of an SVG, and where its name stands."""

    role: str
    words: str
    calls: int
    path: str
    y: float


@dataclass(frozen=True, slots=True)
class Course:
    """How calls came over time; ticks as (place, words)."""

    size: tuple[float, float]
    lines: tuple[Line, ...]
    across: tuple[tuple[float, str], ...]
    up: tuple[tuple[float, str], ...]
    calls: int

    @property
    def field(self) -> tuple[float, float, float, float]:
        """The field's left, top, right and bottom."""
        return _LEFT, _TOP, self.size[0] - _RIGHT, self.size[1] - _BOTTOM


def by_role(mixture: Mixture) -> tuple[tuple[str, str, int, float], ...]:
    """Return (role, words, calls, share of all) from the file, the largest first; empty where it doesn't say."""
    given = mixture.provenance.get("calls_by_role")
    counts = {str(role): number_of(calls) for role, calls in given.items()} if isinstance(given, Mapping) else {}
    known = {role: int(calls) for role, calls in counts.items() if calls is not None and calls >= 1}
    total = sum(known.values())
    ordered = sorted(known.items(), key=lambda one: (-one[1], one[0]))
    return tuple((role, ROLES.get(role, role), calls, calls / total) for role, calls in ordered)


def course(paid: Sequence[Paid], size: tuple[float, float] = SIZES[0]) -> Course | None:
    """Return how the calls came over time, in a width and height; None for fewer than two."""
    if len(paid) < 2:
        return None
    start, length = paid[0].at, max(1.0, paid[-1].at - paid[0].at)
    roles = sorted({one.role for one in paid}, key=lambda role: -sum(one.role == role for one in paid))
    most = max(sum(one.role == role for one in paid) for role in roles)
    right, bottom = size[0] - _RIGHT, size[1] - _BOTTOM
    width, height = right - _LEFT, bottom - _TOP

    def x(at: float) -> float:
        return round(_LEFT + (at - start) / length * width, 1)

    def y(calls: float) -> float:
        return round(bottom - calls / most * height, 1)

    lines, taken = [], float("-inf")
    for role in roles:
        times = [one.at for one in paid if one.role == role]
        every = max(1, len(times) // _CORNERS)
        corners = [(x(at), y(count)) for count, at in enumerate(times, 1) if count % every == 0 or count == len(times)]
        path = f"M{_LEFT} {y(0)}" + "".join(f"H{across}V{up}" for across, up in corners) + f"H{right}"
        # Names stand at the ends of their lines, the largest first, so each is kept below the one before.
        taken = max(y(len(times)) + 4, taken + 16)
        lines.append(Line(role, ROLES.get(role, role), len(times), path, taken))
    steps = 4 if width > 400 else 2
    across = tuple((x(start + length * k / steps), _time(length * k / steps)) for k in range(steps + 1))
    up = tuple((y(most * k / 2), f"{most * k / 2:,.0f}") for k in range(3))
    return Course(size, tuple(lines), across, up, len(paid))


def _time(seconds: float) -> str:
    if seconds < 10:
        return f"{seconds:.1f} s" if seconds else "0 s"
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
