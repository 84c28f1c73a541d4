"""Shipment: has the calls of one batch made by the workers of a crew. Knows nothing of Dask.

Room in the budget is kept here, for the calls in their order, before anything is sent off: so what fits does not depend
on which worker is faster. A worker takes the reservations over with the calls. Where not all have room at once, those
that have it go first, as they would in one process.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from mop.cluster.site import Post
from mop.errors import ClusterError
from mop.gate import passing
from mop.lm.budget import Reservation
from mop.lm.meter import Meter
from mop.lm.request import Reply, Request

if TYPE_CHECKING:
    from mop.cluster.crew import Crew


class Shipment:
    """Has calls to ``post`` made by ``crew``: the `mop.lm.client.Elsewhere` of a client."""

    def __init__(self, crew: Crew, post: Post) -> None:
        self._crew = crew
        self._post = post

    async def run(
        self,
        requests: Sequence[Request],
        known: Mapping[str, Reply],
        meter: Meter,
        deliver: Callable[[Reply], None],
    ) -> None:
        """Answer all requests; ``known`` are the replies that the ledger had.

        When a request doesn't fit into the budget, those before it are still answered.

        Raises:
            MopError: A request can't be answered or doesn't fit, or the cluster is gone.
        """
        waiting = list(requests)
        while waiting:
            reservations = await meter.reserve_many(self._crew.budget, waiting, known)
            admitted, waiting = waiting[: len(reservations)], waiting[len(reservations) :]
            asked: dict[str, tuple[Request, Reservation | None]] = {}
            for request, reservation in zip(admitted, reservations, strict=True):
                if (reply := known.get(request.key)) is None:
                    asked[request.key] = (request, reservation)
                else:
                    meter.settle(reservation, request, reply)
                    deliver(reply)
            if asked:
                await self._ask(asked, meter, deliver)

    async def _ask(
        self, asked: dict[str, tuple[Request, Reservation | None]], meter: Meter, deliver: Callable[[Reply], None]
    ) -> None:
        """Deliver the replies to ``asked``, and take each out of it."""

        def done(replies: Sequence[Reply]) -> None:
            for reply in replies:
                request, reservation = asked.pop(reply.key)
                meter.settle(reservation, request, reply)
                deliver(reply)

        requests = [request for request, _ in asked.values()]
        try:
            # About as many are on the wire at once.
            async with passing(min(len(requests), self._crew.workers * self._crew.site.concurrency)):
                await self._crew.answer(self._post, requests, done)
        finally:
            for request, reservation in asked.values():
                meter.give_back(reservation, request)
        if asked:
            # Where the run was interrupted, nobody gets in here.
            async with passing():
                raise ClusterError(f"The workers left {len(asked)} calls unanswered; run the same command again.")
