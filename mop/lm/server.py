"""Server: what is particular to a ledger on a database server: its address without secrets, its connections, its
outages. Knows nothing of tables.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa

from mop.errors import LedgerError

#: Seconds for a new connection.
CONNECT_SECONDS = 10
#: Seconds for a statement that waits for another's rows, and for a transaction that does nothing: a worker that is
#: frozen in the middle must not hold up the others for ever.
LOCK_SECONDS, IDLE_SECONDS = 60, 20
#: SQLSTATEs, or their first two digits, of what may go away by itself: a lost connection, a server that starts, stops
#: or has no place free, a transaction that lost a race (https://www.postgresql.org/docs/current/errcodes-appendix.html).
_PASSING = ("08", "40", "53300", "57P", "25P03", "55P03")
_SECRET = re.compile(r"pass|secret|key|token|options", re.IGNORECASE)


def read_url(url: str) -> sa.URL:
    """Return the parsed URL of a database.

    Raises:
        LedgerError: It isn't one. The message doesn't hold it, for it may hold a password.
    """
    advice = "write postgresql+psycopg://USER:PASSWORD@HOST/DATABASE, with %40 for @ and %2F for / in the password"
    if url.count("@") > 1:
        # What comes after the first one would be taken for a host, and be told in errors.
        raise LedgerError(f"The URL of the ledger has more than one @; {advice}.")
    try:
        made = sa.make_url(url)
    except (sa.exc.ArgumentError, ValueError) as error:
        raise LedgerError(f"The URL of the ledger cannot be read; {advice}.") from error
    if made.get_backend_name() not in ("postgresql", "sqlite"):
        raise LedgerError(
            f"A ledger cannot be kept with the driver {made.drivername!r}: give a file, or a PostgreSQL database "
            "(postgresql+psycopg://…)."
        )
    return made


def shown(url: sa.URL) -> str:
    """Return the URL without its password, and without the options that may hold one."""
    query = {name: "***" if _SECRET.search(name) else value for name, value in url.query.items()}
    # Not set(), which would write the password back, and not percent-encoded: it is for people.
    return url.set(query=query).render_as_string(hide_password=True).replace("%2A", "*")


def secrets_of(url: sa.URL) -> Iterator[str]:
    """Yield what no message may hold."""
    if url.password:
        yield str(url.password)
    for name, value in url.query.items():
        if _SECRET.search(name):
            yield from (value,) if isinstance(value, str) else value


def connect_options() -> dict[str, Any]:
    """Return the driver's options that bound how long a dead server goes unnoticed."""
    return {
        "connect_timeout": CONNECT_SECONDS,
        "keepalives": 1,
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 30_000,
        "application_name": "mop",
    }


def prepare(connection: Any, _record: object) -> None:
    """Bound the time that a new connection may hold others up."""
    with connection.cursor() as cursor:
        cursor.execute(f"SET idle_in_transaction_session_timeout = '{IDLE_SECONDS}s'")
        cursor.execute(f"SET lock_timeout = '{LOCK_SECONDS}s'")
    connection.commit()


def is_outage(error: sa.exc.DBAPIError) -> bool:
    """Return whether the same transaction may work a little later."""
    if error.connection_invalidated:
        return True
    state = getattr(error.orig, "sqlstate", None)
    if state is None:  # it failed before the server could say anything
        return isinstance(error, sa.exc.OperationalError)
    return str(state).startswith(_PASSING)
