"""Figuring: from a mixture file and a task to the figures of `benchmarks.figures`. Knows files and endpoints."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from benchmarks.figures import Asked, draw_figures
from benchmarks.splitting import sizes_of, split_task
from benchmarks.tasks import choose_tasks, load_task
from mop.artifact import load
from mop.connect import connect, open_ledger
from mop.embeddings.encoders import CachedEncoder
from mop.errors import SettingsError
from mop.metrics import get_metric
from mop.provenance import data_hash
from mop.scoring import MetricScorer
from mop.sync import run


def figures_of(
    mixture_path: Path,
    data: Path,
    task: str,
    folder: Path,
    *,
    seed: int | None = None,
    test: int | None = None,
    validation: int = 60,
    ledger: str | None = None,
    base_url: str | None = None,
    kind: str = "svg",
    allow_code: bool = False,
) -> list[Path]:
    """Draw the figures of a mixture that the grid learned on ``task``, and return the paths of what was written.

    Raises SettingsError for several tasks, ArtifactError and DataError for files that can't be used, ModelError.
    """
    chosen = choose_tasks(data, [task])
    if len(chosen) != 1:
        raise SettingsError(f"{task} names {len(chosen)} tasks; a mixture has one.")
    mixture = load(mixture_path)
    loaded = load_task(data, chosen[0])
    known = mixture.provenance.get("seed", 0)
    splits = split_task(loaded, int(known) if seed is None else seed, sizes_of(loaded, test))
    if data_hash(splits) != mixture.provenance.get("data_sha256"):
        print(
            f"warning: {mixture_path} was learned from another split of {chosen[0]}; its demos may be test inputs.",
            file=sys.stderr,
        )
    folder.mkdir(parents=True, exist_ok=True)
    scorer = MetricScorer(get_metric(loaded.metric, allow_code=allow_code))
    book = open_ledger(ledger)

    async def ask() -> list[Path]:
        client = await asyncio.to_thread(connect, mixture.model, ledger=book, base_url=base_url)
        try:
            return await draw_figures(Asked(mixture, splits, client, scorer), folder, validation=validation, kind=kind)
        finally:
            await client.aclose()

    try:
        mixture.with_known_encoder(CachedEncoder(mixture.encoder, book))
        return run(ask())
    finally:
        book.close()
