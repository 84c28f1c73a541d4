"""Grid: every chosen method on every chosen task under every seed, each cell once and for all.

The cells of one task run one after another in one worker, because they ask many of the same questions: what one of them
has paid for, the next takes from the ledger. Tasks run side by side over joblib.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.cells import Cell, Place, run_cell
from benchmarks.parent import end_with
from benchmarks.preflight import check
from benchmarks.progress import progress
from benchmarks.results import Results
from benchmarks.routing import BOUNDS, ROUTINGS
from benchmarks.splitting import sizes_of, split_task
from benchmarks.tasks import CODE, choose_tasks, load_task
from mop.cluster.connection import is_connected, open_client
from mop.errors import BudgetExceeded, ModelUnavailable, MopError, SettingsError
from mop.metrics import JUDGED
from mop.search.ablations import Ablations
from mop.search.methods import DEFAULT_METHOD, PARTICULAR, get_method
from mop.search.plan import MIN_CALLS
from mop.settings import make_settings


@dataclass(frozen=True)
class Failed:
    """A cell that could not be finished, and why."""

    cell: Cell
    error: str


@dataclass(frozen=True)
class Workers:
    """Who does the work: ``jobs`` processes on this machine, or the Dask cluster behind ``scheduler``."""

    jobs: int = 1
    scheduler: str | None = None


def plan_cells(
    data: Path,
    tasks: Sequence[str],
    methods: Sequence[str],
    seeds: Sequence[int],
    options: Mapping[str, Any],
    *,
    test: int | None = None,
    parts: Mapping[str, str | None] | None = None,
    bounds: int = BOUNDS,
    allow_code: bool = False,
) -> list[Cell]:
    """Return the cells of a grid: task by task, and within a task seed by seed.

    An option that a method doesn't heed, such as the number of experts, is no part of its cells; nor is the judge where
    a task is scored without one; nor is one of the
    ``parts`` (`mop.search.ablations`, and ``routing``) that a method doesn't have, or has anyway.

    Raises SettingsError, DataError or BudgetExceeded for a task, method or option that can't be used, before anything
    is run.
    """
    if test is not None and test < 1:
        raise SettingsError(f"{test} test examples test nothing; give at least 1.")
    if bounds < 0:
        raise SettingsError(f"bounds is {bounds}; expected a number of test examples, 0 for none.")
    for method in methods:
        get_method(method)
    given = _named(options)
    if (budget := given.get("budget", MIN_CALLS)) < MIN_CALLS:
        raise BudgetExceeded(
            f"A budget of {budget} model calls is too small to compare prompts; give at least {MIN_CALLS}."
        )
    exchanged = _exchanged(parts or {}, given)
    cells = []
    for task in choose_tasks(data, tasks):
        loaded = load_task(data, task)
        digest, sizes = loaded.sha256, sizes_of(loaded, test)
        if loaded.metric == CODE and not allow_code:
            raise SettingsError(
                f"{task} is scored by running what the model writes. It is run in a sandbox (see mop/sandbox); if that "
                "is what you want, give --allow-code."
            )
        for seed in seeds:
            split_task(loaded, seed, sizes)  # too few rows are found now, not after other cells have cost their money
            for method in methods:
                heeded = tuple(
                    sorted((name, value) for name, value in given.items() if _heeds(method, name, loaded.metric))
                )
                other = tuple(
                    sorted((name, value) for name, value in exchanged.items() if _differs(method, name, value))
                )
                cells.append(Cell(task, method, seed, digest, loaded.metric, sizes, heeded, other, bounds))
    return list(dict.fromkeys(cells))


def _named(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that differ from their defaults, and the model and the caps in any case, in one spelling."""
    given = {name: value for name, value in options.items() if value is not None}
    # Whether a method heeds an option is seen to elsewhere.
    settings = make_settings({n: v for n, v in given.items() if _heeds(DEFAULT_METHOD, n, JUDGED[0])}, environment={})
    caps = {name: getattr(settings, name) for name in ("budget", "tokens", "usd")}
    defaults = {name: field.default for name, field in type(settings).model_fields.items()}
    # A default that is given explicitly is no option of its own, so tables put its cells with those that left it out.
    other = {name: value for name, value in given.items() if value != defaults.get(name)}
    named = {**other, **caps, "model": settings.model}
    return {name: value for name, value in named.items() if value is not None}


def _heeds(method: str, option: str, metric: str) -> bool:
    if option in ("judge", "criteria"):
        return metric in JUDGED
    return option not in PARTICULAR or option in get_method(method).heeds


def _exchanged(parts: Mapping[str, str | None], options: Mapping[str, Any]) -> dict[str, str]:
    """Return the parts that are given, checked."""
    given = {name: value for name, value in parts.items() if value is not None}
    routing = given.get("routing")
    if routing is not None and routing not in ROUTINGS:
        raise SettingsError(f"routing is {routing!r}; expected one of {', '.join(ROUTINGS)}.")
    Ablations.of({name: value for name, value in given.items() if name != "routing"})
    if "counting" in given and "experts" in options:
        raise SettingsError("--counting chooses the number of experts and --experts gives it; leave one of them out.")
    if options.get("refit") and given.get("assignment", "kmeans") != "kmeans":
        raise SettingsError("--refit chooses demos anew by region; it goes with --assignment kmeans only.")
    return given


def _differs(method: str, name: str, value: str) -> bool:
    """Whether a part makes another cell of a method: the method has it, and as something else."""
    own = get_method(method).parts
    return bool(own) and value != (ROUTINGS[0] if name == "routing" else own[name])


def run_grid(cells: Sequence[Cell], place: Place, results: Results, workers: Workers) -> list[Failed]:
    """Run the cells that ``results`` doesn't hold yet, and return those that could not be finished.

    Raises ModelUnavailable if the endpoint is gone, because the other cells would fail as well; and what
    `benchmarks.preflight.check` finds on this machine, unless a cluster does the work.
    """
    from joblib import Parallel, delayed

    finished = results.read()
    chains: dict[str, list[Cell]] = {}
    for cell in cells:
        if cell.key not in finished:
            chains.setdefault(cell.task, []).append(cell)
    wanted = {cell.key for cell in cells}
    if workers.scheduler is None:
        check([cell for chain in chains.values() for cell in chain], place)
    with progress(results, wanted), _backend(workers) as (options, parent):
        failures = Parallel(**options)(
            delayed(run_chain)(chain, place, str(results.path), parent) for chain in chains.values()
        )
    return [failed for chain in failures for failed in chain]


def run_chain(cells: Sequence[Cell], place: Place, results: str, parent: int | str | None = None) -> list[Failed]:
    """Run cells one after another in this process and add each to the result file as it ends.

    ``parent`` is the process that started this one, if it did: when that one is killed, this one ends too. On a
    cluster it is the id of Dask's client: when that one is gone, no further cell begins.
    """
    if isinstance(parent, int) and parent != os.getpid():
        end_with(parent)
    failed = []
    file = Results(results)
    for cell in cells:
        if isinstance(parent, str) and not is_connected(parent):
            print(f"{describe(cell)} not begun: who asked for it has gone", file=sys.stderr, flush=True)
            break
        try:
            file.add(run_cell(cell, place))
        except ModelUnavailable:
            raise
        except Exception as error:  # noqa: BLE001 - a defect that one cell meets must not end the others
            said = str(error) if isinstance(error, MopError) else f"{type(error).__name__}: {error}"
            failed.append(Failed(cell, said))
            file.add_failed({**cell.conditions(), "failed": _public(type(error).__name__, str(error), place)})
            print(f"{describe(cell)} failed: {said}", file=sys.stderr, flush=True)
    return failed


def _public(kind: str, message: str, place: Place) -> dict[str, str]:
    """Return an error for the result file, without the addresses of endpoints: they may be private."""
    for address in (place.base_url, place.proposer_url, place.judge_url):
        if address:
            message = message.replace(address, "(endpoint)")
    return {"type": kind, "message": " ".join(message.split())[:300]}


def describe(cell: Cell) -> str:
    """Return a cell's name for people."""
    return f"{cell.task} seed {cell.seed} {cell.method}"


@contextmanager
def _backend(workers: Workers) -> Iterator[tuple[dict[str, Any], int | str]]:
    """Yield joblib's options and whom workers work for, with the cluster connected while they are in use."""
    if workers.scheduler is None:
        yield {"n_jobs": workers.jobs, "batch_size": 1}, os.getpid()
        return
    from joblib import parallel_config

    with open_client(workers.scheduler) as client:
        from mop.cluster.backend import ClusterBackend

        with parallel_config(backend=ClusterBackend(client)):
            yield {"n_jobs": -1, "batch_size": 1}, client.id
