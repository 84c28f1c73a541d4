"""Capped: what becomes of a stage in whose middle a cap refuses a call. Knows nothing of caps or stages.

Plans are made so that this is rare: answers were longer, or tokens more, than anything before them foretold.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TypeVar

from mop.errors import BudgetExceeded

T = TypeVar("T")


async def unless_capped(stage: Awaitable[T], otherwise: T) -> T:
    """Return what ``stage`` comes to, or ``otherwise`` if a cap refuses one of its calls.

    What was answered before stays known to the run's trials, and the artifact says that the search was cut short
    (`mop.lm.client.ModelClient.refused`).
    """
    try:
        return await stage
    except BudgetExceeded:
        return otherwise
