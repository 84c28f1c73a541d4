"""Is a language model needed at all? What the same encoder and the same labelled rows give without one.

    python -m benchmarks.encoder_alone --data DIR --tasks banking77,hwu64,trec --grid benchmarks/results/grid.jsonl
    python -m benchmarks.encoder_alone

Two ways, which ask no model: the answer of the nearest labelled row, and logistic regression on the vectors (its
regularization by 5-fold cross-validation). Both learn from the demos and the validation rows of a cell of the grid, all
of which `mop` may show, and are tested on its test rows; ``--grid`` has the cells of `mop` to compare them with. For
tasks whose answers are labels. Without ``--data`` it is the help desk's data.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from benchmarks.arguments import listed
from benchmarks.conditions import Record, label
from benchmarks.markdown import markdown
from benchmarks.results import Results
from benchmarks.splitting import sizes_of, split_task, splits_hash
from benchmarks.tasks import choose_tasks, load_task
from mop.datasets import helpdesk
from mop.embeddings.encoders import Encoder
from mop.encoding import resolve_encoder
from mop.errors import DataError, MopError
from mop.examples import Splits
from mop.metrics import Metric, get_metric
from mop.search.demos import closed_answers
from mop.settings import DEFAULT_ENCODER
from mop.stats import paired_difference, proportion_interval

#: The two ways, as the table names them.
NEAREST, REGRESSION = "nearest row's answer", "logistic regression"
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
    return {
        NEAREST: labels[(queries @ vectors.T).argmax(axis=1)].tolist(),
        REGRESSION: regression.predict(queries).tolist(),
    }


def row(name: str, splits: Splits, encoder: Encoder, metric: Metric, seed: int, ours: Record | None) -> list[str]:
    """Return the task's row of the table; ``ours`` is the cell of `mop` with the same test, if there is one."""
    scores = {
        way: [float(metric(answer, one.outputs)) for answer, one in zip(answers, splits.test, strict=True)]
        for way, answers in answers_alone(splits, encoder, seed).items()
    }
    words = [name, str(len(splits.test)), *map(_with_interval, scores.values())]
    if ours is None:
        return [*words, "—", "—", "—"]
    differences = [paired_difference(ours["scores"], theirs) for theirs in scores.values()]
    each = [f"{one.mean:+.2f} [{one.low:+.2f}, {one.high:+.2f}]" for one in differences]
    return [*words, _with_interval(ours["scores"]), *each]


def _with_interval(scores: Sequence[float]) -> str:
    interval = proportion_interval(scores)
    return f"{np.mean(scores):.2f} [{interval.low:.2f}, {interval.high:.2f}]"


def _of_mop(path: str | None, task: str, seed: int, splits: Splits) -> Record | None:
    """Return the newest cell of `mop` that learned and was tested on the same rows."""
    if path is None:
        return None
    wanted = splits_hash(splits.test)
    found = [
        record
        for record in Results(Path(path)).all()
        if (record["task"], record["seed"], label(record)) == (task, seed, "mop") and "failed" not in record
        if record["splits_sha256"]["test"] == wanted
    ]
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
    sys.stdout.write(markdown(["task", "test", NEAREST, REGRESSION, "mop", "mop − nearest", "mop − regression"], rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
