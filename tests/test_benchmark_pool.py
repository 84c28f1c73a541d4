"""The pool of facts and of requests with a house style, as examples for a search."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_benchmark_personas import SUBJECTS, data  # noqa: F401

from benchmarks.personas.gating import Item
from benchmarks.personas.pool import main, rules
from mop.data import coerce_examples
from mop.errors import DataError
from mop.metrics import get_metric
from mop.own_personas import read_own


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        ("B", 1.0),
        ("b", 0.0),
        ("B. Heparin", 1.0),
        ("The right option is B.", 1.0),
        ("Dear reader, the answer is\nB.", 1.0),
        ("Dear reader, the answer is C.", 0.0),
        ("B or C", 0.0),
        ("Because", 0.0),
    ],
)
def test_a_fact_is_right_with_the_right_letter_alone_whatever_stands_around_it(answer: str, score: float) -> None:
    assert get_metric("checks:all")(answer, [rules(Item("Which?", ("B",)))]) == score


def test_a_right_option_that_is_no_letter_is_refused_and_not_turned_into_a_rule_that_nothing_passes() -> None:
    with pytest.raises(DataError, match="letter from A to J"):
        rules(Item("Which?", ("b",)))


def test_the_files_are_what_the_commands_read(data: Path, tmp_path: Path) -> None:  # noqa: F811
    command = [f"--data={data}", f"--subjects={','.join(SUBJECTS)}", "--pool=4", f"--out={tmp_path / 'pool'}"]
    assert main(command) == 0
    examples = coerce_examples(tmp_path / "pool" / "pool.jsonl")
    assert [sum(one.split == role for one in examples) for role in ("train", "validation", "test")] == [8, 8, 8]
    kinds = {name: coerce_examples(tmp_path / "pool" / f"{name}.jsonl") for name in ("facts", "style")}
    assert {one.input for part in kinds.values() for one in part} == {
        one.input for one in examples if one.split == "test"
    }
    assert all("Dear reader" in one.output for one in kinds["style"])
    assert [one.name for one in read_own(f"@{tmp_path / 'pool' / 'house.jsonl'}")] == ["house"]
    before = (tmp_path / "pool" / "pool.jsonl").read_bytes()
    assert main(command) == 0
    assert (tmp_path / "pool" / "pool.jsonl").read_bytes() == before


def test_what_cannot_be_drawn_or_written_is_said(
    data: Path,  # noqa: F811
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "file").write_text("")
    base = [f"--data={data}", f"--subjects={','.join(SUBJECTS)}"]
    for options, said in (
        (["--pool=0", f"--out={tmp_path}"], "from 1 up"),
        (["--pool=4000", f"--out={tmp_path}"], "are needed"),
        (["--pool=4", f"--out={tmp_path / 'file'}"], "name another folder"),
    ):
        assert main([*base, *options]) != 0
        assert said in capsys.readouterr().err
