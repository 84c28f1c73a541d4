"""Writes the pool of the part `gate` as examples that `mop optimize` reads: questions of fact, requests with a style.

``pool.jsonl`` has all of them, with splits and with rules for the metric ``checks:all``; ``facts.jsonl`` and
``style.jsonl`` have the test examples of one kind each, ``house.jsonl`` the house's persona. What to do with them is
in benchmarks/README.md, "Personas". Asks no model::

    python -m benchmarks.personas.pool --data DIR --pool 60 --seed 4 --out FOLDER
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.personas import arms
from benchmarks.personas.__main__ import SUBJECTS, Plan, Sizes
from benchmarks.personas.gating import HOUSE, KINDS, STYLE, Item
from mop.errors import DataError, MopError, SettingsError

#: Letters that options may have.
_LETTERS = "ABCDEFGHIJ"


def rules(item: Item) -> str:
    """Return the rules of an item: the house's style, or that the right option's letter stands there and no other.

    Raises DataError for a right option that is no such letter.
    """
    if not item.letters:
        return STYLE
    right = "".join(item.letters)
    if not set(right) <= set(_LETTERS):
        raise DataError(
            f"The right option {right!r} of {item.query[:60]!r} is no letter from {_LETTERS[0]} to {_LETTERS[-1]}."
        )
    wrong = "".join(letter for letter in _LETTERS if letter not in right)
    return json.dumps({"matches": rf"^(?![\s\S]*\b[{wrong}]\b)[\s\S]*\b[{right}]\b"})


def rows(plan: Plan) -> list[dict[str, str]]:
    """Return the pool of a plan's part `gate`, by role and by kind; raises as `Plan.gate` does."""
    pool = plan.gate().pool
    roles = {"train": pool.train, "validation": pool.validation, "test": pool.test}
    return [
        {"input": item.query, "output": rules(item), "split": role, "kind": item.kind}
        for role, items in roles.items()
        for item in items
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the files and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.personas.pool",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--data", type=Path, required=True, help="data folder (benchmarks/README.md)")
    add("--out", type=Path, required=True, help="folder of the files")
    add("--subjects", default=SUBJECTS, help="MMLU subjects")
    add("--pool", type=int, default=60, help="items of each kind for training, validation and test")
    add("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    try:
        if options.pool < 1:
            raise SettingsError(f"--pool {options.pool}: give a number of items, from 1 up.")
        every = arms.choose(list(arms.ARMS))
        found = rows(Plan(options.data, options.subjects.split(","), every, Sizes(pool=options.pool), options.seed))
        _write(options.out / "pool.jsonl", found)
        for kind in KINDS:
            tested = [row for row in found if (row["kind"], row["split"]) == (kind, "test")]
            _write(options.out / f"{kind if kind == 'style' else 'facts'}.jsonl", tested)
        _write(options.out / "house.jsonl", [{"name": "house", "text": HOUSE}])
    except MopError as error:
        print(f"pool: {error}", file=sys.stderr)
        return error.exit_code
    print(f"{len(found)} examples in {options.out / 'pool.jsonl'}")
    return 0


def _write(path: Path, lines: Sequence[Mapping[str, str]]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"{path} can't be written ({error}); name another folder.") from error


if __name__ == "__main__":
    sys.exit(main())
