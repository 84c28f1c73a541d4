"""Running: what commands that call models share, from Ctrl-C to the encoder of a mixture file."""

from __future__ import annotations

import sys
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from mop.cli.options import JudgeOptions, ModelOptions, ReplayOptions
from mop.cli.output import Output
from mop.cli.words import plural
from mop.connect import address_for, connect, open_ledger, require_endpoint
from mop.metrics import JUDGED
from mop.mixture import Mixture, check_encoder

if TYPE_CHECKING:
    from mop.judge import Judge
    from mop.lm.asked import Asked
    from mop.lm.client import ModelClient
    from mop.lm.ledger import Ledger

Result = TypeVar("Result")


def wait_for(coroutine: Coroutine[Any, Any, Result], output: Output, *clients: Asked | None) -> Result:
    """Run a command's coroutine, then close the ``clients``; at the first Ctrl-C say what is waited for."""
    from mop.sync import run

    async def work() -> Result:
        try:
            return await coroutine
        finally:
            for client in clients:
                if client is not None:
                    await client.aclose()

    def tell(calls: int) -> None:
        output.err.print(
            f"Interrupted: waiting for {plural(calls, 'call')} on the way, starting none. Ctrl-C again stops now.",
            soft_wrap=True,
        )

    return run(work(), tell)


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during calls; the message says where the answers so far are."""


@contextmanager
def opened_ledger(path: str | Path | None, *, replay: bool = False) -> Iterator[Ledger]:
    """Yield the ledger; a Ctrl-C inside becomes `Interrupted`, which says how to go on."""
    ledger = open_ledger(path, replay=replay)
    try:
        yield ledger
    except KeyboardInterrupt:
        raise Interrupted(
            f"Interrupted. Everything answered so far is in the ledger {ledger.name}; "
            "run the same command again to go on."
        ) from None
    finally:
        ledger.close()


def load_mixture(path: Path, ledger: Ledger, *, replay: bool = False) -> Mixture:
    """Load a mixture whose encoder asks the ledger first. Raises ArtifactError, EncoderMismatch, WeightsError."""
    from mop.artifact import load
    from mop.embeddings.encoders import CachedEncoder
    from mop.encoding import resolve_recorded_encoder

    mixture = load(path)
    record = mixture.encoder_record
    encoder = resolve_recorded_encoder(record.name, state=record.state, replay=replay)
    cached = CachedEncoder(encoder, ledger)
    # Only an identity with the weights' hash says that vectors in the ledger are this encoder's own.
    if "@" not in encoder.identity or encoder.identity.endswith("@hub"):
        check_encoder(mixture.encoder_record, cached if replay else encoder)
    return mixture.use_encoder(cached)


def connect_to(
    mixture: Mixture, options: ModelOptions, run: ReplayOptions, ledger: Ledger, purpose: str
) -> ModelClient:
    """Return a client of the model that the options name, or else of the mixture's own.

    ``purpose`` names the run in the ledger, at most 64 characters.
    """
    settings = options.settings(run)
    model = options.model or mixture.model
    if not run.replay:
        require_endpoint(model, settings.base_url, mixture.provenance)
    return connect(
        model,
        ledger=ledger,
        base_url=settings.base_url,
        concurrency=settings.concurrency,
        run=purpose,
        replay=run.replay,
    )


def judge_for(
    metric: str, options: JudgeOptions, run: ReplayOptions, client: ModelClient, ledger: Ledger
) -> Judge | None:
    """Return the judge that ``metric`` needs, if it does: the options' model, or else that of ``client``.

    A judge without an address of its own is asked where ``client`` asks. Its client is the caller's to close.
    """
    from mop.judge import Judge

    if metric not in JUDGED:
        return None
    settings = options.settings(run)
    if settings.judge is None:
        return Judge(client, settings.criteria)
    judge = connect(
        settings.judge,
        ledger=ledger,
        base_url=address_for(
            settings.judge,
            settings.judge_url,
            settings.model_copy(update={"model": client.model, "base_url": client.base_url}),
        ),
        concurrency=settings.concurrency,
        run="evaluate (judge)",
        replay=run.replay,
    )
    return Judge(judge, settings.criteria)


def standard_input_lines() -> list[str]:
    """Return the lines of standard input that aren't blank."""
    text = sys.stdin.buffer.read().decode("utf-8", errors="surrogateescape")
    return [line.rstrip("\r") for line in text.split("\n") if line.strip()]
