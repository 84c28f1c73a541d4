"""The estimator keeps scikit-learn's contract: parameters, clone, cross-validation, unfitted errors."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fake_endpoint import FakeEndpoint
from simulated import nearest_demo_answer, task
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import cross_val_score
from small import small_mixture

from mop import Mixture, MixtureOfPrompts
from mop.errors import DataError
from mop.lm.ledger import Ledger
from mop.settings import Settings

ROWS = task(rows_per_answer=5)
X, Y = [row.input for row in ROWS], [row.output for row in ROWS]


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeEndpoint]:
    monkeypatch.setenv("MOP_API_KEY", "key")
    with FakeEndpoint(nearest_demo_answer) as served:
        yield served


@pytest.fixture
def estimator(endpoint: FakeEndpoint, encoder_path: Path) -> MixtureOfPrompts:
    return MixtureOfPrompts(
        "simulated",
        budget=60,
        instruction="Name the thing and its state.",
        base_url=endpoint.base_url,
        ledger=Ledger.in_memory(),
    )


# -- parameters


def test_parameters_are_stored_untouched() -> None:
    accepted = {"budget": "2k tokens", "experts": 3, "seed": 7, "metric": len, "ledger": Path("x")}
    parameters = MixtureOfPrompts("m", **accepted).get_params()  # type: ignore[arg-type]
    assert parameters["model"] == "m"
    for name, value in accepted.items():
        assert parameters[name] is value


def test_every_parameter_is_a_setting_with_the_same_default() -> None:
    for name, parameter in inspect.signature(MixtureOfPrompts).parameters.items():
        if name != "ledger":
            assert parameter.default == Settings.model_fields[name].default


def test_parameters_can_be_set_and_wrong_ones_are_refused() -> None:
    estimator = MixtureOfPrompts().set_params(budget=50, seed=2)
    assert (estimator.budget, estimator.seed) == (50, 2)
    with pytest.raises(ValueError, match="bugdet"):
        estimator.set_params(bugdet=3)


def test_a_clone_has_the_parameters_but_not_what_was_learned(estimator: MixtureOfPrompts) -> None:
    estimator.mixture_ = "learned"  # type: ignore[assignment]
    copy = clone(estimator)
    assert copy is not estimator
    assert copy.get_params() == estimator.get_params()
    assert copy.ledger is estimator.ledger  # an open ledger is shared, not copied
    assert not hasattr(copy, "mixture_")


def test_a_subclass_can_be_cloned() -> None:
    class Mine(MixtureOfPrompts):
        pass

    assert type(clone(Mine(budget=30))) is Mine


# -- fit, predict, score


def test_fit_learns_a_mixture_and_predict_asks_once_for_each_text(
    estimator: MixtureOfPrompts, endpoint: FakeEndpoint
) -> None:
    assert estimator.fit(X[:90], Y[:90]) is estimator
    assert isinstance(estimator.mixture_, Mixture)
    assert estimator.classes_.tolist() == sorted(set(Y[:90]))
    assert endpoint.served <= 60
    before = endpoint.served
    predicted = estimator.predict(X[90:])
    assert endpoint.served - before == len(X[90:])
    assert predicted.shape == (len(X) - 90,)
    assert predicted.dtype.kind == "U"
    assert estimator.predict([]).tolist() == []
    assert estimator.predict([]).dtype.kind == "U"
    # The same texts again come from the ledger.
    assert estimator.score(X[90:], Y[90:]) == np.mean(predicted == np.asarray(Y[90:]))
    assert endpoint.served - before == len(X[90:])


def test_cross_validation_works(estimator: MixtureOfPrompts) -> None:
    scores = cross_val_score(estimator, X, Y, cv=2, error_score="raise")
    assert scores.shape == (2,)
    assert ((scores >= 0) & (scores <= 1)).all()
    assert scores.max() > 0


def test_arrays_several_answers_and_numbers_are_taken(estimator: MixtureOfPrompts) -> None:
    numbers = np.asarray([sum(map(ord, answer)) % 3 for answer in Y])
    estimator.fit(np.asarray(X), numbers)
    assert estimator.classes_.tolist() == ["0", "1", "2"]
    several = [(answer, "other") for answer in Y]
    assert estimator.set_params(seed=1).fit(X, several).classes_.tolist() == sorted(set(Y))


# -- errors


def test_an_unfitted_estimator_says_so(endpoint: FakeEndpoint, estimator: MixtureOfPrompts) -> None:
    with pytest.raises(NotFittedError, match="MixtureOfPrompts"):
        estimator.predict(["my card"])
    with pytest.raises(NotFittedError):
        estimator.score(["my card"], ["x"])
    assert endpoint.served == 0


def test_texts_and_answers_must_be_as_many(estimator: MixtureOfPrompts) -> None:
    with pytest.raises(DataError, match="X has 2 texts and y 1 answers"):
        estimator.fit(["a", "b"], ["x"])


@pytest.mark.parametrize(
    ("text", "answer"),
    [(None, "x"), (float("nan"), "x"), (3, "x"), ("", "x"), ("a", None), ("a", float("nan")), ("a", [])],
)
def test_what_is_missing_is_a_data_error_and_not_the_word_none(
    text: object, answer: object, estimator: MixtureOfPrompts, endpoint: FakeEndpoint
) -> None:
    with pytest.raises(DataError, match="item 40"):
        estimator.fit([*X[:40], text], [*Y[:40], answer])  # type: ignore[list-item]
    assert endpoint.served == 0


def test_predicting_what_is_no_text_is_a_data_error(estimator: MixtureOfPrompts) -> None:
    estimator.mixture_ = small_mixture()
    with pytest.raises(DataError, match="Query 2 is None"):
        estimator.predict(["my card", None])  # type: ignore[list-item]
