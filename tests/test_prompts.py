"""Prompts as chat messages: the stable part first, the query last."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mop.examples import Example
from mop.prompts import TOKENS_PER_MESSAGE, Demo, Prompt, estimate_tokens

DEMOS = (Demo("hot", "cold"), Demo("up", "down"))
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
PROMPTS = st.builds(Prompt, TEXT, st.lists(st.builds(Demo, TEXT, TEXT), max_size=4).map(tuple))


def test_demos_are_turns_between_the_instruction_and_the_query() -> None:
    assert Prompt("Say the opposite.", DEMOS).messages("big") == (
        ("system", "Say the opposite."),
        ("user", "hot"),
        ("assistant", "cold"),
        ("user", "up"),
        ("assistant", "down"),
        ("user", "big"),
    )


def test_without_an_instruction_there_is_no_system_message() -> None:
    assert Prompt("").messages("big") == (("user", "big"),)


@given(PROMPTS, TEXT, TEXT)
def test_everything_before_the_query_is_the_same_for_all_queries(prompt: Prompt, one: str, other: str) -> None:
    assert prompt.messages(one)[:-1] == prompt.messages(other)[:-1]
    assert prompt.messages(one)[-1] == ("user", one)


def test_the_block_layout_is_one_user_message() -> None:
    assert Prompt("Say the opposite.", DEMOS[:1], "block").messages("big") == (
        ("user", "Instruction: Say the opposite.\n\nInput: hot\nOutput: cold\n\nInput: big\nOutput:"),
    )
    assert Prompt("", (), "block").messages("big") == (("user", "Input: big\nOutput:"),)


@given(PROMPTS, TEXT)
def test_a_block_ends_with_the_query_and_begins_alike(prompt: Prompt, query: str) -> None:
    block = Prompt(prompt.instruction, prompt.demos, "block")
    ((role, content),) = block.messages(query)
    ((_, empty),) = block.messages("")
    assert role == "user"
    tail = f"Input: {query}\nOutput:"
    assert content.endswith(tail)
    assert content.removesuffix(tail) == empty.removesuffix("Input: \nOutput:")


def test_a_demo_shows_the_first_accepted_answer() -> None:
    assert Demo.of(Example("hot", ("cold", "chilly"))) == Demo("hot", "cold")


def test_token_estimates_are_3_5_bytes_each_rounded_up() -> None:
    assert [estimate_tokens(text) for text in ("", "a", "abc", "abcd", "abcdefg", "abcdefgh")] == [0, 1, 1, 2, 2, 3]
    assert estimate_tokens("äöü") == estimate_tokens("abcdef")


@given(PROMPTS)
def test_a_prompts_tokens_are_those_of_its_messages_before_the_query(prompt: Prompt) -> None:
    shared = Prompt(prompt.instruction or "x", prompt.demos).messages("")[:-1]
    tokens = sum(estimate_tokens(content) + TOKENS_PER_MESSAGE for _, content in shared)
    assert Prompt(prompt.instruction or "x", prompt.demos).tokens == tokens
