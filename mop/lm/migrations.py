"""Migrations: bring the tables of an older ledger up to the present version. Knows nothing of files.

Each step is one version wide and runs in the transaction that notes the new version, so that a process killed in the
middle leaves the old version, whole.
"""

from __future__ import annotations

from collections.abc import Callable

import sqlalchemy as sa
from sqlalchemy.schema import CreateIndex, CreateTable

from mop.errors import LedgerError
from mop.lm.tables import BILL, META, SCHEMA, metadata


def create(connection: sa.Connection) -> None:
    """Make the tables of the present version where there are none."""
    for table in metadata.sorted_tables:
        connection.execute(CreateTable(table, if_not_exists=True))
    connection.execute(CreateIndex(BILL, if_not_exists=True))
    if version_of(connection) is None:
        connection.execute(META.insert().values(name="schema", value=str(SCHEMA)))


def version_of(connection: sa.Connection) -> str | None:
    """Return the version that the ledger says it has, or None if it doesn't say."""
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
    if version != str(SCHEMA):
        raise LedgerError(
            f"The ledger {name!r} has schema version {version or 'none'}, this mop writes version {SCHEMA}. "
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


#: The step from each version, the first being 1, to the next.
_STEPS: tuple[Callable[[sa.Connection], None], ...] = (_to_2,)
