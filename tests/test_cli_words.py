"""What the command line draws and says: the panel of a search, and numbers and verdicts in words."""

from __future__ import annotations

import io
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from mop.cli.output import Output
from mop.cli.progress import CallProgress, SearchProgress
from mop.cli.words import clean, duration, shorten, signed, verdict
from mop.lm.budget import Budget
from mop.lm.meter import Traffic
from mop.lm.request import Usage
from mop.optimization import Run
from mop.stats import paired_difference


def drawn(width: int) -> tuple[Output, io.StringIO]:
    output, text = Output(), io.StringIO()
    output.err = Console(file=text, force_terminal=True, width=width, markup=False, highlight=False)
    return output, text


@pytest.mark.parametrize("width", [80, 120])
def test_the_panel_on_a_terminal_shows_calls_tokens_money_and_the_best_score(
    width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    output, text = drawn(width)
    budget, used = Budget(calls=10), Run()
    with SearchProgress("learning", budget, used, output) as progress:
        progress.stage("racing")
        for _ in range(3):
            budget.settle(budget.reserve("gpt-4o-mini", 1000, 100), Usage(1000, 0, 100))
        progress.best(0.5)
    panel = text.getvalue()
    for words in ("racing", "3 / 10 calls", "3,300 tokens", "$0.00063", "best score 0.50", "╰"):
        assert words in panel


def test_the_time_left_after_a_resumed_start_is_that_of_calls_that_are_sent(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 0.0
    monkeypatch.setattr("mop.cli.progress.time.monotonic", lambda: now)
    monkeypatch.setattr("mop.cli.progress._LOOK", 3600.0)
    client = SimpleNamespace(traffic=Traffic())
    with CallProgress("writing", 100, Output(), client) as progress:  # type: ignore[arg-type]
        client.traffic.sent = 1
        progress.reply("identities")
        for _ in range(50):
            progress.reply("identities")  # these the ledger had
        for _ in range(4):
            now += 10.0
            client.traffic.sent += 1
            progress.reply("identities")
        progress.reply("answers")
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "answers · 56" in line]
    assert line.endswith("about 7 min 20 s left")  # 44 calls are left; 4 that were sent took 40 seconds


def test_quiet_silences_progress_and_notes_but_not_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output(quiet=True)
    with CallProgress("evaluating", 4, output) as progress:
        progress.reply("mixture")
    output.note("a note")
    output.warn("a doubt")
    assert capsys.readouterr().err == "warning: a doubt\n"


@given(st.text(), st.integers(1, 80))
def test_shortened_texts_fit_and_cannot_steer_a_terminal(text: str, width: int) -> None:
    short = shorten(text, width)
    assert len(short) <= width
    assert "\n" not in short
    assert "\x1b" not in clean(text)


def test_numbers_read_as_people_write_them() -> None:
    assert [duration(seconds) for seconds in (0.44, 59.6, 61, 120, 7260)] == [
        "0.4 s", "1 min", "1 min 1 s", "2 min", "2 h 1 min",
    ]  # fmt: skip
    assert [signed(value) for value in (0.126, -0.5, -0.001)] == ["+0.13", "−0.50", "0.00"]


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        ([1] * 30, [0] * 30, "is better"),
        ([0] * 30, [1] * 30, "is worse"),
        ([1] * 15 + [0] * 15, [0] * 14 + [1] * 16, "is not shown to be better"),
        ([1] * 30, [1] * 30, "Both score the same"),
    ],
)
def test_a_verdict_claims_no_more_than_the_interval_shows(first: list[int], second: list[int], words: str) -> None:
    assert words in verdict(paired_difference(first, second), "mixture", "single prompt")
