"""Process: who this process is, and whether another one of this machine has ended. Knows nothing of what they do.

Only Linux tells enough to be sure; elsewhere nothing is ever said to have ended, and the others wait for its time-out.
"""

from __future__ import annotations

import hashlib
import os
from functools import cache
from pathlib import Path


@cache
def machine() -> str:
    """Return what processes share that see each other: 16 hex digits of this boot and process table, or nothing."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
        table = os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""
    return hashlib.sha256(f"{boot} {table}".encode()).hexdigest()[:16]


def myself() -> str:
    """Return the name of this process on its machine: its number and when it was started."""
    return f"{os.getpid()}:{_started(os.getpid())}"


def has_ended(process: str) -> bool:
    """Return whether the ``process`` of this machine, named as `myself` does, is known to run no more."""
    number, _, started = process.partition(":")
    if not machine() or not number.isdigit() or not started:
        return False
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return True
    except OSError:  # it is another user's
        return False
    now = _started(int(number))
    # Unreadable is not ended; a zombie, which has no start here, is.
    return now is not None and now != started


def _started(number: int) -> str | None:
    """Return when a process was started, in ticks since the boot; "ended" for a zombie, None if it isn't told."""
    try:
        fields = Path(f"/proc/{number}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return "ended" if fields[0] in ("Z", "X") else fields[19]
