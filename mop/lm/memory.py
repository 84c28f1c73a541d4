"""How much memory this process may still use, in MiB. Knows nothing of what for."""

from __future__ import annotations

import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


def available_mib() -> int | None:
    """Return the memory that is free for new work, a container's limit included; None if it can't be told."""
    known = [value for value in (_system(), _container()) if value is not None]
    return min(known) >> 20 if known else None


def _system() -> int | None:
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        for line in meminfo.read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) << 10
    if "SC_PHYS_PAGES" in getattr(os, "sysconf_names", {}):
        # What is free isn't told in a portable way; half of all is a cautious guess.
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    return None


def _container() -> int | None:
    """Return what the control group (version 2) has left; file cache counts as free."""
    try:
        limit = (_CGROUP / "memory.max").read_text(encoding="ascii").strip()
        used = int((_CGROUP / "memory.current").read_text(encoding="ascii"))
        statistics = (_CGROUP / "memory.stat").read_text(encoding="ascii").splitlines()
    except OSError:
        return None  # no control group, or not version 2: no limit that could be read
    if limit == "max":
        return None
    files = sum(int(line.split()[1]) for line in statistics if line.startswith("inactive_file "))
    return max(0, int(limit) - used + files)
