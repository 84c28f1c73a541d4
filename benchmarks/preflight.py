"""Preflight: what would fail every cell of a grid on this machine, said once and before anything is asked."""

from __future__ import annotations

from collections.abc import Iterable

from benchmarks.cells import Cell, Place
from mop.encoding import ENDPOINT, TFIDF, resolve_encoder
from mop.lm.prices import Prices
from mop.metrics import JUDGED


def check(cells: Iterable[Cell], place: Place) -> None:
    """Load the encoders that ``cells`` name, and look their models' prices up where money is capped; sends nothing.

    Raises SettingsError or WeightsError for an encoder that isn't there, UnknownPrice for a model without a price.
    """
    encoders, models = set(), set()
    for cell in cells:
        settings = cell.settings(place)
        encoders.add(settings.encoder)
        if settings.usd is not None:
            judge = settings.judge if cell.metric in JUDGED else None
            models |= {settings.model, settings.proposer or settings.model, judge or settings.model}
    prices = Prices()
    for model in sorted(models):
        prices.get(model)
    for encoder in sorted(encoders):
        if encoder != TFIDF and not encoder.startswith(ENDPOINT):
            resolve_encoder(encoder).encode(["."])
