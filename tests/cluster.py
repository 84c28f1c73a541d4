"""What tests of a Dask cluster share: a run on it, and a wire to its scheduler that can go silent or be cut."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from contextlib import suppress
from typing import Any

from fake_endpoint import FakeEndpoint, fingerprint
from worker import questions

from mop.cluster.crew import Crew
from mop.errors import MopError
from mop.lm.budget import Budget
from mop.lm.client import ModelClient
from mop.lm.ledger import Ledger
from mop.lm.shared_budget import SharedBudget

#: The API key of the workers, which nobody else has.
KEY = "sk-of-the-workers"


def chats(server: FakeEndpoint) -> Counter[str]:
    """Return how often each question was asked."""
    return Counter(fingerprint(body) for body in server.bodies if "messages" in body)


async def spend(
    scheduler: str | None, url: str, server: FakeEndpoint, count: int = 20, **caps: Any
) -> tuple[set[int], MopError | None, int]:
    """Ask questions under caps; return which were answered, what ended it, and the calls that were counted."""
    ledger = Ledger(url)
    budget = SharedBudget(ledger, "the run", **caps) if scheduler else Budget(**caps)
    answered, ended, crew, client = set[int](), None, None, None
    try:
        crew = await asyncio.to_thread(Crew, scheduler, ledger, budget, 8) if scheduler else None
        there = crew.at("fake", server.base_url) if crew else None
        given = {"base_url": server.base_url, "ledger": ledger, "budget": budget, "run": "the run"}
        client = ModelClient("fake", **given, elsewhere=there)
        if crew is not None:
            await asyncio.to_thread(crew.check)
        await client.complete_many(questions(count), lambda place, _: answered.add(place))
    except MopError as error:
        ended = error
    finally:
        if client is not None:
            await client.aclose()
        if crew is not None:
            await asyncio.to_thread(crew.close)
        ledger.close()
    return answered, ended, budget.spent.calls


class Wire:
    """A relay on loopback to ``address`` (``tcp://HOST:PORT``), for as long as it isn't cut; use it in a `with`."""

    def __init__(self, address: str) -> None:
        host, _, port = address.removeprefix("tcp://").rpartition(":")
        self._there = host, int(port)
        self._flows = asyncio.Event()
        self._ends: list[asyncio.StreamWriter] = []
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)

    def __enter__(self) -> Wire:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    def silence(self) -> None:
        """Pass nothing on any more, as if the scheduler's process were stopped."""
        self._loop.call_soon_threadsafe(self._flows.clear)

    def cut(self) -> None:
        """Close all connections and take no new ones, as if the scheduler had died."""

        def cut() -> None:
            self._server.close()
            for end in self._ends:
                end.close()

        self._loop.call_soon_threadsafe(cut)

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self._flows.set()
        self._server = await asyncio.start_server(self._join, "127.0.0.1", 0)
        self.address = f"tcp://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        self._ready.set()
        await self._stop.wait()

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        other_reader, other_writer = await asyncio.open_connection(*self._there)
        self._ends += [writer, other_writer]
        await asyncio.gather(self._pass(reader, other_writer), self._pass(other_reader, writer))

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(1 << 16):
                await self._flows.wait()
                writer.write(data)
                await writer.drain()
        writer.close()
