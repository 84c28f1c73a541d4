"""Watching: takes up changed mixture files and keys while the server runs. A file that cannot be used changes nothing.

Files are looked at, not subscribed to: that works on every file system. A change is taken up once the file has stayed
as it is from one look to the next, so that a copy in the making isn't read; what a URL gives is whole and needs no
second look. One whose encoder cannot be reached is tried again at every look until it can. Requests under way end with
what they began with.

Each file has a watch of its own: neither a slow URL nor the warming of a new mixture may delay the end of a key.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from enum import Enum, auto
from pathlib import Path

from mop.errors import ModelUnavailable, MopError, SettingsError
from mop.remote import Remote
from mop.serve.gateway import Gateway
from mop.serve.keys import read_keys
from mop.serve.loading import Loader, Source
from mop.serve.warming import warm

_log = logging.getLogger("mop.serve")

#: What tells that a file has changed; None if it is gone.
Stamp = tuple[int, int, int] | None


class _Taken(Enum):
    """What became of a change: it answers now, it cannot be used, or what it needs is out of reach at present."""

    UP = auto()
    REFUSED = auto()
    LATER = auto()


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
        sources: Mixture files and URLs.
        loader: Reads one that has changed.
        keys: The file of keys, if there is one.
        seconds: Between two looks at a file; 0 never looks.
        remote_seconds: Between two looks at a URL; 0 never looks.
        rewarm: Whether to warm the prefixes of a new mixture if the embedded model answers for it.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        loader: Loader,
        *,
        keys: Path | None = None,
        seconds: float = 1.0,
        remote_seconds: float = 30.0,
        rewarm: bool = False,
    ) -> None:
        self._loader, self._seconds, self._remote_seconds = loader, seconds, remote_seconds
        self._rewarm = rewarm
        self._files = [(source, _File(source.path)) for source in sources if isinstance(source.path, Path)]
        self._remotes = [(source, source.path) for source in sources if isinstance(source.path, Remote)]
        self._keys = None if keys is None else _File(keys)

    async def __call__(self, gateway: Gateway) -> None:
        """Look again and again, until cancelled."""
        async with asyncio.TaskGroup() as group:
            if self._seconds > 0:
                for source, file in self._files:
                    group.create_task(self._watch_file(gateway, source, file))
                if self._keys is not None:
                    group.create_task(self._watch_keys(gateway, self._keys))
            if self._remote_seconds > 0:
                for source, remote in self._remotes:
                    group.create_task(self._watch_remote(gateway, source, remote))

    async def _watch_file(self, gateway: Gateway, source: Source, file: _File) -> None:
        taken = _Taken.UP
        while True:
            await asyncio.sleep(self._seconds)
            changed = file.changed()
            if changed or taken is _Taken.LATER:
                taken = await self._take_up(gateway, source, again=not changed)

    async def _watch_keys(self, gateway: Gateway, file: _File) -> None:
        while True:
            await asyncio.sleep(self._seconds)
            if file.changed():
                _take_up_keys(gateway, file.path)

    async def _watch_remote(self, gateway: Gateway, source: Source, remote: Remote) -> None:
        reached, taken = True, _Taken.UP
        waiting: bytes | None = None
        while True:
            await asyncio.sleep(self._remote_seconds)
            try:
                content = await asyncio.to_thread(remote.news)
            except MopError as error:
                if reached:  # said once, not at each look
                    self._refuse(gateway, source, error)
                reached = False
                continue
            waiting = waiting if content is None else content
            if waiting is not None:
                taken = await self._take_up(gateway, source, waiting, again=content is None)
                waiting = waiting if taken is _Taken.LATER else None
            elif taken is _Taken.UP and not reached:  # what answers is the newest after all
                _fresh(gateway, source)
            reached = True

    async def _take_up(
        self, gateway: Gateway, source: Source, content: bytes | None = None, *, again: bool = False
    ) -> _Taken:
        """Answer with what has changed; ``again`` says that it has been tried before."""
        try:
            served = await asyncio.to_thread(self._loader.load, source, content)
        except ModelUnavailable as error:
            if not again:  # said once, not at each look
                self._refuse(gateway, source, error)
            return _Taken.LATER
        except MopError as error:
            self._refuse(gateway, source, error)
        except Exception as error:  # noqa: BLE001
            # A library's own error about a strange file must not end the watch, let alone the server.
            _log.exception("A defect, or a file that a library stumbles over.")
            self._refuse(gateway, source, error)
        else:
            gateway.registry.replace(served)
            gateway.metrics.reloads.labels(source.name, "taken_up").inc()
            _fresh(gateway, source)
            _log.info("%s has changed: version %s answers now.", source.path, served.version)
            if self._rewarm and served.upstream.local:
                await warm(served)
            return _Taken.UP
        return _Taken.REFUSED

    def _refuse(self, gateway: Gateway, source: Source, error: Exception) -> None:
        gateway.registry.stale[source.name] = type(error).__name__
        gateway.metrics.reloads.labels(source.name, "refused").inc()
        gateway.metrics.stale.labels(source.name).set(1)
        _log.error("%s cannot be used as it is now; the version before goes on answering: %s", source.path, error)


def _fresh(gateway: Gateway, source: Source) -> None:
    gateway.registry.stale.pop(source.name, None)
    gateway.metrics.stale.labels(source.name).set(0)


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
