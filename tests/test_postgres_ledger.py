"""A ledger on a real PostgreSQL server does what one in a file does."""

from __future__ import annotations

from postgres import Postgres

from mop.lm.ledger import Ledger


def test_smoke(postgres: Postgres) -> None:
    book = Ledger(postgres.url())
    assert book.totals() == {}
    print(book)
    book.close()
