"""``mop students train`` and ``annotate``: an adapter from a file of conversations; roles for its conversations."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Group, Parameter
from rich.console import Console

from mop.cli.options import ModelOptions, OutputOptions, ReplayOptions
from mop.cli.output import Output, say
from mop.cli.students_prism import PrismOptions, train_prism
from mop.cli.words import duration, plural
from mop.errors import ModelError

if TYPE_CHECKING:
    from mop.students.annotation import Annotated as Roles
    from mop.students.trainer import Trained
    from mop.students.training import Prepared

_NO_OUTPUT = OutputOptions()
_NO_RUN = ReplayOptions()
_NO_MODEL = ModelOptions()
_NO_PRISM = PrismOptions()
_TRAINING = Group("Training", sort_key=2)


@Parameter(name="*", group=_TRAINING)
@dataclass(frozen=True)
class TrainingOptions:
    """Settings of a training run; those not given follow from the recipe and the model's size."""

    epochs: int | None = None
    """How often each conversation is seen."""
    batch: int | None = None
    """Conversations of one step."""
    micro: int | None = None
    """Conversations on the device at a time; gradients are added up to a step."""
    max_tokens: int | None = None
    """Longest conversation; the end of a longer one is cut off."""
    learning_rate: float | None = None
    """The highest learning rate."""
    schedule: Literal["constant", "linear", "cosine"] | None = None
    """How the rate falls."""
    warmup: float | None = None
    """Share of the steps in which the rate rises."""
    weight_decay: float | None = None
    """AdamW's weight decay."""
    depth_dropout: float | None = None
    """Dropout of the last layer's branches; it rises from 0 at the first layer."""
    rank: int | None = None
    """Rank of the adapter [default: 16]."""
    alpha: int | None = None
    """The adapter's scale is alpha / rank [default: 32]."""
    lora_dropout: float | None = None
    """Dropout of the adapter's input [default: 0]."""
    precision: Literal["auto", "no", "bf16"] | None = None
    """Mixed precision [default: bf16 on a GPU]."""
    gradient_checkpointing: bool | None = None
    """Less memory, more time."""
    save_seconds: float | None = None
    """Seconds between checkpoints [default: 60]."""
    seed: int | None = None
    """Seed of everything that is drawn [default: 0]."""


_NO_TRAINING = TrainingOptions()


def train(
    data: Path,
    /,
    *,
    recipe: str,
    out: Annotated[Path, Parameter(name=["--out", "-o"])],
    base: str | None = None,
    standard: Path | None = None,
    curriculum: Literal["then", "mixed"] | None = None,
    role_line: str | None = None,
    validation: Path | None = None,
    system: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    device: str = "auto",
    dtype: str = "auto",
    options: TrainingOptions = _NO_TRAINING,
    bootstrap: PrismOptions = _NO_PRISM,
    speech: OutputOptions = _NO_OUTPUT,
) -> None:
    """Train a LoRA adapter on conversations. Interrupt it at any time: the same command goes on where it was.

    On several GPUs: accelerate launch --multi-gpu -m mop students train …

    Args:
        data: Conversations, JSON lines as mop personas generate or mop students annotate writes them; for prism
            personas, a JSON line each: name, text, intents.
        recipe: expert (answers; the identity is not in the prompt), self-prompt (a role line, then the answer) or
            prism (personas, by the model's own queries, answers and verdicts, behind a gate).
        out: Folder for the adapter, as peft writes it.
        base: Model: local/…, a GGUF file, a folder, a Hugging Face name [default: local/qwen2.5-coder-0.5b-instruct].
        standard: More conversations, such as plain answers.
        curriculum: With --standard: DATA first and then those, or both mixed [default: then].
        role_line: Form of the role line: bracket, sentence, heading, second-person, or a text with {role} [default:
            bracket].
        validation: Conversations whose loss is measured before and after.
        system: Let conversations begin with a system turn.
        device: auto, cpu, cuda, cuda:1, …
        dtype: Numbers of the base model: auto, float32, bfloat16, float16.
    """
    from mop.lm.weights import DEFAULT_WHITE_BOX
    from mop.students.recipes import get_recipe
    from mop.students.training import prepare

    # Of several processes that share the training one speaks.
    first = os.environ.get("RANK", "0") == "0"
    output = speech.open() if first else Output(quiet=True)
    if recipe == "prism":
        others = {"standard": standard, "curriculum": curriculum, "role-line": role_line, "validation": validation}
        train_prism(data, out, base or DEFAULT_WHITE_BOX, device, dtype, asdict(options), others, bootstrap, output)
        return
    chosen: dict[str, Any] = {**asdict(options), "curriculum": curriculum, "role_line": role_line}
    prepared = prepare(
        get_recipe(recipe),
        data,
        base=base or DEFAULT_WHITE_BOX,
        standard=standard,
        validation=validation,
        system=system,
        chosen=chosen,
        device=device,
        dtype=dtype,
    )
    _say_plan(prepared, output)
    trained = _watched(prepared, out, output)
    if first:
        output.result(_document(trained, prepared), lambda console: _draw(console, trained))


def annotate(
    data: Path,
    /,
    *,
    out: Annotated[Path, Parameter(name=["--out", "-o"])],
    mixture: Path | None = None,
    encoder: str | None = None,
    seed: int = 0,
    options: ModelOptions = _NO_MODEL,
    run: ReplayOptions = _NO_RUN,
) -> None:
    """Write for each conversation who would answer it best, for the recipe self-prompt. The same command goes on.

    A role must be nearer to its own question than to others; it is asked for at most three times, and conversations
    without one go to OUT.rejects.jsonl.

    Args:
        data: Conversations, JSON lines.
        out: The conversations with their roles, JSON lines.
        mixture: Write one role for each region of this mixture instead, and none where its region had no gain.
        encoder: Measures how roles fit [default: the mixture's, or all-MiniLM-L6-v2].
        seed: Seed of the questions that a role is compared with.
    """
    from mop.cli.progress import CallProgress
    from mop.cli.running import load_mixture, opened_ledger, wait_for
    from mop.connect import connect
    from mop.encoding import resolve_encoder
    from mop.students.annotated_files import rejects_path, require_writable, write_annotated
    from mop.students.annotation import annotate as write_roles
    from mop.students.annotation import annotate_by_region
    from mop.students.conversations import read_conversations

    output = run.open()
    require_writable(out, data)
    rows = read_conversations(data, system=True)
    settings = options.settings(run)
    model = options.model or settings.model
    with opened_ledger(run.ledger, replay=run.replay) as ledger:
        known = load_mixture(mixture, ledger, replay=run.replay) if mixture else None
        measure = None if known else resolve_encoder(encoder or settings.encoder, ledger=ledger, replay=run.replay)
        client = connect(
            model,
            ledger=ledger,
            base_url=settings.base_url,
            concurrency=settings.concurrency,
            run="students annotate",
            replay=run.replay,
        )
        total = len(rows) if known is None else min(len(rows), known.kept)
        with CallProgress("annotating", total, output, client) as progress:
            if known is not None:
                work = annotate_by_region(rows, client, known, seed=seed, told=progress.reply)
            else:
                assert measure is not None
                work = write_roles(rows, client, measure, seed=seed, told=progress.reply)
            done = wait_for(work, output, client)
    write_annotated(out, done)
    if not done.rows:
        raise ModelError(
            f"None of {plural(len(rows), 'conversation')} got a sound role; {rejects_path(out)} says why. Another "
            "model may help."
        )
    if done.fit is None or not done.fit.fits:
        output.warn(
            "The roles don't fit their questions better than shuffled ones do"
            + (": there are too few different ones to tell." if done.fit is None else ".")
            + " A student trained on them learns decoration; write them with a better model."
        )
    output.result(_roles_document(out, done, model), lambda console: _draw_roles(console, out, done))


def _watched(prepared: Prepared, out: Path, output: Output) -> Trained:
    from mop.cli.progress import Progress, State
    from mop.cli.running import Interrupted
    from mop.students import checkpoints
    from mop.students.trainer import Step

    steps = len(prepared.batches)
    latest: list[Step] = []
    if (known := checkpoints.peek(out)) is not None:
        output.note(f"{out} has {plural(known.steps, 'step')} done already; going on from there")

    def look() -> State:
        if not latest:
            return State(0.0, 0, 0, f"0 / {plural(steps, 'step')}")
        one = latest[-1]
        details = (f"loss {one.loss:.3f}", f"rate {one.rate:.1e}")
        return State(one.number / steps, one.number, one.number, f"{one.number:,} / {plural(steps, 'step')}", details)

    try:
        with Progress("training", look, output) as progress:
            progress.stage(prepared.student.name)
            return prepared.train(out, latest.append)
    except KeyboardInterrupt:
        raise Interrupted(f"Interrupted. What was learned is in {out}; run the same command again to go on.") from None


def _say_plan(prepared: Prepared, output: Output) -> None:
    config, plan = prepared.config, prepared.plan
    output.note(
        f"{prepared.recipe.name} on {prepared.student.name}: {plural(prepared.conversations, 'conversation')}, "
        f"{prepared.tokens:,} tokens to learn, {plural(len(prepared.batches), 'step')} of {plan.batch}, "
        f"{config.schedule} rate from {config.learning_rate:g}, rank {config.rank}, dropout to {config.depth_dropout:g}"
    )
    if prepared.cut:
        output.warn(
            f"{plural(prepared.cut, 'conversation')} were longer than {plan.max_tokens:,} tokens and lost their end; "
            "raise --max-tokens to keep them."
        )


def _document(trained: Trained, prepared: Prepared) -> dict[str, Any]:
    return {
        "folder": str(trained.folder),
        "recipe": prepared.recipe.name,
        "base": prepared.student.name,
        "steps": len(trained.history),
        "steps_before": trained.resumed,
        "losses": [one["loss"] for one in trained.history],
        "validation": {"before": trained.before, "after": trained.after},
        "seconds": sum(one["seconds"] for one in trained.history),
    }


def _draw(console: Console, trained: Trained) -> None:
    history = trained.history
    say(console, f"{trained.folder}: a student after {plural(len(history), 'step')}.", "bold")
    few = max(1, len(history) // 10)
    first, last = history[:few], history[-few:]
    mean = [sum(one["loss"] for one in part) / few for part in (first, last)]
    say(console, f"loss {mean[0]:.3f} in the first tenth, {mean[1]:.3f} in the last")
    if trained.before is not None and trained.after is not None:
        say(console, f"validation loss {trained.before:.3f} before, {trained.after:.3f} after")
    if trained.resumed == len(history):
        say(console, "It was finished already; nothing was trained.")
    say(console, f"{duration(sum(one['seconds'] for one in history))} of training", style="dim")


def _roles_document(out: Path, done: Roles, model: str) -> dict[str, Any]:
    return {
        "out": str(out),
        "model": model,
        "annotated": len(done.rows),
        "nobody": sum(row.role is None for row in done.rows),
        "refused": len(done.refused),
        "fit": None if done.fit is None else asdict(done.fit),
    }


def _draw_roles(console: Console, out: Path, done: Roles) -> None:
    nobody = sum(row.role is None for row in done.rows)
    say(console, f"{out}: {plural(len(done.rows), 'conversation')} with roles, {nobody} of them nobody's.", "bold")
    if done.refused:
        say(console, f"{plural(len(done.refused), 'conversation')} got no sound role and were set aside.")
    if done.fit is not None:
        fit = done.fit
        say(
            console,
            f"similarity to the own question {fit.own:.3f}, to others {fit.shuffled:.3f}; difference "
            f"{fit.difference.mean:+.3f} ({fit.difference.low:+.3f} to {fit.difference.high:+.3f}), nearer to the own "
            f"one for {fit.nearer:.0%}",
        )
