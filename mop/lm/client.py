"""Model client: asks a chat model many things at once, each at most once ever. The only way to a model in
mop.

It puts the parts together: the ledger is asked first, room in the budget is reserved before a call is sent,
the endpoint retries, and a reply is given out after its commit. What it returns depends on the requests
alone, not on concurrency or on the order in which answers come back.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Protocol
from weakref import WeakKeyDictionary

from mop.errors import BudgetExceeded, LedgerError, NotRecorded, SettingsError
from mop.lm.batch import Batch, Underway
from mop.lm.budget import Budget, Spend
from mop.lm.caps import Caps
from mop.lm.claims import Claims
from mop.lm.commits import GroupCommit
from mop.lm.endpoint import Endpoint, check_url, choose_key, is_openai
from mop.lm.ledger import Ledger
from mop.lm.meter import Meter, Traffic
from mop.lm.request import Reply, Request
from mop.lm.wire import chat_body, read_chat, read_embeddings

#: Texts in one embeddings call.
EMBED_BATCH = 64


@dataclass(slots=True)
class _Session:
    """What belongs to one event loop; ``endpoint`` is there once a call had to be sent."""

    commits: GroupCommit
    underway: Underway
    claims: Claims | None
    opening: asyncio.Lock = field(default_factory=asyncio.Lock)
    endpoint: Endpoint | None = None


class Elsewhere(Protocol):
    """Has requests answered by other processes, which record the replies in the same ledger."""

    async def run(
        self,
        requests: Sequence[Request],
        known: Mapping[str, Reply],
        meter: Meter,
        deliver: Callable[[Reply], None],
    ) -> None:
        """Answer all requests as `mop.lm.batch.Batch.run` does, counting them with ``meter``."""


class ModelClient:
    """Client of one chat model.

    Args:
        model: Name of the model; requests for other models may be sent too if the endpoint has them.
        base_url: Address of an OpenAI-compatible endpoint up to ``/v1``; ``None`` reads ``OPENAI_BASE_URL``,
            then means OpenAI.
        start: In place of ``base_url``: starts a server on this machine and returns its address. Called in a
            thread before the first call that is really sent; never, if the ledger has every reply.
        api_key: The key; ``None`` reads ``MOP_API_KEY``, then ``OPENAI_API_KEY``. It is never stored or
            shown.
        ledger: Where replies are looked up and recorded.
        budget: Caps, shared with other clients and processes of the run; ``None`` is no cap.
        concurrency: Most calls in flight; the client finds out by itself how many the endpoint takes.
        timeout: Seconds for one attempt at a call.
        deadline: Seconds for a call with all its attempts.
        run: Name of the run that pays, for the bill.
        replay: Answer from the ledger only; a call that it doesn't have is an error, and nothing is ever sent.
        elsewhere: Answers what the ledger doesn't have in place of this process, which then needs no key.
        extra_body: Further fields of the request body, such as ``{"reasoning_effort": "low"}``. They are part
            of the key of every request.

    Raises:
        SettingsError: The address, key, concurrency or extra body cannot be used.
    """

    def __init__(
        self,
        model: str,
        *,
        ledger: Ledger,
        base_url: str | None = None,
        start: Callable[[], str] | None = None,
        api_key: str | None = None,
        budget: Caps | None = None,
        concurrency: int = 8,
        timeout: float = 120.0,
        deadline: float = 600.0,
        run: str | None = None,
        replay: bool = False,
        elsewhere: Elsewhere | None = None,
        extra_body: Mapping[str, Any] | None = None,
    ) -> None:
        if concurrency < 1 or not timeout > 0 or not deadline > 0:
            raise SettingsError(
                f"concurrency={concurrency}, timeout={timeout} and deadline={deadline} must be above zero."
            )
        self.model = model
        self.replay = replay
        #: Whether a cap has refused a request of this client.
        self.refused = False
        self._run = run
        self._start = start
        self.base_url = None if start else base_url or os.environ.get("OPENAI_BASE_URL") or None
        check_url(self.base_url)
        # Who sends nothing needs no key.
        given = "none" if replay or elsewhere is not None else api_key
        self._key, self._key_source = choose_key(self.base_url, given, os.environ)
        self._elsewhere = elsewhere
        self._ledger = ledger
        self._budget: Caps = budget if budget is not None else Budget()
        self._meter = Meter(self._budget)
        self._concurrency, self._timeout, self._deadline = concurrency, timeout, deadline
        self._extra = _canonical(extra_body)
        # OpenAI's newer models refuse the old name, most other servers know only the old one.
        self._length_field = "max_completion_tokens" if not start and is_openai(self.base_url) else "max_tokens"
        self._sessions: WeakKeyDictionary[asyncio.AbstractEventLoop, _Session] = WeakKeyDictionary()

    def __repr__(self) -> str:
        return f"ModelClient({self.model!r}, base_url={self.base_url!r}, concurrency={self._concurrency})"

    async def complete(self, request: Request) -> Reply:
        """Return the reply to one request; raises as `complete_many` does."""
        return (await self.complete_many([request]))[0]

    async def complete_many(
        self, requests: Sequence[Request], on_reply: Callable[[int, Reply], None] | None = None
    ) -> list[Reply]:
        """Return the replies in the order of the requests, which is also the order in which they are sent.

        A key counts against the budget once, wherever its reply comes from. ``on_reply`` gets the position
        and the reply of each request as soon as it is there, in any order.

        Raises:
            BudgetExceeded: A request would pass a cap. Those before it were answered and recorded.
            ModelError: A request cannot be answered.
            ModelUnavailable: The endpoint failed until the deadline.
            LedgerError: The ledger cannot be read or written.
            NotRecorded: The client only replays, and the ledger doesn't have a reply.
            UnknownPrice: Money is capped and the model has no price.
        """
        session = self._session()
        places: dict[str, list[int]] = {}
        distinct: list[Request] = []
        for place, request in enumerate(requests):
            keyed = replace(request, extra=self._extra) if self._extra else request
            found = places.setdefault(keyed.key, [])
            if not found:
                distinct.append(keyed)
            found.append(place)
        replies: dict[int, Reply] = {}

        def deliver(reply: Reply) -> None:
            for place in places[reply.key]:
                replies[place] = reply
                if on_reply is not None:
                    on_reply(place, reply)

        async def send(request: Request) -> Reply:
            if self.replay:
                raise NotRecorded(_not_recorded(request, self._ledger.name))
            endpoint = await self._endpoint(session)
            reply, seconds = await endpoint.post(
                "/chat/completions",
                chat_body(request, self._length_field),
                lambda answer: read_chat(answer, request),
                model=request.model,
                jitter=int(request.key[:4], 16) / 0x10000,
            )
            return replace(reply, seconds=seconds)

        with session.underway:
            try:
                known = await asyncio.to_thread(self._ledger.get_many, list(places))
                if self._elsewhere is not None and not self.replay:
                    await self._elsewhere.run(distinct, known, self._meter, deliver)
                else:
                    batch = Batch(send, session.commits.add, session.underway, self._meter, deliver, session.claims)
                    await batch.run(distinct, known)
                await self._budget.flush()
            except BaseException as error:
                self.refused = self.refused or isinstance(error, BudgetExceeded)
                # Replies that came in before the failure or the Ctrl-C are recorded before it goes on.
                await session.commits.flush()
                # It is the first error that counts; what cannot be given back now expires with this process.
                with suppress(LedgerError):
                    if session.claims is not None:
                        await session.claims.flush()
                    await self._budget.flush()
                raise
        return [replies[place] for place in range(len(requests))]

    async def embed(self, texts: Sequence[str], model: str | None = None) -> list[list[float]]:
        """Return the vector of each text from the endpoint's embeddings API; neither recorded nor budgeted
        here.

        Raises:
            ModelError: The texts cannot be embedded.
            ModelUnavailable: The endpoint failed until the deadline.
            NotRecorded: The client only replays.
        """
        if self.replay and texts:
            raise NotRecorded(
                f"The vectors of {len(texts)} texts by {model or self.model} are not in the ledger, and this run only "
                "replays it. Run it once without replay to record them."
            )
        endpoint = await self._endpoint(self._session())
        name = model or self.model

        async def one(part: Sequence[str]) -> list[list[float]]:
            body = {"model": name, "input": list(part), "encoding_format": "float"}
            vectors, _ = await endpoint.post(
                "/embeddings", body, lambda answer: read_embeddings(answer, len(part)), model=name
            )
            return vectors

        parts = [texts[start : start + EMBED_BATCH] for start in range(0, len(texts), EMBED_BATCH)]
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(one(part)) for part in parts]
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return [vector for task in tasks for vector in task.result()]

    async def aclose(self) -> None:
        """Commit what is waiting and close this event loop's connections. The client can be used again."""
        session = self._sessions.pop(asyncio.get_running_loop(), None)
        if session is not None:
            await session.commits.flush()
            if session.endpoint is not None:
                await session.endpoint.aclose()

    @property
    def traffic(self) -> Traffic:
        """Calls that were really sent, and calls that the ledger answered."""
        return self._meter.traffic

    @property
    def spent(self) -> Spend:
        """What the replies took that this client gave out, each key once, whoever paid for it and when."""
        return self._meter.spent

    def _session(self) -> _Session:
        loop = asyncio.get_running_loop()
        session = self._sessions.get(loop)
        if session is None:
            # Who only replays sends nothing that another process could want to wait for.
            leases = None if self.replay else self._ledger.leases
            session = _Session(
                GroupCommit(self._ledger, self._run, self._budget.account),
                Underway(self._concurrency),
                None if leases is None else Claims(leases),
            )
            self._sessions[loop] = session
        return session

    async def _endpoint(self, session: _Session) -> Endpoint:
        async with session.opening:
            if session.endpoint is None:
                base_url = self.base_url if self._start is None else await asyncio.to_thread(self._start)
                session.endpoint = Endpoint(
                    base_url,
                    self._key,
                    self._key_source,
                    concurrency=self._concurrency,
                    timeout=self._timeout,
                    deadline=self._deadline,
                )
        return session.endpoint


def _not_recorded(request: Request, ledger: str) -> str:
    role, content = request.messages[-1]
    asked = " ".join(content.split())
    shown = asked if len(asked) <= 80 else asked[:79] + "…"
    return (
        f"A {request.role} call to {request.model} is not in the ledger {ledger!r}, and this run only replays it: "
        f"{role}: {shown!r} (key {request.key[:12]}…). Run it once without replay to record the call, or replay the "
        "ledger of the run with these very settings and examples."
    )


def _canonical(extra_body: Mapping[str, Any] | None) -> str:
    if not extra_body:
        return ""
    taken = {
        "model",
        "messages",
        "temperature",
        "max_tokens",
        "max_completion_tokens",
        "top_p",
        "stop",
        "seed",
    }
    clash = sorted(taken & set(extra_body)) + sorted({"n", "stream"} & set(extra_body))
    if clash:
        raise SettingsError(f"extra_body sets {', '.join(clash)}, which mop sets itself; leave them out.")
    try:
        return json.dumps(extra_body, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise SettingsError(f"extra_body cannot be written as JSON ({error}); give plain values.") from error
