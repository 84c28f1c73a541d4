"""``mop students train --recipe prism``: from a file of personas to a gated adapter, stage by stage."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cyclopts import Group, Parameter
from rich.console import Console

from mop.cli.output import Output, say
from mop.cli.words import plural
from mop.errors import SettingsError

if TYPE_CHECKING:
    from mop.students.gated import Gated
    from mop.students.trainer import Step

_PRISM = Group("Recipe prism", sort_key=3)


@Parameter(name="*", group=_PRISM)
@dataclass(frozen=True)
class PrismOptions:
    """Settings of the recipe prism alone."""

    queries: int | None = None
    """Queries that are made for each intent [default: 10]."""
    answer_tokens: int | None = None
    """Most tokens of an answer [default: 256]."""
    answer_temperature: float | None = None
    """Of answers with and without the persona [default: 0.7]."""
    temperature: float | None = None
    """Softens teacher and student [default: 1]."""
    mixture: Path | None = None
    """A learned mixture: its regions are features of the gate, and the table that it must beat."""
    judge: str | None = None
    """Model that compares the answers [default: the student itself]."""


def train_prism(
    personas: Path,
    out: Path,
    base: str,
    device: str,
    dtype: str,
    training: Mapping[str, Any],
    others: Mapping[str, Any],
    options: PrismOptions,
    output: Output,
) -> None:
    """Run the stages that aren't done yet and say what came out.

    ``training`` are the options that all recipes share, ``others`` those that this one doesn't take.
    """
    from mop.artifact import load as load_mixture
    from mop.cli.running import Interrupted, opened_ledger
    from mop.connect import connect
    from mop.judge import Judge
    from mop.students.models import load
    from mop.students.personas import read_personas
    from mop.students.prism import make_prism, prism_settings, require_intents
    from mop.sync import run

    if given := [f"--{name}" for name, value in others.items() if value is not None]:
        raise SettingsError(f"The recipe prism doesn't take {', '.join(given)}; leave it out.")
    if training["max_tokens"] is not None:
        raise SettingsError("The recipe prism takes --answer-tokens in place of --max-tokens.")
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise SettingsError(
            "The recipe prism runs in one process: its stages write files. Start it without a launcher."
        )
    known = read_personas(personas)
    asking = {
        name: getattr(options, name) for name in ("queries", "answer_tokens", "answer_temperature", "temperature")
    }
    prism_settings({**training, **asking})  # a wrong one is told before anything is loaded
    require_intents(known)
    mixture = load_mixture(options.mixture) if options.mixture else None
    student = load(base, device=device, dtype=dtype)
    settings = prism_settings({**training, **asking}, student.model.num_parameters())
    watch = _Watch(output)
    with opened_ledger(None) if options.judge else nullcontext() as ledger:
        judge = Judge(connect(options.judge, ledger=ledger, run="students train")) if options.judge and ledger else None
        try:
            gated = make_prism(
                known, student, out, settings, judge=judge, mixture=mixture, progress=watch.stage, listener=watch.step
            )
        except KeyboardInterrupt:
            raise Interrupted(f"Interrupted. What was made is in {out}; run the same command again to go on.") from None
        finally:
            if judge is not None:
                run(judge.client.aclose())
    document = _document(out, gated)
    output.result(document, lambda console: _draw(console, document))


class _Watch:
    """A line at each stage's beginning and end, and at every tenth of the training."""

    def __init__(self, output: Output) -> None:
        self._output, self._said = output, -1

    def stage(self, name: str, done: int, whole: int) -> None:
        self._output.note(f"{name}: {done} of {whole}")

    def step(self, step: Step) -> None:
        tenth = 10 * step.number // step.steps
        if tenth != self._said:
            self._said = tenth
            self._output.note(
                f"training: step {step.number} of {step.steps}, loss {step.loss:.3f}, about {step.left:.0f} s left"
            )


def _document(out: Path, gated: Gated) -> dict[str, Any]:
    import json

    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    return {
        "folder": str(out),
        "base": gated.student.name,
        **report,
        "gate": {"kind": gated.gate.kind, **gated.gate.evidence},
    }


def _draw(console: Console, found: dict[str, Any]) -> None:
    say(console, f"{found['folder']}: a gated adapter.", "bold")
    say(console, f"personas won {found['won']} of {plural(found['queries'], 'comparison')} in both orders")
    first = found["divergence"]["first"]
    say(console, f"teacher and student were {sum(first) / len(first):.3f} nats a token apart before the first step")
    before, after = found["divergence"]["held_out_before"], found["divergence"]["held_out_after"]
    if before is not None:
        say(console, f"on held-out intents {before:.3f} before, {after:.3f} after")
    say(console, f"adapter and base model are {found['divergence']['adapter_from_base']:.3f} apart on bare prompts")
    words = found["lengths"]
    say(console, f"answers had {words['with_persona']:.0f} words with the persona, {words['bare']:.0f} without")
    gate = found["gate"]
    say(console, f"gate: {gate['kind']}. {gate['note']}")
    for name, score in gate.get("balanced_accuracy", {}).items():
        say(console, f"  {name:<16} {score:.2f} balanced accuracy on held-out intents", style="dim")
    for name, share in found["on"].items():
        say(console, f"  {name:<16} {share:.0%} of its queries go to the adapter", style="dim")
