"""``mop personas`` on the command line, against an endpoint that answers by rule, with the real encoder."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_endpoint import FakeEndpoint
from persona_model import REFUSAL, persona_answer

from mop.cli import main
from mop.personas import DIVERSE

KEPT = [
    "How do I clean a bicycle chain?",
    "Why is the sky blue at noon?",
    "Which wood is best for a violin?",
    "Write a copied poem about copper.",
    "Plan a boastful walk through Rome.",
]
DROPPED = {
    "Why is the SKY blue  at noon?": ("instruction", "repeats another"),
    "Sum up a hopeless novel.": ("identity", "too short"),
    "Open a forbidden lock.": ("answer", "refuses"),
    "Bake a proud cake of almonds.": ("answer", "mentions the identity within a sentence"),
    "List dull numbers from one to ten.": ("grade", "below 5"),
}
FULL = ["--arms", "bare,static,expert", "--removal", "audit", "--min-grade", "5"]

Run = Callable[..., int]


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, encoder_path: Path) -> Iterator[Path]:
    """A folder with instructions and a data set made of them."""
    folder = tmp_path_factory.mktemp("personas")
    (folder / "in.jsonl").write_text(
        "".join(json.dumps({"instruction": text}) + "\n" for text in [*KEPT[:3], *DROPPED, *KEPT[3:]])
    )
    before = os.environ.get("MOP_API_KEY")
    os.environ["MOP_API_KEY"] = "k"
    yield folder
    os.environ.pop("MOP_API_KEY") if before is None else os.environ.update(MOP_API_KEY=before)


@pytest.fixture(scope="module")
def endpoint() -> Iterator[FakeEndpoint]:
    with FakeEndpoint(persona_answer) as serving:
        yield serving


@pytest.fixture(scope="module")
def personas(place: Path, endpoint: FakeEndpoint) -> Run:
    def run(command: str, *options: str, ledger: str = "l.sqlite") -> int:
        model = ["--model", "m", "--base-url", endpoint.base_url, "--ledger", str(place / ledger)]
        return main(["personas", command, *options, *model])

    return run


@pytest.fixture(scope="module")
def made(place: Path, personas: Run) -> Path:
    assert personas("generate", str(place / "in.jsonl"), "-o", str(place / "out.jsonl"), *FULL) == 0
    return place


def test_the_data_set_is_chats_in_which_no_identity_shows(made: Path) -> None:
    chats = [row["messages"] for row in rows(made / "out.jsonl")]
    assert [chat[0] for chat in chats] == [{"role": "user", "content": text} for text in KEPT]
    for asked, answer in chats:
        plain = f"Begin slowly with this: {asked['content']} As a result, it works."
        opening = "" if "boastful" in asked["content"] else "I can help. "
        assert answer["content"] == opening + plain


def test_every_instruction_is_kept_or_rejected_once_with_its_reason(made: Path) -> None:
    rejects = rows(made / "out.rejects.jsonl")
    assert {row["instruction"]: (row["stage"], row["reason"]) for row in rejects} == DROPPED
    assert len(rejects) == len(DROPPED)
    by_reason = {row["reason"]: row for row in rejects}
    assert by_reason["refuses"]["answer"] == REFUSAL
    assert by_reason["repeats another"]["detail"].startswith("line 2,")
    assert by_reason["mentions the identity within a sentence"]["detail"] == "Believe me, as a specialist I never fail."


def test_arms_stand_side_by_side_with_what_was_removed_from_each(made: Path) -> None:
    table = {row["instruction"]: row for row in rows(made / "out.arms.jsonl")}
    assert list(table) == KEPT
    for row in table.values():
        assert set(row["answers"]) == {"bare", "static", "expert"}
        assert not row["answers"]["bare"]["removed"] + row["answers"]["bare"]["removed_by_audit"]
        assert row["similarity"]["own"] > row["similarity"]["shuffled"]
    assert table[KEPT[0]]["answers"]["expert"]["removed"] == ["As a seasoned specialist,"]
    assert table[KEPT[4]]["answers"]["expert"]["removed_by_audit"] == [
        "Our circle of specialists knows such things best."
    ]
    assert [row["messages"][1]["content"] for row in rows(made / "out.bare.jsonl")] == [
        row["answers"]["bare"]["text"] for row in table.values()
    ]


def test_a_copied_identity_was_asked_for_again_and_another_taken(made: Path, endpoint: FakeEndpoint) -> None:
    identity = next(row["identity"] for row in rows(made / "out.arms.jsonl") if "copied" in row["instruction"])
    assert identity.startswith("You are a seasoned specialist")
    again = [body for body in endpoint.bodies if "copied from an exemplar" in body["messages"][-1]["content"]]
    assert len(again) == 1
    assert any(one.identity == again[0]["messages"][2]["content"] for one in DIVERSE)
    hopeless = [body for body in endpoint.bodies if body["messages"][-1]["content"].startswith("Sum up a hopeless")]
    assert len(hopeless) == 3  # the bound


def test_the_card_says_what_was_kept_dropped_and_made_of_what(made: Path) -> None:
    card = (made / "out.card.md").read_text()
    assert "5 of 10 instructions with answers" in card
    for stage, reason in DROPPED.values():
        assert f"| {stage}: {reason} | 1 |" in card
    assert hashlib.sha256((made / "out.jsonl").read_bytes()).hexdigest() in card


def test_a_run_killed_in_the_middle_goes_on_and_ends_as_one_that_was_not(made: Path, endpoint: FakeEndpoint) -> None:
    script = "import sys; from mop.cli import main; sys.exit(main(sys.argv[1:]))"
    ledger = made / "killed.sqlite"
    with FakeEndpoint(persona_answer, latency=0.05) as slow:
        asked = ["personas", "generate", str(made / "in.jsonl"), "-o", str(made / "again.jsonl"), *FULL]
        asked += ["--model", "m", "--base-url", slow.base_url, "--ledger", str(ledger), "--concurrency", "2", "--quiet"]
        process = subprocess.Popen([sys.executable, "-c", script, *asked], stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while slow.served < 25 and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not (made / "again.jsonl").exists()
        assert main(asked) == 0
        distinct = {json.dumps(body, sort_keys=True) for body in slow.bodies}
        assert len(slow.bodies) <= len(distinct) + 2  # what was on the wire at the kill
    for name in ("jsonl", "arms.jsonl", "rejects.jsonl"):
        assert (made / f"again.{name}").read_bytes() == (made / f"out.{name}").read_bytes()


def test_identities_alone_are_written_from_the_same_calls(
    made: Path, personas: Run, endpoint: FakeEndpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    served = endpoint.served
    assert personas("write", str(made / "in.jsonl"), "-o", str(made / "ids.jsonl"), "--json") == 0
    assert endpoint.served == served
    found = json.loads(capsys.readouterr().out)
    assert (found["kept"], found["sent"]) == (8, 0)
    assert {row["instruction"]: row["identity"] for row in rows(made / "out.arms.jsonl")}.items() <= {
        row["instruction"]: row["identity"] for row in rows(made / "ids.jsonl")
    }.items()
    assert [row["stage"] for row in rows(made / "ids.rejects.jsonl")] == ["instruction", "identity"]


def test_ways_of_removal_are_compared_and_harm_nothing_innocent(
    made: Path, personas: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert personas("audit-compare", str(made / "in.jsonl"), "-o", str(made / "cases.jsonl"), "--json") == 0
    found = json.loads(capsys.readouterr().out)
    table = {(one["arm"], one["way"]): one for one in found["compared"]}
    assert all(table["bare", way]["changed"] == table["bare", way]["dropped"] == 0 for _, way in table)
    rules, strict = table["expert", "rules"], table["expert", "rules, then audit"]
    assert (rules["changed"], rules["dropped"], rules["missed"]) == (5, 1, 1)  # the boast is the audit's to find
    assert (strict["changed"], strict["dropped"], strict["missed"]) == (6, 1, 0)
    assert found["dropped"]["answer: refuses"] == 2
    cases = rows(made / "cases.jsonl")
    assert len(cases) == found["differ"]
    assert {row["arm"] for row in cases} == {"expert"}


def test_the_ablation_tells_copying_from_writing(
    personas: Run, endpoint: FakeEndpoint, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def copies_when_few(messages: list[dict[str, str]]) -> str:
        return messages[2]["content"] if len(messages) < 5 else persona_answer(messages)

    monkeypatch.setattr(endpoint, "answer", copies_when_few)
    served = endpoint.served
    assert personas("ablate", "--k", "1", "--k", "3", "--json", ledger="ablate.sqlite") == 0
    found = json.loads(capsys.readouterr().out)
    assert endpoint.served - served == 3 * 16  # with one exemplar the designs are the same calls
    cells = {(one["design"], one["k"]): one for one in found["cells"]}
    assert [cells[design, 1]["copied"] for design in ("similar", "diverse")] == [1.0, 1.0]
    assert [cells[design, 1]["distinct"] for design in ("similar", "diverse")] == [1 / 16, 1 / 16]
    assert cells["diverse", 3]["sound"] == cells["diverse", 3]["nearer"] == 1.0
    assert found["diverse_minus_similar"]["1"]["mean"] == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["in.jsonl", "-o", "in.jsonl"], "would be replaced"),
        (["in.jsonl", "-o", "nowhere/out.jsonl"], "isn't there"),
        (["in.jsonl", "-o", "x.jsonl", "--arms", "bare,genius"], "no arm 'genius'"),
        (["in.jsonl", "-o", "x.jsonl", "--k", "6"], "6 exemplars"),
        (["in.jsonl", "-o", "x.jsonl", "--min-grade", "11"], "least grade"),
        (["in.jsonl", "-o", "x.jsonl", "--instruction-column", "text"], "no column 'text'"),
        (["blank.jsonl", "-o", "x.jsonl"], "line 1: no instruction"),
        (["empty.jsonl", "-o", "x.jsonl"], "is empty"),
    ],
)
def test_what_cannot_work_is_said_before_anything_is_asked(
    options: list[str],
    said: str,
    place: Path,
    personas: Run,
    endpoint: FakeEndpoint,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(place)
    (place / "blank.jsonl").write_text('{"instruction": " "}\n')
    (place / "empty.jsonl").write_text("")
    served = endpoint.served
    assert personas("generate", *options) in (2, 3)
    assert said in capsys.readouterr().err
    assert endpoint.served == served


def test_a_data_set_of_nothing_is_an_error_that_names_the_rejects(
    place: Path, personas: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "one.jsonl").write_text('{"prompt": "Open a forbidden door."}\n')
    assert personas("generate", str(place / "one.jsonl"), "-o", str(place / "none.jsonl"), "--arms", "bare") != 0
    assert "none.rejects.jsonl says why" in capsys.readouterr().err
    assert rows(place / "none.rejects.jsonl")[0]["reason"] == "refuses"
