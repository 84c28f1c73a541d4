"""Writing: what the commands of ``mop personas`` share: words to options, options to clients, and what it will take."""

from __future__ import annotations

from collections.abc import Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from mop.cli.options import ReplayOptions
from mop.cli.output import Output
from mop.cli.words import money, plural
from mop.connect import address_for, connect, is_local
from mop.errors import SettingsError
from mop.personas.exemplars import Design
from mop.personas.records import ARMS, Arm, Removal

if TYPE_CHECKING:
    from mop.embeddings.encoders import Encoder
    from mop.lm.budget import Budget
    from mop.lm.client import ModelClient
    from mop.lm.ledger import Ledger
    from mop.personas import Expected
    from mop.settings import Settings

Result = TypeVar("Result")


def arms_named(text: str) -> tuple[Arm, ...]:
    """Return the arms that a text names, with commas between. Raises SettingsError if there is no such arm."""
    named = [name.strip() for name in text.split(",")]
    known: dict[str, Arm] = {arm: arm for arm in ARMS}
    if unknown := [name for name in named if name not in known]:
        raise SettingsError(f"There is no arm {unknown[0]!r}; name some of {', '.join(ARMS)}, with commas between.")
    return tuple(known[name] for name in named)


def design_named(text: str) -> Design:
    """Return the design of the exemplars. Raises SettingsError if there is no such design."""
    if text == "diverse" or text == "similar":
        return "diverse" if text == "diverse" else "similar"
    raise SettingsError(f"There are no {text!r} exemplars; give diverse or similar.")


def removal_named(text: str) -> Removal:
    """Return the way in which mentions are removed. Raises SettingsError if there is no such way."""
    if text == "rules" or text == "audit":
        return "rules" if text == "rules" else "audit"
    raise SettingsError(f"There is no removal {text!r}; give rules or audit.")


@dataclass(frozen=True)
class Desk:
    """Where a command writes: the settings, and clients that share one ledger and one budget."""

    settings: Settings
    ledger: Ledger
    budget: Budget
    run: ReplayOptions
    purpose: str
    clients: dict[tuple[str, str | None], ModelClient]

    def model(self) -> ModelClient:
        """Return a client of the model that answers."""
        return self._client(self.settings.model, None)

    def writer(self) -> ModelClient:
        """Return a client of the model that writes identities."""
        return self._client(self.settings.proposer or self.settings.model, self.settings.proposer_url)

    def judge(self) -> ModelClient:
        """Return a client of the model that audits and grades."""
        return self._client(self.settings.judge or self.settings.model, self.settings.judge_url)

    def encoder(self) -> Encoder:
        """Return the encoder, which asks the ledger first."""
        from mop.encoding import resolve_encoder

        return resolve_encoder(self.settings.encoder, ledger=self.ledger, replay=self.run.replay)

    def wait_for(self, work: Coroutine[Any, Any, Result], output: Output) -> Result:
        """Run a command's coroutine, then close the clients."""
        from mop.cli.running import wait_for

        return wait_for(work, output, *self.clients.values())

    def bill(self) -> dict[str, int | float | None]:
        """Return what was used, and how much of it was sent now."""
        spent = self.budget.spent
        sent = sum(one.traffic.sent for one in self.clients.values())
        return {
            "calls": spent.calls,
            "sent": sent,
            "from_ledger": spent.calls - sent,
            "prompt_tokens": spent.usage.prompt_tokens,
            "completion_tokens": spent.usage.completion_tokens,
            "usd": spent.usd,
        }

    def _client(self, model: str, url: str | None) -> ModelClient:
        place = (model, address_for(model, url, self.settings))
        if place not in self.clients:
            self.clients[place] = connect(
                model,
                ledger=self.ledger,
                budget=self.budget,
                base_url=place[1],
                concurrency=self.settings.concurrency,
                run=self.purpose,
                replay=self.run.replay,
            )
        return self.clients[place]


@contextmanager
def desk(settings: Settings, run: ReplayOptions, purpose: str) -> Iterator[Desk]:
    """Yield a desk whose ledger is closed at the end; its clients are closed by `Desk.wait_for`."""
    from mop.cli.running import opened_ledger
    from mop.lm.budget import Budget

    with opened_ledger(run.ledger, replay=run.replay) as ledger:
        yield Desk(settings, ledger, Budget(settings.budget, settings.tokens, settings.usd), run, purpose, {})


def takes(expected: Expected, settings: Settings, count: int) -> str:
    """Return in words what a number of instructions will take."""
    price = ""
    if expected.usd is None:
        price = ", price not known"
    elif expected.usd or not is_local(settings.model):
        price = f", at most about {money(expected.usd)}"
    return (
        f"{plural(count, 'instruction')} take about {plural(expected.calls, 'call')} (at most "
        f"{expected.most_calls:,}, if replies must be asked for again), about "
        f"{plural(expected.prompt_tokens, 'prompt token')} and at most "
        f"{plural(expected.completion_tokens, 'completion token')}{price}."
    )


def require_file(given: str) -> None:
    """Raise SettingsError if what was given as a file looks like an option that isn't there."""
    if given.startswith("--"):
        raise SettingsError(f"There is no option {given}; --help lists the options.")


def warn_of_the_cap(settings: Settings, calls: int, output: Output) -> None:
    """Warn if a cap on calls will end the work before it is done."""
    if settings.budget is not None and settings.budget < calls:
        output.warn(
            f"The budget of {plural(settings.budget, 'call')} will not reach to the end; what is answered until then "
            "is in the ledger, and the same command with a higher budget goes on."
        )


def dropped(reasons: Mapping[str, int]) -> list[str]:
    """Return a line for each reason."""
    return [f"  dropped {count:>5,}  {reason}" for reason, count in reasons.items()]


def took(bill: Mapping[str, Any]) -> str:
    """Return a bill (`Desk.bill`) in words."""
    paid = f", {money(bill['usd'])}" if bill["usd"] else ""
    return (
        f"Took {plural(bill['calls'], 'call')} ({bill['sent']:,} sent, {bill['from_ledger']:,} from the ledger){paid}."
    )
