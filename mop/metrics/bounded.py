"""Bounded: patterns and JSON schemas tried on answers in a child process, for no longer than a limit.

A regular expression, or a schema that refers to itself, can take for ever on some answer, and nothing inside a process
can stop either. One child serves the whole process (`mop.metrics.bounded_child`); it counts processor time, so that a
busy machine changes no score. Knows nothing of what the result means.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Literal

from mop.errors import DataError

#: Seconds of processor time that one check of one answer may take, and of the clock before the child is given up.
SECONDS, PATIENCE = 2.0, 60.0

_lock = threading.Lock()
_child: subprocess.Popen[str] | None = None


def applies(kind: Literal["matches", "json_schema"], value: Any, text: str | None) -> bool:
    """Return whether ``text`` matches a pattern, or is JSON that fits a schema; None tries a schema by itself.

    Raises DataError if that takes too long, or if the schema cannot be followed.
    """
    # Surrogates that stand alone cannot be sent in UTF-8, but escaped they can.
    line = json.dumps({"kind": kind, "value": value, "text": text, "seconds": SECONDS})
    with _lock:
        answer = _ask(line)
    if answer is None:
        raise DataError(
            f"The check {kind} took more than {SECONDS:g} s on one answer: {value!r:.80}. Write it so that it cannot "
            "try the same text in many ways, as nested repeats such as (a+)+ do."
        )
    if "error" in answer:
        raise DataError(f"The check {kind} cannot be followed ({answer['error']}): {value!r:.80}.")
    return bool(answer["passed"])


def _ask(line: str) -> dict[str, Any] | None:
    """Return the child's answer, or None if there is none in time."""
    child = _running()
    assert child.stdin is not None
    assert child.stdout is not None
    watch = threading.Timer(PATIENCE, child.kill)
    watch.daemon = True
    watch.start()
    try:
        child.stdin.write(line + "\n")
        child.stdin.flush()
        said = child.stdout.readline()
    except BrokenPipeError:
        said = ""
    finally:
        watch.cancel()
    if not said:
        _end()
        return None
    answer: dict[str, Any] = json.loads(said)
    return None if answer.get("late") else answer


def _running() -> subprocess.Popen[str]:
    global _child
    if _child is None or _child.poll() is not None:
        program = Path(__file__).with_name("bounded_child.py")
        # A group of its own: Ctrl-C is for the parent, which decides what still finishes.
        _child = subprocess.Popen(
            [sys.executable, "-P", str(program)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
            start_new_session=True,
        )
    return _child


def _end() -> None:
    global _child
    child, _child = _child, None
    if child is not None:
        child.kill()
        child.wait()
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except BrokenPipeError:
                    continue  # what it was not sent doesn't matter any more


def _forget() -> None:
    """Leave the child to the parent that was forked."""
    global _lock, _child
    _lock, _child = threading.Lock(), None


atexit.register(_end)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
