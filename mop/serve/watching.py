"""Watching: takes up changed mixture files and keys while the server runs. A file that cannot be used changes nothing.

Files are looked at, not subscribed to: that works on every file system. A change is taken up once the file has stayed
as it is from one look to the next, so that a copy in the making isn't read. Requests under way end with what they began
with.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path

from mop.errors import MopError, SettingsError
from mop.serve.gateway import Gateway
from mop.serve.keys import read_keys
from mop.serve.loading import Loader, Source
from mop.serve.warming import warm

_log = logging.getLogger("mop.serve")

#: What tells that a file has changed; None if it is gone.
Stamp = tuple[int, int, int] | None


class _File:
    """One file as it was when it was last taken up."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known = self._last = _stamp(path)

    def changed(self) -> bool:
        """Whether there is a change that has settled; says so once for each."""
        now, last = _stamp(self.path), self._last
        self._last = now
        if now == self._known or now != last:
            return False
        self._known = now
        return True


class Watch:
    """Watches the files of a server; make it before they are read.

    Args:
        sources: Mixture files.
        loader: Reads one that has changed.
        keys: The file of keys, if there is one.
        seconds: Between two looks.
        rewarm: Whether to warm the prefixes of a new mixture if the embedded model answers for it.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        loader: Loader,
        *,
        keys: Path | None = None,
        seconds: float = 1.0,
        rewarm: bool = False,
    ) -> None:
        self._loader, self._seconds, self._rewarm = loader, seconds, rewarm
        self._mixtures = [(source, _File(source.path)) for source in sources]
        self._keys = None if keys is None else _File(keys)

    async def __call__(self, gateway: Gateway) -> None:
        """Look again and again, until cancelled."""
        while True:
            await asyncio.sleep(self._seconds)
            for source, file in self._mixtures:
                if file.changed():
                    await self._take_up(gateway, source)
            if self._keys is not None and self._keys.changed():
                _take_up_keys(gateway, self._keys.path)

    async def _take_up(self, gateway: Gateway, source: Source) -> None:
        try:
            served = await asyncio.to_thread(self._loader.load, source)
        except MopError as error:
            self._refuse(gateway, source, error)
        except Exception as error:  # noqa: BLE001
            # A library's own error about a strange file must not end the watch, let alone the server.
            _log.exception("A defect, or a file that a library stumbles over.")
            self._refuse(gateway, source, error)
        else:
            gateway.registry.replace(served)
            gateway.metrics.reloads.labels(source.name, "taken_up").inc()
            gateway.metrics.stale.labels(source.name).set(0)
            _log.info("%s has changed: version %s answers now.", source.path, served.version)
            if self._rewarm and served.upstream.local:
                await warm(served)

    def _refuse(self, gateway: Gateway, source: Source, error: Exception) -> None:
        gateway.registry.stale[source.name] = type(error).__name__
        gateway.metrics.reloads.labels(source.name, "refused").inc()
        gateway.metrics.stale.labels(source.name).set(1)
        _log.error("%s has changed and cannot be used; the version before goes on answering: %s", source.path, error)


def _take_up_keys(gateway: Gateway, path: Path) -> None:
    try:
        gateway.keys = read_keys(path)
    except SettingsError as error:
        _log.error("The changed keys cannot be used; those before go on counting: %s", error)
    else:
        _log.info("%s has changed: %d keys count now.", path, len(gateway.keys))


def _stamp(path: Path) -> Stamp:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
