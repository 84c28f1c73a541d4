"""``mop personas``: data sets answered by experts, and what the exemplars do to the identities."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from rich.console import Console

from mop.cli.options import JudgeOptions, ReplayOptions, WritingOptions
from mop.cli.output import say
from mop.cli.progress import CallProgress
from mop.cli.words import money, plural, signed
from mop.connect import connect, is_local
from mop.data.formats import Format
from mop.errors import ModelError, SettingsError
from mop.personas.exemplars import FAR, Design
from mop.personas.writing import ARMS, Arm

if TYPE_CHECKING:
    from mop.lm.budget import Budget
    from mop.lm.client import ModelClient
    from mop.lm.ledger import Ledger
    from mop.personas import Ablation, Expected, Models, Plan
    from mop.personas.curation import Removal
    from mop.settings import Settings

Data = Annotated[str, Parameter(allow_leading_hyphen=True)]
_NO_WRITING = WritingOptions()
_NO_JUDGE = JudgeOptions()
_NO_RUN = ReplayOptions()


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
    from mop.cli.running import opened_ledger, wait_for
    from mop.lm.budget import Budget
    from mop.personas import Plan, curate, expect, read_instructions
    from mop.personas.files import paths, require_writable, write

    output = run.open()
    settings = options.settings(run, judging)
    plan = Plan(
        arms=_arms(arms),
        k=k,
        design=_design(exemplars),
        removal=_removal(removal),
        min_grade=min_grade,
        answer_tokens=answer_tokens,
        temperature=temperature,
        seed=settings.seed,
    )
    require_writable(out, instructions, plan)
    if instructions.startswith("--"):
        raise SettingsError(f"There is no option {instructions}; --help lists the options.")
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
        output.result(document, lambda console: say(console, _takes(expected, settings, len(asked))))
        return
    output.note(_takes(expected, settings, len(asked)))
    if settings.budget is not None and settings.budget < expected.calls:
        output.warn(
            f"The budget of {plural(settings.budget, 'call')} will not reach to the end; what is answered until then "
            "is kept, and the same command with a higher budget goes on."
        )
    with opened_ledger(run.ledger, replay=run.replay) as ledger:
        budget = Budget(settings.budget, settings.tokens, settings.usd)
        models = _models(settings, plan, ledger, budget, run)
        with CallProgress("writing", expected.calls, output) as progress:
            done = wait_for(curate(asked, models, plan, progress.reply), output)
        spent = budget.spent
        sent = sum(one.traffic.sent for one in _clients(models))
        found = write(
            out,
            done,
            model=settings.model,
            writer=settings.proposer or settings.model,
            judge=models.judge.client.model if models.judge else None,
            criteria=models.judge.criteria.name if models.judge else None,
            encoder=models.encoder.identity,
            instructions_sha256=hashlib.sha256("\x00".join(one.text for one in asked).encode()).hexdigest(),
        )
    files = {name: str(path) for name, path in paths(out, plan).items()}
    if not done.rows:
        raise ModelError(
            f"None of {plural(done.asked, 'instruction')} was kept; {files['rejects']} says why. Another model, more "
            "--answer-tokens or other instructions may help."
        )
    document = {
        **found,
        "files": files,
        "calls": spent.calls,
        "sent": sent,
        "from_ledger": spent.calls - sent,
        "prompt_tokens": spent.usage.prompt_tokens,
        "completion_tokens": spent.usage.completion_tokens,
        "usd": spent.usd,
    }
    output.result(document, lambda console: _draw(console, document))


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
    from mop.cli.running import opened_ledger, wait_for
    from mop.encoding import resolve_encoder
    from mop.lm.budget import Budget
    from mop.personas import ablate as ablate_exemplars
    from mop.personas import read_instructions

    output = run.open()
    settings = options.settings(run)
    ks = tuple(dict.fromkeys(k))
    texts: tuple[str, ...] = FAR
    if instructions is not None:
        texts = tuple(one.text for one in read_instructions(instructions, column=instruction_column))
    calls = len(texts) * (2 * len(ks) - (1 in ks))
    if estimate:
        output.result({"calls": calls}, lambda console: say(console, f"At most {plural(calls, 'call')}."))
        return
    output.note(f"At most {plural(calls, 'call')} to {settings.proposer or settings.model}.")
    with opened_ledger(run.ledger, replay=run.replay) as ledger:
        budget = Budget(settings.budget, settings.tokens, settings.usd)
        client = _writer(settings, ledger, budget, run, "personas ablate")
        encoder = resolve_encoder(settings.encoder, ledger=ledger, replay=run.replay)
        with CallProgress("ablating", 2 * len(ks) * len(texts), output) as progress:
            work = ablate_exemplars(client, encoder, texts, ks=ks, seed=settings.seed, told=progress.reply)
            found = wait_for(work, output)
    document = {"model": client.model, "encoder": encoder.identity, **asdict(found)}
    document["cells"] = [{name: value for name, value in one.items() if name != "gains"} for one in document["cells"]]
    document["diverse_minus_similar"] = {str(at): one for at, one in document["diverse_minus_similar"].items()}
    output.result(document, lambda console: _draw_ablation(console, found, client.model))


def _arms(text: str) -> tuple[Arm, ...]:
    named = [name.strip() for name in text.split(",")]
    known: dict[str, Arm] = {arm: arm for arm in ARMS}
    if unknown := [name for name in named if name not in known]:
        raise SettingsError(f"There is no arm {unknown[0]!r}; name some of {', '.join(ARMS)}, with commas between.")
    return tuple(known[name] for name in named)


def _design(text: str) -> Design:
    if text == "diverse" or text == "similar":
        return "diverse" if text == "diverse" else "similar"
    raise SettingsError(f"There are no {text!r} exemplars; give diverse or similar.")


def _removal(text: str) -> Removal:
    if text == "rules" or text == "audit":
        return "rules" if text == "rules" else "audit"
    raise SettingsError(f"There is no removal {text!r}; give rules or audit.")


def _models(settings: Settings, plan: Plan, ledger: Ledger, budget: Budget, run: ReplayOptions) -> Models:
    from mop.encoding import resolve_encoder
    from mop.judge import Judge
    from mop.personas import Models

    purpose = "personas generate"
    encoder = resolve_encoder(settings.encoder, ledger=ledger, replay=run.replay)
    model = connect(
        settings.model,
        ledger=ledger,
        budget=budget,
        base_url=settings.base_url,
        concurrency=settings.concurrency,
        run=purpose,
        replay=run.replay,
    )
    writer = model if settings.proposer is None else _writer(settings, ledger, budget, run, purpose)
    checker = model
    if settings.judge is not None:
        checker = connect(
            settings.judge,
            ledger=ledger,
            budget=budget,
            base_url=settings.judge_url or settings.base_url,
            concurrency=settings.concurrency,
            run=purpose,
            replay=run.replay,
        )
    judge = Judge(checker, settings.criteria) if plan.min_grade is not None else None
    return Models(model, writer, encoder, checker if plan.removal == "audit" else None, judge)


def _writer(settings: Settings, ledger: Ledger, budget: Budget, run: ReplayOptions, purpose: str) -> ModelClient:
    return connect(
        settings.proposer or settings.model,
        ledger=ledger,
        budget=budget,
        base_url=settings.proposer_url or settings.base_url,
        concurrency=settings.concurrency,
        run=purpose,
        replay=run.replay,
    )


def _clients(models: Models) -> list[ModelClient]:
    found = [models.model, models.writer, models.auditor, models.judge.client if models.judge else None]
    return list({id(one): one for one in found if one is not None}.values())


def _takes(expected: Expected, settings: Settings, count: int) -> str:
    price = ""
    if expected.usd is None:
        price = ", price not known"
    elif expected.usd or not is_local(settings.model):
        price = f", at most about {money(expected.usd)}"
    return (
        f"{plural(count, 'instruction')} take about {plural(expected.calls, 'call')} (at most "
        f"{expected.most_calls:,}, if replies must be asked for again), about "
        f"{plural(expected.prompt_tokens, 'prompt token')} and at most "
        f"{plural(expected.completion_tokens, 'completion token')}{price}."
    )


def _draw(console: Console, document: dict[str, Any]) -> None:
    files = document["files"]
    say(
        console, f"{files['dataset']}: {document['kept']} of {plural(document['instructions'], 'instruction')}.", "bold"
    )
    for reason, count in document["reasons"].items():
        say(console, f"  dropped {count:>5,}  {reason}")
    for arm, one in document["arms"].items():
        grade = "" if one["grade"] is None else f", mean grade {one['grade']:.1f} of {one['graded']} graded"
        say(console, f"{arm:<8}{one['words']:.0f} words on average, {one['cleaned']} with a mention removed{grade}")
    say(console, f"Beside it: {', '.join(path for name, path in files.items() if name != 'dataset')}")
    paid = f", {money(document['usd'])}" if document["usd"] else ""
    say(
        console,
        f"Took {plural(document['calls'], 'call')} ({document['sent']:,} sent, {document['from_ledger']:,} from the "
        f"ledger){paid}.",
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
