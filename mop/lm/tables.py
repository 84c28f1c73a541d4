"""Tables: the columns of the ledger, which are its documented schema. Knows nothing of files or connections.

Version 3. `mop.lm.migrations` brings older ledgers up to it: version 2 added ``run``, ``crc`` and the index, version 3
the tables below ``embeddings``, through which several processes share the work and the budget of a run.
Other programs may read these tables; none of them holds a secret: addresses and API keys are in no request.
"""

from __future__ import annotations

import zlib

import sqlalchemy as sa

#: Version of the tables below. A ledger of a newer version is refused, not guessed at.
SCHEMA = 3

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

#: One row for each process that has calls underway. It is alive until ``expires_at``, in seconds since 1970 by the
#: database's own clock. ``machine`` and ``process`` let others on the same machine see that it has ended before.
WORKERS = sa.Table(
    "workers",
    metadata,
    sa.Column("owner", sa.String(32), primary_key=True),
    sa.Column("expires_at", sa.Double, nullable=False),
    sa.Column("machine", sa.String(32), nullable=False),
    sa.Column("process", sa.String(64), nullable=False),
)

#: One row for each call that a worker is about to send or has sent; it holds for as long as the worker is alive.
LEASES = sa.Table(
    "leases",
    metadata,
    sa.Column("key", sa.String(64), primary_key=True),
    sa.Column("owner", sa.String(32), nullable=False),
)

#: One row for each run with a shared budget: what is spent, and what is reserved (``open_``). Money in picodollars.
RUNS = sa.Table(
    "runs",
    metadata,
    sa.Column("run", sa.String(64), primary_key=True),
    *(
        sa.Column(name, sa.BigInteger, nullable=False)
        for name in ("calls", "tokens", "pico", "open_calls", "open_tokens", "open_pico")
    ),
)

#: One row for each call that counts against a shared budget: the most that it may use while the worker ``owner`` has
#: it reserved, and what it did use once ``owner`` is null. ``pico`` is null where the model's price isn't known.
SPENDING = sa.Table(
    "spending",
    metadata,
    sa.Column("run", sa.String(64), primary_key=True),
    sa.Column("key", sa.String(64), primary_key=True),
    sa.Column("owner", sa.String(32)),
    sa.Column("role", sa.String(16), nullable=False),
    sa.Column("prompt_tokens", sa.BigInteger, nullable=False),
    sa.Column("cached_tokens", sa.BigInteger, nullable=False),
    sa.Column("completion_tokens", sa.BigInteger, nullable=False),
    sa.Column("pico", sa.BigInteger),
)


def call_crc(key: str, text: str, finish_reason: str, prompt: int, cached: int, completion: int) -> int:
    """Return the CRC-32 that tells whether the disk gave back what a call's row was written with."""
    return zlib.crc32(f"{key}\0{prompt}\0{cached}\0{completion}\0{finish_reason}\0{text}".encode())
