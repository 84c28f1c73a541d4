"""The projection: examples of one answer move together, also those that it has not seen."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from simulated import task
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from mop.embeddings.encoders import SentenceTransformerEncoder, Vectors
from mop.embeddings.projection import SHRINKAGE, fit_projection, project
from mop.seeds import stream


def noisy(rows_per_answer: int, seed: int, answers: int = 6, dimension: int = 40) -> tuple[Vectors, list[str]]:
    """Return unit vectors whose answer is a small part of what they say, off the origin."""
    means = stream(0, "means").standard_normal((answers, dimension)) * 0.5 + 1.0
    noise = stream(seed, "noise")
    loud = np.concatenate([np.full(dimension // 2, 2.0), np.full(dimension - dimension // 2, 0.3)])
    rows = np.repeat(means, rows_per_answer, axis=0)
    rows = rows + loud * noise.standard_normal(rows.shape)
    labels = [f"answer {number}" for number in range(answers) for _ in range(rows_per_answer)]
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32), labels


def relative_spread(vectors: Vectors, answers: list[str]) -> float:
    """Return the share of the total squared spread that is within answers."""
    total = ((vectors - vectors.mean(axis=0)) ** 2).sum()
    groups = [vectors[[answer == name for answer in answers]] for name in sorted(set(answers))]
    return float(sum(((group - group.mean(axis=0)) ** 2).sum() for group in groups) / total)


def test_it_brings_unseen_examples_of_one_answer_together() -> None:
    projection = fit_projection(*noisy(30, seed=1))
    held_out, answers = noisy(30, seed=2)
    assert relative_spread(project(held_out, projection), answers) < 0.8 * relative_spread(held_out, answers)


def test_it_brings_unseen_messages_of_one_answer_together(encoder_path: Path) -> None:
    rows = task(rows_per_answer=8)
    vectors = SentenceTransformerEncoder(encoder_path).encode([row.input for row in rows])
    answers = [row.output for row in rows]
    projection = fit_projection(vectors[:120], answers[:120])
    before = relative_spread(vectors[120:], answers[120:])
    assert relative_spread(project(vectors[120:], projection), answers[120:]) < 0.8 * before


def test_it_is_scikit_learns_transform_and_then_unit_norm() -> None:
    vectors, answers = noisy(20, seed=1)
    projection = fit_projection(vectors, answers)
    analysis = LinearDiscriminantAnalysis(solver="eigen", shrinkage=SHRINKAGE).fit(vectors.astype(np.float64), answers)
    held_out, _ = noisy(5, seed=2)
    expected = analysis.transform(held_out.astype(np.float64))
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(project(held_out, projection), expected, atol=1e-4)


def test_the_last_row_is_added_before_the_norm_is_taken() -> None:
    projection = np.asarray([[1, 0], [0, 2], [3, -1]], np.float32)
    np.testing.assert_allclose(project(np.asarray([[0, 2]], np.float32), projection), [[3 / 18**0.5, 3 / 18**0.5]])


def test_it_is_one_float32_matrix_with_the_offset_as_its_last_row() -> None:
    vectors, answers = noisy(10, seed=1)
    projection = fit_projection(vectors, answers)
    assert projection is not None
    assert projection.shape == (41, 5)
    assert projection.dtype == np.float32
    projected = project(vectors, projection)
    assert projected.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(projected, axis=1), 1, atol=1e-5)


def test_more_answers_than_dimensions_are_possible() -> None:
    vectors, answers = noisy(4, seed=1, answers=12, dimension=5)
    projection = fit_projection(vectors, answers)
    assert projection is not None
    assert projection.shape == (6, 5)


def test_it_does_not_depend_on_the_order_of_the_examples() -> None:
    vectors, answers = noisy(10, seed=1)
    order = stream(0, "order").permutation(len(answers))
    one = fit_projection(vectors, answers)
    two = fit_projection(vectors[order], [answers[place] for place in order])
    # Components may change sign; distances may not.
    a, b = project(vectors, one), project(vectors, two)
    np.testing.assert_allclose(a @ a.T, b @ b.T, atol=1e-3)


@pytest.mark.parametrize(
    "answers",
    [["a"] * 6, ["a", "b", "c", "d", "e", "f"]],
    ids=["one answer", "no answer twice"],
)
def test_there_is_no_projection_where_there_is_nothing_to_learn(answers: list[str]) -> None:
    assert fit_projection(noisy(1, seed=1)[0], answers) is None


def test_there_is_no_projection_where_no_answer_has_any_spread() -> None:
    same = np.tile(noisy(1, seed=1)[0][:1], (6, 1))
    assert fit_projection(same, ["a", "a", "a", "b", "b", "b"]) is None


def test_without_a_projection_vectors_stay_as_they_are() -> None:
    vectors, _ = noisy(2, seed=1)
    assert project(vectors, None) is vectors


def test_an_answer_with_one_example_gives_no_warning(recwarn: pytest.WarningsRecorder) -> None:
    vectors = np.random.default_rng(0).normal(size=(7, 4)).astype(np.float32)
    assert fit_projection(vectors, ["a", "a", "a", "b", "b", "b", "c"]) is not None
    assert not recwarn.list


def test_the_number_of_rows_at_once_does_not_change_a_row() -> None:
    vectors, answers = noisy(20, 1, answers=12, dimension=384)
    projection = fit_projection(vectors, answers)
    assert projection is not None
    whole = project(vectors, projection)
    np.testing.assert_array_equal(whole, np.vstack([project(row[None], projection) for row in vectors]))
    np.testing.assert_array_equal(whole[:77], project(vectors[:77], projection))


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one core has one thread")
def test_the_number_of_threads_does_not_change_the_projection() -> None:
    vectors, labels = noisy(8, 1, answers=24, dimension=384)
    found = []
    for threads in (1, 2):
        with threadpool_limits(threads):
            projection = fit_projection(vectors, labels)
            assert projection is not None
            found.append((projection, project(vectors, projection)))
    np.testing.assert_array_equal(found[0][0], found[1][0])
    np.testing.assert_array_equal(found[0][1], found[1][1])
