"""Budget: caps on calls, tokens and money, kept by reserving before a call is sent. Knows nothing of
endpoints.

A reservation takes the most that a call can use; settling replaces it by what the call did use. So the sum of
what is settled and what is reserved never passes a cap, however many calls run at once.

Whether the next call still fits must not depend on how many others happen to be in flight, or a run would end
at another point each time. `Budget.reserve_in_turn` therefore waits while open reservations may still shrink,
and gives up only when what is settled leaves no room. Asked in a fixed order, it admits the same calls every
time.

A call counts once for a run, whether its reply was sent for or found in the ledger, so that a resumed run
takes the decisions of an uninterrupted one. Attempts that failed and were repeated are not counted.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from mop.errors import BudgetExceeded, MopError, SettingsError
from mop.lm.prices import PICO, Prices
from mop.lm.request import Reply, Request, Role, Usage
from mop.lm.wire import most_prompt_tokens


@dataclass(frozen=True, slots=True, eq=False)
class Reservation:
    """Room that is kept for calls that are about to be sent. ``pico`` is money in picodollars."""

    model: str
    role: Role
    calls: int
    tokens: int
    pico: int
    #: The call that a shared budget keeps the room for, and whether this worker is the one that keeps it.
    key: str = ""
    owned: bool = True


@dataclass(frozen=True, slots=True)
class Spend:
    """What was spent: ``usd`` is ``None`` if the price of a model that was used isn't known."""

    calls: int = 0
    usage: Usage = field(default_factory=Usage)
    usd: float | None = 0.0
    by_role: Mapping[Role, Spend] = field(default_factory=dict)

    @property
    def tokens(self) -> int:
        """Prompt and completion tokens together."""
        return self.usage.total_tokens


@dataclass(slots=True)
class _Account:
    calls: int = 0
    usage: Usage = field(default_factory=Usage)
    pico: int = 0
    priced: bool = True

    def add(self, calls: int, usage: Usage, pico: int | None) -> None:
        self.calls += calls
        self.usage += usage
        self.pico += pico or 0
        self.priced &= pico is not None

    def spend(self, by_role: Mapping[Role, Spend]) -> Spend:
        return Spend(self.calls, self.usage, self.pico / PICO if self.priced else None, by_role)


def passed(
    caps: Sequence[int | None], spent: Sequence[int], reserved: Sequence[int], wanted: Reservation
) -> str | None:
    """Return which cap ``wanted`` would pass, in words; all in calls, tokens and picodollars, in this order."""
    wants = (wanted.calls, wanted.tokens, wanted.pico)
    names = ("calls", "tokens", "USD")
    for name, cap, used, held, more in zip(names, caps, spent, reserved, wants, strict=True):
        # A negative room (usage above its reservation) refuses even what would cost nothing.
        if cap is not None and used + held + more > cap:
            unit = PICO if name == "USD" else 1
            shown = [f"{value / unit:.6g}" if unit > 1 else str(value) for value in (more, cap, used)]
            return f"up to {shown[0]} {name} more would pass the cap of {shown[1]} ({shown[2]} spent)"
    return None


def refusal(wanted: Reservation, problem: str) -> BudgetExceeded:
    """Return the error that says why ``wanted`` was not sent."""
    return BudgetExceeded(
        f"The next {wanted.role} call was not sent: {problem}. Raise the cap and run the same command "
        "again; the replies so far are in the ledger and are not paid for twice."
    )


def check_caps(calls: int | None, tokens: int | None, usd: float | None) -> None:
    """Check that caps can be used.

    Raises:
        SettingsError: One is negative or not a number.
    """
    for name, cap in (("calls", calls), ("tokens", tokens), ("usd", usd)):
        if cap is not None and not 0 <= cap < float("inf"):
            raise SettingsError(f"The cap on {name} is {cap!r}; give a number of at least 0, or no cap.")


class Budget:
    """Caps over all roles together; ``None`` is no cap. Safe to use from several threads and event loops.

    Args:
        calls: Most model calls.
        tokens: Most tokens, prompt and completion together.
        usd: Most money in USD.
        prices: Price list for ``usd``; the built-in one by default.

    Raises:
        SettingsError: A cap is negative or not a number.
    """

    def __init__(
        self,
        calls: int | None = None,
        tokens: int | None = None,
        usd: float | None = None,
        prices: Prices | None = None,
    ) -> None:
        check_caps(calls, tokens, usd)
        self.calls: int | None = calls
        self.tokens = tokens
        self.usd = usd
        self.prices = prices if prices is not None else Prices()
        self._pico = None if usd is None else int(usd * PICO)
        self._lock = threading.Lock()
        self._open: set[Reservation] = set()
        self._reserved = [0, 0, 0]  # calls, tokens, picodollars of the open reservations
        self._total = _Account()
        self._roles: dict[Role, _Account] = {}
        self._waiters: list[Future[None]] = []

    def reserve(
        self, model: str, prompt_tokens: int, max_tokens: int, calls: int = 1, role: Role = "execute"
    ) -> Reservation:
        """Keep room for ``calls`` calls of at most ``prompt_tokens`` and ``max_tokens`` each.

        Raises:
            BudgetExceeded: Together with what is spent and reserved, it would pass a cap.
            UnknownPrice: Money is capped and the model has no price.
        """
        wanted = self._wanted(model, prompt_tokens, max_tokens, calls, role)
        with self._lock:
            self._check(wanted, with_open=True)
            return self._take(wanted)

    @property
    def account(self) -> None:
        """Nothing: what this process uses is counted when it is settled."""

    async def admit(
        self,
        request: Request,
        known: Reply | None,  # noqa: ARG002
        *,
        paying: bool = False,  # noqa: ARG002
    ) -> Reservation | None:
        """Keep room for a call in turn. Raises as `reserve_in_turn` does."""
        return await self.reserve_in_turn(request.model, most_prompt_tokens(request), request.max_tokens, request.role)

    async def flush(self) -> None:
        """Nothing waits to be counted."""

    async def reserve_in_turn(
        self, model: str, prompt_tokens: int, max_tokens: int, role: Role = "execute"
    ) -> Reservation:
        """Keep room for one call, and wait while open reservations may still make room for it.

        Raises:
            BudgetExceeded: Together with what is spent, it would pass a cap.
            UnknownPrice: Money is capped and the model has no price.
        """
        wanted = self._wanted(model, prompt_tokens, max_tokens, 1, role)
        while True:
            with self._lock:
                self._check(wanted, with_open=False)
                if self._passed(wanted, with_open=True) is None:
                    return self._take(wanted)
                waiter: Future[None] = Future()
                self._waiters.append(waiter)
            await asyncio.wrap_future(waiter)

    def settle(self, reservation: Reservation, usage: Usage) -> None:
        """Replace a reservation by what its calls used.

        Usage above the reservation (an endpoint that ignores ``max_tokens``) is counted as it is.

        Raises:
            MopError: The reservation was settled or cancelled before.
        """
        price = self.prices.find(reservation.model)
        with self._lock:
            if reservation not in self._open:
                raise MopError("A reservation was settled twice; settle or cancel each reservation once.")
            pico = None if price is None else price.pico(usage)
            self._total.add(reservation.calls, usage, pico)
            self._roles.setdefault(reservation.role, _Account()).add(reservation.calls, usage, pico)
            self._release(reservation)

    def cancel(self, reservation: Reservation) -> None:
        """Give a reservation back; nothing happens if it is not open any more."""
        with self._lock:
            if reservation in self._open:
                self._release(reservation)

    def room(self, calls: int, tokens_each: int, model: str) -> bool:
        """Return whether ``calls`` more calls of ``tokens_each`` tokens (prompt and completion) fit under all
        caps.

        Money is reckoned at the dearest kind of token of the model.

        Raises:
            UnknownPrice: Money is capped and the model has no price.
        """
        pico = 0
        if self._pico is not None:
            price = self.prices.get(model)
            pico = calls * max(price.pico_at_most(tokens_each, 0), price.pico_at_most(0, tokens_each))
        wanted = Reservation(model, "execute", calls, calls * tokens_each, pico)
        with self._lock:
            return self._passed(wanted, with_open=True) is None

    @property
    def spent(self) -> Spend:
        """What the settled calls used, in total and by role."""
        with self._lock:
            by_role = {role: account.spend({}) for role, account in self._roles.items()}
            return self._total.spend(by_role)

    def _wanted(self, model: str, prompt_tokens: int, max_tokens: int, calls: int, role: Role) -> Reservation:
        price = self.prices.find(model) if self._pico is None else self.prices.get(model)
        pico = 0 if price is None else calls * price.pico_at_most(prompt_tokens, max_tokens)
        return Reservation(model, role, calls, calls * (prompt_tokens + max_tokens), pico)

    def _passed(self, wanted: Reservation, *, with_open: bool) -> str | None:
        """Return which cap ``wanted`` would pass, in words."""
        spent = (self._total.calls, self._total.usage.total_tokens, self._total.pico)
        reserved = self._reserved if with_open else (0, 0, 0)
        return passed((self.calls, self.tokens, self._pico), spent, reserved, wanted)

    def _check(self, wanted: Reservation, *, with_open: bool) -> None:
        problem = self._passed(wanted, with_open=with_open)
        if problem is not None:
            raise refusal(wanted, problem)

    def _take(self, wanted: Reservation) -> Reservation:
        self._open.add(wanted)
        self._shift(wanted, 1)
        return wanted

    def _release(self, reservation: Reservation) -> None:
        self._open.remove(reservation)
        self._shift(reservation, -1)
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            # False for a waiter that was cancelled meanwhile.
            if waiter.set_running_or_notify_cancel():
                waiter.set_result(None)

    def _shift(self, reservation: Reservation, sign: int) -> None:
        for place, amount in enumerate((reservation.calls, reservation.tokens, reservation.pico)):
            self._reserved[place] += sign * amount
