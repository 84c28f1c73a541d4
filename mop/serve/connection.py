"""Connection: HTTP/1.1 whose peers cannot hold it for ever by standing still. Knows nothing of requests or mixtures.

uvicorn waits without end for a peer that doesn't take what is sent to it, and for the end of a request's head. Here
both have a time; when it is over the connection is cut, which whoever answers on it sees as a caller who has gone.
"""

from __future__ import annotations

import asyncio
import socket

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol


class BoundedProtocol(H11Protocol):
    """uvicorn's protocol with two times more; `bounded` sets them."""

    #: Seconds in which a peer must have taken most of what waits to be sent (all but some kilobytes).
    write_seconds: float
    #: Seconds in which the head of a request must have arrived, once there is a connection or a part of a head.
    head_seconds: float
    _writing: asyncio.TimerHandle | None = None
    _head: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a new connection."""
        super().connection_made(transport)
        own = transport.get_extra_info("socket")
        if own is not None and hasattr(socket, "TCP_USER_TIMEOUT"):
            # For the few kilobytes that a buffer may hold without anybody waiting for them.
            own.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(self.write_seconds * 1000))
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Let the timers go with the connection."""
        self._stop_writing()
        self._stop_head()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take bytes of the peer."""
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._stop_head()
        elif self._head is None and self.conn.trailing_data[0]:
            self._await_head()

    def pause_writing(self) -> None:
        """Begin to count the time: the peer takes less than it is sent."""
        super().pause_writing()
        if self._writing is None:
            self._writing = self.loop.call_later(self.write_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """Stop counting: the peer has taken most of it."""
        self._stop_writing()
        super().resume_writing()

    def _stop_writing(self) -> None:
        if self._writing is not None:
            self._writing.cancel()
            self._writing = None

    def _stop_head(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None

    def _await_head(self) -> None:
        self._head = self.loop.call_later(self.head_seconds, self._cut_head)

    def _cut_head(self) -> None:
        self._head = None
        if self.conn.their_state is h11.IDLE and (self.cycle is None or self.cycle.response_complete):
            self.transport.abort()


def bounded(write_seconds: float, head_seconds: float) -> type[BoundedProtocol]:
    """Return the protocol with these times, for uvicorn's ``http``."""
    times = {"write_seconds": write_seconds, "head_seconds": head_seconds}
    return type("BoundedProtocol", (BoundedProtocol,), times)
