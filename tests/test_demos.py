"""Which demos a prompt shows."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mop.examples import Example
from mop.search.demos import closed_answers, nearest_demos, one_for_each_answer
from mop.search.experts import Recipe, expert_demos, with_answers

rows = st.lists(
    st.tuples(st.text("abc ", min_size=1, max_size=60), st.sampled_from(["red", "green", "blue"])),
    max_size=30,
).map(lambda pairs: [Example(text, (answer,)) for text, answer in pairs])


@given(rows, st.integers(0, 300), st.integers(0, 10), st.none() | st.integers(1, 3))
def test_demos_keep_to_tokens_number_and_answers_and_never_repeat(
    examples: list[Example], tokens: int, count: int, per_answer: int | None
) -> None:
    demos = nearest_demos(examples, range(len(examples)), token_budget=tokens, max_demos=count, per_answer=per_answer)
    assert sum(demo.tokens for demo in demos) <= tokens
    assert len(demos) <= count
    assert len({demo.input for demo in demos}) == len(demos)
    for answer in ("red", "green", "blue"):
        assert per_answer is None or sum(demo.output == answer for demo in demos) <= per_answer


def test_an_example_that_does_not_fit_is_passed_over_for_a_shorter_one() -> None:
    examples = [Example("word " * 100, ("long",)), Example("short", ("short",))]
    assert [demo.output for demo in nearest_demos(examples, [0, 1], token_budget=40, max_demos=5, per_answer=None)] == [
        "short"
    ]


def test_each_answer_is_shown_by_the_shortest_of_its_nearest_examples() -> None:
    examples = [
        Example("a rather long message about red things", ("red",)),
        Example("red", ("red",)),
        Example("green grass", ("green",)),
    ]
    demos = one_for_each_answer(examples, [0, 1, 2], token_budget=1000, max_demos=5)
    assert [(demo.input, demo.output) for demo in demos] == [("red", "red"), ("green grass", "green")]


def test_answers_that_repeat_are_a_closed_set_and_free_text_is_not() -> None:
    labelled = [Example(str(i), (["yes", "no"][i % 2],)) for i in range(12)]
    free = [Example(str(i), (f"answer {i}",)) for i in range(12)]
    assert closed_answers(labelled) == ("no", "yes")
    assert closed_answers(free) == ()
    assert closed_answers([Example("x", ("same",))] * 9) == ()


def test_an_expert_shows_its_own_region_last_and_borrows_only_answers_that_it_lacks() -> None:
    examples = [
        Example("near one", ("red",)),
        Example("near two", ("red",)),
        Example("outside red", ("red",)),
        Example("outside green", ("green",)),
    ]
    distances = np.array([0.1, 0.2, 0.3, 0.4], dtype=np.float32)
    own = np.array([True, True, False, False])
    demos = expert_demos(examples, distances, own, Recipe(2, max_demos=5, borrowed=5, token_budget=500), closed=True)
    assert [demo.input for demo in demos] == ["outside green", "near two", "near one"]


def test_an_expert_for_free_text_borrows_nothing() -> None:
    examples = [Example("inside", ("a",)), Example("outside", ("b",))]
    own = np.array([True, False])
    demos = expert_demos(examples, np.array([0.1, 0.2], dtype=np.float32), own, Recipe(2), closed=False)
    assert [demo.input for demo in demos] == ["inside"]


def test_a_small_region_is_not_padded_by_repetition() -> None:
    examples = [Example("only one", ("a",))]
    demos = expert_demos(examples, np.zeros(1, dtype=np.float32), np.array([True]), Recipe(1), closed=False)
    assert len(demos) == 1


def test_listed_answers_are_sorted_and_distinct() -> None:
    assert with_answers("Choose.", ["b", "a", "b"]) == "Choose. Answer with one of: a, b."
    assert with_answers("Choose.", []) == "Choose."
