"""Preflight: looks once, first, for models, encoders and prices whose lack would fail cell after cell."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from benchmarks.cells import Cell, Place
from mop.connect import address_for, connect
from mop.encoding import ENDPOINT, TFIDF, resolve_encoder
from mop.lm.ledger import Ledger
from mop.lm.prices import Prices
from mop.metrics import JUDGED
from mop.settings import Settings


def check(cells: Iterable[Cell], place: Place) -> None:
    """Look for the weights and encoders of ``cells`` and, where money is capped, for prices; sends nothing.

    Raises SettingsError or WeightsError for a model or an encoder that isn't there, UnknownPrice for a model without a
    price.
    """
    encoders, models, priced = set(), set(), set()
    for cell in cells:
        settings = cell.settings(place)
        found = list(_models(settings, judged=cell.metric in JUDGED))
        encoders.add(settings.encoder)
        models.update(found)
        if settings.usd is not None:
            priced.update(name for name, _ in found)
    prices, ledger = Prices(), Ledger.in_memory()
    for name in sorted(priced):
        prices.get(name)
    for name, address in sorted(models, key=str):
        connect(name, ledger=ledger, base_url=address)
    for name in sorted(encoders - {TFIDF}):
        encoder = resolve_encoder(name)
        if not name.startswith(ENDPOINT):
            encoder.encode(["."])


def _models(settings: Settings, *, judged: bool) -> Iterator[tuple[str, str | None]]:
    """Yield each model with the address where it is asked."""
    yield settings.model, settings.base_url
    if settings.proposer is not None:
        yield settings.proposer, address_for(settings.proposer, settings.proposer_url, settings)
    if judged and settings.judge is not None:
        yield settings.judge, address_for(settings.judge, settings.judge_url, settings)
