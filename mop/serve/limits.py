"""Limits: how much a server takes on, and for how long. Numbers only."""

from __future__ import annotations

from dataclasses import dataclass

from mop.errors import SettingsError


@dataclass(frozen=True, slots=True)
class Limits:
    """What the server allows.

    Attributes:
        body_bytes: Most bytes of a request's body.
        body_seconds: Seconds in which the body must have arrived, and the head before it.
        seconds: Seconds from the body to the last byte of the answer, waiting included.
        write_seconds: Seconds in which a caller must have taken what is sent to it; one who stops reading is let go.
        idle_seconds: Seconds without a byte after which a stream that has begun counts as hung.
        retry_seconds: Seconds for which an upstream that cannot be reached is tried again.
        concurrency: Most calls in flight to an upstream.
        queue: Most requests that wait beside those.
    """

    body_bytes: int = 8 * 1024 * 1024
    body_seconds: float = 30.0
    seconds: float = 600.0
    write_seconds: float = 30.0
    idle_seconds: float = 120.0
    retry_seconds: float = 30.0
    concurrency: int = 256
    queue: int = 256

    def __post_init__(self) -> None:
        for name in ("body_bytes", "body_seconds", "seconds", "write_seconds", "idle_seconds", "concurrency"):
            if not getattr(self, name) > 0:
                raise SettingsError(f"The limit {name} is {getattr(self, name)}; it must be above zero.")
        for name in ("retry_seconds", "queue"):
            if not getattr(self, name) >= 0:
                raise SettingsError(f"The limit {name} is {getattr(self, name)}; it must be zero or more.")
