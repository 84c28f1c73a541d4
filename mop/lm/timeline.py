"""Timeline: when a run's calls were paid, and for what. Reads the ledger; knows no prices."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from mop.lm.ledger import Ledger
from mop.lm.tables import CALLS


@dataclass(frozen=True, slots=True)
class Paid:
    """One call: when its reply was recorded (seconds since 1970), its role, and its prompt and answer tokens."""

    at: float
    role: str
    tokens: int


def timeline(ledger: Ledger, run: str) -> list[Paid]:
    """Return the calls that ``run`` paid for, in the order of their replies. Raises LedgerError.

    Calls that an earlier run had paid for are that run's, so a run may have used more than it paid.
    """
    tokens = CALLS.c.prompt_tokens + CALLS.c.completion_tokens
    query = (
        sa.select(CALLS.c.created_at, CALLS.c.role, tokens)
        .where(CALLS.c.run == run)
        .order_by(CALLS.c.created_at, CALLS.c.key)
    )
    rows = ledger.database.run(lambda connection: connection.execute(query).all(), write=False)
    return [Paid(float(at), str(role), int(count)) for at, role, count in rows]
