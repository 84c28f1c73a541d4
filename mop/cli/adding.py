"""``mop add``: new labelled examples into a mixture file; only the regions that got enough of them are tried again."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from rich.console import Console

from mop.cli.inputs import check_lengths, read
from mop.cli.learning import require_writable
from mop.cli.options import DataOptions, JudgeOptions, ReplayOptions
from mop.cli.output import Output, say
from mop.cli.tables import new_table, words
from mop.cli.words import UNKNOWN, clean, money, plural, shorten
from mop.connect import is_local
from mop.errors import SettingsError
from mop.prompts import estimate_tokens
from mop.settings import make_settings

if TYPE_CHECKING:
    from mop.adding import Addition, Planned, Screened
    from mop.comparison import Comparison
    from mop.mixture import Mixture

_LISTED = 5
_NO_DATA = DataOptions()
_NO_JUDGE = JudgeOptions()
_NO_RUN = ReplayOptions()


def add(
    mixture: Path,
    data: Annotated[str, Parameter(allow_leading_hyphen=True)],
    /,
    *,
    out: Annotated[Path | None, Parameter(name=["--out", "-o"])] = None,
    budget: str | None = None,
    estimate: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    base_url: str | None = None,
    concurrency: int | None = None,
    metric: str | None = None,
    allow_code: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    judging: JudgeOptions = _NO_JUDGE,
    columns: DataOptions = _NO_DATA,
    run: ReplayOptions = _NO_RUN,
) -> None:
    """Add new labelled examples to a mixture; refit only the regions they fall into.

    A region with eight new examples or more is tried again: half of them judge, with old ones that no candidate shows;
    the other half may become demos. What answers now is replaced only by what beats it. Everything else stays as it is.
    Interrupt it at any time: the same command goes on where it was.

    Args:
        mixture: The mixture file.
        data: New examples, as for optimize.
        out: The new mixture file.
        budget: Most calls: 200, "50k tokens" or "1 USD" [default: 600].
        estimate: Only say what it would take; no model is called and nothing is written.
        base_url: Address of an OpenAI-compatible endpoint, up to /v1.
        concurrency: Most calls in flight to an endpoint [default: 8].
        metric: Another metric than the mixture's.
        allow_code: Let the metric python_tests run what the model writes, in a sandbox.
    """
    from mop.adding import aadd, plan_addition
    from mop.cli.progress import SearchProgress
    from mop.cli.running import load_mixture, opened_ledger, wait_for
    from mop.cli.scoring import with_metric
    from mop.comparison import compare
    from mop.optimization import Run, make_budget

    output = run.open()
    if out is None and not estimate:
        raise SettingsError("Name the new mixture file: -o NEW.mop (it may be the old one).")
    if out is not None:
        require_writable(out)
    with opened_ledger(run.ledger, replay=run.replay) as ledger:
        before = with_metric(load_mixture(mixture, ledger, replay=run.replay), metric, mixture, allow_code)
        given: dict[str, Any] = {"model": before.model, "budget": budget, "base_url": base_url, **asdict(judging)}
        given["allow_code"] = allow_code or None
        learned = before.provenance.get("settings")
        if isinstance(learned, dict) and isinstance(learned.get("confidence"), float):
            given["confidence"] = learned["confidence"]
        settings = make_settings({**given, "concurrency": concurrency}, file=run.config)
        examples = read(data, columns)
        check_lengths(examples, settings, max(one.prompt.tokens for one in before.experts), data)
        planned = plan_addition(before, examples, settings)
        _say_screened(planned.screened, before, output)
        _say_plan(planned, before, output, quiet_cost=estimate)
        if estimate:
            output.result(_planned(planned), lambda console: say(console, _cost(planned, before)))
            return
        assert out is not None
        caps, used = make_budget(settings), Run()
        with SearchProgress("adding", caps, used, output) as progress:
            work = aadd(
                before, planned, settings, ledger=ledger, budget=caps, used=used, listener=progress, replay=run.replay
            )
            addition = wait_for(work, output)
    addition.mixture.save(out)
    changes = compare(before, addition.mixture)
    document = {
        "artifact": str(out),
        **_planned(planned),
        "calls": used.spend.calls,
        "sent": used.sent,
        "from_ledger": used.from_ledger,
        "tried": [_result(one) for one in addition.results],
        "diff": changes.to_dict(),
    }
    output.result(document, lambda console: _draw(console, out, addition, changes, before))


def _say_screened(screened: Screened, mixture: Mixture, output: Output) -> None:
    output.note(plural(len(screened.new), "new example"))
    if screened.duplicates:
        were, stay = ("was", "stays") if len(screened.duplicates) == 1 else ("were", "stay")
        output.warn(
            f"{plural(len(screened.duplicates), 'example')} {were} in the mixture already (up to case, spacing and "
            f"punctuation) and {stay} out."
        )
    if screened.conflicts:
        listed = [
            f"  {shorten(one.input, 60)!r}: {shorten(one.known, 30)!r} in the mixture, {shorten(one.given, 30)!r} here"
            for one in screened.conflicts[:_LISTED]
        ]
        if len(screened.conflicts) > _LISTED:
            listed.append(f"  … and {len(screened.conflicts) - _LISTED} more")
        contradict = "contradicts" if len(screened.conflicts) == 1 else "contradict"
        heading = (
            f"{plural(len(screened.conflicts), 'example')} {contradict} what the mixture holds; the old answer stays:"
        )
        output.warn("\n".join([heading, *listed]))
    longest = max(screened.new, key=lambda example: estimate_tokens(example.output))
    ruled = mixture.metric.partition(":")[0] == "checks"
    if not ruled and estimate_tokens(longest.output) > mixture.decoding.max_tokens:
        output.warn(
            f"The mixture ends answers after {mixture.decoding.max_tokens} tokens, and "
            f"{shorten(longest.output, 40)!r} is longer; learn it anew for such answers."
        )
    if mixture.retrieval is None:
        output.warn("This mixture retrieves no demos, so examples in regions that aren't tried again leave no trace.")


def _say_plan(planned: Planned, mixture: Mixture, output: Output, *, quiet_cost: bool) -> None:
    plan = planned.plan
    if plan.too_few:
        output.note(f"Too few new examples to try again: {_regions(plan.too_few)}.")
    if plan.alike:
        output.note(f"Nothing to choose from in {_regions(plan.alike)}: all candidates are the same prompt.")
    if plan.beyond_budget:
        output.warn(f"The budget has no calls for {_regions(plan.beyond_budget)}.")
    if not plan.tasks:
        output.note("No region is tried again, so no model is called.")
    elif not quiet_cost:
        output.note(_cost(planned, mixture))


def _cost(planned: Planned, mixture: Mixture) -> str:
    price = ""
    if not is_local(mixture.model):
        price = ", price not known" if planned.usd is None else f", about {money(planned.usd)} without prompt caching"
    regions = [one.region for one in planned.plan.tasks]
    return (
        f"At most {plural(planned.calls, 'call')} to {mixture.model}"
        + (f" for {_regions(regions)}" if regions else "")
        + f": about {plural(planned.prompt_tokens, 'prompt token')} and "
        f"{plural(planned.completion_tokens, 'completion token')}{price}."
    )


def _regions(numbers: Any) -> str:
    return ("region " if len(numbers) == 1 else "regions ") + ", ".join(map(str, numbers))


def _planned(planned: Planned) -> dict[str, Any]:
    screened, plan = planned.screened, planned.plan
    return {
        "new": len(screened.new),
        "duplicates": len(screened.duplicates),
        "conflicts": [asdict(one) for one in screened.conflicts],
        "too_few": list(plan.too_few),
        "beyond_budget": list(plan.beyond_budget),
        "alike": list(plan.alike),
        "estimate": {
            "regions": [task.region for task in plan.tasks],
            "calls": planned.calls,
            "prompt_tokens": planned.prompt_tokens,
            "completion_tokens": planned.completion_tokens,
            "usd": planned.usd,
        },
    }


def _result(one: Any) -> dict[str, Any]:
    return {
        "region": one.task.region,
        "new": one.task.new,
        "judged": len(one.task.judged),
        "scores": dict(zip(one.task.names, one.scores, strict=True)),
        "before": one.task.names[0],
        "answers": one.task.names[one.winner],
        "changed": one.changed,
    }


def _draw(console: Console, out: Path, addition: Addition, changes: Comparison, before: Mixture) -> None:
    from mop.cli.diffing import draw_comparison

    changed = sum(one.changed for one in addition.results)
    tried = plural(len(addition.results), "region")
    say(console, f"{out}: {tried} tried again, {changed} changed.", style="bold")
    if addition.results:
        table = new_table()
        for name in ("#", "new", "judged", "old expert", "new demos", "generalist"):
            table.add_column(name, justify="right")
        table.add_column("answers from now on")
        table.add_column("words", no_wrap=True, overflow="ellipsis", ratio=1, min_width=10)
        table.expand = True
        for one in addition.results:
            scores = dict(zip(one.task.names, one.scores, strict=True))
            cells = [scores.get(name) for name in ("the old expert", "the expert with new demos", "the generalist")]
            stays = "" if one.changed else " (as before)"
            table.add_row(
                str(one.task.region),
                str(one.task.new),
                str(len(one.task.judged)),
                *(UNKNOWN if score is None else f"{score:.2f}" for score in cells),
                clean(one.task.names[one.winner]) + stays,
                words(before.experts[one.task.region]),
            )
        console.print(table)
    console.print()
    draw_comparison(console, changes, before, addition.mixture)
