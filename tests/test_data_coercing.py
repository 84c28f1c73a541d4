import numpy as np
import pytest

from mop.data import coerce_examples
from mop.errors import BadRows, DataError
from mop.examples import Example


class PandasLike:
    """The part of a pandas DataFrame that is used, with NumPy values in its cells."""

    def __init__(self, columns):
        self.columns = list(columns)
        self._rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]

    def to_dict(self, *, orient):
        assert orient == "records"
        return self._rows


class PolarsLike(PandasLike):
    def to_dict(self, *, as_series=True):
        raise AssertionError("gives columns, not rows")

    def to_dicts(self):
        return self._rows


def test_examples_dicts_and_pairs_can_be_mixed():
    data = [Example("a", ("b",), "test"), {"input": "c", "output": ["d", 1]}, ("e", True), ["f", "g"]]
    assert coerce_examples(iter(data)) == [
        Example("a", ("b",), "test"),
        Example("c", ("d", "1")),
        Example("e", ("true",)),
        Example("f", ("g",)),
    ]


def test_dicts_carry_splits_and_other_column_names():
    data = [{"q": "a", "a": "b", "fold": "dev"}]
    options = {"input_column": "q", "output_column": "a", "split_column": "fold"}
    assert coerce_examples(data, **options) == [Example("a", ("b",), "validation")]
    assert coerce_examples([Example("a", ("b",), "train")], **options) == [Example("a", ("b",), "train")]


@pytest.mark.parametrize("kind", [PandasLike, PolarsLike])
def test_data_frames_are_read_by_row_with_missing_values_as_none(kind):
    frame = kind({"input": ["a", "b"], "output": [np.int64(3), np.array(["x", "y"])], "split": ["train", np.nan]})
    assert coerce_examples(frame) == [Example("a", ("3",), "train"), Example("b", ("x", "y"))]


def test_a_path_is_read(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("input,output\na,b\n")
    assert coerce_examples(path) == coerce_examples(str(path)) == [Example("a", ("b",))]
    with path.open("rb") as file:
        assert coerce_examples(file) == [Example("a", ("b",))]


def test_every_bad_item_is_reported_by_index():
    with pytest.raises(BadRows) as caught:
        coerce_examples([("a", "b"), "ab", ("a", "b", "c"), Example("", ()), {"input": "x", "output": float("nan")}, 7])
    found = {problem.position: problem.reason for problem in caught.value.problems}
    assert list(found) == [1, 2, 3, 4, 5]
    assert found[1].endswith("got 'ab'")
    assert found[2].endswith("got tuple of length 3")
    assert found[3] == "the input is empty; no answer"
    assert found[4] == "no answer"
    assert found[5].endswith("got int")
    assert "item 1: expected an Example, a dict, or an (input, output) pair" in str(caught.value)


def test_a_column_missing_from_all_dicts_is_one_error():
    with pytest.raises(DataError, match=r"no column 'input'.*closest: 'question'"):
        coerce_examples([{"question": "a", "output": "b"}] * 3)


@pytest.mark.parametrize("data", [[], (), PandasLike({"input": [], "output": []})])
def test_no_items_are_a_data_error(data):
    with pytest.raises(DataError, match="no examples"):
        coerce_examples(data)


@pytest.mark.parametrize("data", [None, 3, b"x", {"input": "a", "output": "b"}, Example("a", ("b",))])
def test_what_holds_no_examples_is_a_data_error(data):
    with pytest.raises(DataError, match="give a list of them"):
        coerce_examples(data)
