"""The metric ``checks``: rules that a program can verify."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mop.errors import DataError
from mop.metrics import get_metric
from mop.metrics.checks import CHECKS, count_words, passed


def verdict(answer: str, **rules: object) -> bool:
    (result,) = passed(answer, json.dumps(rules)).values()
    return result


@pytest.mark.parametrize(
    ("rules", "good", "bad"),
    [
        ({"max_words": 3}, "It's well-known now", "one two three four"),
        ({"min_words": 2}, "two words", "one"),
        ({"max_sentences": 1}, "Only one (or 1.5) here", "One. Two."),
        ({"min_sentences": 2}, 'He said "Stop!" Then he left.', "Only one."),
        ({"lines": 2}, "one\n\ntwo\n", "one"),
        ({"bullets": 2}, "Here:\n- one\n* two", "- one"),
        ({"must_include": ["Alpha", "beta"]}, "ALPHA and beta", "alpha only"),
        ({"must_not_include": ["cat"]}, "concatenate", "The Cat."),
        ({"starts_with": "Dear"}, "  dear friend", "My dear"),
        ({"ends_with": "Yours."}, "… yours. ", "Yours. P.S."),
        ({"matches": r"^\d{3}$"}, "no\n123\nyes", "1234"),
        ({"numbered": True}, "1. one\n2) two", "1. one\n3. three"),
        ({"numbered": False}, "no list", "1. a\n2. b"),
        ({"json": True}, '```json\n{"a": 1}\n```', 'Here is it: {"a": 1}'),
        ({"json": False}, "plain", "[1]"),
        ({"json_keys": ["name"]}, '{"name": 1, "more": 2}', '["name"]'),
        (
            {"json_schema": {"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}}},
            '{"n": 3}',
            '{"n": "3"}',
        ),
        ({"case": "lower"}, "all low 1!", "Not low"),
        ({"case": "upper"}, "LOUD", "Loud"),
    ],
)
def test_each_check_tells_a_good_answer_from_a_bad_one(rules: dict[str, object], good: str, bad: str) -> None:
    assert verdict(good, **rules)
    assert not verdict(bad, **rules)


def test_every_check_is_tried_above() -> None:
    tried = {name for mark in test_each_check_tells_a_good_answer_from_a_bad_one.pytestmark for name in _names(mark)}
    assert tried == set(CHECKS)


def _names(mark: pytest.Mark) -> list[str]:
    return [name for rules, _, _ in mark.args[1] for name in rules]


def test_checks_is_a_share_and_checks_all_is_all_or_nothing() -> None:
    rules = json.dumps({"max_words": 2, "starts_with": "no"})
    assert get_metric("checks")("yes sir", [rules]) == 0.5
    assert get_metric("checks:all")("yes sir", [rules]) == 0.0
    assert get_metric("checks:all")("no sir", [rules]) == 1.0


def test_an_empty_answer_and_one_that_repeats_the_rules_pass_nothing_for_free() -> None:
    rules = json.dumps({"max_words": 2})
    assert get_metric("checks")("  ", [rules]) == 0.0
    assert get_metric("checks")('{"max_words": 2} and more', [json.dumps({"max_words": 1})]) == 0.0


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ("at most five words", "isn't JSON"),
        ("{}", "at least one check"),
        ("[1]", "at least one check"),
        ('{"max_word": 5}', "no check 'max_word'"),
        ('{"max_words": "5"}', "a whole number"),
        ('{"max_words": true}', "a whole number"),
        ('{"must_include": "x"}', "a list of texts"),
        ('{"matches": "("}', "a regular expression"),
        ('{"json_schema": {"type": "nothing"}}', "a JSON schema"),
        ('{"json_schema": {"items": {"$ref": "http://127.0.0.1:1/x"}}}', "in one piece"),
        ('{"case": "title"}', "lower"),
        ('{"json_schema": {"$ref": "#"}}', "refers to itself"),
        ('{"json_schema": {"$ref": "#/$defs/none"}}', "doesn't have"),
        ("[" * 100_000, "isn't JSON"),
        ('{"matches": "a{99999999999999}"}', "a regular expression"),
    ],
)
def test_rules_that_cannot_be_followed_are_an_error_and_not_a_zero(rules: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        get_metric("checks")("answer", [rules])


@given(st.lists(st.text(alphabet="abcXYZ0189", min_size=1, max_size=8), min_size=1, max_size=30))
def test_words_are_counted_whatever_stands_between_them(words: list[str]) -> None:
    for between in (" ", ", ", "\n", " – ", "; "):
        assert count_words(between.join(words)) == len(words)


def test_a_pattern_or_schema_that_would_take_for_ever_is_an_error_soon() -> None:
    before = time.monotonic()
    doubling = {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(40)}
    schema = {"$defs": {**doubling, "d40": {"type": "integer"}}, "properties": {"n": {"$ref": "#/$defs/d0"}}}
    for answer, rules in (
        ("a" * 40 + "!", {"matches": "^(a+)+$"}),
        (json.dumps("a" * 40 + "!"), {"json_schema": {"type": "string", "pattern": "^(a+)+$"}}),
        ('{"n": 1}', {"json_schema": schema}),
    ):
        with pytest.raises(DataError, match="took more than"):
            verdict(answer, **rules)
    assert time.monotonic() - before < 30
    assert verdict("aaa", matches="^(a+)+$")


def test_answers_that_are_hard_to_read_are_scored_and_break_nothing() -> None:
    deep = "[" * 100_000 + "]" * 100_000
    nested = {"type": "array", "items": {"$ref": "#"}}
    assert not verdict(deep, json=True)
    assert not verdict(deep, json_keys=["a"])
    assert verdict("[[]]", json_schema=nested)
    assert not verdict("9" * 5000, json_schema={"type": "string"})
    assert not verdict("1e999", json_schema={"multipleOf": 0.1})
    assert not verdict("NaN", json=True)
    assert not verdict("9" * 5000 + ". one\n2. two", numbered=True)
    assert verdict("\ud800 \u2028 é", matches="^\ud800 ")
    before = time.process_time()
    assert verdict("." * 200_000 + "x", max_sentences=1)
    assert time.process_time() - before < 2
