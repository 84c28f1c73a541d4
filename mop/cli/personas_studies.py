"""``mop personas ablate`` and ``audit-compare``: what exemplars do to identities, and how mentions are best removed."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.console import Console

from mop.cli.options import JudgeOptions, ReplayOptions, WritingOptions
from mop.cli.output import say
from mop.cli.progress import CallProgress
from mop.cli.words import plural, signed
from mop.cli.writing import desk, dropped, require_file, took, warn_of_the_cap
from mop.personas.exemplars import FAR

if TYPE_CHECKING:
    from mop.personas import Ablation, Comparison

_NO_WRITING = WritingOptions()
_NO_JUDGE = JudgeOptions()
_NO_RUN = ReplayOptions()


def ablate(
    instructions: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    /,
    *,
    k: Annotated[tuple[int, ...], Parameter(negative=())] = (1, 2, 3, 5),
    estimate: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    instruction_column: str | None = None,
    options: WritingOptions = _NO_WRITING,
    run: ReplayOptions = _NO_RUN,
) -> None:
    """Write identities with 1, 2, 3 and 5 exemplars of similar and of diverse domains, and measure them.

    The instructions are of domains far from those of all exemplars; of a file, those that are near are left out.

    Args:
        instructions: A file, as for generate [default: 16 instructions of the project].
        k: Numbers of exemplars, 1 to 5.
        estimate: Say how many calls it would take, and call no model.
        instruction_column: Column of the instruction.
    """
    from mop.personas import ablate as ablate_exemplars
    from mop.personas import read_instructions

    output = run.open()
    settings = options.settings(run)
    ks = tuple(dict.fromkeys(k))
    texts: tuple[str, ...] = FAR
    if instructions is not None:
        require_file(instructions)
        texts = tuple(one.text for one in read_instructions(instructions, column=instruction_column))
    calls = len(texts) * (2 * len(ks) - (1 in ks))
    if estimate:
        output.result({"calls": calls}, lambda console: say(console, f"At most {plural(calls, 'call')}."))
        return
    output.note(f"At most {plural(calls, 'call')} to {settings.proposer or settings.model}.")
    warn_of_the_cap(settings, calls, output)
    with desk(settings, run, "personas ablate") as here:
        client, encoder = here.writer(), here.encoder()
        with CallProgress("ablating", 2 * len(ks) * len(texts), output, client) as progress:
            work = ablate_exemplars(client, encoder, texts, ks=ks, seed=settings.seed, told=progress.reply)
            found = here.wait_for(work, output)
        bill = here.bill()
    document = {"model": client.model, "encoder": encoder.identity, **asdict(found), **bill}
    document["cells"] = [{name: value for name, value in one.items() if name != "gains"} for one in document["cells"]]
    document["diverse_minus_similar"] = {str(at): one for at, one in document["diverse_minus_similar"].items()}
    output.result(document, lambda console: _draw_ablation(console, found, client.model))


def audit_compare(
    instructions: Annotated[str, Parameter(allow_leading_hyphen=True)],
    /,
    *,
    out: Annotated[Path | None, Parameter(name=["--out", "-o"])] = None,
    k: int = 3,
    answer_tokens: int = 512,
    temperature: float = 0.0,
    instruction_column: str | None = None,
    context_column: str | None = None,
    options: WritingOptions = _NO_WRITING,
    judging: JudgeOptions = _NO_JUDGE,
    run: ReplayOptions = _NO_RUN,
) -> None:
    """Compare two ways of removing mentions of the identity: by rules, and by a model that reads the answers.

    Both read the same answers of experts, and answers that were written without any identity: what is cut from those
    is innocent text. Identities and answers that generate has asked for already come from the ledger.

    Args:
        instructions: A file, as for generate.
        out: File for the answers on which the ways differ, JSON lines, for people to read.
        k: Exemplars that the model sees when it writes an identity, 1 to 5.
        answer_tokens: Most tokens of an answer.
        temperature: Sampling temperature of the answers.
        instruction_column: Column of the instruction.
        context_column: Column of a text that belongs to the instruction.
    """
    from mop.personas import Plan, compare_removal, identify, read_instructions
    from mop.personas.files import require_writable, write_cases

    output = run.open()
    settings = options.settings(run, judging)
    plan = Plan(k=k, answer_tokens=answer_tokens, temperature=temperature, seed=settings.seed)
    require_file(instructions)
    if out is not None:
        require_writable({"cases": out}, instructions)
    asked = read_instructions(instructions, column=instruction_column, context=context_column)
    calls = 7 * len(asked)
    output.note(f"At most about {plural(calls, 'call')}, fewer where the rules change nothing.")
    warn_of_the_cap(settings, calls, output)
    with desk(settings, run, "personas audit-compare") as here:
        model, writer, judge, encoder = here.model(), here.writer(), here.judge(), here.encoder()
        with CallProgress("comparing", calls, output, model, writer, judge) as progress:

            async def work() -> tuple[dict[str, int], Comparison]:
                done = await identify(asked, writer, encoder, plan, progress.reply)
                return done.reasons, await compare_removal(done.rows, model, judge, plan, progress.reply)

            reasons, found = here.wait_for(work(), output)
        bill = here.bill()
    if out is not None:
        write_cases(out, found)
    left_out = reasons | {f"answer: {why}": count for why, count in found.left_out.items()}
    differ = sum(one.differ for one in found.cases)
    document = {
        "model": model.model,
        "auditor": judge.model,
        "instructions": len(asked),
        "dropped": left_out,
        "compared": [asdict(one) for one in found.tallies],
        "differ": differ,
        "out": out and str(out),
        **bill,
    }

    def draw(console: Console) -> None:
        say(console, f"{model.model}, audited by {judge.model}: {plural(len(found.cases), 'answer')}", style="bold")
        for line in dropped(left_out):
            say(console, line)
        _draw_comparison(console, found)
        if out is not None:
            say(console, f"{out}: {plural(differ, 'answer')} on which the ways differ.")
        say(console, took(bill), style="dim")

    output.result(document, draw)


def _draw_comparison(console: Console, found: Comparison) -> None:
    from mop.cli.tables import new_table

    table = new_table()
    for name in ("answers of", "removal by", "answers", "changed", "dropped", "words cut", "missed"):
        table.add_column(name, justify="left" if name in ("answers of", "removal by") else "right")
    for one in found.tallies:
        who = {"expert": "experts", "bare": "no persona"}.get(one.arm, one.arm)
        counts = (str(number) for number in (one.answers, one.changed, one.dropped))
        table.add_row(who, one.way, *counts, f"{one.words:.1%}", str(one.missed))
    console.print(table)
    say(
        console,
        "missed: kept answers in which the other way still finds a mention. What is changed or dropped of the answers "
        "of no persona is innocent text.",
        style="dim",
    )


def _draw_ablation(console: Console, found: Ablation, model: str) -> None:
    from mop.cli.tables import new_table

    out = f"; {found.left_out} left out as near to an exemplar" if found.left_out else ""
    say(console, f"{model}: {plural(found.instructions, 'instruction')} far from the exemplars{out}", style="bold")
    table = new_table()
    for name in ("exemplars", "k", "own", "shuffled", "nearer", "distinct", "copied", "sound", "words"):
        table.add_column(name, justify="left" if name == "exemplars" else "right")
    for cell in found.cells:
        rates = (f"{rate:.0%}" for rate in (cell.nearer, cell.distinct, cell.copied, cell.sound))
        table.add_row(cell.design, str(cell.k), f"{cell.own:.3f}", f"{cell.shuffled:.3f}", *rates, f"{cell.words:.0f}")
    console.print(table)
    for k, paired in found.diverse_minus_similar.items():
        say(
            console,
            f"k = {k}: diverse − similar in (own − shuffled) {signed(paired.mean, 3)} (95 % interval "
            f"{signed(paired.low, 3)} to {signed(paired.high, 3)})",
        )
    say(
        console,
        "own, shuffled: cosine of an identity with its own and with other instructions. nearer: to its own. sound: "
        "passes all checks of the text.",
        style="dim",
    )
