"""``mop import``: a mixture from hand-written prompts. No model is called."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from mop.cli.learning import require_writable
from mop.cli.options import OutputOptions
from mop.cli.output import say
from mop.cli.running import opened_ledger
from mop.cli.words import plural

_NO_SPEECH = OutputOptions()


def import_(
    prompts: Path,
    /,
    *,
    out: Annotated[Path | None, Parameter(name=["--out", "-o"])] = None,
    ledger: Annotated[Path | None, Parameter(group="General")] = None,
    speech: OutputOptions = _NO_SPEECH,
) -> None:
    """Make a mixture from hand-written prompts with examples. No model is called.

    The file is YAML or JSON: model, metric, encoder, layout, retrieved and decoding (all optional), a generalist
    (instruction, demos) and experts (name, instruction, demos, examples). `mop.handwritten` has an example.

    Args:
        prompts: The file of prompts.
        out: The mixture file [default: PROMPTS's name with .mop].
        ledger: File that keeps the examples' vectors.
    """
    from mop.embeddings.encoders import CachedEncoder
    from mop.encoding import resolve_encoder
    from mop.handwritten import make_mixture, read_bank

    output = speech.open()
    target = out or prompts.with_suffix(".mop")
    require_writable(target)
    bank = read_bank(prompts)
    with opened_ledger(ledger) as book:
        mixture = make_mixture(bank, CachedEncoder(resolve_encoder(bank.encoder), book), source=prompts.name)
    mixture.save(target)
    output.result(
        {"artifact": str(target), "experts": len(mixture), "model": mixture.model, "measured": False},
        lambda console: say(
            console,
            f"{target}: {plural(len(mixture), 'expert')} for {mixture.model}, not measured. "
            f"Next: mop evaluate {target} DATA",
        ),
    )
