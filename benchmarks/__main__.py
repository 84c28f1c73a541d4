"""The grid of methods × tasks × seeds, and the tables from its results.

    python -m benchmarks tasks --data DIR
    python -m benchmarks run --data DIR --methods mop,ape --tasks antonyms,bbh/* --seeds 0,1,2 --out results.jsonl
    python -m benchmarks report results.jsonl --out DIR
    python -m benchmarks changes earlier.jsonl results.jsonl
    python -m benchmarks tables README.md

benchmarks/README.md has the layout of the data folder and the meaning of every column.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.arguments import at_least, listed
from benchmarks.cells import Place
from benchmarks.grid import Workers, describe, plan_cells, run_grid
from benchmarks.plotting import FORMATS
from benchmarks.quoting import quote_in
from benchmarks.report import AGAINST_ONE, KINDS, PAIRED, report, table
from benchmarks.results import Results
from benchmarks.routing import BOUNDS, ROUTINGS
from benchmarks.tasks import task_ids
from mop.errors import DataError, MopError, SettingsError
from mop.search.ablations import CHOICES
from mop.search.methods import METHODS, get_method

#: What each part that can be exchanged is.
HELP = {
    "assignment": "how demos come to experts",
    "counting": "how the number of experts is chosen",
    "view": "what the proposer of instructions sees",
    "selection": "how an expert's instruction is chosen",
    "routing": "how test queries come to experts",
}


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
            "judge",
            "criteria",
        )
    }
    cells = plan_cells(
        Path(given.data),
        given.tasks,
        given.methods,
        given.seeds,
        options,
        test=given.test,
        parts={name: getattr(given, name) for name in (*CHOICES, "routing")},
        bounds=given.bounds,
        allow_code=given.allow_code,
    )
    ledger = given.ledger or str(out.with_suffix(".ledger.sqlite"))
    place = Place(
        # Workers have working folders of their own. Links are kept: their names are those of benchmarks.
        data=os.path.abspath(given.data),
        ledger=ledger if "://" in ledger else str(Path(ledger).resolve()),
        base_url=given.base_url,
        proposer_url=given.proposer_url,
        judge_url=given.judge_url,
        concurrency=given.concurrency,
        mixtures=None if given.mixtures is None else str(Path(given.mixtures).resolve()),
        allow_code=given.allow_code,
    )
    failed = run_grid(cells, place, Results(out.resolve()), Workers(given.jobs, given.scheduler))
    for one in failed:
        print(f"not finished: {describe(one.cell)}: {one.error}", file=sys.stderr)
    return 1 if failed else 0


def report_command(given: argparse.Namespace) -> int:
    if given.of is not None and given.table not in PAIRED:
        raise DataError(f"--of chooses pairs of methods; give --table {' or --table '.join(PAIRED)} with it.")
    if given.table in AGAINST_ONE and given.of is None:
        raise DataError(f"--table {given.table} compares one method with the others; name it with --of.")
    records, failed = _read(given.results)
    text = table(records, given.table, failed, given.of) if given.table else report(records, failed)
    if given.out is None:
        sys.stdout.write(text)
        return 0
    folder = Path(given.out)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.md").write_text(text, encoding="utf-8")
    print(folder / "report.md")
    if find_spec("matplotlib") is None:
        print('no pictures without matplotlib: pip install "mop[figures]"', file=sys.stderr)
    elif records and not given.table:
        from benchmarks.pictures import draw_report

        for drawn in draw_report(records, folder, given.format):
            print(drawn)
    return 0


def _read(paths: Sequence[str]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the finished and the failed cells of several files; of a cell that is in two, the first finished one."""
    finished: dict[str, dict[str, Any]] = {}
    failed: dict[str, dict[str, Any]] = {}
    for path in paths:
        records = Results(Path(path)).all()
        if not records:
            raise DataError(f"There are no results in {path}; run `python -m benchmarks run` first.")
        for record in records:
            (failed if "failed" in record else finished).setdefault(record["cell"], record)
    return list(finished.values()), [record for cell, record in failed.items() if cell not in finished]


def quote_command(given: argparse.Namespace) -> int:
    def made_by(words: list[str]) -> str:
        try:
            asked = _parser().parse_args(words)
        except SystemExit as error:
            raise DataError(f"{' '.join(words)!r} makes no table; what it lacks is said above.") from error
        records, failed = _read(asked.results)
        return table(records, asked.table, failed, asked.of)

    changed = [path for path in given.files if quote_in(Path(path), made_by, write=not given.check)]
    for path in changed:
        print(f"{path}: {'not up to date' if given.check else 'brought up to date'}")
    return 1 if changed and given.check else 0


def changes_command(given: argparse.Namespace) -> int:
    from benchmarks.changes import changes

    before, after = (
        [record for records in _read([path]) for record in records] for path in (given.before, given.after)
    )
    sys.stdout.write(changes(before, after))
    return 0


def tasks_command(given: argparse.Namespace) -> int:
    print("\n".join(task_ids(Path(given.data))))
    return 0


def figures_command(given: argparse.Namespace) -> int:
    from benchmarks.figuring import figures_of

    for path in figures_of(
        Path(given.mixture),
        Path(given.data),
        given.task,
        Path(given.out),
        seed=given.seed,
        test=given.test,
        validation=given.validation,
        ledger=given.ledger,
        base_url=given.base_url,
        kind=given.format,
        allow_code=given.allow_code,
    ):
        print(path)
    return 0


def sweep_command(given: argparse.Namespace) -> int:
    from benchmarks.sweep import draw_sweep, run_sweep, sweep_table

    folder = Path(given.out).resolve()
    if given.experts is not None and "experts" not in get_method(given.method).heeds:
        raise SettingsError(
            f"{given.method} does not learn several experts; leave --experts out, or name another --method."
        )
    shared = {"budget": given.budget, "model": given.model}
    choices = [(count, encoder) for encoder in given.encoders or [None] for count in given.experts or [None]]
    cells = [
        cell
        for count, encoder in choices
        for cell in plan_cells(
            Path(given.data),
            [given.task],
            [given.method],
            [given.seed],
            {**shared, "experts": count, "encoder": encoder},
            test=given.test,
            bounds=0,
            allow_code=given.allow_code,
        )
    ]
    folder.mkdir(parents=True, exist_ok=True)
    place = Place(data=os.path.abspath(given.data), ledger="", base_url=given.base_url, allow_code=given.allow_code)
    records = run_sweep(cells, place, folder)
    text = sweep_table(records)
    (folder / "sweep.md").write_text(text, encoding="utf-8")
    sys.stdout.write(text)
    if find_spec("matplotlib") is None:
        print('no picture without matplotlib: pip install "mop[figures]"', file=sys.stderr)
    else:
        draw_sweep(records, folder / f"sweep.{given.format}")
    return 0


def _numbers(text: str) -> list[int]:
    from benchmarks.sweep import numbers

    return numbers(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    grid = commands.add_parser("run", help="run every method on every task under every seed")
    grid.set_defaults(command=run_command)
    grid.add_argument("--data", required=True, help="data folder, or the folder of one benchmark")
    grid.add_argument("--tasks", required=True, type=listed(str), help="names or patterns: antonyms,bbh/*")
    grid.add_argument("--methods", required=True, type=listed(str), help=", ".join(METHODS))
    grid.add_argument("--seeds", default=[0], type=listed(int), help="such as 0,1,2 [0]")
    grid.add_argument("--out", required=True, help="result file; finished cells in it are not run again")
    grid.add_argument("--budget", help="calls (600), '200k tokens' or '2 USD' for each search")
    grid.add_argument("--model")
    grid.add_argument("--base-url")
    grid.add_argument("--proposer")
    grid.add_argument("--proposer-url")
    grid.add_argument("--judge", help="model that scores tasks whose metric is judge or judge:pairwise [the model]")
    grid.add_argument("--judge-url")
    grid.add_argument("--criteria", help="what it looks at, as for mop optimize [helpfulness]")
    grid.add_argument("--encoder")
    grid.add_argument("--experts", type=int, help="for the methods that learn several experts")
    grid.add_argument("--proposals", type=int)
    grid.add_argument("--retrieved", type=int, help="for mop: most demos that a query gets after its expert's")
    grid.add_argument("--white-box", help="for instructzero: local model that writes instructions")
    grid.add_argument("--max-demos", type=int)
    grid.add_argument("--prompt-tokens", type=int)
    grid.add_argument("--test", type=at_least(1), help="most test examples [100]")
    parts = grid.add_argument_group("ablations", "parts of mop and mop-paper that can be exchanged")
    for name, choices in {**CHOICES, "routing": ROUTINGS}.items():
        parts.add_argument(f"--{name}", choices=choices, help=f"{HELP[name]}: {', '.join(choices)}", metavar="NAME")
    grid.add_argument(
        "--bounds",
        type=at_least(0),
        default=BOUNDS,
        help=f"test examples on which every expert is asked, to bound what routing can give; 0 for none [{BOUNDS}]",
    )
    grid.add_argument("--allow-code", action="store_true", help="run what the model writes, in a sandbox (code/*)")
    grid.add_argument("--ledger", help="file or URL of the ledger [beside the result file]")
    grid.add_argument("--mixtures", help="folder that keeps the learned mixtures")
    grid.add_argument("--concurrency", type=at_least(1), help="most calls in flight to an endpoint, for each process")
    grid.add_argument("--jobs", type=at_least(1), default=1, help="processes on this machine [1]")
    grid.add_argument("--backend", choices=("local", "dask"), default="local")
    grid.add_argument("--scheduler", help="address of the Dask scheduler")
    tables = commands.add_parser("report", help="make the tables")
    tables.set_defaults(command=report_command)
    tables.add_argument("results", nargs="+", metavar="FILE", help="result files of one or several runs")
    tables.add_argument("--out", help="folder for report.md and pictures; without it the tables go to standard output")
    tables.add_argument("--table", choices=KINDS, help="one kind of table alone")
    tables.add_argument(
        "--of", metavar="METHOD", help=f"with --table {' or '.join(PAIRED)}: this method against the others"
    )
    tables.add_argument("--format", choices=FORMATS, default=FORMATS[0], help="of the pictures [svg]")
    quotes = commands.add_parser("tables", help="bring the tables that texts quote up to date, with their commands")
    quotes.set_defaults(command=quote_command)
    quotes.add_argument("files", nargs="+", metavar="FILE", help="Markdown such as README.md")
    quotes.add_argument("--check", action="store_true", help="change nothing; fail if a table is not up to date")
    changed = commands.add_parser("changes", help="what another state of the same methods did, paired")
    changed.set_defaults(command=changes_command)
    changed.add_argument("before", metavar="BEFORE", help="result file of the earlier state")
    changed.add_argument("after", metavar="AFTER", help="result file of the later one")
    figures = commands.add_parser("figures", help="the paper's first experiments on a learned mixture")
    figures.set_defaults(command=figures_command)
    figures.add_argument("mixture", help="a file of --mixtures")
    figures.add_argument("--seed", type=int, help="of the splits [the mixture's]")
    figures.add_argument("--validation", type=at_least(1), default=60, help="most validation examples for ranks [60]")
    figures.add_argument("--ledger", help="file or URL of the ledger [your own]")
    sweep = commands.add_parser("sweep", help="one method with 2, 3, … experts or several encoders, measured")
    sweep.set_defaults(command=sweep_command)
    sweep.add_argument("--method", default="mop-paper", help="a method that learns several experts [mop-paper]")
    sweep.add_argument("--experts", type=_numbers, help="such as 2..16 or 2,4,8")
    sweep.add_argument("--encoders", type=listed(str), help="names of encoders, tfidf among them")
    sweep.add_argument("--seed", type=int, default=0)
    sweep.add_argument("--budget", help="as for run")
    sweep.add_argument("--model")
    for one in (figures, sweep):
        one.add_argument("--data", required=True, help="data folder, or the folder of one benchmark")
        one.add_argument("--task", required=True)
        one.add_argument("--out", required=True, help="folder for numbers and pictures")
        one.add_argument("--test", type=at_least(1), help="most test examples [100]")
        one.add_argument("--base-url")
        one.add_argument("--allow-code", action="store_true")
        one.add_argument("--format", choices=FORMATS, default=FORMATS[0], help="of the pictures [svg]")
    names = commands.add_parser("tasks", help="list the tasks of a data folder")
    names.set_defaults(command=tasks_command)
    names.add_argument("--data", required=True)
    return parser


if __name__ == "__main__":
    sys.exit(main())
