"""The grid on a task that a judge scores: in the search and on the test, by the model that was named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fake_endpoint import FakeEndpoint

from benchmarks.__main__ import main
from benchmarks.grid import plan_cells
from benchmarks.results import Results


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder with a task whose metric is a judge, and one that is scored by comparing."""
    folder = tmp_path / "data" / "own"
    folder.mkdir(parents=True)
    rows = [{"input": f"thing {n}", "output": ["right" if n % 2 else "left"], "meta": {"id": n}} for n in range(60)]
    for name in ("letters", "things"):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (folder / "tasks.json").write_text(
        json.dumps(
            {
                "letters": {"files": {"letters.jsonl": 60}, "metric": "judge"},
                "things": {"files": {"things.jsonl": 60}, "metric": "exact_match"},
            }
        ),
        encoding="utf-8",
    )
    return folder.parent


def graded(messages: list[dict[str, str]]) -> str:
    question = messages[-1]["content"]
    if "[End of question]" not in question:
        return "right"
    return "10" if "[A right answer]\n> right" in question else "1"


def test_a_judge_scores_the_search_and_the_test(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOP_API_KEY", "k")
    out = tmp_path / "results.jsonl"
    with FakeEndpoint(graded) as endpoint, FakeEndpoint(graded) as other:
        asked = ["run", f"--data={data}", "--tasks=letters", "--methods=zero-shot", "--budget=40", "--test=10"]
        asked += ["--model=m", f"--base-url={endpoint.base_url}", "--encoder=tfidf", f"--out={out}"]
        asked += ["--judge=another", f"--judge-url={other.base_url}", "--criteria=style"]
        assert main(asked) == 0
        assert {body["model"] for body in other.bodies} == {"another"}
        assert {body["model"] for body in endpoint.bodies} == {"m"}
        assert all("no filler" in body["messages"][-1]["content"] for body in other.bodies)
        assert other.base_url not in out.read_text(encoding="utf-8")
    (record,) = Results(out).read().values()
    assert record["metric"] == "judge"
    assert set(record["scores"]) == {0.0, 1.0}
    assert record["score"] == pytest.approx(sum(record["scores"]) / 10)


def test_a_judge_is_no_part_of_a_cell_that_is_scored_without_one(data: Path) -> None:
    def keys(**options: str) -> list[str]:
        cells = plan_cells(data, ["letters", "things"], ["zero-shot"], [0], {"budget": "40", **options})
        return [cell.key for cell in cells]

    plain, judged = keys(), keys(judge="another", criteria="style")
    assert plain[0] != judged[0]
    assert plain[1] == judged[1]
