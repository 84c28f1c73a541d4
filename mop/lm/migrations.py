"""Migrations: bring the tables of an older ledger up to the present version. Knows nothing of files.

Each step is one version wide and runs in the transaction that notes the new version, so that a process killed in the
middle leaves the old version, whole.
"""

from __future__ import annotations

from collections.abc import Callable

import sqlalchemy as sa
from sqlalchemy.schema import CreateIndex, CreateTable

from mop.errors import LedgerError
from mop.lm.tables import BILL, LEASES, META, RUNS, SCHEMA, SPENDING, WORKERS, metadata

#: What a PostgreSQL server is asked to lock while tables are made or changed; any number that others don't use.
_LOCK = 0x6D6F70


def prepare(connection: sa.Connection, name: str) -> None:
    """Make the tables of the present version, or bring those that are there up to it; one process at a time.

    Raises:
        LedgerError: The ledger is of a newer version.
    """
    if connection.dialect.name == "postgresql":
        # Two processes that make the same table at once get an error from the server, "if not exists" or not.
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
    if version_of(connection) is not None:
        upgrade(connection, name)
        return
    for table in metadata.sorted_tables:
        connection.execute(CreateTable(table, if_not_exists=True))
    connection.execute(CreateIndex(BILL, if_not_exists=True))
    connection.execute(META.insert().values(name="schema", value=str(SCHEMA)))


def version_of(connection: sa.Connection) -> str | None:
    """Return the version that the ledger says it has, or None if it has no tables yet or doesn't say."""
    # Looked up, because a statement that fails spoils a transaction of PostgreSQL.
    if not sa.inspect(connection).has_table(META.name):
        return None
    version = connection.scalar(sa.select(META.c.value).where(META.c.name == "schema"))
    return None if version is None else str(version)


def upgrade(connection: sa.Connection, name: str) -> None:
    """Bring the ledger behind ``connection`` to the present version.

    Raises:
        LedgerError: It is of a newer version, or says none.
    """
    version = version_of(connection)
    steps = {str(number): step for number, step in enumerate(_STEPS, start=1)}
    while version in steps:
        steps[version](connection)
        version = str(int(version) + 1)
        connection.execute(META.update().where(META.c.name == "schema").values(value=version))
    if version is None:
        raise LedgerError(
            f"The ledger {name!r} says no schema version: it is cut off, or has tables of another program. Give "
            "another path."
        )
    if version != str(SCHEMA):
        raise LedgerError(
            f"The ledger {name!r} has schema version {version}, this mop writes version {SCHEMA}. "
            "Upgrade mop, or give another ledger file."
        )


def _to_2(connection: sa.Connection) -> None:
    for column in (
        "calls ADD COLUMN run VARCHAR(64)",
        "calls ADD COLUMN crc BIGINT",
        "embeddings ADD COLUMN crc BIGINT",
    ):
        connection.exec_driver_sql(f"ALTER TABLE {column}")
    connection.execute(CreateIndex(BILL, if_not_exists=True))


def _to_3(connection: sa.Connection) -> None:
    for table in (WORKERS, LEASES, RUNS, SPENDING):
        connection.execute(CreateTable(table, if_not_exists=True))


#: The step from each version, the first being 1, to the next.
_STEPS: tuple[Callable[[sa.Connection], None], ...] = (_to_2, _to_3)
