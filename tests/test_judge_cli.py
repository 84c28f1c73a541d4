"""``mop judge`` on the command line, against an endpoint that answers by rule."""

import json
from pathlib import Path

import pytest
from fake_endpoint import FakeEndpoint

from mop.cli import main
from mop.errors import BudgetExceeded, MopError
from mop.judge.judging import FEW
from mop.lm.client import ModelClient
from mop.lm.ledger import Ledger
from mop.models import Models
from mop.settings import make_settings


def write(path: Path, rows: dict[str, str]) -> str:
    path.write_text("".join(json.dumps({"input": given, "output": out}) + "\n" for given, out in rows.items()))
    return str(path)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MOP_API_KEY", "k")
    first = write(tmp_path / "first.jsonl", {"q1": "a long answer", "q2": "same", "q3": "no"})
    second = write(tmp_path / "second.jsonl", {"q3": "a longer one", "q2": "same", "q1": "short"})
    return first, second


def longer_wins(messages: list[dict[str, str]]) -> str:
    question = messages[-1]["content"]
    a = question.split("[Answer A]\n> ")[1].split("\n[End of answer A]")[0]
    return "A" if len(a) > len(question.split("[Answer B]\n> ")[1].split("\n[End of answer B]")[0]) else "B"


def test_two_systems_are_compared_on_the_inputs_that_they_share(
    files: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    with FakeEndpoint(longer_wins) as endpoint:
        asked = ["judge", "compare", *files, "--judge", "m", "--judge-url", endpoint.base_url, "--ledger", "l.sqlite"]
        assert main([*asked, "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert [one["winner"] for one in found["verdicts"]] == ["first", "tie", "second"]
        assert (found["first"]["wins"], found["first"]["ties"], found["first"]["losses"]) == (1, 1, 1)
        assert endpoint.served == 4
        assert main(asked) == 0
        assert "won 1, tied 1, lost 1" in capsys.readouterr().out
        assert endpoint.served == 4  # the second time from the ledger


def test_a_budget_ends_the_comparison_and_the_next_one_goes_on(
    files: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    with FakeEndpoint(longer_wins) as endpoint:
        asked = ["judge", "compare", *files, "--judge", "m", "--judge-url", endpoint.base_url, "--ledger", "l.sqlite"]
        assert main([*asked, "--budget", "3"]) == BudgetExceeded.exit_code
        assert endpoint.served == 3
        assert "the cap of 3 (3 spent)" in capsys.readouterr().err
        assert main([*asked, "--budget", "4", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["first"]["wins"] == 1
        assert endpoint.served == 4


def test_labels_of_people_and_checks_are_compared_with_the_judge(
    files: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["judge", "export", *files, "-o", "pairs.jsonl"]) == 0
    lines = [json.loads(line) for line in (tmp_path / "pairs.jsonl").read_text().splitlines()]
    assert len(lines) == 2  # equal answers need nobody
    for line in lines:
        line["better"] = "A" if len(line["A"]) > len(line["B"]) else "B"
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    rules = write(tmp_path / "rules.jsonl", {one: json.dumps({"min_words": 3}) for one in ("q1", "q2", "q3")})
    capsys.readouterr()
    with FakeEndpoint(longer_wins) as endpoint:
        asked = ["judge", "compare", *files, "--judge", "m", "--judge-url", endpoint.base_url, "--ledger", "l.sqlite"]
        assert main([*asked, "--labels", "pairs.jsonl", "--checks", rules, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["agreement"]
    assert found["people"] == {"items": 2, "share": 1.0, "kappa": 1.0}
    assert found["checks"]["share"] == 1.0


def test_a_system_that_answers_nothing_is_judged_too(
    files: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    silent = write(tmp_path / "silent.jsonl", {"q1": "", "q2": "same", "q3": " "})
    with FakeEndpoint(longer_wins) as endpoint:
        asked = ["judge", "compare", files[0], silent, "--judge", "m", "--judge-url", endpoint.base_url]
        assert main([*asked, "--ledger", "l.sqlite"]) == 0
        said = capsys.readouterr()
    assert "won 2, tied 1, lost 0" in said.out
    assert "judging: 4 / 4 answers" in said.err


def test_a_judge_of_no_use_is_found_out_before_all_pairs_are_paid_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MOP_API_KEY", "k")
    both = [write(tmp_path / name, {f"q{n}": f"{name} {n}" for n in range(150)}) for name in ("a.jsonl", "b.jsonl")]
    with FakeEndpoint(lambda _messages: "who knows") as endpoint:
        asked = ["judge", "compare", *both, "--judge", "m", "--judge-url", endpoint.base_url]
        assert main([*asked, "--ledger", str(tmp_path / "l.sqlite")]) != 0
        assert "Choose another model as judge" in capsys.readouterr().err
        assert endpoint.served == FEW


def test_answers_to_other_inputs_are_refused_before_anything_is_asked(
    files: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write(tmp_path / "other.jsonl", {"q1": "x", "q9": "y"})
    assert main(["judge", "compare", files[0], other, "--judge", "m", "--judge-url", "http://127.0.0.1:9/v1"]) == 3
    assert "3 inputs stand in only one of" in capsys.readouterr().err


@pytest.fixture
def learned(files: tuple[str, str], tmp_path: Path) -> tuple[str, str]:
    """A mixture that was learned with few calls, and examples to score it on."""
    data = write(
        tmp_path / "task.jsonl", {f"thing {number}": "right" if number % 2 else "left" for number in range(60)}
    )
    with FakeEndpoint(lambda _messages: "right") as endpoint:
        asked = ["optimize", data, "--model", "m", "--base-url", endpoint.base_url, "--ledger", "l.sqlite"]
        assert main([*asked, "--method", "zero-shot", "--encoder", "tfidf", "--budget", "40", "-o", "task.mop"]) == 0
    return "task.mop", data


def graded(messages: list[dict[str, str]]) -> str:
    question = messages[-1]["content"]
    if "[End of question]" not in question:
        return "right"
    if "[Answer B]" in question:
        return longer_wins(messages)
    return "10" if "[A right answer]\n> right" in question else "1"


@pytest.mark.parametrize(("metric", "accuracy"), [("judge", 0.5), ("judge:pairwise", 0.75)])
def test_a_mixture_is_evaluated_by_a_judge_where_the_model_is_and_replayed_without_any(
    learned: tuple[str, str],
    metric: str,
    accuracy: float,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    closed = []
    close = ModelClient.aclose

    async def closing(client: ModelClient) -> None:
        closed.append(client.model)
        await close(client)

    monkeypatch.setattr(ModelClient, "aclose", closing)
    asked = ["evaluate", *learned, "--metric", metric, "--judge", "another", "--ledger", "l.sqlite", "--json"]
    with FakeEndpoint(graded) as endpoint:
        capsys.readouterr()
        assert main([*asked, "--base-url", endpoint.base_url]) == 0
        first = capsys.readouterr().out
        assert json.loads(first)["systems"][0]["accuracy"] == pytest.approx(accuracy)
        assert "another" in {body["model"] for body in endpoint.bodies}
        assert sorted(closed) == ["another", "m"]
        served = endpoint.served
        assert main([*asked, "--replay"]) == 0
        assert json.loads(capsys.readouterr().out) == json.loads(first)
        assert endpoint.served == served
    assert main([*asked[:-1], "--criteria", "style", "--replay", "--json"]) != 0


def test_a_judge_on_this_machine_is_not_looked_for_at_the_address_of_the_model(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    given = {"model": "m", "base_url": "http://127.0.0.1:9/v1", "metric": "judge", "judge": "local/some-judge"}
    with pytest.raises(MopError, match="local/some-judge"):
        Models.connect(make_settings(given), ledger, None, "run")
    with_url = make_settings({**given, "judge_url": "http://127.0.0.1:8/v1"})
    assert Models.connect(with_url, ledger, None, "run").judge.base_url == "http://127.0.0.1:8/v1"
    ledger.close()
