import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mop.data import Duplicate, describe_duplicates, drop_duplicates, find_duplicates, normal_form
from mop.errors import DataError, SettingsError
from mop.examples import Example, Splits

LONG = "the quick brown fox jumps over the lazy dog while the other animals of the farm look on"


def splits(train, validation=(), test=()):
    return Splits(*(tuple(Example(text, ("x",)) for text in part) for part in (train, validation, test)))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What's up?", "what’s  UP"),
        ("Ｆｕｌｌ width…", "full width"),
        ("STRASSE.", "straße"),
        ("“quoted”, twice!", "quoted twice"),
        ("¿Qué?", "que\u0301"),
    ],
)
def test_variants_of_writing_have_one_normal_form(one, other):
    assert normal_form(one) == normal_form(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("3 - 4", "3 * 4"),
        ("(a and b) or c", "a and (b or c)"),
        ("2.5", "25"),
        ("C++", "C"),
        ("?", "!"),
        ("résumé", "resume"),
    ],
)
def test_marks_that_carry_meaning_stay_in_the_normal_form(one, other):
    assert normal_form(one) != normal_form(other)


@given(st.text())
def test_the_normal_form_of_a_text_with_content_is_not_empty(text):
    assert bool(normal_form(text)) == bool(text.split())


def test_the_same_input_in_two_splits_is_an_exact_duplicate():
    found = find_duplicates(splits(["Hello, World!", "unrelated words"], ["something else"], ["hello world"]))
    assert found == [Duplicate("exact", "Hello, World!", "train", "hello world", "test", 1.0)]


def test_nearly_the_same_input_is_a_near_duplicate_with_its_similarity():
    (found,) = find_duplicates(splits([LONG + "!", "short"], [LONG.replace("lazy", "lazier"), "another text"]))
    assert (found.kind, found.text, found.split, found.other_split) == (
        "near",
        LONG + "!",
        "train",
        "validation",
    )
    assert found.other_text == LONG.replace("lazy", "lazier")
    assert 0.9 <= found.similarity < 1


def test_the_threshold_decides_what_is_near():
    case = splits([LONG], [LONG.replace("quick brown", "slow red")])
    assert find_duplicates(case, near=0.95) == []
    assert len(find_duplicates(case, near=0.5)) == 1


def test_word_order_counts():
    assert find_duplicates(splits(["the dog bites the man"], ["the man bites the dog"])) == []


def test_duplicates_within_a_split_are_not_reported():
    assert find_duplicates(splits(["same", "same"], ["other", "other"])) == []


def test_each_input_is_listed_once_per_split_with_its_nearest():
    near, nearer = LONG.replace("the", "a"), LONG + " today"
    found = find_duplicates(splits([LONG, LONG], [near, nearer], [LONG]), near=0.3)
    from_train = [(f.other_split, f.kind, f.other_text) for f in found if f.split == "train"]
    assert from_train == [("validation", "near", nearer), ("test", "exact", LONG)]
    assert {f.text for f in found if f.split == "validation"} == {near, nearer}


def test_inputs_of_one_character_are_compared():
    assert [f.kind for f in find_duplicates(splits(["a", "?"], ["A", "!"]))] == ["exact"]


@pytest.mark.parametrize("near", [0, -1, 1.01, float("nan")])
def test_a_threshold_out_of_range_is_a_settings_error(near):
    with pytest.raises(SettingsError, match="near must be"):
        find_duplicates(splits(["a"], ["b"]), near=near)


def test_dropping_takes_from_train_before_validation_and_never_from_test():
    case = splits(["a", "b", "c", "c!", "keep"], ["b", "d", "e"], ["c", "d", "a"])
    kept, dropped = drop_duplicates(case, find_duplicates(case))
    assert [e.input for e in kept.train] == ["keep"]
    assert [e.input for e in kept.validation] == ["b", "e"]
    assert kept.test == case.test
    assert [e.input for e in dropped] == ["a", "b", "c", "c!", "d"]


def test_dropping_all_of_train_or_validation_is_a_data_error():
    for case, role in [(splits(["a"], ["a"]), "train"), (splits(["b"], ["a"], ["A"]), "validation")]:
        with pytest.raises(DataError, match=f"every one of the 1 {role} inputs"):
            drop_duplicates(case, find_duplicates(case))


words = st.lists(st.sampled_from(["red", "Red!", "green", "blue sky", "BLUE  sky", "one", "two"]), max_size=6)


@given(words, words, words)
def test_after_dropping_nothing_is_found_and_nothing_is_lost(train, validation, test):
    case = splits([*train, "only in train"], [*validation, "just for validation"], test)
    kept, dropped = drop_duplicates(case, find_duplicates(case))
    assert find_duplicates(kept) == []
    assert len(dropped) + len(kept.train) + len(kept.validation) == len(case.train) + len(case.validation)


def test_the_description_counts_per_pair_of_splits_and_shows_some():
    case = splits(["a", "b", "c", "d", LONG], [LONG + "s"], ["A", "B", "C", "D"])
    text = describe_duplicates(find_duplicates(case))
    assert "4 train inputs repeat a test input:" in text
    assert "1 train input nearly repeats a validation input:" in text
    assert "… and 1 more" in text
    assert describe_duplicates([]) == "No input stands in two splits."


def test_thousands_of_inputs_take_seconds():
    random = np.random.default_rng(0)
    vocabulary = np.array(["".join(random.choice(list("abcdefghij"), 6)) for _ in range(2000)])
    texts = [" ".join(row) for row in random.choice(vocabulary, (5500, 12))]
    started = time.monotonic()
    found = find_duplicates(splits([*texts[:5000], texts[5000] + " again"], texts[5000:]))
    assert [f.text for f in found] == [texts[5000] + " again"]
    assert time.monotonic() - started < 10


def test_importing_the_package_loads_neither_scikit_learn_nor_pyarrow():
    code = "import sys, mop.data; sys.exit(any(name in sys.modules for name in ('sklearn', 'pyarrow', 'scipy')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
