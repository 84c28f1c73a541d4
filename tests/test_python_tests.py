"""The metric that runs code: how code is found in a reply, and who may switch it on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fake_endpoint import FakeEndpoint

from benchmarks.__main__ import main
from benchmarks.results import Results
from mop.errors import DataError, SettingsError
from mop.evaluation import evaluate
from mop.metrics import METRICS, get_metric
from mop.metrics.python_tests import Tests, python_tests, readings, whole_answers
from mop.mixture import Mixture
from mop.settings import make_settings

PROMPT = 'import math\n\ndef area(r):\n    """Return the area of a circle, rounded."""\n'
CHECK = "def check(candidate):\n    assert candidate(1) == 3\n    assert candidate(2) == 13\n"
TESTS = Tests(PROMPT, "area", CHECK)
OUTPUTS = ("    return round(math.pi * r * r)\n", TESTS.to_output())
WHOLE = "def area(r):\n    return round(math.pi * r * r)\n"


@pytest.mark.parametrize(
    "reply",
    [
        "return round(math.pi * r * r)",
        "    return round(math.pi * r * r)",
        "square = r * r\n    return round(math.pi * square)",  # the first line has lost its indentation
        "square = r * r\nreturn round(math.pi * square)",
        "if r == 1:\n        return 3\n    return round(math.pi * r * r)",
        "if r == 1:\n    return 3\nreturn round(math.pi * r * r)",
        WHOLE,
        PROMPT + "    return round(math.pi * r * r)",
        f"Here it is:\n```python\n{WHOLE}```\nIt works.",
        f"Here it is:\n~~~\n{WHOLE}~~~",
        f"First a test:\n```\nprint(area(1))\n```\nthen:\n```python\n{WHOLE}```",
        f"```python\n{WHOLE}",  # cut off before the fence ends
        "```\n    return round(math.pi * r * r)\n```",
        f"Sure, here it is:\n\n{WHOLE}\nThis function takes the radius.",
        "return round(math.pi * r * r)\n\nThis takes the radius.",
        "    import math\n    return round(math.pi * r * r)",
    ],
)
def test_right_code_is_found_however_it_is_given(reply: str) -> None:
    assert python_tests(reply.strip(), OUTPUTS) == 1


@pytest.mark.parametrize("reply", ["return 3", "", "I don't know.", "def area(r):\n    return 3", "```\n```", "pass"])
def test_wrong_code_and_no_code_score_nothing(reply: str) -> None:
    assert python_tests(reply, OUTPUTS) == 0


def test_code_without_an_entry_point_stands_for_itself() -> None:
    outputs = ("def double(x):\n    return 2 * x", Tests("", "", "assert double(4) == 8").to_output())
    assert python_tests("```python\ndef double(x):\n    return x + x\n```", outputs) == 1
    assert python_tests("def double(x):\n    return x + x\n\nThat doubles it.", outputs) == 1
    assert python_tests("def double(x):\n    return x", outputs) == 0


def test_a_reply_has_few_readings_however_long_it_is() -> None:
    assert len(readings("a\n" * 5000, TESTS)) <= 40
    assert len(readings("def area(r):\n" + "b\n" * 5000, TESTS)) <= 40


@pytest.mark.parametrize("outputs", [("return 1",), ("[]",), ("{}",), ('{"test": 1',), ()])
def test_tests_that_are_missing_are_an_error(outputs: tuple[str, ...]) -> None:
    with pytest.raises(DataError, match="last accepted output"):
        python_tests("return 1", outputs)


def test_answers_get_room_for_the_whole_function_and_none_for_the_tests() -> None:
    assert whole_answers(OUTPUTS) == (PROMPT + OUTPUTS[0],)


def test_code_runs_only_where_that_is_asked_for() -> None:
    assert "python_tests" not in METRICS
    with pytest.raises(SettingsError, match="--allow-code"):
        get_metric("python_tests")
    assert get_metric("python_tests", allow_code=True)("return 3", OUTPUTS) == 0
    assert make_settings({"metric": "python_tests"}, environment={}).allow_code is False


def test_a_mixture_that_names_the_metric_runs_no_code_by_itself() -> None:
    from small import small_mixture

    from mop.examples import Example

    mixture: Mixture = small_mixture(metric="python_tests")
    with pytest.raises(SettingsError, match="allow_code"):
        evaluate(mixture, [Example("x", OUTPUTS)])


def test_a_code_task_is_refused_without_the_switch_and_scored_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MOP_API_KEY", "key")
    folder = tmp_path / "code"
    folder.mkdir()
    rows = [
        {
            "input": f'def add{n}(x):\n    """Add {n}."""\n',
            "output": [f"    return x + {n}\n"],
            "meta": {
                "entry_point": f"add{n}",
                "test": f"def check(candidate):\n    assert candidate(5) == {5 + n}\n",
            },
        }
        for n in range(24)
    ]
    (folder / "adding.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    index = {"adding": {"files": {"adding.jsonl": 24}, "metric": "pass@1 (run meta.test in a sandbox)"}}
    (folder / "tasks.json").write_text(json.dumps(index), encoding="utf-8")

    def knows_even_numbers(messages: list[dict[str, str]]) -> str:
        text = messages[-1]["content"]
        number = text[7 : text.index("(")] if text.startswith("def add") else "0"
        return (
            f"```python\ndef add{number}(x):\n    return x + {int(number) // 2 * 2}\n```"
            if number.isdigit()
            else "Add."
        )

    with FakeEndpoint(knows_even_numbers) as endpoint:
        command = ["run", f"--data={tmp_path}", "--tasks=adding", "--methods=random-demos", "--budget=20"]
        command += ["--model=simulated", f"--base-url={endpoint.base_url}", f"--out={tmp_path / 'out.jsonl'}"]
        command += [f"--encoder=endpoint:fake@{endpoint.base_url}"]
        assert main(command) == SettingsError.exit_code
        assert "--allow-code" in capsys.readouterr().err
        assert endpoint.served == 0
        assert main([*command, "--allow-code"]) == 0
    (record,) = Results(tmp_path / "out.jsonl").read().values()
    assert record["metric"] == "python_tests"
    assert 0 < record["score"] < 1
    assert record["test"]["calls"] == 12
