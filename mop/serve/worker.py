"""Worker: one of several server processes on one socket. `mop.serve.workers` starts it; nobody imports it.

Protocol: one argument, the number of the listening socket's descriptor. Standard input and the real standard output
carry lines of JSON objects. In: first ``{"plan": …, "quiet": …}``; later ``{"model", "address"}`` or ``{"model",
"error"}``, where an embedded model is, and ``{"fleet": {…}}``, how many processes there are. Out: ``{"ready":
[cards]}`` or ``{"error", "status"}``, and ``{"need": model}``. When standard input closes, the one who started it has
died, and the worker ends as it does on SIGTERM.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Mapping
from typing import IO, Any

from starlette.applications import Starlette

from mop.errors import ModelError, MopError, SettingsError
from mop.serve.limits import Limits
from mop.serve.process import Plan, make_app, run

_log = logging.getLogger("mop.serve")


class Channel:
    """The two ends that this process shares with the one that started it."""

    def __init__(self, incoming: io.FileIO, outgoing: IO[bytes]) -> None:
        self._incoming, self._outgoing = incoming, outgoing
        self._writing = threading.Lock()
        self._change = threading.Condition()
        self._addresses: dict[str, Mapping[str, Any]] = {}
        self._asking: dict[str, int] = {}
        self._closed = False
        self.app: Starlette | None = None
        self._fleet: dict[str, int] = {}

    def read(self) -> dict[str, Any]:
        """Return the next message; empty at the end."""
        line = self._incoming.readline()
        message: dict[str, Any] = json.loads(line) if line else {}
        return message

    def tell(self, **message: Any) -> None:
        """Send a message."""
        with self._writing, contextlib.suppress(BrokenPipeError):
            self._outgoing.write(json.dumps(message).encode() + b"\n")
            self._outgoing.flush()

    def address_of(self, model: str) -> str:
        """Return where the embedded model answers; it is started if it doesn't run.

        Raises ModelError if it cannot be started.
        """
        with self._change:
            if not self._asking.get(model):
                self._addresses.pop(model, None)
                self.tell(need=model)
            self._asking[model] = self._asking.get(model, 0) + 1
            self._change.wait_for(lambda: model in self._addresses or self._closed)
            found = self._addresses.get(model, {"error": "The process that runs the embedded model has ended."})
            self._asking[model] -= 1
        if "error" in found:
            raise ModelError(found["error"])
        return str(found["address"])

    def listen(self) -> None:
        """Take messages until there are no more; then have this process end."""
        while message := self.read():
            if "model" in message:
                with self._change:
                    self._addresses[message["model"]] = message
                    self._change.notify_all()
            elif "fleet" in message:
                self._fleet = message["fleet"]
                self.show_fleet()
        with self._change:
            self._closed = True
            self._change.notify_all()
        os.kill(os.getpid(), signal.SIGTERM)

    def show_fleet(self) -> None:
        """Have the application tell how many processes there are."""
        if self.app is not None:
            gateway = self.app.state.gateway
            gateway.fleet = self._fleet
            for state, count in self._fleet.items():
                gateway.metrics.workers.labels(state).set(count)


def plan_of(fields: Mapping[str, Any]) -> Plan:
    """Return the plan that was written as JSON."""
    return Plan(**{**fields, "mixtures": tuple(fields["mixtures"]), "limits": Limits(**fields["limits"])})


def main() -> int:
    """Serve as the first message says; return the exit status."""
    # Without a buffer, whose lock a reading thread would still hold when the interpreter ends.
    channel = Channel(io.FileIO(0, "rb", closefd=False), os.fdopen(os.dup(1), "wb"))
    os.dup2(2, 1)  # what libraries print is no message
    first = channel.read()
    if not first:
        return 0
    bound = socket.socket(fileno=int(sys.argv[1]))
    logging.basicConfig(format=f"%(asctime)s %(levelname)s [{os.getpid()}] %(message)s", level=logging.WARNING)
    _log.setLevel(logging.WARNING if first["quiet"] else logging.INFO)
    threading.Thread(target=channel.listen, daemon=True).start()
    plan = plan_of(first["plan"])
    try:
        app = make_app(plan, channel.address_of)
    except MopError as error:
        channel.tell(error=str(error), status=error.exit_code)
        return error.exit_code
    channel.app = app
    channel.show_fleet()
    with contextlib.suppress(KeyboardInterrupt):
        run(plan, bound, app, lambda cards: channel.tell(ready=[dataclasses.asdict(card) for card in cards]))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (SettingsError, OSError) as error:
        _log.error("The worker has ended: %s", error)
        sys.exit(1)
