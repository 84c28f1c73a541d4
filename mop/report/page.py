"""Page: puts the sections together into one HTML file that needs nothing else. Knows every section by its front only.

The policy in the file lets nothing run or load but its own style sheet and script, named by their hashes.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from mop.errors import DataError
from mop.lm.timeline import Paid
from mop.mixture import Mixture
from mop.report import costs, dots, origin, racing, regions, spending
from mop.report.measuring import Measured
from mop.report.texts import harmless, money
from mop.report.verdict import finding
from mop.views import TEMPLATES
from mop.views.picture import HEIGHT, WIDTH
from mop.views.view import MixtureView, plural, signed

#: A page is smaller than this.
MOST_BYTES = 3_000_000
_FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Facts:
    """What the page is told besides the mixture.

    ``name`` is the mixture's; ``sha256`` that of its file; ``command`` what made this page; ``data`` names the
    examples; ``validation`` are inputs that are known to be validation examples; ``paid`` the search's calls in
    the ledger, None where no ledger was asked.
    """

    name: str
    command: str = ""
    sha256: str | None = None
    data: str | None = None
    validation: Collection[str] = field(default_factory=frozenset)
    paid: Sequence[Paid] | None = None


@dataclass(frozen=True, slots=True)
class _Detail:
    """How much is shown: most dots of a kind, letters of a text, demos and mistakes of an expert."""

    dots: int
    letters: int
    demos: int
    mistakes: int


#: The first that makes a page of less than `MOST_BYTES` is taken.
_DETAILS = (
    _Detail(800, 600, 24, 12),
    _Detail(500, 240, 12, 8),
    _Detail(300, 120, 5, 5),
    _Detail(150, 60, 2, 2),
)


def make_page(mixture: Mixture, facts: Facts, measured: Measured | None = None) -> bytes:
    """Return the page as UTF-8, in less than `MOST_BYTES`. Raises DataError if that cannot be."""
    view = MixtureView(mixture)
    size = 0
    for detail in _DETAILS:
        page = _render(view, facts, measured, detail).encode()
        if (size := len(page)) < MOST_BYTES:
            return page
    raise DataError(f"The report would have {size:,} bytes, of {MOST_BYTES:,} at most. Give fewer examples as DATA.")


def _render(view: MixtureView, facts: Facts, measured: Measured | None, detail: _Detail) -> str:
    mixture = view.mixture
    # Rules for paper come last and win.
    style, script = _asset("regions.css") + _asset("report.css"), _asset("report.js")
    found = costs.costs(mixture, measured)
    cuts = {"demos": detail.demos, "letters": detail.letters}
    context: dict[str, Any] = {
        "facts": facts,
        "view": view,
        "mixture": mixture,
        "measured": measured,
        "full": detail is _DETAILS[0],
        "style": Markup(style),  # a file of this package
        "script": Markup(script),  # a file of this package
        "policy": _policy(style, script),
        "finding": finding(mixture, measured, found),
        "costs": found,
        "priced": any(cost.usd_uncached for cost in found),
        "plots": [plot for size in costs.SIZES if (plot := costs.plot(found, size)) is not None],
        "map_size": (WIDTH, HEIGHT),
        "dots": ()
        if view.picture is None
        else dots.dots(
            mixture,
            view.picture,
            measured,
            validation=facts.validation,
            most=detail.dots,
            letters=min(200, detail.letters),
        ),
        "regions": regions.regions(view, measured, mistakes=detail.mistakes, **cuts),
        "gain_box": regions.gain_box(view),
        "words_for_split": {"test": "test"}.get(measured.plan.split, "examples given") if measured else "",
        "generalist": regions.shown(mixture.generalist, **cuts),
        "races": racing.races(mixture),
        "candidates": racing.candidates(mixture, detail.letters),
        "heats": [
            ("Instructions, on validation examples", racing.region_scores(mixture)),
            ("Systems, on the examples given", racing.measured_scores(measured, len(mixture))),
        ],
        "ranks": racing.ranks(mixture),
        "roles": spending.by_role(mixture),
        "courses": [drawn for size in spending.SIZES if (drawn := spending.course(facts.paid or (), size)) is not None],
        "origin": origin.facts(mixture, facts.sha256),
        "learn_again": origin.learn_again(mixture),
        "import_again": origin.import_again(mixture),
    }
    return _environment().get_template("report.html").render(context)


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([_FOLDER / "templates", TEMPLATES]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_finalize,
    )
    environment.filters |= {"signed": signed, "plural": plural, "money": money}
    return environment


def _finalize(value: object) -> object:
    # Markup is this package's own; every other text comes from a file, a model or a user.
    return harmless(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _asset(name: str) -> str:
    return (_FOLDER / "static" / name).read_text(encoding="utf-8")


def _policy(style: str, script: str) -> str:
    return (
        f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    )


def _hash(content: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}"
