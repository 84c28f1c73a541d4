"""Regionwise: does the same thing for many regions at once, where their calls can't get into each other's way.

One after the other, a region gets its turn only if there are calls left for it. Where every call counts one, a region
that could be afforded even if those before it used all that they may use is afforded in any case: it need not wait for
them. So what is asked, and what comes of it, is what it would be one by one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from mop.search.judging import Cell, Judging


@dataclass(frozen=True)
class Turn:
    """What one region would ask: ``cells`` and ``questions`` must be affordable; it uses ``most`` calls at most."""

    region: int
    cells: Sequence[Cell]
    most: int
    questions: Sequence[tuple[str, str]] = ()


async def take_turns(
    judging: Judging, turns: Sequence[Turn], work: Callable[[Sequence[Turn]], Awaitable[None]]
) -> list[Turn]:
    """Have ``work`` done for groups of ``turns``, in their order; return those for which there were no calls left."""
    left_out, group, beside = [], list[Turn](), 0
    for turn in turns:
        if group and not (judging.allowance.in_calls and _affords(judging, turn, beside)):
            await work(group)
            group, beside = [], 0
        if group or _affords(judging, turn, 0):
            group.append(turn)
            beside += turn.most
        else:
            left_out.append(turn)  # one that needs less may fit
    if group:
        await work(group)
    return left_out


def _affords(judging: Judging, turn: Turn, beside: int) -> bool:
    return judging.affords(turn.cells, beside=beside, questions=[question for _, question in turn.questions])
