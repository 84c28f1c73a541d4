"""Sandbox: runs a Python program that nobody has read, against tests, in a process that can do nothing else.

The process gets no secret (an empty environment), a time and memory limit, no network, no further process, no signal to
others, no change of any file, and its output goes nowhere. On Linux (x86-64, ARM64) the kernel sees to that: a filter
allows some 70 system calls and refuses the rest (seccomp), for root as for anyone else. Elsewhere Python itself refuses
(audit hooks, and limits of the system), which an accident doesn't get past but an attack might; root becomes nobody
there. The environment and the memory of other processes are closed by the kernel where it has Landlock (Linux 5.13),
and by Python elsewhere; their command lines can be read. So can files that the user may read, but nothing leads out.

The tests run in the process of the program, as HumanEval does it. Ending early, patched builtins or printed texts don't
pass them. A program that means to fool them could, as with HumanEval: by answers that say they are equal to anything,
or by looking for this sandbox. Needs Linux or macOS.
"""

from __future__ import annotations

import json
import os
import secrets
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mop.errors import SettingsError

#: Seconds that a program may take (of the clock and of a processor), and bytes of its address space.
SECONDS = 5
MEMORY = 512 * 2**20
#: No result is longer.
_MOST_RESULT = 1024


@dataclass(frozen=True)
class Outcome:
    """Whether the tests passed, and why not; ``locked`` says that the kernel held the program."""

    passed: bool
    reason: str
    locked: bool


def run_tests(
    programs: Sequence[str],
    tests: str,
    entry_point: str = "",
    *,
    seconds: int = SECONDS,
    memory: int = MEMORY,
) -> Outcome:
    """Run the first of ``programs`` that compiles, then ``tests`` in the same names.

    Args:
        programs: Readings of one program, the likeliest first.
        tests: Python that raises if the program is wrong; with an ``entry_point`` it defines ``check(function)``.
        entry_point: The function under test; empty if ``tests`` call it themselves.
        seconds: Limit of wall and processor time.
        memory: Limit of the address space in bytes.

    Raises:
        SettingsError: There is no sandbox on this system, or the tests themselves are no Python.
    """
    if os.name != "posix":
        raise SettingsError("Code can't be run in a sandbox on this system; it needs Linux or macOS.")
    try:
        compile(tests, "tests", "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as error:
        raise SettingsError(f"The tests are no Python that can be run ({error}); correct the example.") from error
    request = {
        "programs": list(programs),
        "tests": tests,
        "entry_point": entry_point,
        "cpu_seconds": seconds,
        "memory_bytes": memory,
    }
    with tempfile.TemporaryDirectory(prefix="mop-sandbox-", ignore_cleanup_errors=True) as folder:
        path = Path(folder) / "request.json"
        path.write_text(json.dumps(request), encoding="utf-8")
        token = secrets.token_hex(16).encode()
        said = _run(path, token, seconds)
    text, _, lock = said.rpartition(b" ")
    # A program that writes to the result itself doesn't know the token.
    passed = text == b"passed " + token
    reason = "" if passed else text.decode(errors="replace") or "failed: killed, or out of time or memory"
    return Outcome(passed, reason, lock == b"locked")


def _run(request: Path, token: bytes, seconds: int) -> bytes:
    """Return what the process writes to its result, empty if it is killed or takes too long."""
    result_read, result_write = os.pipe()
    token_read, token_write = os.pipe()
    try:
        os.write(token_write, token)
        process = subprocess.Popen(
            [
                *(sys.executable, "-s", "-S", "-P", "-B", str(Path(__file__).with_name("child.py"))),
                *(str(request), str(result_write), str(token_read)),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(result_write, token_read),
            cwd=request.parent,
            env={"PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8"},
            start_new_session=True,
        )
    finally:
        for end in (result_write, token_read, token_write):
            os.close(end)
    try:
        # A second for the interpreter to start, beside the program's own.
        return _read(result_read, time.monotonic() + seconds + 1)
    finally:
        os.close(result_read)
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            process.kill()  # it has ended already, or is a zombie (macOS says so)
        process.wait()


def _read(end: int, deadline: float) -> bytes:
    found = b""
    while len(found) < _MOST_RESULT and (left := deadline - time.monotonic()) > 0:
        ready, _, _ = select.select([end], [], [], left)
        part = os.read(end, _MOST_RESULT) if ready else b""
        if not part:
            break
        found += part
    return found
