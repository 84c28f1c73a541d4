"""``mop students chat`` and ``evaluate``: talk with a trained student, and score it beside its base model."""

from __future__ import annotations

import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from rich.console import Console

from mop.cli.inputs import read
from mop.cli.options import DataOptions, OutputOptions
from mop.cli.output import say
from mop.cli.words import plural
from mop.errors import SettingsError
from mop.own_personas import the_one

if TYPE_CHECKING:
    from mop.students.evaluation import Evaluated
    from mop.students.opening import OpenStudent
    from mop.students.role_lines import Spoken

_NO_DATA = DataOptions()
_NO_OUTPUT = OutputOptions()


def chat(
    folder: Path,
    query: str | None = None,
    /,
    *,
    role: str | None = None,
    persona: str | None = None,
    bare: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    max_tokens: int = 256,
    device: str = "auto",
    dtype: str = "auto",
    speech: OutputOptions = _NO_OUTPUT,
) -> None:
    """Talk with a student; without QUERY it reads questions, one a line, and remembers what was said.

    Args:
        folder: The adapter's folder.
        query: One question.
        role: Put this role into the student's mouth, if it writes roles.
        persona: Text or @FILE: who is to answer, as the system message.
        bare: Answer with the base model, adapter off.
        max_tokens: Most tokens of an answer.
        device: auto, cpu, cuda, …
        dtype: Numbers of the base model.
    """
    from mop.students.opening import open_student

    output = speech.open()
    _require_counts(max_tokens=max_tokens)
    said = [] if persona is None else [{"role": "system", "content": the_one(persona).text}]
    opened = open_student(folder, device=device, dtype=dtype)
    if role is not None and opened.line is None:
        raise SettingsError(f"The student in {folder} writes no role line, so it can't be given a role; leave it out.")
    prompted = query is None and sys.stdin.isatty()
    if prompted:
        output.note(f"{opened.student.name} with {folder}. An empty line or Ctrl-D ends it.")
    while (question := query if query is not None else _next(prompted)) is not None:
        said.append({"role": "user", "content": question})
        spoken = opened.answer(
            [said], max_tokens=max_tokens, bare=bare, roles=None if role is None or bare else [role]
        )[0]
        said.append({"role": "assistant", "content": _as_written(opened, spoken, bare)})
        output.result({"query": question, **asdict(spoken)}, partial(_speak, spoken=spoken))
        if query is not None:
            break


def evaluate(
    folder: Path,
    data: Annotated[str, Parameter(allow_leading_hyphen=True)],
    /,
    *,
    metric: str = "exact_match",
    max_tokens: int = 256,
    batch: int = 16,
    swap: bool = True,
    encoder: str | None = None,
    show: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    device: str = "auto",
    dtype: str = "auto",
    columns: DataOptions = _NO_DATA,
    speech: OutputOptions = _NO_OUTPUT,
) -> None:
    """Score a student and its base model on the same examples; of a student with roles, say what these are worth.

    Args:
        folder: The adapter's folder.
        data: Examples, as for mop optimize.
        metric: exact_match, contains, token_f1, checks, …; it sees answers without their role line.
        max_tokens: Most tokens of what is written.
        batch: Questions that are read at a time.
        swap: Write again under the roles of other questions, and count the answers that change.
        encoder: Measures how roles fit [default: all-MiniLM-L6-v2].
        show: Show every answer.
        device: auto, cpu, cuda, …
        dtype: Numbers of the base model.
    """
    from mop.encoding import resolve_encoder
    from mop.metrics import JUDGED, get_metric, metric_name
    from mop.settings import make_settings
    from mop.students.evaluation import evaluate as score
    from mop.students.opening import open_student

    output = speech.open()
    _require_counts(max_tokens=max_tokens, batch=batch)
    scorer = get_metric(metric)
    if metric_name(scorer) in JUDGED:
        raise SettingsError(
            f"The metric {metric} asks a model, and this command scores by program; give another, such as checks or "
            "token_f1."
        )
    examples = read(data, columns)
    opened = open_student(folder, device=device, dtype=dtype)
    measure = None
    if opened.line is not None:
        measure = resolve_encoder(encoder or make_settings({}).encoder)
    output.note(f"{plural(len(examples), 'example')}, each answered by the student and by its base model")
    done = score(opened, examples, scorer, max_tokens=max_tokens, batch=batch, encoder=measure, swap=swap)
    document: dict[str, Any] = {"folder": str(folder), "base": opened.student.name, "metric": metric, **done.to_dict()}
    output.result(document, lambda console: _draw(console, done, metric, show))


def _require_counts(**given: int) -> None:
    for name, value in given.items():
        if value < 1:
            raise SettingsError(f"--{name.replace('_', '-')} is {value}; give at least 1.")


def _next(prompted: bool) -> str | None:
    """Return the next question, or None at the end. Of piped lines empty ones are passed over."""
    while True:
        try:
            line = input("> " if prompted else "")
        except EOFError:
            return None
        if line.strip():
            return line
        if prompted:
            return None


def _as_written(opened: OpenStudent, spoken: Spoken, bare: bool) -> str:
    """Return an answer as it stood in the conversation, so that the student meets what it learned from."""
    if bare or opened.line is None or not spoken.written:
        return spoken.answer
    return opened.line.before(spoken.role) + spoken.answer


def _speak(console: Console, spoken: Spoken) -> None:
    if spoken.written:
        say(console, f"[{spoken.role or 'no role'}]", style="dim")
    if spoken.on is not None:
        say(console, "[adapter]" if spoken.on else "[base model]", style="dim")
    say(console, spoken.answer)


def _draw(console: Console, done: Evaluated, metric: str, show: bool) -> None:
    if show:
        for one in done.answers:
            say(console, f"{one['input']}\n  {one['role'] or '–'}: {one['answer']}  ({one['score']:g})")
    say(console, f"{plural(done.examples, 'example')}, {metric}", style="bold")
    for name, system in (("student", done.student), ("base", done.base)):
        say(
            console,
            f"{name:<8} {system.mean:.3f} ({system.interval.low:.3f}–{system.interval.high:.3f}), "
            f"{system.words:.0f} words an answer",
        )
    found = done.difference
    say(console, f"student – base {found.mean:+.3f} ({found.low:+.3f} to {found.high:+.3f}), p = {found.p_value:.2g}")
    if done.routed is not None:
        say(console, f"the gate sent {done.routed:.0%} to the adapter; the others are the base model's own answers")
    if done.roles is None:
        return
    roles = done.roles
    say(console, f"role line written {roles.written:.0%}, nobody's {roles.nobody:.0%}")
    if roles.fit is not None:
        fit = roles.fit
        say(
            console,
            f"roles fit their question {fit.own:.3f}, others {fit.shuffled:.3f}; difference "
            f"{fit.difference.mean:+.3f} ({fit.difference.low:+.3f} to {fit.difference.high:+.3f})",
        )
    if roles.changed is not None:
        say(console, f"another role changes {roles.changed:.0%} of {plural(roles.swapped, 'answer')}")
