"""Tables: the columns of the ledger, which are its documented schema. Knows nothing of files or connections.

Version 2. `mop.lm.migrations` brings a ledger of version 1 up to it (``run``, ``crc`` and the index were added).
Other programs may read these tables; none of them holds a secret: addresses and API keys are in no request.
"""

from __future__ import annotations

import zlib

import sqlalchemy as sa

#: Version of the tables below. A ledger of a newer version is refused, not guessed at.
SCHEMA = 2

metadata = sa.MetaData()

#: One row, ``schema``: the version in digits.
META = sa.Table(
    "meta",
    metadata,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("value", sa.String(64), nullable=False),
)

#: One row for each model call. ``request`` is the canonical JSON that ``key`` is the SHA-256 of. ``role`` is the role
#: of the first use, ``created_at`` seconds since 1970 (UTC), ``run`` the run that paid for it, if it was known, and
#: ``crc`` the `call_crc` of the reply (absent in rows that version 1 wrote).
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
    sa.Column("run", sa.String(64)),
    sa.Column("crc", sa.BigInteger),
)

#: Everything that a bill needs, so that it is read without reading texts.
BILL = sa.Index(
    "calls_bill",
    *(
        CALLS.c[name]
        for name in (
            "created_at",
            "model",
            "role",
            "run",
            "prompt_tokens",
            "cached_tokens",
            "completion_tokens",
            "seconds",
        )
    ),
)

#: One row for each encoded text; ``vector`` is ``dim`` little-endian 32-bit floats, ``crc`` the CRC-32 of its bytes.
EMBEDDINGS = sa.Table(
    "embeddings",
    metadata,
    sa.Column("encoder", sa.String(255), primary_key=True),
    sa.Column("key", sa.String(64), primary_key=True),
    sa.Column("dim", sa.Integer, nullable=False),
    sa.Column("vector", sa.LargeBinary, nullable=False),
    sa.Column("crc", sa.BigInteger),
)


def call_crc(key: str, text: str, finish_reason: str, prompt: int, cached: int, completion: int) -> int:
    """Return the CRC-32 that tells whether the disk gave back what a call's row was written with."""
    return zlib.crc32(f"{key}\0{prompt}\0{cached}\0{completion}\0{finish_reason}\0{text}".encode())
