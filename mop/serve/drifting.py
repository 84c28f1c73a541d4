"""Drifting: what the server tells about drift. The tests themselves are in `mop.drift`.

A monitor begins anew when the server starts and when a mixture's file has changed; with several workers each one
watches its own part of the traffic, at the false-alarm rate that it states.
"""

from __future__ import annotations

from typing import Any

from mop.serve.registry import Served

_UNKNOWN = (
    "This mixture doesn't hold what its held-out examples looked like: it was written by hand or by an older mop. "
    "Learn it again to watch for drift."
)


def drift_document(served: Served) -> dict[str, Any]:
    """Return what the answered queries of a mixture showed, by region; ``drift`` is null where nothing is known.

    See `mop.drift.DriftMonitor.report` for the fields.
    """
    head = {"model": served.name, "version": served.version}
    if served.drift is None:
        return {**head, "drift": None, "reason": _UNKNOWN}
    report = served.drift.report()
    for region in report["regions"]:
        region["words"] = list(served.mixture.experts[region["expert"]].words)
    return {**head, "drift": report, "reason": None}
