"""Self-Prompt Tuning: is a role that a student writes before its answer worth more than any other words there?

    python -m benchmarks.self_prompt --small --out FOLDER       # some twenty minutes on one core for each seed
    python -m benchmarks.self_prompt --out FOLDER               # more epochs
    python -m benchmarks.self_prompt --model NAME --epochs 8 --seeds 5 --out FOLDER    # a GPU

Four students are trained on the same questions and answers with the same settings: on answers alone, and with words
before them: of equal length that say nothing, roles dealt out anew, the roles that fit. All answer questions of the
same domains and of others. Then the last two write again under another question's role, and under none. Accuracy is
measured on what follows the role line. Stopped, the same command goes on where it was. Results go to
FOLDER/results.json after each student, a table to standard output.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.self_prompt_results import markdown, summary
from benchmarks.self_prompt_tasks import FOREIGN, TAUGHT, TEST, TRAIN, Item
from mop.encoding import resolve_encoder
from mop.errors import DataError
from mop.students.generating import write
from mop.students.models import Student, load
from mop.students.opening import OpenStudent
from mop.students.recipes import FULL_SIZE, get_recipe
from mop.students.rendering import prompt_ids
from mop.students.role_lines import role_line
from mop.students.run_folder import require_same
from mop.students.stages import Row, read_rows, row_id, write_rows
from mop.students.trainer import Step
from mop.students.training import prepare

#: Questions that are answered at a time; weights are read once for all of them.
_BATCH = 64


def main(arguments: list[str] | None = None) -> None:
    """Run what isn't done yet and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", default="local/qwen2.5-coder-0.5b-instruct")
    parser.add_argument("--encoder", default="local/all-minilm-l6-v2")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--small", action="store_true", help="two epochs, fewer questions of each domain")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", type=int, help="train this seed's students and end, beside other processes")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--role-line", default="bracket")
    parser.add_argument("--max-tokens", type=int, default=24)
    parser.add_argument("--dtype", default="auto")
    options = parser.parse_args(arguments)
    if options.seeds < 1:
        parser.error("--seeds must be 1 or more")
    epochs = options.epochs or (2 if options.small else 5)
    train, items = TRAIN, [*TEST, *FOREIGN]
    if options.small:
        train, items = of_each(TRAIN, 6), [*of_each(TEST, 3), *of_each(FOREIGN, 4)]
    require_own(options.out, {**vars(options), "epochs": epochs, "train": len(train), "test": len(items)})
    said: dict[str, list[list[Row]]] = {}
    losses: dict[str, list[list[float]]] = {}
    place = options.out / "base.jsonl"
    said["base"] = [known_or_asked(place, items, options)]
    if options.only is not None:
        for arm in TAUGHT:
            one_student(arm, options.only, epochs, train, items, options)
        return
    # Seed by seed, so that an unfinished run compares all students too.
    for seed in range(options.seeds):
        for arm in TAUGHT:
            rows, curve = one_student(arm, seed, epochs, train, items, options)
            said.setdefault(arm, []).append(rows)
            losses.setdefault(arm, []).append(curve)
        found = {
            "model": options.model,
            "sizes": {"train": len(train), "test": len(items), "epochs": epochs},
            "seeds": seed + 1,
            "dtype": options.dtype,
            "role_line": options.role_line,
            "loss": losses,
            **summary(items, said, resolve_encoder(options.encoder)),
        }
        (options.out / "results.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        print(markdown(found), flush=True)


def require_own(folder: Path, settings: dict[str, Any]) -> None:
    """Raise SettingsError if ``folder`` holds answers of another experiment; note there which one it is.

    Which seeds are asked for makes no other one, and where the folder lies neither.
    """
    wanted = {name: value for name, value in settings.items() if name not in ("seeds", "only", "out", "small")}
    place = folder / "experiment.json"
    if place.exists():
        require_same(json.loads(place.read_text(encoding="utf-8")), wanted, folder)
    folder.mkdir(parents=True, exist_ok=True)
    place.write_text(json.dumps(wanted, indent=1) + "\n", encoding="utf-8")


def one_student(
    arm: str, seed: int, epochs: int, train: Sequence[Item], items: Sequence[Item], options: argparse.Namespace
) -> tuple[list[Row], list[float]]:
    """Train one student and have it answer, unless both are done; return its rows and the losses of its steps.

    A row has ``way`` (``own`` words before the answer, ``swapped`` for another question's, or ``removed``: those for
    nobody), ``question``, ``written``, ``role`` and ``answer``.
    """
    folder = options.out / f"seed_{seed}" / arm.replace(" ", "_")
    folder.mkdir(parents=True, exist_ok=True)
    place = folder / "answers.jsonl"
    known = list(read_rows(place).values())
    if known and (folder / "log.jsonl").exists():
        return known, _losses(folder)
    data = folder.with_suffix(".jsonl")
    given = TAUGHT[arm]
    write_conversations(data, train, given(train) if given else None)
    line = role_line(options.role_line)
    # One set of hyper-parameters for all, those of Self-Prompt Tuning for a model of this size.
    recipe = get_recipe("self-prompt")
    chosen = {**recipe.small, "epochs": epochs, "batch": 4, "seed": seed, "role_line": options.role_line}
    prepared = prepare(
        get_recipe("self-prompt" if given else "expert"), data, base=options.model, chosen=chosen, dtype=options.dtype
    )
    if prepared.student.model.num_parameters() >= FULL_SIZE:
        say("a model of this size has hyper-parameters of its own in the papers; these are those of small ones")
    say(f"seed {seed}: {arm}: {prepared.tokens} tokens to learn, {len(prepared.batches)} steps")
    trained = prepared.train(folder, _told(f"seed {seed}: {arm}"))
    opened = OpenStudent(trained.student, {}, line if given else None)
    rows = answers(opened, arm, items, options.max_tokens)
    write_rows(place, rows)
    say(f"seed {seed}: {arm}: {len(rows)} answers")
    return rows, _losses(folder)


def answers(opened: OpenStudent, arm: str, items: Sequence[Item], max_tokens: int) -> list[Row]:
    """Return what a student says to all questions, in all ways that make sense for it. Decoding is greedy."""
    asked = [[{"role": "user", "content": one.question}] for one in items]
    own = opened.answer(asked, max_tokens=max_tokens, batch=_BATCH)
    rows = [_row("own", item, one.written, one.role, one.answer) for item, one in zip(items, own, strict=True)]
    say(f"{arm}: own words")
    if arm not in ("self-prompt", "shuffled roles"):
        return rows
    roles = [one.role for one in own]
    # Half the way round: questions of the known domains get roles from foreign ones, and the reverse.
    half = len(roles) // 2
    ways: dict[str, list[str | None]] = {"swapped": roles[half:] + roles[:half], "removed": [None] * len(roles)}
    for way, given in ways.items():
        places = [
            place
            for place, (role, other) in enumerate(zip(roles, given, strict=True))
            if role is not None and other != role and (way == "removed" or other is not None) and _fits(opened, other)
        ]
        found = opened.answer(
            [asked[place] for place in places],
            max_tokens=max_tokens,
            roles=[given[place] for place in places],
            batch=_BATCH,
        )
        rows += [
            _row(way, items[place], True, given[place], one.answer) for place, one in zip(places, found, strict=True)
        ]
        say(f"{arm}: {way}")
    return rows


def of_each(items: Sequence[Item], count: int) -> list[Item]:
    """Return the first ``count`` items of each domain."""
    found: dict[str, list[Item]] = {}
    for one in items:
        found.setdefault(one.domain, []).append(one)
    return [one for rows in found.values() for one in rows[:count]]


def known_or_asked(place: Path, items: Sequence[Item], options: argparse.Namespace) -> list[Row]:
    """Return the answers of the model itself, asked the bare questions."""
    known = list(read_rows(place).values())
    if known:
        return known
    student: Student = load(options.model, dtype=options.dtype)
    prompts = [prompt_ids(student.tokenizer, [{"role": "user", "content": one.question}]) for one in items]
    found = write(student, prompts, max_tokens=options.max_tokens, batch=_BATCH)
    rows = [_row("own", item, False, None, one.text) for item, one in zip(items, found, strict=True)]
    write_rows(place, rows)
    say(f"base: {len(rows)} answers")
    return rows


def write_conversations(path: Path, items: Sequence[Item], roles: Sequence[str | None] | None) -> None:
    """Write the questions with their answers, and with roles if there are any, as `mop students train` takes them."""
    rows = []
    for place, one in enumerate(items):
        turns = [{"role": "user", "content": one.question}, {"role": "assistant", "content": one.answers[0]}]
        rows.append({"messages": turns} if roles is None else {"messages": turns, "role": roles[place]})
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _fits(opened: OpenStudent, role: str | None) -> bool:
    """Whether a role can stand in the line: one that a student garbled may not."""
    try:
        return opened.line is not None and bool(opened.line.before(role))
    except DataError:
        return False


def _row(way: str, item: Item, written: bool, role: str | None, answer: str) -> Row:
    given = {"way": way, "question": item.question}
    return {"id": row_id("answers", given), **given, "written": written, "role": role, "answer": answer}


def _losses(folder: Path) -> list[float]:
    lines = (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return [round(float(json.loads(line)["loss"]), 4) for line in lines]


def _told(name: str) -> Any:
    def tell(step: Step) -> None:
        say(f"{name}: step {step.number} of {step.steps}, loss {step.loss:.3f}")

    return tell


def say(text: str) -> None:
    """Print a line with the time."""
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


if __name__ == "__main__":
    main()
