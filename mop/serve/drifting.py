"""Drifting: what the server tells about drift. The tests themselves are in `mop.drift`.

A monitor begins anew when the server starts and when a mixture's file has changed; with several workers each one
watches its own part of the traffic, at the false-alarm rate that it states.
"""

from __future__ import annotations

import asyncio
from typing import Any

from mop.serve.gateway import Gateway
from mop.serve.registry import Served
from mop.serve.traffic import Drift

#: Seconds between two times that one process of several tells the others what it has seen.
TELL_SECONDS = 2.0
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


def drift_by_expert(served: Served) -> dict[int, Drift]:
    """Return what is known of the drift of each region that got queries, in words for people."""
    if served.drift is None:
        return {}
    found = {}
    for region in served.drift.report()["regions"]:
        if region["queries"]:
            alarms = [name for name in ("distance", "traffic") if region[name]["alarm"]]
            told = {"distance": "its queries look otherwise", "traffic": "its share of the queries has changed"}
            words = " and ".join(told[name] for name in alarms) or "as expected"
            beyond = (
                "" if region["beyond"] is None else f"; {region['beyond']:.0%} farther out than 95 % of the examples"
            )
            found[region["expert"]] = Drift(f"{words}{beyond}", bool(alarms))
    return found


async def tell_drift(gateway: Gateway, seconds: float = TELL_SECONDS) -> None:
    """Keep the gauges of drift fresh for the processes that are asked for the metrics of this one too."""
    while gateway.metrics.shared:
        gateway.metrics.drifting(gateway.registry)
        await asyncio.sleep(seconds)
