"""Models: the clients of one run, by what they are for. Roles that name the same model share one client."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mop.connect import address_for, connect

if TYPE_CHECKING:
    from mop.cluster.crew import Crew
    from mop.lm.caps import Caps
    from mop.lm.client import ModelClient
    from mop.lm.ledger import Ledger
    from mop.settings import Settings


@dataclass(frozen=True)
class Models:
    """The model that answers, the one that writes instructions and the one that judges, on one ledger and budget."""

    client: ModelClient
    proposer: ModelClient
    judge: ModelClient

    @classmethod
    def connect(
        cls,
        settings: Settings,
        ledger: Ledger,
        budget: Caps | None,
        run: str,
        *,
        replay: bool = False,
        crew: Crew | None = None,
    ) -> Models:
        """Connect every role that the settings name; with a ``crew`` its workers make the calls.

        Raises as `mop.connect.connect` does.
        """
        made: dict[tuple[str, str | None], ModelClient] = {}

        def client(model: str | None, url: str | None) -> ModelClient:
            place = (model or settings.model, address_for(model or settings.model, url, settings))
            if place not in made:
                made[place] = connect(
                    place[0],
                    ledger=ledger,
                    budget=budget,
                    base_url=place[1],
                    concurrency=settings.concurrency,
                    run=run,
                    replay=replay,
                    crew=crew,
                )
            return made[place]

        return cls(
            client(None, None),
            client(settings.proposer, settings.proposer_url if settings.proposer else None),
            client(settings.judge, settings.judge_url if settings.judge else None),
        )

    @property
    def names(self) -> tuple[str, str, str]:
        """The names of the models that answer, write instructions and judge."""
        return self.client.model, self.proposer.model, self.judge.model

    @property
    def marks(self) -> dict[str, bool]:
        """What a mixture's report says of a search that a cap ended in the middle; nothing if none did."""
        return {"cut_short": True} if any(one.refused for one in self.distinct) else {}

    @property
    def distinct(self) -> list[ModelClient]:
        """Every client once."""
        return list({id(one): one for one in (self.client, self.proposer, self.judge)}.values())

    async def aclose(self) -> None:
        """Close every client."""
        for one in self.distinct:
            await one.aclose()
