"""Runs the parts and keeps their results; everything is read and checked before a model is asked. See the package."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from benchmarks import personas
from benchmarks.personas import arms, gating, refusals, sources
from benchmarks.personas.accuracy import Accuracy
from benchmarks.personas.arms import Arm
from benchmarks.personas.desk import Desk
from benchmarks.personas.following import Following, Judged
from mop.connect import connect, is_local, open_ledger
from mop.encoding import resolve_encoder
from mop.errors import DataError, MopError, SettingsError
from mop.judge import Judge
from mop.lm.budget import Budget
from mop.lm.weights import DEFAULT_CHAT, DEFAULT_ENCODER
from mop.settings import parse_budget
from mop.sync import run

#: In different fields, with short questions; chosen before any was asked.
SUBJECTS = (
    "anatomy,conceptual_physics,global_facts,high_school_geography,management,medical_genetics,philosophy,"
    "high_school_psychology"
)


@dataclass(frozen=True)
class Sizes:
    """How much is asked: questions of each subject, open questions, behaviours, and gate items of a kind in a role."""

    per_subject: int = 20
    questions: int = 20
    behaviours: int = 30
    pool: int = 30


SMALL = Sizes(per_subject=4, questions=4, behaviours=4, pool=12)


class Part(Protocol):
    """One question that is put to the model."""

    @property
    def calls(self) -> int:
        """Calls that it takes, about."""

    async def run(self, desk: Desk) -> dict[str, Any]:
        """Ask, and return the results as plain data."""


@dataclass(frozen=True)
class Plan:
    """What a run asks."""

    data: Path
    subjects: Sequence[str]
    arms: Sequence[Arm]
    sizes: Sizes
    seed: int

    @property
    def main_arms(self) -> list[Arm]:
        """The arms that ask open questions: without the factors of the identity."""
        return [arm for arm in self.arms if arm.name in arms.MAIN]

    def mmlu(self) -> Part:
        """Return the part ``mmlu``; raises as `sources.subjects` does, like the others."""
        return Accuracy(self._subjects(self.sizes.per_subject, 0), self.arms)

    def instructions(self) -> Part:
        """Return the part ``instructions``."""
        return Following(self._questions(0)[0], self.main_arms)

    def judged(self) -> Part:
        """Return the part ``judged``."""
        return Judged(self._questions(0)[0], self.main_arms)

    def refusal(self) -> Part:
        """Return the part ``refusal``."""
        return refusals.prepare(self.data, self.sizes.behaviours, self.main_arms, self.seed)

    def gate(self) -> Part:
        """Return the part ``gate``: none of its items is asked in another part."""
        count = self.sizes.pool
        each = -(-3 * count // len(self.subjects))
        kept = [one.kept for one in self._subjects(self.sizes.per_subject, each)]
        facts = [gating.fact(one) for row in zip(*kept, strict=True) for one in row]
        style = [gating.Item(text) for text in self._questions(3 * count)[1]]
        return gating.Gating(gating.make_pool(facts, style, count))

    def _questions(self, kept: int) -> tuple[list[str], list[str]]:
        return sources.open_questions(self.data, self.sizes.questions, kept, self.seed)

    def _subjects(self, count: int, kept: int) -> list[sources.Subject]:
        return sources.subjects(self.data, self.subjects, count, kept, self.seed)


PARTS: dict[str, Callable[[Plan], Part]] = {
    "mmlu": Plan.mmlu,
    "instructions": Plan.instructions,
    "judged": Plan.judged,
    "refusal": Plan.refusal,
    "gate": Plan.gate,
}


def main(arguments: list[str] | None = None) -> int:
    """Run what isn't done yet, and return the exit status."""
    try:
        return _run(_options(arguments))
    except MopError as error:
        print(f"personas: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("personas: stopped. What was answered is in the ledger; the same command goes on.", file=sys.stderr)
        return 130


def _run(options: argparse.Namespace) -> int:
    names = _named(options.parts, PARTS)
    default = SMALL if options.small else Sizes()
    sizes = Sizes(*[asked if (asked := getattr(options, name)) else value for name, value in asdict(default).items()])
    subjects = options.subjects.split(",")
    if options.small and options.subjects == SUBJECTS:
        subjects = subjects[:2]
    plan = Plan(options.data, subjects, arms.choose(options.arms.split(",")), sizes, options.seed)
    parts = {name: PARTS[name](plan) for name in names}
    caps = Budget() if options.budget is None else Budget(**_caps(options.budget))
    path = options.out / "results.json"
    read_results(path, options.model)
    try:
        options.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(f"The folder {options.out} can't be made ({error}); name another one.") from error
    book = open_ledger(options.ledger or options.out / "ledger.sqlite")
    name = "benchmarks personas"
    client = connect(options.model, ledger=book, base_url=options.base_url, budget=caps, run=name)
    judged_by = options.judge or options.model
    # A judge of its own is at its own address, or where the model is; a local one is nowhere but here.
    elsewhere = is_local(judged_by) and judged_by != options.model
    address = options.judge_url or (None if elsewhere else options.base_url)
    other = (judged_by, address) != (options.model, options.base_url)
    judge = connect(judged_by, ledger=book, base_url=address, budget=caps, run=name) if other else client
    desk = Desk(client, Judge(judge), resolve_encoder(options.encoder, ledger=book), options.seed)
    total = sum(part.calls for part in parts.values())
    desk.say("personas", f"about {total} calls in {len(parts)} parts; what the ledger has is not asked again")

    async def go() -> None:
        try:
            for part in parts:
                found = await parts[part].run(desk)
                # Anew: another run may have added a part of its own meanwhile.
                results = read_results(path, options.model)
                results["parts"][part] = {"sizes": {**asdict(sizes), "seed": options.seed}, **found}
                write_results(path, results)
                desk.say(part, "done")
        finally:
            for one in {id(client): client, id(judge): judge}.values():
                await one.aclose()

    try:
        run(go())
    finally:
        book.close()
    sent = client.traffic.sent + (judge.traffic.sent if other else 0)
    print(json.dumps({"results": str(path), "parts": list(parts), "sent": sent}))
    return 0


def read_results(path: Path, model: str) -> dict[str, Any]:
    """Return what earlier runs found. Raises DataError if it can't be read or is another model's."""
    if not path.exists():
        return {"model": model, "parts": {}}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        known = found["model"], found["parts"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is no result of this benchmark ({error!r}); name another folder.") from error
    if known[0] != model:
        raise DataError(f"{path} has results of {known[0]}, not of {model}; name a folder of its own for each model.")
    return dict(found)


def write_results(path: Path, results: dict[str, Any]) -> None:
    """Write the results, parts in their order; a file that is there is replaced as a whole."""
    ordered = {name: results["parts"][name] for name in PARTS if name in results["parts"]}
    text = json.dumps({**results, "parts": ordered}, indent=1, ensure_ascii=False) + "\n"
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def _named(text: str, known: dict[str, Any]) -> list[str]:
    names = text.split(",")
    if not set(names) <= set(known) or len(set(names)) != len(names):
        raise SettingsError(f"The parts {text!r} can't be run; name some of {', '.join(known)}, each once.")
    return [name for name in known if name in names]


def _caps(text: str) -> dict[str, Any]:
    given = {"budget": None, **parse_budget(text)}
    return {{"budget": "calls"}.get(name, name): value for name, value in given.items()}


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is less than 1")
    return value


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.personas",
        description=personas.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--data", type=Path, required=True, help="data folder (benchmarks/README.md)")
    add("--model", default=DEFAULT_CHAT)
    add("--base-url", help="endpoint of the model")
    add("--judge", help="model that judges; the model itself unless given")
    add("--judge-url", help="endpoint of the judge")
    add("--encoder", default=DEFAULT_ENCODER)
    add("--out", type=Path, required=True, help="folder of results.json and of the ledger")
    add("--ledger", help="another ledger: a file, or the URL of a database")
    add("--parts", default=",".join(PARTS))
    add("--subjects", default=SUBJECTS, help="MMLU subjects")
    add("--arms", default=",".join(arms.ARMS))
    add("--per-subject", type=_positive)
    add("--questions", type=_positive, help="open questions")
    add("--behaviours", type=_positive, help="harmful requests, and as many harmless ones")
    add("--pool", type=_positive, help="items of each kind for training, validation and test of the gate")
    add("--budget", help='cap on all calls: 600, "200k tokens", "2 USD"')
    add("--seed", type=int, default=0)
    add("--small", action="store_true", help="two subjects, a few questions of each kind")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
