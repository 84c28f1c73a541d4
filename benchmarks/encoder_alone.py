"""Is a language model needed at all? What the same encoder and the same labelled rows give without one.

    python -m benchmarks.encoder_alone --data DIR --tasks banking77,hwu64,trec --grid benchmarks/results/grid.jsonl
    python -m benchmarks.encoder_alone

Three ways, which ask no model: the answer of the nearest labelled row, the same in the answers' projection
(`mop.embeddings.projection`, fitted to the demos; where a mixture's regions are found there, it is the row that the
mixture retrieves), and logistic regression on the vectors (its regularization by 5-fold cross-validation). They learn
from the demos and the validation rows of a cell of the grid, all of which a mixture with retrieval may show, and are
tested on its test rows; ``--grid`` has the cells of `mop` to compare them with. For tasks whose answers are labels.
Without ``--data`` it is the help desk's data.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.arguments import listed
from benchmarks.conditions import Record, condition, label
from benchmarks.markdown import markdown
from benchmarks.results import Results
from benchmarks.splitting import sizes_of, split_task, splits_hash
from benchmarks.tasks import choose_tasks, load_task
from mop.datasets import helpdesk
from mop.embeddings.encoders import Encoder, Vectors
from mop.embeddings.projection import fit_projection, project
from mop.encoding import resolve_encoder
from mop.errors import DataError, MopError
from mop.examples import Splits
from mop.metrics import Metric, get_metric
from mop.provenance import data_hash
from mop.search.demos import closed_answers
from mop.settings import DEFAULT_ENCODER
from mop.stats import paired_difference, proportion_interval

#: The ways, as the table names them.
NEAREST, PROJECTED, REGRESSION = "nearest row", "nearest row, projected", "logistic regression"
#: Inverse strengths of regularization that cross-validation chooses from.
STRENGTHS = (1.0, 10.0, 100.0)
FOLDS = 5


def answers_alone(splits: Splits, encoder: Encoder, seed: int = 0) -> dict[str, list[str]]:
    """Return each way's answers to the test inputs, learned from training and validation examples.

    Raises DataError if the answers are no labels (`mop.search.demos.closed_answers`).
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, KFold

    known = [*splits.train, *splits.validation]
    if not closed_answers(known):
        raise DataError("The task's answers are no labels, so there is nothing to classify; choose other tasks.")
    labels = np.array([example.output for example in known])
    vectors = encoder.encode([example.input for example in known])
    queries = encoder.encode([example.input for example in splits.test])
    folds = KFold(FOLDS, shuffle=True, random_state=seed)
    regression = GridSearchCV(LogisticRegression(max_iter=5000), {"C": STRENGTHS}, cv=folds).fit(vectors, labels)
    projection = fit_projection(vectors[: len(splits.train)], [example.output for example in splits.train])
    near = _nearest(project(queries, projection), project(vectors, projection))
    return {
        NEAREST: labels[_nearest(queries, vectors)].tolist(),
        PROJECTED: labels[near].tolist(),
        REGRESSION: regression.predict(queries).tolist(),
    }


def _nearest(queries: Vectors, rows: Vectors) -> NDArray[np.intp]:
    """Return the nearest row of each query; both have unit length."""
    return np.asarray((queries @ rows.T).argmax(axis=1), dtype=np.intp)


def row(name: str, splits: Splits, encoder: Encoder, metric: Metric, seed: int, ours: Record | None) -> list[str]:
    """Return the task's row of the table; ``ours`` is the cell of `mop` with the same test, if there is one."""
    scores = {
        way: [float(metric(answer, one.outputs)) for answer, one in zip(answers, splits.test, strict=True)]
        for way, answers in answers_alone(splits, encoder, seed).items()
    }
    words = [name, str(len(splits.test)), *map(_with_interval, scores.values())]
    if ours is None:
        return [*words, *["—"] * (1 + len(scores))]
    differences = [paired_difference(ours["scores"], theirs) for theirs in scores.values()]
    each = [f"{one.mean:+.2f} [{one.low:+.2f}, {one.high:+.2f}]" for one in differences]
    return [*words, _with_interval(ours["scores"]), *each]


def _with_interval(scores: Sequence[float]) -> str:
    interval = proportion_interval(scores)
    return f"{np.mean(scores):.2f} [{interval.low:.2f}, {interval.high:.2f}]"


def _of_mop(path: str | None, task: str, seed: int, splits: Splits) -> Record | None:
    """Return the newest cell of `mop` that learned from and was tested on the same rows.

    Raises DataError if there are some under different conditions.
    """
    if path is None:
        return None
    wanted = {"learn": data_hash(splits), "test": splits_hash(splits.test)}
    found = [
        record
        for record in Results(Path(path)).all()
        if (record["task"], record["seed"], label(record)) == (task, seed, "mop") and "failed" not in record
        if record["splits_sha256"] == wanted
    ]
    if len(conditions := sorted({condition(record) for record in found})) > 1:
        raise DataError(f"{path} has cells of mop on {task} under several conditions: {'; '.join(conditions)}.")
    return max(found, key=lambda record: (record["era"], record["finished"]), default=None)


def _rows(given: argparse.Namespace) -> Iterator[list[str]]:
    encoder = resolve_encoder(given.encoder)
    if given.data is None:
        yield row("help desk", helpdesk(), encoder, get_metric("exact_match"), given.seed, None)
        return
    data = Path(given.data)
    for name in choose_tasks(data, given.tasks):
        task = load_task(data, name)
        splits = split_task(task, given.seed, sizes_of(task, given.test))
        ours = _of_mop(given.grid, name, given.seed, splits)
        yield row(name, splits, encoder, get_metric(task.metric), given.seed, ours)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="data folder, or the folder of one benchmark; without it, the help desk")
    parser.add_argument("--tasks", type=listed(str), default=["*"], help="names or patterns [all]")
    parser.add_argument("--seed", type=int, default=0, help="of the splits [0]")
    parser.add_argument("--test", type=int, help="most test examples [100]")
    parser.add_argument("--encoder", default=DEFAULT_ENCODER)
    parser.add_argument("--grid", help="result file with cells of mop to compare with")
    given = parser.parse_args(arguments)
    try:
        rows = list(_rows(given))
    except MopError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    ways = (NEAREST, PROJECTED, REGRESSION)
    sys.stdout.write(markdown(["task", "test", *ways, "mop", *(f"mop − {way}" for way in ways)], rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
