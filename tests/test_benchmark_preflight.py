"""The grid's preflight: what would fail every cell is one error, before any cell begins and before a call is sent."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from data_folder import write_task
from fake_endpoint import FakeEndpoint
from simulated import nearest_demo_answer, task

from benchmarks.__main__ import main
from mop.lm.weights import model_path
from mop.settings import DEFAULT_ENCODER


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_task(tmp_path / "data" / "shapes", "states", task(6, 0)).parent


@pytest.fixture
def endpoint() -> Iterator[FakeEndpoint]:
    with FakeEndpoint(nearest_demo_answer) as served:
        yield served


def run(data: Path, endpoint: FakeEndpoint, *more: str) -> int:
    options = {"data": data, "tasks": "states", "methods": "zero-shot,mop", "model": "simulated"}
    options |= {"base-url": endpoint.base_url, "out": data / "results.jsonl"}
    return main(["run", *(f"--{name}={value}" for name, value in options.items()), *more])


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--encoder=local/all-minilm-l7-v2"], "all-minilm-l6-v2"),
        (["--encoder=no/such-encoder"], "no/such-encoder"),
        (["--encoder=endpoint:@https://127.0.0.1"], "endpoint:MODEL@URL"),
        (["--proposer=local/no-such-model"], "local/no-such-model"),
        (["--budget=2 USD"], "price of model 'simulated'"),
        (["--budget=2 USD", "--proposer=other"], "price of model 'other'"),
    ],
)
def test_what_would_fail_every_cell_is_said_once(
    more: list[str],
    message: str,
    data: Path,
    endpoint: FakeEndpoint,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MOP_API_KEY", "key")
    assert run(data, endpoint, *more) != 0
    said = capsys.readouterr().err
    assert said.count("error:") == 1
    assert message in said
    assert endpoint.served == 0
    assert not (data / "results.jsonl").exists()


def test_a_judge_needs_a_price_only_where_one_scores(
    data: Path, endpoint: FakeEndpoint, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOP_API_KEY", "key")
    more = ["--budget=2 USD", "--proposer=gpt-5-mini", "--judge=unpriced"]
    assert run(data, endpoint, *more, "--model=gpt-5-mini", "--encoder=no/such-encoder") != 0
    assert "no/such-encoder" in capsys.readouterr().err
    listed = data / "shapes" / "tasks.json"
    listed.write_text(listed.read_text(encoding="utf-8").replace("exact_match", "judge"), encoding="utf-8")
    assert run(data, endpoint, *more, "--model=gpt-5-mini") != 0
    assert "price of model 'unpriced'" in capsys.readouterr().err
    assert endpoint.served == 0


def test_finished_cells_need_nothing(
    data: Path, endpoint: FakeEndpoint, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOP_API_KEY", "key")
    encoder = data / "encoder"
    options = [f"--encoder={encoder}", "--methods=zero-shot", "--budget=20"]
    shutil.copytree(model_path(DEFAULT_ENCODER), encoder)
    assert run(data, endpoint, *options) == 0
    shutil.rmtree(encoder)
    assert run(data, endpoint, *options) == 0
    assert run(data, endpoint, *options, "--seeds=1") != 0
    assert str(encoder) in capsys.readouterr().err
