from collections import Counter

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mop.data import find_duplicates, normal_form, split_examples, warnings_for
from mop.errors import DataError, SettingsError
from mop.examples import Example, Splits


def made(count, answers=None, split=None):
    return [Example(f"question {i}", (f"a{i % answers if answers else i}",), split) for i in range(count)]


def sizes(splits):
    return len(splits.train), len(splits.validation), len(splits.test)


def test_ten_examples_are_enough_and_nine_are_not():
    assert sizes(split_examples(made(10))) == (7, 3, 0)
    assert sizes(split_examples(made(10), test=0.2)) == (5, 3, 2)
    with pytest.raises(DataError, match="at least 10 examples are needed in all; got 9"):
        split_examples(made(9))


def test_the_seed_decides_the_split():
    one, same, other = (split_examples(made(40), seed=seed) for seed in (1, 1, 2))
    assert one == same
    assert one != other


def test_each_split_keeps_the_order_given_and_names_itself():
    splits = split_examples(made(40), test=0.1)
    for name in ("train", "validation", "test"):
        part = getattr(splits, name)
        numbers = [int(example.input.split()[1]) for example in part]
        assert numbers == sorted(numbers)
        assert {example.split for example in part} == {name}


def test_answers_that_repeat_are_balanced():
    splits = split_examples(made(80, answers=4), test=0.25)
    for part in (splits.validation, splits.test):
        assert Counter(example.output for example in part) == {"a0": 5, "a1": 5, "a2": 5, "a3": 5}


def test_a_rare_answer_is_no_obstacle():
    examples = [*made(19, answers=2), Example("odd one out", ("unique",))]
    assert sizes(split_examples(examples)) == (15, 5, 0)


def test_named_splits_are_kept():
    examples = made(6, split="train") + made(5, split="validation") + made(4, split="test")
    splits = split_examples(examples, test=0.5)
    assert sizes(splits) == (6, 5, 4)
    assert list(splits.train + splits.validation + splits.test) == examples


def test_validation_is_drawn_from_train_where_no_example_names_it():
    examples = made(20, split="train") + [Example(f"other {i}", ("x",), "test") for i in range(7)]
    splits = split_examples(examples)
    assert sizes(splits) == (15, 5, 7)
    assert all(example.input.startswith("other") for example in splits.test)


def test_examples_without_a_split_join_train_or_their_twin():
    named = [*made(10, split="train"), Example("Which?", ("x",), "test"), Example("v", ("x",), "validation")]
    splits = split_examples([*named, Example("new", ("y",)), Example("which", ("x",))])
    assert sizes(splits) == (11, 1, 2)
    assert splits.train[-1].input == "new"


def test_the_same_input_never_straddles_drawn_splits():
    examples = [Example(variant, (f"a{i}",)) for i in range(12) for variant in (f"Hello {i}!", f"hello  {i}")]
    splits = split_examples(examples, test=0.25)
    assert sizes(splits) == (12, 6, 6)
    inputs = [
        {normal_form(example.input) for example in part} for part in (splits.train, splits.validation, splits.test)
    ]
    assert not inputs[0] & inputs[1]
    assert not inputs[0] & inputs[2]
    assert not inputs[1] & inputs[2]


def test_two_large_groups_are_still_divided():
    assert sizes(split_examples([Example("a", ("x",))] * 5 + [Example("b", ("x",))] * 6)) == (6, 5, 0)


def test_one_input_repeated_or_no_train_at_all_is_a_data_error():
    with pytest.raises(DataError, match="no validation examples"):
        split_examples([Example("same", ("x",))] * 12)
    with pytest.raises(DataError, match="no train examples"):
        split_examples(made(12, split="validation"))
    with pytest.raises(DataError, match="got holdout"):
        split_examples(made(12, split="holdout"))


@pytest.mark.parametrize(
    "shares",
    [
        {"validation": 0},
        {"validation": 1},
        {"validation": float("nan")},
        {"test": -0.1},
        {"validation": 0.5, "test": 0.5},
    ],
)
def test_shares_out_of_range_are_settings_errors(shares):
    with pytest.raises(SettingsError, match=r"validation|test"):
        split_examples(made(20), **shares)


some_examples = st.lists(
    st.builds(
        Example,
        st.text("abC .!", min_size=1, max_size=4),
        st.sampled_from([("x",), ("y",), ("z",)]),
        st.sampled_from([None, None, "train", "validation", "test"]),
    ),
    min_size=10,
    max_size=40,
)


@given(some_examples, st.integers(0, 3), st.floats(0.01, 0.6), st.floats(0, 0.35))
def test_every_example_lands_in_one_split_and_in_the_one_it_names(examples, seed, validation, test):
    try:
        splits = split_examples(examples, seed=seed, validation=validation, test=test)
    except DataError:
        assume(False)
    everything = [(e.input, e.outputs) for part in (splits.train, splits.validation, splits.test) for e in part]
    assert Counter(everything) == Counter((e.input, e.outputs) for e in examples)
    for role in ("validation", "test"):
        named = Counter((e.input, e.outputs) for e in examples if e.split == role)
        assert not named - Counter((e.input, e.outputs) for e in getattr(splits, role))


@given(some_examples.map(lambda examples: [Example(e.input, e.outputs) for e in examples]), st.floats(0, 0.3))
def test_splits_that_were_drawn_share_no_input(examples, test):
    try:
        splits = split_examples(examples, test=test)
    except DataError:
        assume(False)
    assert not [found for found in find_duplicates(splits, near=1) if found.kind == "exact"]


def test_a_single_answer_is_warned_about():
    (warning,) = warnings_for(split_examples(made(12, answers=1)))
    assert warning.startswith("all answers are the same ('a0')")
    assert warnings_for(split_examples(made(12, answers=2))) == []


def test_conflicting_answers_to_one_input_are_warned_about():
    same = (Example("2 + 2", ("4",)), Example("2  + 2", ("5",)))
    (warning,) = warnings_for(Splits(same, made(3)))
    assert warning.startswith("1 input has conflicting answers: '2 + 2' has '4' and '5'")


def test_answers_that_overlap_do_not_conflict():
    agreeing = (Example("hot", ("cold", "chilly")), Example("hot", ("Chilly",)))
    assert warnings_for(Splits(agreeing, ())) == []
