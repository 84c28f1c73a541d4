"""Bill: what the calls in a ledger cost, by role, model, day or run. Knows prices and sums; sends nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

from mop.connect import is_local
from mop.errors import UnknownPrice
from mop.lm.ledger import Ledger, Total
from mop.lm.prices import Prices
from mop.lm.request import Usage


@dataclass(frozen=True, slots=True)
class Line:
    """The sum over one group. ``usd`` is what its calls cost, None if the price of one of its models isn't known."""

    group: tuple[str, ...]
    total: Total
    usd: float | None


def cost(usage: Usage, model: str, prices: Prices) -> float | None:
    """Return what ``usage`` cost in USD, or None if it isn't known; a model on this machine costs nothing."""
    if is_local(model):
        return 0.0
    try:
        return prices.cost(usage, model)
    except UnknownPrice:
        return None


def bill(ledger: Ledger, by: Sequence[str] = ("role", "model"), prices: Prices | None = None) -> list[Line]:
    """Return a line for each group of calls, sorted by group; groups as in `mop.lm.ledger.Ledger.totals`.

    Raises:
        SettingsError: There is no such group.
        LedgerError: The ledger cannot be read.
    """
    prices = prices or Prices()
    lines: dict[tuple[str, ...], Line] = {}
    for (*group, model), total in ledger.totals((*by, "model")).items():
        line = Line(tuple(group), total, cost(total.usage, model, prices))
        known = lines.get(line.group)
        lines[line.group] = line if known is None else _together(known, line)
    return list(lines.values())


def whole(lines: Sequence[Line]) -> Line | None:
    """Return the sum of all ``lines`` without reading the ledger again; None if there are none."""
    if not lines:
        return None
    return reduce(_together, lines, Line((), Total(0, Usage(), 0.0), 0.0))


def _together(one: Line, other: Line) -> Line:
    usd = None if one.usd is None or other.usd is None else one.usd + other.usd
    first, second = one.total, other.total
    total = Total(first.calls + second.calls, first.usage + second.usage, first.seconds + second.seconds)
    return Line(one.group, total, usd)
