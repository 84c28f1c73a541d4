"""Counting: the traffic of a mixture as the page shows it, in plain values."""

from __future__ import annotations

from typing import Any

from mop.serve.gateway import Gateway
from mop.serve.registry import Served
from mop.serve.traffic import MINUTES, Counts


def traffic_document(gateway: Gateway, served: Served) -> dict[str, Any]:
    """Return the queries of each expert that got any or has drifted, and of all together.

    ``share`` is of all queries; ``generalist`` counts those that the generalist answered; ``recent`` are the queries
    of the last minutes, the oldest first. ``drift`` is null where nothing measures it.
    """
    traffic = gateway.traffic
    counts, minute = traffic.of(served), traffic.minute
    drift = gateway.drift(served) if gateway.drift is not None else {}
    total = Counts()
    experts = []
    for counted in counts.values():
        total.queries += counted.queries
        total.generalist += counted.generalist
        for one, count in counted.recent.items():
            total.recent[one] = total.recent.get(one, 0) + count
    for number in sorted({*(one for one in counts if one is not None), *drift}):
        found = counts.get(number, Counts())
        said = drift.get(number)
        experts.append(
            {
                "expert": number,
                **_counted(found, minute),
                "share": found.queries / total.queries if total.queries else 0.0,
                "drift": None if said is None else {"words": said.words, "drifted": said.drifted},
            }
        )
    return {
        "mixture": served.name,
        "version": served.version,
        "minutes": MINUTES,
        **_counted(total, minute),
        "experts": experts,
    }


def _counted(counts: Counts, minute: int) -> dict[str, Any]:
    return {"queries": counts.queries, "generalist": counts.generalist, "recent": counts.minutes(minute)}
