"""Settings: where they come from, which one wins, and errors that name the option and its source."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mop.errors import SettingsError
from mop.lm.weights import DEFAULT_CHAT
from mop.settings import Settings, make_settings, parse_budget, read_settings_file


def file_with(folder: Path, text: str, name: str = "mop.toml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_without_anything_the_defaults_hold() -> None:
    settings = make_settings(environment={})
    assert settings == Settings()
    assert (settings.model, settings.budget, settings.seed) == (DEFAULT_CHAT, 600, 0)


def test_options_win_over_the_environment_which_wins_over_the_file_which_wins_over_defaults(tmp_path: Path) -> None:
    file = file_with(tmp_path, "seed = 1\nmax_demos = 1\nexperts = 1\n")
    environment = {"MOP_SEED": "2", "MOP_MAX_DEMOS": "2"}
    settings = make_settings({"seed": 3}, file=file, environment=environment)
    assert (settings.seed, settings.max_demos, settings.experts) == (3, 2, 1)
    assert settings.concurrency == Settings().concurrency


def test_options_that_are_none_and_variables_that_are_empty_count_as_not_given(tmp_path: Path) -> None:
    file = file_with(tmp_path, "seed = 1\n")
    assert make_settings({"seed": None}, file=file, environment={"MOP_SEED": ""}).seed == 1


def test_the_process_environment_is_read_unless_another_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOP_SEED", "5")
    assert make_settings().seed == 5
    assert make_settings(environment={}).seed == 0


def test_other_variables_of_mop_are_no_settings() -> None:
    assert make_settings(environment={"MOP_API_KEY": "secret", "MOP_LEDGER": "x"}) == Settings()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("s.toml", 'model = "m"\nprompt-tokens = 5\nrefit = true\n'),
        ("s.yaml", "model: m\nprompt-tokens: 5\nrefit: yes\n"),
        ("s.yml", "{model: m, prompt_tokens: 5, refit: true}"),
        ("s.json", '{"model": "m", "prompt_tokens": 5, "refit": true}'),
    ],
)
def test_files_are_toml_or_yaml_with_names_in_either_spelling(name: str, text: str, tmp_path: Path) -> None:
    settings = make_settings(file=file_with(tmp_path, text, name), environment={})
    assert (settings.model, settings.prompt_tokens, settings.refit) == ("m", 5, True)


def test_an_empty_file_sets_nothing(tmp_path: Path) -> None:
    assert make_settings(file=file_with(tmp_path, "", "s.yaml"), environment={}) == Settings()


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("s.toml", b"seed = ", "isn't valid"),
        ("s.yaml", b"seed: [", "isn't valid"),
        ("s.yaml", b"[" * 5000, "isn't valid"),
        ("s.yaml", b"- seed", "holds a list"),
        ("s.yaml", b"seed", "holds a str"),
        ("s.toml", b"\xff\xfe", "cannot be read"),
        ("s.yaml", b"!!python/object/apply:os.getcwd []", "isn't valid"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(name: str, content: bytes, words: str, tmp_path: Path) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises(SettingsError, match=words) as raised:
        read_settings_file(file)
    assert str(file) in str(raised.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"nothing\.toml cannot be read"):
        make_settings(file=tmp_path / "nothing.toml", environment={})


# -- errors


def test_a_typo_suggests_the_name_and_says_where_it_is(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"no setting 'bugdet' \(given\).*'budget'"):
        make_settings({"bugdet": 3}, environment={})
    file = file_with(tmp_path, "max_demo = 3\n")
    with pytest.raises(SettingsError, match=r"no setting 'max_demo' \(.*mop\.toml\).*'max_demos'"):
        make_settings(file=file, environment={})


def test_a_name_like_nothing_lists_what_there_is() -> None:
    with pytest.raises(SettingsError, match="There are: model, budget"):
        make_settings({"zzzz": 3}, environment={})


WRONG = [
    ("model", ""),
    ("budget", 0),
    ("budget", True),
    ("budget", "many"),
    ("budget", "0"),
    ("budget", "0 tokens"),
    ("budget", "0 USD"),
    ("tokens", "few"),
    ("usd", float("nan")),
    ("usd", float("inf")),
    ("usd", -1),
    ("metric", 5),
    ("experts", 0),
    ("experts", True),
    ("concurrency", 0),
    ("concurrency", 2.5),
    ("max_demos", -1),
    ("prompt_tokens", "a"),
    ("confidence", 0.5),
    ("confidence", 1),
    ("refit", "perhaps"),
    ("seed", -1),
    ("base_url", 7),
]


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_every_error_names_the_option_and_that_it_was_given(name: str, value: Any) -> None:
    with pytest.raises(SettingsError, match=r"\(given\)"):
        make_settings({name: value}, environment={})


@pytest.mark.parametrize(
    ("name", "value"), [(n, v) for n, v in WRONG if not isinstance(v, bool) and v not in ("", 5, 7)]
)
def test_every_error_from_the_environment_names_the_variable(name: str, value: Any) -> None:
    with pytest.raises(SettingsError, match=f"MOP_{name.upper()}"):
        make_settings(environment={f"MOP_{name.upper()}": str(value)})


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_every_error_from_a_file_names_the_file(name: str, value: Any, tmp_path: Path) -> None:
    text = json.dumps({name: value}).replace("NaN", ".nan").replace("Infinity", ".inf")
    with pytest.raises(SettingsError, match=r"settings\.yaml"):
        make_settings(file=file_with(tmp_path, text, "settings.yaml"), environment={})


def test_all_errors_are_reported_at_once_each_with_its_source(tmp_path: Path) -> None:
    file = file_with(tmp_path, "seed = -1\n")
    with pytest.raises(SettingsError) as raised:
        make_settings({"experts": 0}, file=file, environment={"MOP_USD": "-2"})
    for words in ("experts = 0 (given)", "usd = '-2' (MOP_USD)", f"seed = -1 ({file})"):
        assert words in str(raised.value)


# -- the budget


@pytest.mark.parametrize(
    ("text", "caps"),
    [
        ("600", {"budget": 600}),
        (" 600 calls ", {"budget": 600}),
        ("1 call", {"budget": 1}),
        ("2k", {"budget": 2000}),
        ("1.5k calls", {"budget": 1500}),
        ("200k tokens", {"budget": None, "tokens": 200_000}),
        ("1.001k tokens", {"budget": None, "tokens": 1001}),
        ("3M Tokens", {"budget": None, "tokens": 3_000_000}),
        ("2 USD", {"budget": None, "usd": 2.0}),
        ("$2.50", {"budget": None, "usd": 2.5}),
        ("0,5 usd", {"budget": None, "usd": 0.5}),
        ("5$", {"budget": None, "usd": 5.0}),
    ],
)
def test_budgets_in_words_are_read(text: str, caps: dict[str, Any]) -> None:
    assert parse_budget(text) == caps


@pytest.mark.parametrize(
    "text",
    ["", "many", "-5", "$2 USD", "2 EUR", "1.5", "1.5 tokens", "0.0001k", "1e3", "600 calls please", "9" * 400, "٣"],
)
def test_what_is_no_budget_is_a_settings_error_that_shows_it(text: str) -> None:
    with pytest.raises(SettingsError) as raised:
        parse_budget(text)
    assert repr(text) in str(raised.value)


@pytest.mark.parametrize("text", ["1,000", "10,000 tokens", "2,500 USD", "1.000 tokens", "1.000"])
def test_separators_of_thousands_are_refused_rather_than_taken_for_decimal_points(text: str) -> None:
    with pytest.raises(SettingsError, match=r"thousand"):
        parse_budget(text)


@given(
    st.integers(1, 999_999_999),
    st.sampled_from([("", 1), ("k", 1000), ("M", 10**6)]),
    st.sampled_from(["", " calls", " tokens"]),
)
def test_whole_budgets_are_exact(number: int, scale: tuple[str, int], unit: str) -> None:
    name = "tokens" if "tokens" in unit else "budget"
    assert parse_budget(f"{number}{scale[0]}{unit}")[name] == number * scale[1]


@given(st.integers(0, 10**9))
def test_thousandths_of_a_scale_are_exact(number: int) -> None:
    assert parse_budget(f"{number // 1000}.{number % 1000:03}k")["budget"] == number


@given(st.decimals(0, 10**6, places=2))
def test_money_is_read_to_the_cent(money: Any) -> None:
    assert parse_budget(f"{money} USD")["usd"] == float(money)
    assert parse_budget(f"${money}")["usd"] == float(money)


@given(st.text(max_size=12))
def test_any_text_is_a_budget_or_a_settings_error(text: str) -> None:
    try:
        caps = parse_budget(text)
    except SettingsError:
        return
    assert all(cap is None or cap >= 0 for cap in caps.values())


def test_a_budget_in_words_sets_its_cap_and_no_cap_on_calls() -> None:
    settings = make_settings({"budget": "200k tokens"}, environment={})
    assert (settings.budget, settings.tokens, settings.usd) == (None, 200_000, None)
    assert Settings(budget="3 USD").usd == 3  # type: ignore[arg-type]


def test_a_budget_replaces_one_of_lower_precedence_as_a_whole(tmp_path: Path) -> None:
    file = file_with(tmp_path, 'budget = "200k tokens"\n')
    by_option = make_settings({"budget": 300}, file=file, environment={"MOP_BUDGET": "2 USD"})
    assert (by_option.budget, by_option.tokens, by_option.usd) == (300, None, None)
    by_variable = make_settings(file=file, environment={"MOP_BUDGET": "2 USD"})
    assert (by_variable.budget, by_variable.tokens, by_variable.usd) == (None, None, 2)


def test_a_cap_of_its_own_stays_beside_a_budget(tmp_path: Path) -> None:
    file = file_with(tmp_path, "usd = 1.5\n")
    settings = make_settings({"budget": 300}, file=file, environment={})
    assert (settings.budget, settings.usd) == (300, 1.5)


def test_settings_cannot_be_changed_once_checked() -> None:
    with pytest.raises(ValueError, match="frozen"):
        make_settings(environment={}).seed = 3  # type: ignore[misc]
