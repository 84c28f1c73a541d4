"""Cells: one method on one task under one seed, what identifies it, and how it is run. Knows nothing of other cells."""

from __future__ import annotations

import hashlib
import json
import platform
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.routing import ROUTINGS, Routing
from benchmarks.splitting import Sizes, split_task, splits_hash
from benchmarks.tasks import load_task
from mop.connect import address_for, connect, open_ledger
from mop.evaluation import SystemScore
from mop.judge import Judge
from mop.lm.budget import Spend
from mop.lm.client import ModelClient
from mop.lm.ledger import Ledger
from mop.metrics import JUDGED, get_metric
from mop.mixture import Mixture
from mop.optimization import Run, aoptimize
from mop.provenance import data_hash
from mop.scoring import make_scorer
from mop.search.ablations import Ablations
from mop.settings import Settings, make_settings
from mop.sync import run

#: Packages whose version can change a result.
PACKAGES = ("mop", "numpy", "scipy", "scikit-learn", "faiss-cpu", "sentence-transformers", "torch", "openai")
#: Those that not every installation has: local models, and the baselines with a white box.
OPTIONAL = ("xllamacpp", "transformers", "botorch", "gpytorch")
#: Schema of a result line.
SCHEMA = 2
#: Part of every cell's key; to be raised when a change of a method or of a default would give finished cells another
#: result: that of one method where no other one changes. (A setting at its default is no part of the key, so that a new
#: setting leaves finished cells finished.)
ERA = 7
ERA_OF = {"mop": 10, "mop-fixed": 10}


@dataclass(frozen=True)
class Cell:
    """One method on one task under one seed.

    ``options`` are the settings of the search that the user gave, ``parts`` the parts of the method that are exchanged
    (`mop.search.ablations`, and ``routing``), ``sizes`` those of the splits. ``data`` is the SHA-256 of the task's
    files. ``bounds`` is for how many test examples all experts are asked (`benchmarks.routing`); it changes no result.
    ``key`` identifies the cell: whatever can change its result (every setting that differs from its default, every
    exchanged part, mop's version and the era of the method), but neither the address of the endpoint nor how many
    calls are in flight.
    """

    task: str
    method: str
    seed: int
    data: str
    metric: str
    sizes: Sizes
    options: tuple[tuple[str, Any], ...] = ()
    parts: tuple[tuple[str, str], ...] = ()
    bounds: int = field(default=0, compare=False)

    @property
    def era(self) -> int:
        """The version of the method's decisions."""
        return ERA_OF.get(self.method, ERA)

    @property
    def key(self) -> str:
        """SHA-256 (24 hex digits) of everything that identifies the cell."""
        # Resolved settings, so that a default that is given explicitly makes no other cell.
        resolved = self._resolved()
        defaults = {name: field.default for name, field in type(resolved).model_fields.items()}
        parts = {
            "task": self.task,
            "data": self.data,
            "sizes": asdict(self.sizes),
            "settings": {name: value for name, value in _settings(resolved).items() if value != defaults[name]},
            "mop": version("mop"),
            "era": self.era,
        }
        if self.parts:
            parts["parts"] = dict(self.parts)
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]

    def settings(self, place: Place) -> Settings:
        """Return the settings of the search; the environment's MOP_* variables have no say in an experiment."""
        where = {"base_url": place.base_url, "proposer_url": place.proposer_url, "concurrency": place.concurrency}
        where |= {"judge_url": place.judge_url, "allow_code": place.allow_code or None}
        return self._resolved(**where)

    def _resolved(self, **where: Any) -> Settings:
        given = {**dict(self.options), "method": self.method, "seed": self.seed}
        if "budget" not in given:  # the caps are tokens or money alone
            given["budget"] = f"{given.pop('tokens')} tokens" if "tokens" in given else f"{given.pop('usd')} USD"
        settings = make_settings({**given, **where}, environment={})
        return settings.model_copy(update={"metric": self.metric})

    def conditions(self) -> dict[str, Any]:
        """Return what a line of the result file says of the cell, finished or not."""
        return {
            "schema": SCHEMA,
            "era": self.era,
            "cell": self.key,
            "task": self.task,
            "method": self.method,
            "seed": self.seed,
            "options": {**dict(self.options), **dict(self.parts)},
            "metric": self.metric,
            "data_sha256": self.data,
            "most_test": self.sizes.test,
            "versions": _versions(),
        }


@dataclass(frozen=True)
class Place:
    """Where cells are run: data folder, ledger, endpoint. Nothing here changes a result.

    ``mixtures`` is a folder that keeps every learned mixture, if one is wanted; ``allow_code`` lets metrics run what
    the model writes, in a sandbox.
    """

    data: str
    # Not shown, because Dask logs the arguments of a task that fails, and a URL may hold a password.
    ledger: str = field(repr=False)
    base_url: str | None = None
    proposer_url: str | None = None
    judge_url: str | None = None
    concurrency: int | None = None
    mixtures: str | None = None
    allow_code: bool = False


def run_cell(cell: Cell, place: Place) -> dict[str, Any]:
    """Learn by the cell's method, score the result on the test examples, and return the line of results.

    Everything that the ledger of ``place`` knows is taken from there, so an interrupted cell goes on where it was.
    """
    ledger = open_ledger(place.ledger)
    try:
        return run(_run(cell, place, ledger))
    finally:
        ledger.close()


async def _run(cell: Cell, place: Place, ledger: Ledger) -> dict[str, Any]:
    import asyncio

    task = await asyncio.to_thread(load_task, Path(place.data), cell.task)
    splits = split_task(task, cell.seed, cell.sizes)
    settings = cell.settings(place)
    used, started = Run(), time.perf_counter()
    parts = dict(cell.parts)
    routing = parts.pop("routing", ROUTINGS[0])
    mixture = await aoptimize(splits, settings, ledger=ledger, used=used, ablations=Ablations.of(parts))
    learned = time.perf_counter()
    client = connect(settings.model, ledger=ledger, base_url=place.base_url, concurrency=place.concurrency)
    judge = _judge(settings, client, ledger)
    try:
        scorer = make_scorer(get_metric(settings.metric, allow_code=settings.allow_code), judge)
        router = Routing(mixture, splits, client, cell.seed, scorer)
        system = await router.score(splits.test, routing)
        tested = time.perf_counter()
        bounds = await router.bounds(splits.test, cell.bounds)
    finally:
        await client.aclose()
        if judge is not None and judge.client is not client:
            await judge.client.aclose()
    if place.mixtures is not None:
        folder = Path(place.mixtures)
        folder.mkdir(parents=True, exist_ok=True)
        mixture.save(folder / f"{cell.key}.mop")
    return {
        **cell.conditions(),
        "splits_sha256": {"learn": data_hash(splits), "test": splits_hash(splits.test)},
        "sizes": {"train": len(splits.train), "validation": len(splits.validation), "test": len(splits.test)},
        "score": system.accuracy,
        "scores": [round(float(score), 6) for score in system.scores],
        "test_inputs": [hashlib.sha256(one.input.encode()).hexdigest()[:16] for one in splits.test],
        **_shape(mixture),
        "search": {**_spent(used.spend), "seconds": round(learned - started, 2), "sent": used.sent},
        "test": {**_tested(system), "seconds": round(tested - learned, 2)},
        "bounds": bounds,
        "settings": _settings(settings),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _judge(settings: Settings, client: ModelClient, ledger: Ledger) -> Judge | None:
    """Return the judge of the test answers, if the metric is one: the model of ``client`` unless another is named."""
    if settings.metric not in JUDGED:
        return None
    if settings.judge is None:
        return Judge(client, settings.criteria)
    address = address_for(settings.judge, settings.judge_url, settings)
    other = connect(settings.judge, ledger=ledger, base_url=address, concurrency=settings.concurrency)
    return Judge(other, settings.criteria)


def _shape(mixture: Mixture) -> dict[str, Any]:
    validation = mixture.report.get("generalist") or {}
    return {
        "experts": len(mixture),
        "kept": mixture.kept,
        "generalist_validation": validation.get("score"),
        "encoder": mixture.encoder_record.identity,
    }


def _spent(spend: Spend) -> dict[str, Any]:
    return {
        "calls": spend.calls,
        "prompt_tokens": spend.usage.prompt_tokens,
        "completion_tokens": spend.usage.completion_tokens,
        "usd": spend.usd,
        "by_role": {
            role: {
                "calls": part.calls,
                "prompt_tokens": part.usage.prompt_tokens,
                "completion_tokens": part.usage.completion_tokens,
            }
            for role, part in sorted(spend.by_role.items())
        },
    }


def _tested(system: SystemScore) -> dict[str, Any]:
    return {
        "calls": system.calls,
        "prompt_tokens": system.usage.prompt_tokens,
        "completion_tokens": system.usage.completion_tokens,
    }


def _settings(settings: Settings) -> dict[str, Any]:
    # Not the addresses: they may be private.
    left_out = {"base_url", "proposer_url", "concurrency", "allow_code", "backend", "scheduler"}
    if settings.judge_url is not None:
        left_out.add("judge_url")
    return {name: value for name, value in settings.model_dump().items() if name not in left_out}


def _versions() -> Mapping[str, str]:
    found = {package: version(package) for package in PACKAGES}
    for package in OPTIONAL:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return {"python": platform.python_version(), **found}
