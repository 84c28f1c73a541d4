"""Metrics: what counts as right, and the marks that other implementations get wrong."""

from __future__ import annotations

import math
import pickle
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from mop.errors import DataError, SettingsError
from mop.metrics import METRICS, get_metric, metric_name
from mop.metrics.normalise import is_same


def score(metric: str, prediction: str, *outputs: str) -> float:
    return get_metric(metric)(prediction, outputs)


@pytest.mark.parametrize(
    ("prediction", "output"),
    [
        ("Cold.", "cold"),
        ('  "cold"\n', "cold"),
        ("**Positive**", "positive"),
        ("positive. The tone is warm.", "positive"),
        ("cold\nThat is the antonym of hot.", "cold"),
        ("card arrival", "card_arrival"),
        ("card-arrival", "card_arrival"),
        ("Sci-Tech", "Sci/Tech"),
        ("ninety four", "ninety-four"),
        ("one hundred twenty-two", "one hundred and twenty-two"),
        ("3 probably", "3 - probably"),
        ("Sentence 1: The dog ran.", "The dog ran."),
        ("don\u2019t", "don't"),
        ("U.S.", "US"),
        ("3.5.", "3.5"),
        ("3.5. It is the mean.", "3.5"),
        ("\u22123", "-3"),
        ("1,234", "1234"),
        ("[1,-2]", "[1, -2]"),
        ("] ]", "] ]"),
        ("+", "+"),
        ("(b)", "(B)"),
        ("B", "(B)"),
        ("किताब", "किताब"),
        ("C#", "c#"),
        ("😀", "😀"),
    ],
)
def test_forms_of_the_same_answer_match_exactly(prediction: str, output: str) -> None:
    assert score("exact_match", prediction, output) == 1


@pytest.mark.parametrize(
    ("prediction", "output"),
    [
        ("3.5", "3.9"),
        ("3.5", "35"),
        ("-3", "3"),
        ("3", "-3"),
        ("[1, 2]", "[-1, -2]"),
        ("12", "[1, 2]"),
        ("[12]", "[1, 2]"),
        ("2/3", "23"),
        ("5-3", "53"),
        ("-", "+"),
        ("x - 3", "x + 3"),
        ("] )", "] ]"),
        ("", "] ]"),
        ("...", "and"),
        ("", "cold"),
        ("C++", "c#"),
        ("c", "c#"),
        ("A+", "A"),
        ("कताब", "किताब"),
        ("Dr. Jones", "Dr. Smith"),
        ("not positive", "positive"),
    ],
)
def test_different_answers_never_match_exactly(prediction: str, output: str) -> None:
    assert score("exact_match", prediction, output) == 0


def test_words_sorted_one_per_line_match_the_list_on_one_line() -> None:
    assert score("exact_match", "barn\ndamp\nit&t", "barn damp it&t") == 1
    assert score("exact_match", "damp\nbarn\nit&t", "barn damp it&t") == 0


def test_the_best_accepted_output_counts() -> None:
    assert score("exact_match", "chilly", "cold", "chilly") == 1
    assert score("token_f1", "big dog", "cat", "the big dog") == pytest.approx(0.8)


@given(st.text(), st.text(" \n"))
def test_every_output_matches_itself_under_every_metric(output: str, space: str) -> None:
    for name in METRICS:
        assert score(name, space + output + space, "another", output) == 1, name


@given(st.text(min_size=1).filter(lambda text: text.strip()))
def test_every_output_matches_itself_by_its_tokens_too(output: str) -> None:
    assert is_same(output, output)


_WORDS = st.lists(st.sampled_from(["big", "cat", "-3", "3.5", "well-known", "sat"]), min_size=1).map(" ".join)


@given(_WORDS, _WORDS)
def test_metrics_without_a_direction_are_symmetric(a: str, b: str) -> None:
    words_a, words_b = f"the {a}", f"the {b}"
    for name in ("exact_match", "exact_set", "token_f1", "rouge_l"):
        assert score(name, words_a, words_b) == pytest.approx(score(name, words_b, words_a)), name


@settings(max_examples=200)
@given(st.text(), st.text(min_size=1))
def test_every_score_is_from_zero_to_one_whatever_the_texts(prediction: str, output: str) -> None:
    for name in METRICS:
        assert 0 <= score(name, prediction, output) <= 1


@given(st.integers(-999, 999), st.integers(-999, 999))
def test_numbers_match_only_if_they_are_equal(a: int, b: int) -> None:
    for name in ("exact_match", "numeric", "rouge_l", "exact_set", "token_f1", "contains"):
        assert score(name, str(a), str(b)) == (a == b), name


@given(st.integers(1, 9999), st.integers(1, 9999))
def test_decimals_match_only_if_they_are_equal(a: int, b: int) -> None:
    for name in ("exact_match", "numeric", "rouge_l", "exact_set", "token_f1"):
        assert score(name, f"{a / 100:.2f}", f"{b / 100:.2f}") == (a == b), name


def test_token_f1_is_the_harmonic_mean_of_precision_and_recall() -> None:
    assert score("token_f1", "involve going up", "involve vertical movement") == pytest.approx(1 / 3)
    assert score("token_f1", "dog dog dog", "dog") == pytest.approx(0.5)
    assert score("token_f1", "", "dog") == 0


def test_contains_looks_for_whole_words_in_the_first_line() -> None:
    assert score("contains", "Synonyms: large, big, huge.", "big") == 1
    assert score("contains", "bigger", "big") == 0
    assert score("contains", "the answer is -3", "3") == 0
    assert score("contains", "small\nbig", "big") == 0


def test_exact_set_ignores_order_and_separators_but_not_extra_words() -> None:
    assert score("exact_set", "dog, cat", "cat dog") == 1
    assert score("exact_set", "dog\ncat", "cat dog") == 1
    assert score("exact_set", "cat,dog,table", "cat dog") == 0


@given(
    st.lists(st.sampled_from(["the", "cat", "sat", "on", "a", "well-known", "mat"]), min_size=1).map(" ".join),
    st.data(),
)
def test_rouge_l_of_plain_words_is_the_packages_own(output: str, data: st.DataObject) -> None:
    prediction = data.draw(st.lists(st.sampled_from([*output.split(), "dog."])).map(" ".join))
    theirs = RougeScorer(["rougeL"]).score(output, prediction)["rougeL"].fmeasure
    if any(len(word) > 1 for word in output.split()):  # "a" alone is read the same way, but has no words
        assert score("rouge_l", prediction, output) == pytest.approx(theirs)


@pytest.mark.parametrize(
    ("prediction", "output", "expected"),
    [
        ("-3", "3", 0),
        ("3.5", "3.9", 0),
        ("[1, 2]", "[-1, -2]", 0),
        ("[1, 2]", "[1, 2]", 1),
        ("+", "+", 1),
        ("-", "+", 0),
        ("] ]", "] ]", 1),
        ("The answer is 14.", "14", 1),
        ("The answer is 15.", "14", 0),
        ("été", "été", 1),
        ("की", "का", 0),
        ("The list is [1, 2].", "[1, 2]", 1),
        ("The operator is +.", "+", 1),
        ("The answer is -3.", "-3", 1),
        ("The country's code is 020", "020", 1),
        ("20", "020", 0),
        ("", "word", 0),
    ],
)
def test_rouge_l_is_right_about_mathematics_and_other_scripts(prediction: str, output: str, expected: float) -> None:
    assert score("rouge_l", prediction, output) == expected


@pytest.mark.parametrize("prediction", ["[5, 1, 2]", "The answer is not [1, 2]", "The list is [-1, -2]", "x = [2, 1]"])
def test_rouge_l_of_a_reply_that_ends_otherwise_than_the_list_is_below_one(prediction: str) -> None:
    assert score("rouge_l", prediction, "[1, 2]") < 1


@pytest.mark.parametrize(
    ("prediction", "output"),
    [
        ("5 - 3 = 2", "2"),
        ("10 - 3", "3"),
        ("It is -3.", "-3"),
        ("x = - 3", "-3"),
        ("\u22123", "-3"),
        ("$1,234.50", "1234.5"),
        ("18.0 apples", "18"),
        ("1/2", "0.5"),
        ("1 1/2", "1.5"),
        (r"\boxed{\frac{1}{2}} of all", "0.5"),
        (r"So \boxed{7} since 2 + 5", "7"),
        ("2 + 5 makes #### 7", "7"),
        ("1e3", "1000"),
        ("0", "-0"),
        ("the ratio is 3:5", "3:5"),
        ("12345678901234567890", "12345678901234567890"),
    ],
)
def test_numeric_finds_the_last_number_of_the_reply(prediction: str, output: str) -> None:
    assert score("numeric", prediction, output) == 1


@pytest.mark.parametrize(
    ("prediction", "output"),
    [
        ("-3", "3"),
        ("none", "3"),
        ("", "0"),
        ("18 or 19", "18"),
        ("5", "3:5"),
        ("0.333", "1/3"),
        ("12345678901234567891", "12345678901234567890"),
        ("7/0", "0"),
        ("1e999", "1"),
        ("1/0", "1"),
    ],
)
def test_numeric_refuses_other_numbers(prediction: str, output: str) -> None:
    assert score("numeric", prediction, output) == 0


def test_a_tolerance_is_absolute_or_with_a_percent_sign_relative() -> None:
    assert score("numeric:0.01", "3.149", "3.14") == 1
    assert score("numeric:0.01", "3.151", "3.14") == 0
    assert score("numeric:1%", "-1010", "-1000") == 1
    assert score("numeric:1%", "1011", "1000") == 0


@pytest.mark.parametrize("name", ["numeric:", "numeric:x", "numeric:-1", "numeric:nan", "numeric:inf%"])
def test_a_tolerance_that_is_no_number_is_refused(name: str) -> None:
    with pytest.raises(SettingsError, match="tolerance"):
        get_metric(name)


def test_an_output_that_is_no_number_or_letter_is_matched_as_text() -> None:
    assert score("numeric", "Paul.", "paul") == 1
    assert score("numeric", "3", "paul") == 0
    assert score("multiple_choice", "Paris", "(B)", "paris") == 1
    assert score("multiple_choice", "Rome", "(B)", "paris") == 0


@pytest.mark.parametrize(
    ("prediction", "letter"),
    [
        ("(B)", "B"),
        ("(b)", "B"),
        ("b", "B"),
        ("B.", "B"),
        ("b) Paris", "B"),
        ("B: Paris", "B"),
        ("**B**", "B"),
        ("Option B", "B"),
        ("(B) because (A) is wrong", "B"),
        ("B because A is wrong", "B"),
        ("The answer is (C).", "C"),
        ("answer: b", "B"),
        ("A good guess is (D).", "D"),
        ("I think it's (D)", "D"),
        ("The correct answer is option D because A is false", "D"),
        ("(A) is about dogs; (B) about cats. So the answer is (B)", "B"),
        ("The answer is not (A) but (B)", "B"),
        ("Not (A), so (B)", "B"),
        ("(A) is wrong. (B) is wrong too. So (C)", "C"),
        ("The answer is B, I think.", "B"),
        ("The answer is A\nExplanation: it fits.", "A"),
        (r"\boxed{\text{B}}", "B"),
        ("I", "I"),
        ("It is B", "B"),
        ("It must be A.", "A"),
    ],
)
def test_multiple_choice_reads_the_letter_that_a_reply_chooses(prediction: str, letter: str) -> None:
    for output in (f"({letter})", letter, f"{letter}. Paris"):
        assert score("multiple_choice", prediction, output) == 1
    wrong = "E" if letter != "E" else "F"
    assert score("multiple_choice", prediction, wrong) == 0


@pytest.mark.parametrize(
    "prediction", ["", "...", "(A) or (B)", "A and B are wrong", "a cat", "The answer is a cat", "hepatitis B", "42"]
)
def test_a_reply_that_chooses_nothing_is_given_no_letter(prediction: str) -> None:
    assert [score("multiple_choice", prediction, letter) for letter in "ABCDEFGHI"] == [0] * 9


def test_an_unknown_metric_is_refused_with_the_names_and_the_closest() -> None:
    with pytest.raises(SettingsError) as caught:
        get_metric("exact-mach")
    assert "Did you mean exact_match?" in str(caught.value)
    assert all(name in str(caught.value) for name in METRICS)


@pytest.mark.parametrize("name", [*METRICS, "numeric:0.5", "numeric:2%"])
def test_a_metric_knows_its_name_and_survives_a_trip_to_another_process(name: str) -> None:
    metric = get_metric(name)
    assert metric_name(metric) == metric_name(name) == name
    assert get_metric(metric) is metric
    assert pickle.loads(pickle.dumps(metric))("3", ["3"] if "choice" not in name else ["C"]) in {0, 1}  # noqa: S301


def test_a_function_of_the_working_directory_is_a_metric(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "house_metrics.py").write_text(
        "def length(prediction, outputs): return min(1, len(prediction) / 10)\n"
        "def one(prediction): return 1\n"
        "half = 0.5\n"
    )
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    metric = get_metric("house_metrics:length")
    assert sys.path == before
    assert metric("12345", ["x"]) == 0.5
    assert metric_name(metric) == "house_metrics:length"
    for name, reason in [
        ("house_metrics:one", "two arguments"),
        ("house_metrics:half", "float"),
        ("house_metrics:none", "none"),
        ("house_metrics:", "module:function"),
        ("no_such_module:f", "no_such_module"),
    ]:
        with pytest.raises(SettingsError, match=reason):
            get_metric(name)
    monkeypatch.delitem(sys.modules, "house_metrics")


def same_length(prediction: str, outputs: Sequence[str]) -> bool:
    return any(len(prediction) == len(output) for output in outputs)


def test_any_callable_of_two_arguments_is_a_metric() -> None:
    metric = get_metric(same_length)
    assert metric("abc", ["xyz"]) == 1.0
    assert isinstance(metric("abc", ["xyz"]), float)
    assert metric_name(metric) == metric_name(same_length) == f"{__name__}:same_length"


@pytest.mark.parametrize("result", [1.5, -0.1, math.nan, math.inf, None, "high", 10**400])
def test_a_result_that_is_no_number_from_zero_to_one_is_an_error(result: object) -> None:
    with pytest.raises(SettingsError, match="from 0"):
        get_metric(lambda prediction, outputs: result)("a", ["b"])  # type: ignore[arg-type, return-value]


@pytest.mark.parametrize("outputs", [[], "cold"])
def test_accepted_outputs_are_a_sequence_with_at_least_one(outputs: Sequence[str]) -> None:
    with pytest.raises(DataError, match="at least one"):
        get_metric("exact_match")("c", outputs)
