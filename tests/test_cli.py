"""The command line: what it prints where, with which exit code, and what it refuses before any call."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from fake_endpoint import FakeEndpoint
from simulated import nearest_demo_answer, splits

import mop
from mop.cli import main
from mop.cli.options import SearchOptions
from mop.examples import Example
from mop.settings import Settings

MOP = [sys.executable, "-m", "mop"]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory, encoder_path: Path) -> Iterator[Path]:
    """A folder with a ledger of its own, which is also the working directory."""
    folder = tmp_path_factory.mktemp("cli")
    with pytest.MonkeyPatch.context() as patch:
        for name in Settings.model_fields:
            patch.delenv(f"MOP_{name.upper()}", raising=False)
        patch.delenv("OPENAI_BASE_URL", raising=False)
        patch.setenv("MOP_LEDGER", str(folder / "ledger.sqlite"))
        patch.setenv("MOP_API_KEY", "secret-key")
        patch.chdir(folder)
        yield folder


@pytest.fixture(scope="module")
def endpoint() -> Iterator[FakeEndpoint]:
    with FakeEndpoint(nearest_demo_answer) as server:
        yield server


@pytest.fixture(scope="module")
def data(environment: Path) -> Path:
    parts = splits()
    rows = [*parts.train, *parts.validation, *parts.test[:60]]
    names = ["train"] * len(parts.train) + ["validation"] * len(parts.validation) + ["test"] * 60
    return write(environment / "task.jsonl", [replace(e, split=n) for e, n in zip(rows, names, strict=True)])


@pytest.fixture(scope="module")
def search(endpoint: FakeEndpoint) -> list[str]:
    """Options of a search that finds a mixture in a second."""
    return [
        "--model", "simulated", "--base-url", endpoint.base_url, "--prompt-tokens", "200",
        "--instruction", "Name the thing and its state.",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def mixture(data: Path, search: list[str]) -> Path:
    target = data.with_name("task.mop")
    assert main(["optimize", str(data), "--quiet", "--budget", "400", *search]) == 0
    return target


def write(path: Path, examples: list[Example]) -> Path:
    lines = [json.dumps({"input": e.input, "output": list(e.outputs), "split": e.split}) for e in examples]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def run_json(capsys: pytest.CaptureFixture[str], *argv: str, code: int = 0) -> dict[str, Any]:
    capsys.readouterr()
    assert main([*argv, "--json"]) == code
    return dict(json.loads(capsys.readouterr().out))


# -- learning


def test_a_second_search_answers_from_the_ledger_and_writes_the_same_experts(
    mixture: Path, data: Path, search: list[str], endpoint: FakeEndpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    served = endpoint.served
    again = run_json(capsys, "optimize", str(data), "-o", str(data.with_name("again.mop")), "--budget", "400", *search)
    assert again["sent"] == 0
    assert 0 < again["from_ledger"] == again["calls"] <= 400
    assert endpoint.served == served
    assert mop.load(again["artifact"]).experts == mop.load(mixture).experts


def test_progress_goes_to_standard_error_in_plain_lines_that_name_the_stages(
    mixture: Path, data: Path, search: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(["optimize", str(data), "--budget", "400", *search]) == 0
    out, err = capsys.readouterr()
    assert "racing single prompts" in err
    assert "from the ledger" in err
    assert "\x1b" not in out + err
    assert out.startswith(str(mixture))
    assert "Validation (60 examples)" in out


def test_every_setting_is_an_option() -> None:
    assert {field.name for field in fields(SearchOptions)} == set(Settings.model_fields)


def test_options_go_before_the_environment_that_before_the_file_and_that_before_defaults(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "mop.toml"
    config.write_text('model = "from-file"\nbudget = "100 calls"\n')
    monkeypatch.setenv("MOP_MODEL", "from-environment")
    command = ("estimate", str(data), "--config", str(config))
    found = run_json(capsys, *command)
    assert (found["model"], found["calls"]) == ("from-environment", 100)
    found = run_json(capsys, *command, "--model", "from-option", "--budget", "50")
    assert (found["model"], found["calls"]) == ("from-option", 50)
    monkeypatch.delenv("MOP_MODEL")
    assert run_json(capsys, *command)["model"] == "from-file"
    assert run_json(capsys, "estimate", str(data))["calls"] == Settings().budget


def test_an_estimate_in_money_names_the_price_and_calls_nobody(
    data: Path, endpoint: FakeEndpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    served = endpoint.served
    found = run_json(capsys, "estimate", str(data), "--model", "gpt-4o-mini", "--budget", "1 USD")
    assert 0.05 < found["usd"] <= 1
    assert endpoint.served == served


def test_a_validation_file_is_validation_and_all_else_is_training(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = splits()
    train = write(tmp_path / "train.jsonl", list(parts.train))
    validation = write(tmp_path / "validation.jsonl", list(parts.validation))
    found = run_json(capsys, "estimate", str(train), "--validation", str(validation))
    assert (found["train"], found["validation"]) == (len(parts.train), len(parts.validation))


# -- what is refused before any call


def test_every_bad_row_is_reported_and_the_model_is_not_called(
    environment: Path, search: list[str], endpoint: FakeEndpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = environment / "bad.jsonl"
    bad.write_text('{"input": "a", "output": "b"}\n{"input": "", "output": "b"}\n{"input": "c"}\nnonsense\n')
    served = endpoint.served
    found = run_json(capsys, "optimize", str(bad), *search, code=3)
    assert found["error"]["type"] == "BadRows"
    assert [problem["position"] for problem in found["error"]["problems"]] == [2, 3, 4]
    assert endpoint.served == served


def test_duplicates_across_splits_leave_training_only_and_are_said(
    environment: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = splits()
    rows = [
        *(replace(e, split="train") for e in (*parts.train[:40], parts.validation[0], parts.test[0])),
        *(replace(e, split="validation") for e in parts.validation[:20]),
        *(replace(e, split="test") for e in parts.test[:10]),
    ]
    found = run_json(capsys, "estimate", str(write(environment / "doubled.jsonl", rows)))
    assert (found["train"], found["validation"]) == (40, 20)
    assert any("2 training examples were left out" in warning for warning in found["warnings"])


def test_an_input_longer_than_the_local_context_is_a_data_error_that_names_the_row(
    environment: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [Example(f"message number {i}", (f"label {i % 3}",)) for i in range(30)]
    rows[6] = Example("word " * 20_000, ("label 0",))
    path = write(environment / "long.jsonl", rows)
    command = ("estimate", str(path), "--model")
    found = run_json(capsys, *command, "local/smollm2-135m-instruct", code=3)
    assert found["error"]["problems"][0]["position"] == 7
    assert run_json(capsys, *command, "some-endpoint's-model")["calls"] > 0


def test_examples_too_long_to_be_shown_are_said_before_a_search_that_cannot_show_them(
    environment: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = [" ".join(f"{i}w{i * j}" for j in range(500 if i < 30 else 9)) for i in range(1, 41)]
    rows = [Example(text, (f"label {i % 3}",)) for i, text in enumerate(texts)]
    path = write(environment / "wordy.jsonl", rows)
    command = ("estimate", str(path), "--model", "m")
    (said,) = run_json(capsys, *command)["warnings"]
    assert re.search(r"2\d of the 30 training examples take more than the 600 tokens", said)
    assert "--prompt-tokens" in said
    for options in (("--prompt-tokens", "2000"), ("--max-demos", "0"), ("--method", "ape")):
        assert "warnings" not in run_json(capsys, *command, *options)
    few = write(environment / "few.jsonl", [*rows[:8], *(replace(e, input=e.input[:60]) for e in rows)])
    assert "warnings" not in run_json(capsys, "estimate", str(few), "--model", "m")


def test_too_few_examples_for_regions_are_said_and_one_prompt_is_learned(
    environment: Path, search: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    few = write(environment / "few.jsonl", list(splits().train[:12]))
    found = run_json(capsys, "optimize", str(few), *search, "--budget", "30")
    assert found["experts"] == 1
    assert any("too few for several experts" in warning for warning in found["warnings"])


def test_an_absent_local_model_says_how_to_fetch_it(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MOP_CACHE", str(tmp_path))
    found = run_json(capsys, "optimize", str(data), code=4)
    assert found["error"]["type"] == "WeightsError"
    assert "mop models pull local/" in found["error"]["message"]


def test_a_target_that_cannot_be_written_is_refused_before_the_search(
    data: Path, search: list[str], endpoint: FakeEndpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    served = endpoint.served
    assert main(["optimize", str(data), *search, "--seed", "77", "-o", "nowhere/at/all.mop"]) == 7
    assert "--out" in capsys.readouterr().err
    assert endpoint.served == served


@pytest.mark.parametrize(
    "argv",
    [
        ["optimise"],
        ["optimize"],
        ["optimize", "task.jsonl", "--bdget", "5"],
        ["optimize", "task.jsonl", "--experts", "many"],
        ["optimize", "task.jsonl", "--budget", "a lot"],
        ["optimize", "task.jsonl", "--metric", "exakt"],
        ["ask", "task.mop", "--jsn", "query"],
        ["models", "pull", "local/nothing"],
        ["show", "task.mop", "--expert", "999"],
    ],
)
def test_usage_errors_end_with_2_and_one_line(
    mixture: Path, argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(argv) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[-1].startswith("error: ")


# -- using a mixture


def test_evaluate_compares_with_the_generalist_and_with_other_mixtures(
    mixture: Path, data: Path, endpoint: FakeEndpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    other = mixture.with_name("other.mop")
    other.write_bytes(mixture.read_bytes())
    command = ["evaluate", str(mixture), str(data), "--against", str(other), "--base-url", endpoint.base_url]
    found = run_json(capsys, *command)
    assert found["split"] == "test"
    assert found["examples"] == 60
    assert [system["name"] for system in found["systems"]] == ["mixture", "generalist", "other"]
    assert found["differences"][0]["mean"] > 0
    assert found["differences"][1]["mean"] == 0
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "mixture − generalist" in out
    assert "Both score the same on every example" in out
    assert "—" in out  # the price of this model isn't known


def test_evaluate_says_so_when_it_has_to_score_training_examples(
    mixture: Path, environment: Path, endpoint: FakeEndpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(environment / "train.jsonl", [replace(e, split="train") for e in splits().train[:5]])
    command = ("evaluate", str(mixture), str(path), "--base-url", endpoint.base_url)
    assert "training examples included" in run_json(capsys, *command)["warnings"][0]
    assert "no test examples" in run_json(capsys, *command, "--split", "test", code=3)["error"]["message"]


def test_evaluate_says_how_many_examples_the_mixture_holds_and_how_many_repeat(
    mixture: Path, environment: Path, endpoint: FakeEndpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    # No row says of which split it is, as in most people's files.
    parts = splits()
    rows = [*parts.train[:4], replace(parts.validation[0], input=f" {parts.validation[0].input.upper()}! ")]
    rows = [replace(e, split=None) for e in (*rows, *parts.test[:3], *parts.test[:2])]
    path = write(environment / "unmarked.jsonl", rows)
    command = ("evaluate", str(mixture), str(path), "--base-url", endpoint.base_url)
    held, repeated = run_json(capsys, *command)["warnings"]
    assert "holds 5 of the 10 examples" in held
    assert "2 of the 10 examples repeat" in repeated
    new = write(environment / "new.jsonl", [replace(e, split=None) for e in parts.test[:10]])
    assert "warnings" not in run_json(capsys, "evaluate", str(mixture), str(new), "--base-url", endpoint.base_url)


def test_evaluate_draws_the_same_test_that_optimize_set_apart(
    environment: Path, search: list[str], endpoint: FakeEndpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = write(environment / "plain.jsonl", list(splits().train[:100]))
    learn = ("optimize", str(plain), *search, "--test-share", "0.2", "--budget", "60", "--seed", "4")
    assert run_json(capsys, *learn)["test"] == 20
    score = ("evaluate", str(plain.with_suffix(".mop")), str(plain), "--base-url", endpoint.base_url)
    found = run_json(capsys, *score, "--test-share", "0.2")
    assert (found["examples"], found.get("warnings")) == (20, None)
    assert "may hold examples that it has seen" in run_json(capsys, *score, "--test-share", "0.3")["warnings"][0]


def test_a_mixture_file_alone_does_not_say_which_code_runs_as_its_metric(
    mixture: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "evil.py").write_text("raise SystemExit('this was run')")
    hostile = tmp_path / "hostile.mop"
    replace(mop.load(mixture), metric="evil:score").save(hostile)
    found = run_json(capsys, "evaluate", str(hostile), str(data), code=2)
    assert "--metric evil:score" in found["error"]["message"]


def test_show_prints_regions_for_people_and_the_manifest_for_machines(
    mixture: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with zipfile.ZipFile(mixture) as archive:
        assert run_json(capsys, "show", str(mixture)) == json.loads(archive.read("mixture.json"))
    assert main(["show", str(mixture)]) == 0
    out = capsys.readouterr().out
    assert f"{len(mop.load(mixture))} experts for simulated" in out
    assert "exact_match" in out
    assert "Gain +" in out


def test_show_prints_a_whole_prompt(mixture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prompt = mop.load(mixture).experts[1].prompt
    found = run_json(capsys, "show", str(mixture), "--expert", "1")
    assert [(m["role"], m["content"]) for m in found["messages"]] == list(prompt.messages("<query>"))
    assert main(["show", str(mixture), "--expert", "1"]) == 0
    out = capsys.readouterr().out
    assert all(demo.input in out for demo in prompt.demos)


def test_ask_answers_arguments_and_lines_of_standard_input_in_order(
    mixture: Path, endpoint: FakeEndpoint, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stdin = io.TextIOWrapper(io.BytesIO(b"my garden is dry\n\nmy meeting is moved\r\n"))
    monkeypatch.setattr(sys, "stdin", stdin)
    capsys.readouterr()
    argv = ["ask", str(mixture), "my card is swallowed", "-", "--base-url", endpoint.base_url]
    assert main(argv) == 0
    out, err = capsys.readouterr()
    assert out.splitlines() == ["card_swallowed", "garden_dry", "meeting_moved"]
    assert err.count("margin") == 3


def test_route_names_the_expert_without_a_model(mixture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = run_json(capsys, "route", str(mixture), "my card is swallowed", "my garden is dry")
    assert len({one["expert"] for one in found["routes"]}) == 2
    assert "generalist" not in found
    assert main(["route", str(mixture), "  "]) == 3


def test_models_are_listed_with_their_state(capsys: pytest.CaptureFixture[str], encoder_path: Path) -> None:
    models = {model["id"]: model for model in run_json(capsys, "models", "list")["models"]}
    assert models["local/all-minilm-l6-v2"]["present"]
    assert main(["models", "path", "local/all-minilm-l6-v2"]) == 0
    assert Path(capsys.readouterr().out.strip()) == encoder_path
    assert main(["models", "pull", "local/all-minilm-l6-v2"]) == 0


# -- processes


def test_ctrl_c_keeps_what_was_answered_and_says_how_to_go_on(
    mixture: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = str(data.with_name("interrupted.mop"))
    with FakeEndpoint(nearest_demo_answer, latency=0.1) as slow:
        command = [*MOP, "optimize", str(data), "-o", target, "--model", "simulated", "--base-url", slow.base_url]
        command += ["--seed", "5", "--budget", "100", "--concurrency", "2", "--json"]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        while slow.served < 6 and process.poll() is None:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert json.loads(out)["error"]["type"] == "Interrupted"
    assert f"is in the ledger {os.environ['MOP_LEDGER']}; run the same command again to go on." in err
    with FakeEndpoint(nearest_demo_answer) as fast:
        command[command.index(slow.base_url)] = fast.base_url
        again = run_json(capsys, *command[len(MOP) : -1])
    assert again["from_ledger"] >= 4


def test_a_closed_pipe_ends_the_command_quietly(mixture: Path) -> None:
    process = subprocess.Popen([*MOP, "show", str(mixture)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    assert process.wait(20) == 141


def test_help_and_version_load_nothing_heavy() -> None:
    script = (
        "import sys; from mop.cli import main; main(['--help']); main(['--version'])\n"
        "print([name for name in ('torch', 'openai', 'sklearn', 'scipy', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-2:] == [f"mop {mop.__version__}", "[]"]
