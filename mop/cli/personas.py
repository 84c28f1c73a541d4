"""``mop personas write`` and ``generate``: expert identities, and data sets that experts answered."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from rich.console import Console

from mop.cli.options import JudgeOptions, ReplayOptions, WritingOptions
from mop.cli.output import say
from mop.cli.progress import CallProgress
from mop.cli.words import plural
from mop.cli.writing import (
    Desk,
    arms_named,
    design_named,
    desk,
    dropped,
    removal_named,
    require_file,
    takes,
    took,
    warn_of_the_cap,
)
from mop.data.formats import Format
from mop.errors import ModelError

if TYPE_CHECKING:
    from mop.personas import Curated, Instruction, Models, Plan

Data = Annotated[str, Parameter(allow_leading_hyphen=True)]
_NO_WRITING = WritingOptions()
_NO_JUDGE = JudgeOptions()
_NO_RUN = ReplayOptions()


def write(
    instructions: Data,
    /,
    *,
    out: Annotated[Path, Parameter(name=["--out", "-o"])],
    k: int = 3,
    exemplars: str = "diverse",
    instruction_column: str | None = None,
    context_column: str | None = None,
    format: Format | None = None,
    options: WritingOptions = _NO_WRITING,
    run: ReplayOptions = _NO_RUN,
) -> None:
    """Write an expert's identity for each instruction: who would answer it best, in the second person.

    Of a mixture's file (.mop) for each region, from the examples nearest to its middle.
    Each is checked, and asked for again at most twice: a description, not copied from an exemplar, of nobody else's
    instruction, and nearer to its own instruction than to others. OUT.rejects.jsonl holds what failed.

    Args:
        instructions: A JSONL, CSV, TSV or Parquet file, - for JSON lines on standard input, or a mixture's file.
        out: The identities, JSON lines; for a mixture "line" is the number of the expert.
        k: Exemplars that the model sees, 1 to 5.
        exemplars: Exemplars of diverse or of similar domains.
        instruction_column: Column of the instruction [default: instruction, input, prompt or question].
        context_column: Column of a text that belongs to the instruction.
        format: Format, if it doesn't follow from the file's name.
    """
    from mop.artifact import load
    from mop.personas import Plan, identify, read_instructions, region_instructions
    from mop.personas.card import identity_facts
    from mop.personas.files import identity_paths, require_writable, write_identities_to

    output = run.open()
    settings = options.settings(run)
    plan = Plan(k=k, design=design_named(exemplars), seed=settings.seed)
    require_file(instructions)
    files = identity_paths(out)
    require_writable(files, instructions)
    regional = instructions.endswith(".mop")
    if regional:
        asked = region_instructions(load(instructions))
    else:
        asked = read_instructions(instructions, column=instruction_column, context=context_column, format=format)
    warn_of_the_cap(settings, len(asked), output)
    with desk(settings, run, "personas write") as here:
        writer, encoder = here.writer(), here.encoder()
        with CallProgress("writing", len(asked), output, writer) as progress:
            work = identify(asked, writer, encoder, plan, progress.reply, distinct=regional)
            done = here.wait_for(work, output)
        bill = here.bill()
    write_identities_to(files, done)
    _require_some(done, str(files["rejects"]))
    measured = identity_facts(done)
    document = {
        "instructions": done.asked,
        "kept": len(done.rows),
        "reasons": done.reasons,
        "identities": measured,
        "files": {name: str(path) for name, path in files.items()},
        **bill,
    }

    def draw(console: Console) -> None:
        what = "region" if regional else "instruction"
        say(console, f"{out}: identities for {len(done.rows)} of {plural(done.asked, what)}.", "bold")
        for line in dropped(done.reasons):
            say(console, line)
        for name, value in measured.items():
            say(console, f"{name.replace('_', ' ')}: {value}")
        say(console, f"Beside it: {files['rejects']}")
        say(console, took(bill), style="dim")

    output.result(document, draw)


def generate(
    instructions: Data,
    /,
    *,
    out: Annotated[Path, Parameter(name=["--out", "-o"])],
    arms: str = "expert",
    k: int = 3,
    exemplars: str = "diverse",
    removal: str = "rules",
    min_grade: int | None = None,
    answer_tokens: int = 512,
    temperature: float = 0.0,
    estimate: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    instruction_column: str | None = None,
    context_column: str | None = None,
    format: Format | None = None,
    options: WritingOptions = _NO_WRITING,
    judging: JudgeOptions = _NO_JUDGE,
    run: ReplayOptions = _NO_RUN,
) -> None:
    """Write an expert's identity for each instruction, let it answer, and keep the answers without the identity.

    Writes OUT in chat format, and beside it OUT.arms.jsonl (identities and answers side by side), OUT.rejects.jsonl
    (everything dropped, with the reason) and OUT.card.md. Interrupt it at any time: the same command goes on.
    The rules for mentions and refusals read English only; OUT.card.md counts kept answers that don't look like it.

    Args:
        instructions: A JSONL, CSV, TSV or Parquet file, or - for JSON lines on standard input.
        out: The data set, JSON lines.
        arms: Answers to write side by side: some of bare,static,expert. OUT holds those of expert, if it is there.
        k: Exemplars that the model sees when it writes an identity, 1 to 5.
        exemplars: Exemplars of diverse or of similar domains.
        removal: Remove mentions of the identity by rules, or with audit by rules and then a model.
        min_grade: Keep answers that the judge grades so, 1 to 10, or better.
        answer_tokens: Most tokens of an answer; answers that are cut off are dropped.
        temperature: Sampling temperature of the answers.
        estimate: Say what it would take, and call no model.
        instruction_column: Column of the instruction [default: instruction, input, prompt or question].
        context_column: Column of a text that belongs to the instruction.
        format: Format, if it doesn't follow from the file's name.
    """
    from mop.personas import Plan, curate, expect, read_instructions
    from mop.personas.files import paths, require_writable
    from mop.personas.files import write as write_files

    output = run.open()
    settings = options.settings(run, judging)
    plan = Plan(
        arms=arms_named(arms),
        k=k,
        design=design_named(exemplars),
        removal=removal_named(removal),
        min_grade=min_grade,
        answer_tokens=answer_tokens,
        temperature=temperature,
        seed=settings.seed,
    )
    require_file(instructions)
    files = paths(out, plan)
    require_writable(files, instructions)
    asked = read_instructions(instructions, column=instruction_column, context=context_column, format=format)
    expected = expect(
        asked,
        plan,
        model=settings.model,
        writer=settings.proposer or settings.model,
        judge=settings.judge or settings.model,
        at_endpoint=settings.base_url is not None,
    )
    if estimate:
        document = {"instructions": len(asked), **asdict(expected)}
        output.result(document, lambda console: say(console, takes(expected, settings, len(asked))))
        return
    output.note(takes(expected, settings, len(asked)))
    warn_of_the_cap(settings, expected.calls, output)
    with desk(settings, run, "personas generate") as here:
        models = _models(here, plan)
        with CallProgress("writing", expected.calls, output, *here.clients.values()) as progress:
            done = here.wait_for(curate(asked, models, plan, progress.reply), output)
        bill = here.bill()
    found = write_files(
        out,
        done,
        model=settings.model,
        writer=settings.proposer or settings.model,
        judge=models.judge.client.model if models.judge else None,
        criteria=models.judge.criteria.name if models.judge else None,
        encoder=models.encoder.identity,
        instructions_sha256=_hash(asked),
    )
    _require_some(done, str(files["rejects"]))
    document = {**found, "files": {name: str(path) for name, path in files.items()}, **bill}
    output.result(document, lambda console: _draw(console, document))


def _models(here: Desk, plan: Plan) -> Models:
    from mop.judge import Judge
    from mop.personas import Models

    return Models(
        here.model(),
        here.writer(),
        here.encoder(),
        here.judge() if plan.removal == "audit" else None,
        Judge(here.judge(), here.settings.criteria) if plan.min_grade is not None else None,
    )


def _hash(asked: Sequence[Instruction]) -> str:
    return hashlib.sha256("\x00".join(one.text for one in asked).encode()).hexdigest()


def _require_some(done: Curated, rejects: str) -> None:
    if not done.rows:
        raise ModelError(
            f"None of {plural(done.asked, 'instruction')} was kept; {rejects} says why. Another model, more tokens for "
            "the answers or other instructions may help."
        )


def _draw(console: Console, document: Mapping[str, Any]) -> None:
    files = document["files"]
    say(
        console, f"{files['dataset']}: {document['kept']} of {plural(document['instructions'], 'instruction')}.", "bold"
    )
    for line in dropped(document["reasons"]):
        say(console, line)
    for arm, one in document["arms"].items():
        grade = "" if one["grade"] is None else f", mean grade {one['grade']:.1f} of {one['graded']} graded"
        words = "no answer kept" if one["words"] is None else f"{one['words']:.0f} words on average"
        say(console, f"{arm:<8}{words}, {one['cleaned']} with a mention removed{grade}")
    say(console, f"Beside it: {', '.join(path for name, path in files.items() if name != 'dataset')}")
    say(console, took(document), style="dim")
