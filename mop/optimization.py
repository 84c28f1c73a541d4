"""optimize: from labelled examples to a Mixture. Puts the parts together; knows each only by its front."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from mop.connect import connect, open_ledger
from mop.data import coerce_examples, split_examples
from mop.drift import Reference
from mop.encoding import resolve_encoder
from mop.examples import Splits
from mop.lm.budget import Budget, Spend
from mop.lm.meter import Traffic
from mop.metrics import get_metric, metric_name
from mop.mixture import PROBES, EncoderRecord, Mixture
from mop.settings import Settings, make_settings
from mop.sync import run

if TYPE_CHECKING:
    from mop.embeddings.encoders import Encoder, Vectors
    from mop.lm.ledger import Ledger
    from mop.search.learning import Listener
    from mop.search.plan import Plan

#: Part of the examples that is kept for validation when no split is given.
VALIDATION_SHARE = 0.25


@dataclass
class Run:
    """What a search used: its spend against the budget, and what was really sent.

    ``traffic`` (one entry per client) can be watched while the search goes on; the rest is filled in at its end.
    """

    traffic: Sequence[Traffic] = ()
    spend: Spend = field(default_factory=Spend)
    sent: int = 0
    from_ledger: int = 0
    seconds: float = 0.0


def optimize(
    train: Any,
    model: str | None = None,
    budget: int | str | None = None,
    *,
    validation: Any = None,
    input_column: str = "input",
    output_column: str = "output",
    ledger: Ledger | str | os.PathLike[str] | None = None,
    listener: Listener | None = None,
    replay: bool = False,
    **options: Any,
) -> Mixture:
    """Learn a mixture of prompts from labelled examples.

    ``train`` is a list of Example, of dictionaries with "input" and "output", or of pairs; a data frame with these
    columns; or the path of a JSONL, CSV or Parquet file. ``input_column`` and ``output_column`` name other columns.
    Without ``validation``, a quarter is set apart for it; rows marked as test rows are not used.
    ``budget`` caps the search: a number of model calls (600 by default), or a text such as ``"200k tokens"`` or
    ``"2 USD"``.
    ``options`` are the fields of `Settings`. The ledger defaults to the user's own; calls that it holds are not sent
    again. With ``replay`` nothing is sent at all: the run takes every call from the ledger.

    Raises DataError for unusable examples, SettingsError for unusable options, BudgetExceeded, ModelError, and
    NotRecorded for a call that a replay doesn't find.
    """
    settings = make_settings({"model": model, "budget": budget, **options})
    columns = {"input_column": input_column, "output_column": output_column}
    splits = prepare(train, validation, seed=settings.seed, columns=columns)
    return run(aoptimize(splits, settings, ledger=ledger, listener=listener, replay=replay))


def prepare(train: Any, validation: Any = None, *, seed: int = 0, columns: Mapping[str, str] | None = None) -> Splits:
    """Return training and validation examples; without ``validation``, split ``train`` as its rows say, or 3 to 1.

    ``columns`` are the options of `mop.data.coerce_examples` that name columns.
    """
    examples = coerce_examples(train, **(columns or {}))
    if validation is not None:
        # An unmarked row is a training row once validation has rows of its own; a marked test row stays one.
        examples = [replace(one, split=one.split or "train") for one in examples]
        given = coerce_examples(validation, **(columns or {}))
        examples += [replace(one, split="validation") for one in given]
    return split_examples(examples, seed=seed, validation=VALIDATION_SHARE)


async def aoptimize(
    splits: Splits,
    settings: Settings,
    *,
    ledger: Ledger | str | os.PathLike[str] | None = None,
    listener: Listener | None = None,
    used: Run | None = None,
    budget: Budget | None = None,
    replay: bool = False,
) -> Mixture:
    """Learn a mixture; the async form of `optimize`.

    ``used`` is filled in with what the run used; ``budget``, made by `make_budget`, can be watched meanwhile.
    """
    import asyncio

    from mop.embeddings.encoders import CachedEncoder
    from mop.search.learning import Session, Silence
    from mop.search.methods import get_method
    from mop.search.problem import Problem
    from mop.search.trials import Trials

    started = time.perf_counter()
    learn = get_method(settings.method).load()
    used = used if used is not None else Run()
    book = open_ledger(ledger, replay=replay)
    run_name = _run_name(settings, splits)
    listener = listener or Silence()
    budget = budget or make_budget(settings)
    metric = get_metric(settings.metric)
    listener.stage("encoding examples")
    bare_encoder = await asyncio.to_thread(resolve_encoder, settings.encoder, replay=replay)
    encoder = CachedEncoder(bare_encoder, book)
    train_vectors, validation_vectors = await asyncio.to_thread(_encode, encoder, splits)
    record = EncoderRecord(settings.encoder, encoder.identity, await asyncio.to_thread(encoder.encode, PROBES))
    problem = Problem(
        train=splits.train,
        validation=splits.validation,
        train_vectors=train_vectors,
        validation_vectors=validation_vectors,
        metric=metric,
        seed=settings.seed,
        description=settings.instruction,
    )
    plan = make_plan(settings, splits)
    client = await asyncio.to_thread(
        connect,
        settings.model,
        ledger=book,
        budget=budget,
        base_url=settings.base_url,
        concurrency=settings.concurrency,
        run=run_name,
        replay=replay,
    )
    proposer = client
    if settings.proposer is not None and settings.proposer != settings.model:
        proposer = await asyncio.to_thread(
            connect,
            settings.proposer,
            ledger=book,
            budget=budget,
            base_url=settings.proposer_url or settings.base_url,
            concurrency=settings.concurrency,
            run=run_name,
            replay=replay,
        )
    used.traffic = [one.traffic for one in {id(one): one for one in (client, proposer)}.values()]
    decoding = problem.decoding
    trials = Trials(client, decoding, metric)
    session = Session(
        problem=problem,
        plan=plan,
        trials=trials,
        proposer=proposer,
        max_demos=settings.max_demos,
        token_budget=settings.prompt_tokens,
        confidence=settings.confidence,
        refit=settings.refit,
        retrieved=settings.retrieved,
        experts=settings.experts,
        proposals=settings.proposals,
        listener=listener,
    )
    try:
        learned = await learn(session)
    finally:
        _fill(used, budget, time.perf_counter() - started)
        await client.aclose()
        if proposer is not client:
            await proposer.aclose()
        if book is not ledger:
            book.close()
    mixture = Mixture(
        experts=tuple(learned.experts),
        generalist=learned.generalist,
        centroids=learned.centroids,
        projection=learned.projection,
        retrieval=learned.retrieval,
        encoder_record=record,
        model=settings.model,
        decoding=decoding,
        metric=metric_name(metric),
        report={**learned.report, "zero_shot": learned.zero_shot.instruction},
        provenance=_provenance(settings, splits, used.spend),
    )
    mixture = replace(mixture, reference=reference_of(mixture, validation_vectors))
    return mixture.with_known_encoder(bare_encoder)


def reference_of(mixture: Mixture, vectors: Vectors) -> Reference:
    """Return what examples that chose no centroid look like to the router; ``vectors`` are the encoder's."""
    routes = mixture.route_vectors(vectors)
    return Reference.of([route.expert for route in routes], [route.distance for route in routes], len(mixture))


def make_budget(settings: Settings) -> Budget:
    """Return the caps of a run."""
    return Budget(calls=settings.budget, tokens=settings.tokens, usd=settings.usd)


def make_plan(settings: Settings, splits: Splits) -> Plan:
    """Return the plan of a run: the smallest number of calls that any of the caps allows, divided over the stages."""
    from mop.estimate import affordable_calls
    from mop.search.plan import Plan

    return Plan.of(
        affordable_calls(settings, splits),
        train=len(splits.train),
        validation=len(splits.validation),
        experts=settings.experts,
        proposals=settings.proposals,
    )


def _encode(encoder: Encoder, splits: Splits) -> tuple[Any, Any]:
    texts = [example.input for example in (*splits.train, *splits.validation)]
    vectors = encoder.encode(texts)
    return vectors[: len(splits.train)], vectors[len(splits.train) :]


def _fill(used: Run, budget: Budget, seconds: float) -> None:
    used.spend = budget.spent
    used.sent = sum(one.sent for one in used.traffic)
    used.from_ledger = sum(one.from_ledger for one in used.traffic)
    used.seconds = seconds


def data_hash(splits: Splits) -> str:
    """Return the SHA-256 of the training and validation examples, in order."""
    digest = hashlib.sha256()
    for name, examples in (("train", splits.train), ("validation", splits.validation)):
        digest.update(name.encode())
        for example in examples:
            digest.update(json.dumps([example.input, example.outputs]).encode())
    return digest.hexdigest()


def _run_name(settings: Settings, splits: Splits) -> str:
    """Return the run's name in the ledger: the same for the same settings and data, so that a resumed run keeps it."""
    given = settings.model_dump(mode="json", exclude={"concurrency", "metric"})
    text = json.dumps([given, metric_name(get_metric(settings.metric)), data_hash(splits)], sort_keys=True)
    return f"optimize {hashlib.sha256(text.encode()).hexdigest()[:12]}"


def _provenance(settings: Settings, splits: Splits, spend: Spend) -> dict[str, Any]:
    # Only what the run decided and used goes in, never how fast it was or what the ledger held already: the same
    # seed and answers give the same file.
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    created = datetime.fromtimestamp(int(epoch), UTC) if epoch else datetime.now(UTC)
    return {
        "created": created.isoformat(timespec="seconds"),
        "mop": version("mop"),
        "python": platform.python_version(),
        "method": settings.method,
        "seed": settings.seed,
        "model": settings.model,
        "proposer": settings.proposer or settings.model,
        # Not the address itself: it may be private, and a port of today means nothing tomorrow.
        "own_endpoint": bool(settings.base_url or os.environ.get("OPENAI_BASE_URL")),
        "data_sha256": data_hash(splits),
        "train": len(splits.train),
        "validation": len(splits.validation),
        "calls": spend.calls,
        "calls_by_role": {role: part.calls for role, part in sorted(spend.by_role.items())},
        "prompt_tokens": spend.usage.prompt_tokens,
        "completion_tokens": spend.usage.completion_tokens,
        "settings": {
            name: getattr(settings, name)
            for name in (
                "budget",
                "tokens",
                "usd",
                "experts",
                "max_demos",
                "prompt_tokens",
                "retrieved",
                "confidence",
                "refit",
            )
        },
    }
