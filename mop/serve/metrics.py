"""Metrics: what the server counts, for Prometheus. No label holds anything that a caller chose.

Tokens are what the upstream reports; of a stream it does so only if the caller asks (``stream_options.include_usage``).

Of several processes, each keeps its counts in files of the folder ``PROMETHEUS_MULTIPROC_DIR`` (set before this module
is imported), and whichever is asked adds them up; those of a process that has died still count.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from mop.serve.registry import Decision, Served

#: Of the Prometheus text format.
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
#: The environment variable with the folder in which several processes keep their counts.
FOLDER = "PROMETHEUS_MULTIPROC_DIR"
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
#: Squared distances of unit vectors lie between 0 and 4.
_MARGINS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6, 0.8, 1, 1.5, 2, 4)


class Metrics:
    """The counters of one server, in one process or several."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._folder = os.environ.get(FOLDER)
        self.requests = Counter(
            "mop_requests", "Requests by outcome.", ("endpoint", "mixture", "status", "code"), registry=registry
        )
        self.seconds = Histogram(
            "mop_request_seconds", "Seconds from a request to the end of its answer.", ("endpoint", "mixture"),
            buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self.first_seconds = Histogram(
            "mop_first_byte_seconds", "Seconds from a request to the first byte of its answer.", ("mixture",),
            buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self.route_seconds = Histogram(
            "mop_route_seconds", "Seconds for the route: waiting, encoding, nearest expert.", ("mixture",),
            buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self.experts = Counter("mop_expert_queries", "Queries by expert.", ("mixture", "expert"), registry=registry)
        self.fallbacks = Counter(
            "mop_fallbacks", "Queries that the generalist answers, by reason.", ("mixture", "reason"), registry=registry
        )
        self.margins = Histogram(
            "mop_route_margin", "How much farther the second nearest centroid is, squared distance.", ("mixture",),
            buckets=_MARGINS, registry=registry,
        )  # fmt: skip
        self.distances = Histogram(
            "mop_route_distance", "Squared distance to the nearest centroid.", ("mixture",),
            buckets=_MARGINS, registry=registry,
        )  # fmt: skip
        self.upstream_errors = Counter(
            "mop_upstream_errors", "Failed attempts at the upstream, those tried again too.", ("mixture", "code"),
            registry=registry,
        )  # fmt: skip
        self.tokens = Counter(
            "mop_tokens", "Tokens as the upstream reports them; cached ones are prompt tokens too.",
            ("mixture", "kind"), registry=registry,
        )  # fmt: skip
        self.reloads = Counter("mop_reloads", "Changed files, by outcome.", ("mixture", "outcome"), registry=registry)
        self.stale = Gauge(
            "mop_stale", "1 if the newest file of a mixture cannot be used and an older one answers.", ("mixture",),
            registry=registry, multiprocess_mode="livemax",
        )  # fmt: skip
        self.held = Gauge(
            "mop_requests_held", "Requests being answered or waiting.", registry=registry, multiprocess_mode="livesum"
        )
        self.workers = Gauge(
            "mop_workers", "Processes of this server: wanted, running, and replaced because they had died.", ("state",),
            registry=registry, multiprocess_mode="livemax",
        )  # fmt: skip
        # Of several processes, the one with the most evidence; each watches the queries that it answers.
        self.drift = Gauge(
            "mop_drift_evidence", "Evidence of drift, 1 at the start; an alarm at the threshold. Empty region: all.",
            ("mixture", "test", "region"), registry=registry, multiprocess_mode="livemax",
        )  # fmt: skip
        self.drift_alarm = Gauge(
            "mop_drift_alarm", "1 from the query on at which a test of drift reached its threshold.",
            ("mixture", "test", "region"), registry=registry, multiprocess_mode="livemax",
        )  # fmt: skip
        self._drifting: set[tuple[str, str, str]] = set()

    @property
    def shared(self) -> bool:
        """Whether other processes count as well; what one of them knows must then be told before anybody asks."""
        return self._folder is not None

    def drifting(self, registry: Iterable[Served]) -> None:
        """Set the gauges of drift to what the mixtures have seen."""
        found = {
            (served.name, test, "" if region is None else str(region)): told
            for served in registry
            if served.drift is not None
            for test, region, told in served.drift.tests()
        }
        for labels, told in found.items():
            self.drift.labels(*labels).set(told["evidence"])
            self.drift_alarm.labels(*labels).set(told["alarm"])
        # A mixture that was replaced may have had more regions.
        for labels in self._drifting - found.keys():
            for gauge in (self.drift, self.drift_alarm):
                if self.shared:  # the file that the processes share forgets no labels
                    gauge.labels(*labels).set(0)
                else:
                    gauge.remove(*labels)
        self._drifting = set(found)

    def decided(self, mixture: str, decision: Decision) -> None:
        """Count a decision."""
        route = decision.route
        self.experts.labels(mixture, "none" if route is None else str(route.expert)).inc()
        if decision.generalist:
            self.fallbacks.labels(mixture, decision.reason).inc()
        if route is not None:
            self.distances.labels(mixture).observe(route.distance)
            if route.margin < float("inf"):
                self.margins.labels(mixture).observe(route.margin)

    def used(self, mixture: str, usage: Mapping[str, Any]) -> None:
        """Count the tokens of an answer, as its ``usage`` object has them."""
        details = usage.get("prompt_tokens_details")
        cached = details.get("cached_tokens") if isinstance(details, Mapping) else None
        counts = {"prompt": usage.get("prompt_tokens"), "cached": cached, "completion": usage.get("completion_tokens")}
        for kind, count in counts.items():
            if isinstance(count, int) and not isinstance(count, bool) and count > 0:
                self.tokens.labels(mixture, kind).inc(count)

    def text(self) -> bytes:
        """Return everything in the Prometheus text format, of all processes of the server."""
        if self._folder is None:
            return generate_latest(self._registry)
        together = CollectorRegistry()
        MultiProcessCollector(together, self._folder)  # type: ignore[no-untyped-call]
        return generate_latest(together)
