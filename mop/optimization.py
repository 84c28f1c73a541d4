"""optimize: from labelled examples to a Mixture. Puts the parts together; knows each only by its front."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from mop.connect import open_ledger
from mop.data import coerce_examples, split_examples
from mop.data.normal_form import normal_form
from mop.drift import Reference
from mop.encoding import fit_encoder, state_of
from mop.errors import DataError
from mop.examples import Splits
from mop.lm.budget import Budget, Spend
from mop.lm.caps import Caps
from mop.lm.meter import Traffic
from mop.metrics import get_metric, metric_name
from mop.mixture import PROBES, EncoderRecord, Mixture
from mop.provenance import provenance_of, run_name
from mop.scoring import make_scorer
from mop.settings import Settings, make_settings
from mop.sync import run

if TYPE_CHECKING:
    from mop.embeddings.encoders import Encoder, Vectors
    from mop.lm.ledger import Ledger
    from mop.models import Models
    from mop.search.ablations import Ablations
    from mop.search.learning import Listener
    from mop.search.plan import Plan

#: Part of the examples that is kept for validation when no split is given.
VALIDATION_SHARE = 0.25
#: Part of the calls that is kept for personas, if they are tried.
PERSONA_SHARE = 0.4


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
    #: Instructions that a white-box model wrote now, those that the ledger had, and the seconds of writing.
    white_box: tuple[int, int, float] = (0, 0, 0.0)


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

    Training examples whose inputs validation or test repeats, up to case, spacing and punctuation, are left out: a
    prompt that shows them would be judged on what it shows. ``columns`` are the options of `mop.data.coerce_examples`
    that name columns. Raises DataError if no training example is left.
    """
    examples = coerce_examples(train, **(columns or {}))
    if validation is not None:
        # An unmarked row is a training row once validation has rows of its own; a marked test row stays one.
        examples = [replace(one, split=one.split or "train") for one in examples]
        given = coerce_examples(validation, **(columns or {}))
        examples += [replace(one, split="validation") for one in given]
    splits = split_examples(examples, seed=seed, validation=VALIDATION_SHARE)
    taken = {normal_form(one.input) for one in (*splits.validation, *splits.test)}
    kept = tuple(one for one in splits.train if normal_form(one.input) not in taken)
    if not kept:
        raise DataError(
            f"All {len(splits.train)} training examples stand in validation or test as well, so none is left to learn "
            "from; give other ones."
        )
    return replace(splits, train=kept)


async def aoptimize(
    splits: Splits,
    settings: Settings,
    *,
    ledger: Ledger | str | os.PathLike[str] | None = None,
    listener: Listener | None = None,
    used: Run | None = None,
    budget: Caps | None = None,
    replay: bool = False,
    ablations: Ablations | None = None,
) -> Mixture:
    """Learn a mixture; the async form of `optimize`.

    ``used`` is filled in with what the run used; ``budget``, made by `make_budget`, can be watched meanwhile.
    ``ablations`` exchange parts of the method, for experiments.
    """
    import asyncio

    from mop.models import Models

    book = await asyncio.to_thread(open_ledger, ledger, replay=replay)
    crew = None
    try:
        if budget is None:
            budget = await asyncio.to_thread(make_budget, settings, None if replay else book, splits)
        if settings.backend == "dask":
            from mop.cluster.crew import muster

            crew = await asyncio.to_thread(muster, settings, book, budget, replay=replay)
        name = run_name(settings, splits)
        models = await asyncio.to_thread(Models.connect, settings, book, budget, name, replay=replay, crew=crew)
        if crew is not None:
            await asyncio.to_thread(crew.check)
        used = used if used is not None else Run()
        return await _aoptimize(
            splits, settings, book, budget, models, listener, used, replay=replay, ablations=ablations
        )
    finally:
        if crew is not None:
            await asyncio.to_thread(crew.close)
        if book is not ledger:
            book.close()


async def _aoptimize(
    splits: Splits,
    settings: Settings,
    book: Ledger,
    caps: Caps,
    models: Models,
    listener: Listener | None,
    used: Run,
    *,
    replay: bool,
    ablations: Ablations | None,
) -> Mixture:
    """Learn a mixture with ``models``, which are closed at the end."""
    import asyncio

    from mop.embeddings.encoders import CachedEncoder
    from mop.embeddings.projection import project
    from mop.embeddings.region_map import draw_map
    from mop.estimate import judge_tokens
    from mop.judge import Judge
    from mop.search.ablations import Ablations
    from mop.search.allowance import Allowance
    from mop.search.generalist import check_room
    from mop.search.learning import Session, Silence
    from mop.search.methods import get_method
    from mop.search.problem import Problem
    from mop.search.trials import Trials

    started = time.perf_counter()
    learn = get_method(settings.method).load()
    name = run_name(settings, splits)
    listener = listener or Silence()
    metric = get_metric(settings.metric, allow_code=settings.allow_code)
    white_box = None
    if "white_box" in get_method(settings.method).heeds:
        from mop.lm.white_box import WhiteBox

        white_box = await asyncio.to_thread(WhiteBox, settings.white_box, ledger=book, run=name, replay=replay)
    listener.stage("encoding examples")
    bare_encoder = await asyncio.to_thread(
        fit_encoder, settings.encoder, [example.input for example in splits.train], replay=replay
    )
    encoder = CachedEncoder(bare_encoder, book)
    train_vectors, validation_vectors = await asyncio.to_thread(_encode, encoder, splits)
    probes = await asyncio.to_thread(encoder.encode, PROBES)
    record = EncoderRecord(settings.encoder, encoder.identity, probes, state_of(bare_encoder))
    problem = Problem(
        train=splits.train,
        validation=splits.validation,
        train_vectors=train_vectors,
        validation_vectors=validation_vectors,
        metric=metric,
        seed=settings.seed,
        description=settings.instruction,
        answer_tokens=settings.answer_tokens,
    )
    plan = make_plan(settings, splits)
    client = models.client
    used.traffic = [one.traffic for one in models.distinct]
    decoding = problem.decoding
    trials = Trials(client, decoding, make_scorer(metric, Judge(models.judge, settings.criteria)))
    caps_of: dict[str, Any] = {"budget": caps, "trials": trials, "clients": models.distinct, "models": models.names}
    allowance = Allowance(plan.calls, **caps_of, score=judge_tokens(settings, splits), kept=plan.kept)
    session = Session(
        problem=problem,
        plan=plan,
        trials=trials,
        proposer=models.proposer,
        max_demos=settings.max_demos,
        token_budget=settings.prompt_tokens,
        confidence=settings.confidence,
        refit=settings.refit,
        retrieved=settings.retrieved,
        experts=settings.experts,
        proposals=settings.proposals,
        coverage=settings.coverage,
        soft=settings.soft,
        border_share=settings.border_share,
        personas=settings.personas != "off",
        own_personas=settings.persona,
        encoder=encoder,
        white_box=white_box,
        allowance=allowance,
        listener=listener,
        ablations=ablations or Ablations(),
    )
    try:
        check_room(session, asks=get_method(settings.method).asks)
        learned = await learn(session)
    finally:
        _fill(used, caps, time.perf_counter() - started)
        if white_box is not None:
            used.white_box = (white_box.written, white_box.from_ledger, white_box.seconds)
        await models.aclose()
    region_map = None
    if len(learned.experts) > 1:
        routed = project(train_vectors, learned.projection)
        region_map = await asyncio.to_thread(draw_map, learned.centroids, routed, seed=settings.seed)
    provenance = provenance_of(settings, splits, used.spend)
    if ablations and (exchanged := ablations.given()):
        provenance["ablations"] = exchanged
    mixture = Mixture(
        experts=tuple(learned.experts),
        generalist=learned.generalist,
        centroids=learned.centroids,
        projection=learned.projection,
        retrieval=learned.retrieval,
        limits=learned.limits,
        region_map=region_map,
        encoder_record=record,
        model=settings.model,
        decoding=decoding,
        metric=metric_name(metric),
        report={**learned.report, "zero_shot": learned.zero_shot.instruction, **models.marks},
        provenance=provenance,
    )
    mixture = replace(mixture, reference=reference_of(mixture, validation_vectors))
    return mixture.with_known_encoder(bare_encoder)


def make_budget(settings: Settings, ledger: Ledger | None = None, splits: Splits | None = None) -> Caps:
    """Return the caps of a run: where the ledger is on a server, one budget for all processes with this command.

    Raises LedgerError.
    """
    caps = (settings.budget, settings.tokens, settings.usd)
    if ledger is None or splits is None or ledger.database.is_sqlite:
        # Processes with one file do what one does, so each can keep the books by itself.
        return Budget(*caps)
    from mop.lm.shared_budget import SharedBudget

    return SharedBudget(ledger, run_name(settings, splits), *caps)


def reference_of(mixture: Mixture, vectors: Vectors) -> Reference:
    """Return what examples that chose no centroid look like to the router; ``vectors`` are the encoder's."""
    routes = mixture.route_vectors(vectors)
    return Reference.of([route.expert for route in routes], [route.distance for route in routes], len(mixture))


def make_plan(settings: Settings, splits: Splits) -> Plan:
    """Return the plan of a run: the smallest number of calls that any of the caps allows, divided over the stages.

    Where a judge scores, a trial takes its calls as well, so the plan is one of trials and smaller by that.
    """
    from mop.estimate import planned_calls
    from mop.search.plan import Plan

    return Plan.of(
        planned_calls(settings, splits),
        train=len(splits.train),
        validation=len(splits.validation),
        experts=settings.experts,
        proposals=settings.proposals,
        keep=PERSONA_SHARE if settings.personas != "off" else 0.0,
    )


def _encode(encoder: Encoder, splits: Splits) -> tuple[Any, Any]:
    texts = [example.input for example in (*splits.train, *splits.validation)]
    vectors = encoder.encode(texts)
    return vectors[: len(splits.train)], vectors[len(splits.train) :]


def _fill(used: Run, budget: Caps, seconds: float) -> None:
    used.spend = budget.spent
    used.sent = sum(one.sent for one in used.traffic)
    used.from_ledger = sum(one.from_ledger for one in used.traffic)
    used.seconds = seconds
