"""``python_tests``: 1 if the code in a reply passes its tests, as HumanEval and MBPP define it. Runs what it scores.

The last accepted output is a JSON object: ``test`` (Python that raises if the code is wrong), and where the reply goes
on with a given text, ``prompt`` (that text) and ``entry_point`` (the function that it is about; ``test`` then defines
``check(function)``). The outputs before it are solutions, for demos.

Code is found by these rules. The first fenced block that defines the entry point counts, else the first fenced block,
else the whole reply. Code that defines the entry point comes after the prompt's own text and so replaces what that
begins; prose before and after it is cut off. Anything else is the body of the function: a reply has lost the
indentation of its first line, so that line, or else every line, is indented by four spaces more. The first reading
that is Python is run.
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mop.errors import DataError
from mop.sandbox import run_tests

NAME = "python_tests"
#: A file of tests longer than this isn't one.
MAX_CHARACTERS = 1_000_000
#: Most lines of prose after the code that are cut off.
MOST_PROSE = 30
_FENCE = re.compile(r"^[ \t]*(?:```|~~~)[^\n]*\n(.*?)(?:^[ \t]*(?:```|~~~)|\Z)", re.DOTALL | re.MULTILINE)
_CODE_BEGINS = re.compile(r"^(?:def |async def |class |import |from \w|@)", re.MULTILINE)


@dataclass(frozen=True)
class Tests:
    """What tells right code from wrong: the text that it goes on with, the function it defines, and the tests."""

    __test__ = False  # no class of test cases

    prompt: str
    entry_point: str
    test: str

    def to_output(self) -> str:
        """Return the tests as the last accepted output of an example."""
        return json.dumps({"prompt": self.prompt, "entry_point": self.entry_point, "test": self.test})


def python_tests(prediction: str, outputs: Sequence[str]) -> float:
    """Return 1.0 if the code in ``prediction`` passes the tests in the last of ``outputs``, else 0.0.

    Raises DataError if there are no tests.
    """
    tests = tests_of(outputs)
    return float(run_tests(readings(prediction, tests), tests.test, tests.entry_point).passed)


def tests_of(outputs: Sequence[str]) -> Tests:
    """Return the tests among the accepted outputs of an example; raises DataError if the last is none."""
    text = outputs[-1] if outputs else ""
    try:
        found: Any = json.loads(text) if len(text) <= MAX_CHARACTERS else None
        return Tests(str(found.get("prompt", "")), str(found.get("entry_point", "")), str(found["test"]))
    except (ValueError, AttributeError, KeyError, TypeError):
        raise DataError(
            f'The metric {NAME} needs tests as the last accepted output: a JSON object with "test", and perhaps '
            f'"prompt" and "entry_point"; it was given {text[:80]!r}.'
        ) from None


def whole_answers(outputs: Sequence[str]) -> tuple[str, ...]:
    """Return the longest forms in which the solutions among ``outputs`` may be given: with the text they go on with."""
    prompt = tests_of(outputs).prompt
    return tuple(prompt + solution for solution in outputs[:-1]) or (prompt,)


def readings(reply: str, tests: Tests) -> list[str]:
    """Return the programs that ``reply`` can mean, the likeliest first."""
    blocks = [match[1] for match in _FENCE.finditer(reply)]
    defines = re.compile(rf"^\s*(?:async )?def {re.escape(tests.entry_point)}\s*\(", re.MULTILINE)
    if not tests.entry_point:
        return _without_prose(blocks[0] if blocks else reply)
    code = next((block for block in blocks if defines.search(block)), blocks[0] if blocks else reply)
    if defines.search(code):
        return [f"{tests.prompt}\n{program}" for program in _without_prose(textwrap.dedent(code))]
    head = tests.prompt if tests.prompt.endswith("\n") else tests.prompt + "\n"
    return [head + body for body in _bodies(code.strip("\n"))]


def _bodies(code: str) -> list[str]:
    """Return the ways to read ``code`` as the body of a function."""
    lines = code.split("\n")
    first, later = f"    {lines[0].lstrip()}", [line for line in lines[1:] if line.strip()]
    readings = []
    if all(line.startswith((" ", "\t")) for line in later):
        readings.append("\n".join([first, *lines[1:]]))
    readings += [textwrap.indent(code, "    "), textwrap.indent(textwrap.dedent(code), "    ")]
    # A small model may go on with prose, or with the next function.
    readings += ["\n".join([first, *lines[1:end]]) for end in range(len(lines) - 1, 0, -1)][:MOST_PROSE]
    return list(dict.fromkeys(readings))


def _without_prose(code: str) -> list[str]:
    """Return ``code`` as it is, then without what comes before it, then with fewer and fewer of its last lines."""
    begins = _CODE_BEGINS.search(code)
    bare = code[begins.start() :] if begins else code
    lines = bare.split("\n")
    return [code, bare, *("\n".join(lines[:end]) for end in range(len(lines) - 1, 0, -1))][: MOST_PROSE + 2]
