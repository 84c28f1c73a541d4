"""Gateway: what the endpoints of one server share. Holds objects only; knows nothing of HTTP or files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from mop.serve.admission import Admission
from mop.serve.keys import KeyRing
from mop.serve.limits import Limits
from mop.serve.metrics import Metrics
from mop.serve.parsing import RouteOn
from mop.serve.registry import Registry, Served
from mop.serve.traffic import DriftOf, Traffic


@dataclass(eq=False)
class Gateway:
    """Mixtures, limits, callers and counters.

    ``keys`` is None if everyone may ask. ``loopback`` tells whether only this machine can. ``warming`` names what must
    be done before the server counts as ready. ``fleet`` counts the processes of the server, if there are several.
    ``drift`` says how far regions have drifted, if anything measures it.
    """

    registry: Registry
    limits: Limits
    keys: KeyRing | None
    route_on: RouteOn
    metrics: Metrics
    admission: Admission
    loopback: bool = False
    warming: set[str] = field(default_factory=set)
    fleet: Mapping[str, int] = field(default_factory=dict)
    traffic: Traffic = field(default_factory=Traffic)
    drift: DriftOf | None = None

    @classmethod
    def of(
        cls,
        served: Iterable[Served],
        *,
        limits: Limits,
        keys: KeyRing | None,
        route_on: RouteOn,
        metrics: Metrics,
        loopback: bool = False,
    ) -> Gateway:
        """Return the gateway of these mixtures. Raises SettingsError if two share a name, or there is none."""
        registry = Registry(served)
        width = sum(upstream.concurrency for upstream in {one.upstream for one in registry})
        return cls(registry, limits, keys, route_on, metrics, Admission(width + limits.queue, width), loopback)
