"""Meter: counts each call of a run once against its budget, and what was really sent. Knows nothing of
endpoints.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mop.lm.budget import Budget, Reservation, Spend
from mop.lm.caps import Caps
from mop.lm.request import Reply, Request, Usage

if TYPE_CHECKING:
    from mop.lm.shared_budget import SharedBudget


@dataclass(slots=True)
class Traffic:
    """What a client did: calls that it sent, calls that the ledger answered, and the tokens of each."""

    sent: int = 0
    sent_usage: Usage = field(default_factory=Usage)
    from_ledger: int = 0
    from_ledger_usage: Usage = field(default_factory=Usage)


class Meter:
    """Reserves and settles calls by key: a key that was counted once is free from then on."""

    def __init__(self, budget: Caps) -> None:
        self.traffic = Traffic()
        self._budget = budget
        self._counted: set[str] = set()
        # What this process used, whoever paid: unlike the books of a shared budget it never depends on others.
        self._own, self._seen = Budget(prices=budget.prices), set[str]()

    @property
    def spent(self) -> Spend:
        """What the replies took that were given out so far, each key once, from the ledger or not."""
        return self._own.spent

    async def reserve(self, request: Request, known: Reply | None) -> Reservation | None:
        """Keep room for a request, or return ``None`` if its key has been counted already.

        ``known`` is its reply, if that was recorded before.

        Raises:
            BudgetExceeded: It would pass a cap.
            UnknownPrice: Money is capped and the model has no price.
        """
        if request.key in self._counted:
            return None
        self._counted.add(request.key)
        try:
            return await self._budget.admit(request, known)
        except BaseException:
            self._counted.discard(request.key)
            raise

    async def reserve_many(
        self, budget: SharedBudget, requests: Sequence[Request], known: Mapping[str, Reply]
    ) -> list[Reservation | None]:
        """Do as `reserve` does for as many of the first ``requests`` as ``budget``, this meter's own, has room for now.

        At least one; raises as `reserve` does, for the first. ``known`` are the replies that were recorded before.
        """
        fresh = [request for request in requests if request.key not in self._counted]
        admitted = await budget.admit_many([(request, known.get(request.key)) for request in fresh])
        reserved = dict(zip((request.key for request in fresh), admitted, strict=False))
        self._counted.update(reserved)
        end = len(requests) if len(admitted) == len(fresh) else requests.index(fresh[len(admitted)])
        return [reserved.get(request.key) for request in requests[:end]]

    async def pay(self, reservation: Reservation | None, request: Request) -> Reservation | None:
        """Return the reservation with which this worker may send the request, now that nobody else does.

        Raises:
            BudgetExceeded: Another worker kept the room for it, ended, and the room was used.
        """
        if reservation is None or reservation.owned:
            return reservation
        return await self._budget.admit(request, None, paying=True)

    def settle(self, reservation: Reservation | None, request: Request, reply: Reply) -> None:
        """Count a reply: against the budget if there is a reservation for it, and as traffic in any case."""
        if reply.key not in self._seen:
            self._seen.add(reply.key)
            self._own.settle(self._own.reserve(request.model, 0, 0, role=request.role), reply.usage)
        if reservation is not None:
            self._budget.settle(reservation, reply.usage)
        if reply.from_ledger:
            self.traffic.from_ledger += 1
            self.traffic.from_ledger_usage += reply.usage
        else:
            self.traffic.sent += 1
            self.traffic.sent_usage += reply.usage

    def give_back(self, reservation: Reservation | None, request: Request) -> None:
        """Uncount a request that got no reply."""
        if reservation is not None:
            self._budget.cancel(reservation)
            self._counted.discard(request.key)
