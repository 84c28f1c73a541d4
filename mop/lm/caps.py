"""Caps: what the client and the ledger need of a budget, wherever its books are. Knows no caps and no prices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from mop.lm.request import Reply, Request, Usage

if TYPE_CHECKING:
    import sqlalchemy as sa

    from mop.lm.budget import Reservation, Spend
    from mop.lm.prices import Prices


def amount(value: float, unit: str) -> str:
    """Return so much of a cap in words, rounded up where it matters: ``unit`` is "calls", "tokens" or "USD".

    >>> amount(1234.2, "tokens")
    '1,235 tokens'
    """
    return f"{value:.3g} USD" if unit == "USD" else f"{math.ceil(value):,} {unit}"


class Account(Protocol):
    """Counts replies against the budget of a run in the transaction that records them."""

    def settle_in(self, connection: sa.Connection, calls: Sequence[tuple[Request, Reply]]) -> None:
        """Count the calls, each once, in the transaction of ``connection``."""

    def settled(self, calls: Sequence[tuple[Request, Reply]]) -> None:
        """Note that the transaction was committed."""


class Caps(Protocol):
    """What a client needs of a budget: `Budget` for one process, `mop.lm.shared_budget.SharedBudget` for several.

    ``account`` counts replies where they are recorded, if the budget is kept there.
    """

    calls: int | None
    tokens: int | None
    usd: float | None

    @property
    def prices(self) -> Prices:
        """The price list for ``usd``."""

    @property
    def account(self) -> Account | None:
        """What `mop.lm.ledger.Ledger.put_many` counts replies with, if anything."""

    @property
    def spent(self) -> Spend:
        """What the settled calls used, in total and by role."""

    async def admit(self, request: Request, known: Reply | None, *, paying: bool = False) -> Reservation | None:
        """Keep room for a call in turn, or return None if it was counted before.

        ``known`` is its reply if that was recorded before. ``paying`` says that the caller is the one that sends it.

        Raises:
            BudgetExceeded: Together with what is spent, it would pass a cap.
            UnknownPrice: Money is capped and the model has no price.
        """

    def settle(self, reservation: Reservation, usage: Usage) -> None:
        """Replace a reservation by what its call used."""

    def cancel(self, reservation: Reservation) -> None:
        """Give a reservation back; nothing happens if it is not open any more."""

    async def flush(self) -> None:
        """Wait until everything is counted where the budget is kept."""
