"""Tables: the columns of the ledger. Knows nothing of files or connections."""

from __future__ import annotations

import sqlalchemy as sa

#: Version of the tables below. A ledger of a newer version is refused, not guessed at.
SCHEMA = 1

metadata = sa.MetaData()

#: One row, ``schema``.
META = sa.Table(
    "meta",
    metadata,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("value", sa.String(64), nullable=False),
)

#: One row for each model call. ``request`` is the canonical JSON that ``key`` is the SHA-256 of; it has no
#: secrets. ``role`` is the role of the first use, ``created_at`` seconds since 1970 (UTC).
CALLS = sa.Table(
    "calls",
    metadata,
    sa.Column("key", sa.String(64), primary_key=True),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("role", sa.String(16), nullable=False),
    sa.Column("request", sa.Text, nullable=False),
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("finish_reason", sa.String(64), nullable=False),
    sa.Column("prompt_tokens", sa.Integer, nullable=False),
    sa.Column("cached_tokens", sa.Integer, nullable=False),
    sa.Column("completion_tokens", sa.Integer, nullable=False),
    sa.Column("seconds", sa.Double, nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
)

#: One row for each encoded text; ``vector`` is ``dim`` little-endian 32-bit floats.
EMBEDDINGS = sa.Table(
    "embeddings",
    metadata,
    sa.Column("encoder", sa.String(255), primary_key=True),
    sa.Column("key", sa.String(64), primary_key=True),
    sa.Column("dim", sa.Integer, nullable=False),
    sa.Column("vector", sa.LargeBinary, nullable=False),
)
