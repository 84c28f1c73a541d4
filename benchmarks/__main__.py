"""The grid of methods × tasks × seeds, and the tables from its results.

    python -m benchmarks tasks --data DIR
    python -m benchmarks run --data DIR --methods mop,ape --tasks antonyms,bbh/* --seeds 0,1,2 --out results.jsonl
    python -m benchmarks report results.jsonl --out DIR

benchmarks/README.md has the layout of the data folder and the meaning of every column.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from benchmarks.cells import Place
from benchmarks.grid import Workers, describe, plan_cells, run_grid
from benchmarks.report import report
from benchmarks.results import Results
from benchmarks.tasks import task_ids
from mop.errors import DataError, MopError, SettingsError
from mop.search.methods import METHODS

Value = TypeVar("Value")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status; errors of mop are one line on standard error."""
    given = _parser().parse_args(argv)
    try:
        return int(given.command(given))
    except MopError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted; the same command goes on where it was", file=sys.stderr)
        return 130


def run_command(given: argparse.Namespace) -> int:
    out = Path(given.out)
    if given.scheduler is not None and given.backend != "dask":
        raise SettingsError("--scheduler is for --backend dask; give both.")
    if given.backend == "dask" and given.scheduler is None:
        raise SettingsError("--backend dask needs --scheduler ADDRESS, such as tcp://10.0.0.1:8786.")
    options = {
        name: getattr(given, name)
        for name in (
            "model",
            "proposer",
            "encoder",
            "budget",
            "experts",
            "proposals",
            "retrieved",
            "white_box",
            "max_demos",
            "prompt_tokens",
        )
    }
    cells = plan_cells(Path(given.data), given.tasks, given.methods, given.seeds, options, test=given.test)
    place = Place(
        # Workers have working folders of their own.
        data=str(Path(given.data).resolve()),
        ledger=given.ledger or str(out.resolve().with_suffix(".ledger.sqlite")),
        base_url=given.base_url,
        proposer_url=given.proposer_url,
        concurrency=given.concurrency,
        mixtures=None if given.mixtures is None else str(Path(given.mixtures).resolve()),
    )
    failed = run_grid(cells, place, Results(out.resolve()), Workers(given.jobs, given.scheduler))
    for one in failed:
        print(f"not finished: {describe(one.cell)}: {one.error}", file=sys.stderr)
    return 1 if failed else 0


def report_command(given: argparse.Namespace) -> int:
    path = Path(given.results)
    records, failed = Results(path).read(), Results(path).failed()
    if not records and not failed:
        raise DataError(f"There are no results in {path}; run `python -m benchmarks run` first.")
    text = report(records.values(), failed)
    if given.out is None:
        sys.stdout.write(text)
        return 0
    folder = Path(given.out)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.md").write_text(text, encoding="utf-8")
    print(folder / "report.md")
    return 0


def tasks_command(given: argparse.Namespace) -> int:
    print("\n".join(task_ids(Path(given.data))))
    return 0


def _listed(read: Callable[[str], Value]) -> Callable[[str], list[Value]]:
    def parse(text: str) -> list[Value]:
        values = [read(part.strip()) for part in text.split(",") if part.strip()]
        if not values:
            raise ValueError(text)
        return list(dict.fromkeys(values))

    parse.__name__ = "list"  # argparse names it in its message
    return parse


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    grid = commands.add_parser("run", help="run every method on every task under every seed")
    grid.set_defaults(command=run_command)
    grid.add_argument("--data", required=True, help="data folder, or the folder of one benchmark")
    grid.add_argument("--tasks", required=True, type=_listed(str), help="names or patterns: antonyms,bbh/*")
    grid.add_argument("--methods", required=True, type=_listed(str), help=", ".join(METHODS))
    grid.add_argument("--seeds", default=[0], type=_listed(int), help="such as 0,1,2 [0]")
    grid.add_argument("--out", required=True, help="result file; finished cells in it are not run again")
    grid.add_argument("--budget", help="calls (600), '200k tokens' or '2 USD' for each search")
    grid.add_argument("--model")
    grid.add_argument("--base-url")
    grid.add_argument("--proposer")
    grid.add_argument("--proposer-url")
    grid.add_argument("--encoder")
    grid.add_argument("--experts", type=int, help="for the methods that learn several experts")
    grid.add_argument("--proposals", type=int)
    grid.add_argument("--retrieved", type=int, help="for mop: most demos that a query gets after its expert's")
    grid.add_argument("--white-box", help="for instructzero: local model that writes instructions")
    grid.add_argument("--max-demos", type=int)
    grid.add_argument("--prompt-tokens", type=int)
    grid.add_argument("--test", type=int, help="most test examples [100]")
    grid.add_argument("--ledger", help="file or URL of the ledger [beside the result file]")
    grid.add_argument("--mixtures", help="folder that keeps the learned mixtures")
    grid.add_argument("--concurrency", type=int, help="most calls in flight to an endpoint, for each process")
    grid.add_argument("--jobs", type=int, default=1, help="processes on this machine [1]")
    grid.add_argument("--backend", choices=("local", "dask"), default="local")
    grid.add_argument("--scheduler", help="address of the Dask scheduler")
    tables = commands.add_parser("report", help="make the tables")
    tables.set_defaults(command=report_command)
    tables.add_argument("results")
    tables.add_argument("--out", help="folder for report.md; without it the tables go to standard output")
    names = commands.add_parser("tasks", help="list the tasks of a data folder")
    names.set_defaults(command=tasks_command)
    names.add_argument("--data", required=True)
    return parser


if __name__ == "__main__":
    sys.exit(main())
