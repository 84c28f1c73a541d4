"""The sandbox from outside: what programs try in it, and what becomes of it. Real processes, the real kernel."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest

import mop.sandbox
from mop.errors import SettingsError
from mop.sandbox import run_tests

CHECK = "def check(function):\n    assert function(1) == 2\n    assert function(2) == 3\n"
RIGHT = "def f(x):\n    return x + 1\n"
ROOT = Path(__file__).parent.parent


def outcome(program: str, seconds: int = 2) -> mop.sandbox.Outcome:
    return run_tests([program], CHECK, "f", seconds=seconds)


def inside(action: str) -> str:
    """Return the program that does ``action`` in the function under test and then answers right."""
    return f"import os, sys\ndef f(x):\n    {action}\n    return x + 1\n"


def test_right_code_passes_and_wrong_code_does_not() -> None:
    assert outcome(RIGHT).passed
    assert outcome(RIGHT).locked == (sys.platform == "linux")
    wrong = outcome("def f(x):\n    return x\n")
    assert not wrong.passed
    assert "AssertionError" in wrong.reason


def test_the_first_reading_that_is_python_counts() -> None:
    assert run_tests(["def f(x:", "", RIGHT], CHECK, "f").reason.startswith("failed: KeyError")
    assert run_tests(["def f(x:", RIGHT, "raise SystemExit"], CHECK, "f").passed
    assert "SyntaxError" in run_tests(["def f(x:"], CHECK, "f").reason


def test_tests_may_call_the_code_themselves() -> None:
    assert run_tests([RIGHT], "assert f(1) == 2").passed
    assert not run_tests([RIGHT], "assert f(1) == 3").passed


@pytest.mark.parametrize(
    "program",
    [
        "import sys\nsys.exit(0)",
        "raise SystemExit",
        inside("sys.exit(0)"),
        inside("os._exit(0)"),
        "import os\nos._exit(0)",
        "import builtins\nbuiltins.AssertionError = type('Quiet', (Exception,), {})\ndef f(x):\n    return 0",
        "import builtins\nbuiltins.exec = builtins.compile = print\ndef f(x):\n    return 0",
        "def f(x):\n    return 0\ndef check(function):\n    pass",
        "print('passed')\ndef f(x):\n    return 0",
        "import os\ndef f(x):\n    [os.write(fd, b'passed ') for fd in range(1, 9)]",
        "def f(x):\n    return f(x)",
    ],
)
def test_nothing_but_right_answers_passes(program: str) -> None:
    assert not outcome(program).passed


def test_a_program_without_end_is_stopped_by_the_clock() -> None:
    for program in (inside("while True: pass"), inside("import time; time.sleep(60)")):
        started = time.monotonic()
        assert not outcome(program, seconds=1).passed
        assert time.monotonic() - started < 8


def test_memory_is_bounded() -> None:
    result = run_tests([inside("a = [bytearray(10**8) for _ in range(100)]")], CHECK, "f", memory=300 * 2**20)
    assert not result.passed
    assert "MemoryError" in result.reason


def test_a_gigabyte_of_output_is_held_nowhere() -> None:
    assert outcome(inside("os.write(1, b'x' * 10**6)")).passed
    # However it ends, what it prints goes nowhere.
    assert outcome(inside("[os.write(fd, b'x' * 10**6) for fd in (1, 2) for _ in range(500)]"), 5).passed
    flood = outcome(
        "import os\ndef f(x):\n    while True:\n        [os.write(fd, b'x' * 9999) for fd in range(3, 6)]\n"
    )
    assert not flood.passed
    assert len(flood.reason) <= 1024


@pytest.mark.parametrize(
    "action",
    [
        "os.fork()",
        "while True: os.fork()",
        "import subprocess; subprocess.run(['true'])",
        "os.system('true')",
        "os.kill(os.getppid(), 9)",
        "import socket; socket.create_connection(('127.0.0.1', 9))",
        "import threading; threading.Thread(target=print).start()",
        "open(os.path.expanduser('~/written'), 'w')",
        "open('here', 'w')",
        "os.mkdir('here')",
        "os.chmod('.', 0o777)",
        "import ctypes; ctypes.CDLL(None).getppid()",
        "import resource; resource.setrlimit(resource.RLIMIT_CPU, (99, 99))",
    ],
)
def test_what_reaches_beyond_the_process_is_an_error_in_it(action: str, tmp_path: Path) -> None:
    result = outcome(inside(action))
    assert not result.passed
    assert "Error" in result.reason


def test_no_secret_of_the_environment_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    assert outcome(inside("assert 'OPENAI_API_KEY' not in os.environ")).passed


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such folder")
@pytest.mark.parametrize("folder", ["/proc", "/dev/fd/../.."])
@pytest.mark.parametrize("what", ["environ", "mem", "maps", "cmdline"])
def test_nothing_of_other_processes_can_be_read(folder: str, what: str) -> None:
    found = outcome(inside(f"open('{folder}/%d/{what}' % os.getppid(), 'rb').read(8)"))
    assert found.reason.startswith("failed: PermissionError")


def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    for program in (RIGHT, inside("while True: pass")):
        outcome(program, seconds=1)
    assert list(tmp_path.iterdir()) == []
    if before:
        # Fewer is fine: what earlier tests left may be collected meanwhile.
        assert len(os.listdir("/proc/self/fd")) <= before


def test_tests_that_are_no_python_are_an_error_and_no_wrong_answer() -> None:
    with pytest.raises(SettingsError, match="no Python"):
        run_tests([RIGHT], "def check(")


# --- the kernel alone, without Python's own hooks


def child() -> ModuleType:
    spec = importlib.util.spec_from_file_location("child", Path(mop.sandbox.__file__).with_name("child.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


ATTEMPTS = """
import importlib.util, os, signal, socket, sys
spec = importlib.util.spec_from_file_location("child", sys.argv[1])
child = importlib.util.module_from_spec(spec)
spec.loader.exec_module(child)
victim, kept = os.getppid(), sys.argv[2]
held = child.lock_processes()
assert held == (child.ctypes.CDLL(None).syscall(444, None, 0, 1) > 0), "the kernel has Landlock"
assert child.lock_kernel()
child.drop_capabilities()
allowed = []
for name, attempt in {
    "fork": os.fork,
    "socket": socket.socket,
    "kill": lambda: os.kill(victim, 0),
    "exec": lambda: os.execv("/bin/true", ["true"]),
    "write": lambda: open(kept, "a"),
    "create": lambda: open(kept + "2", "w"),
    "remove": lambda: os.remove(kept),
    "rename": lambda: os.rename(kept, kept + "2"),
    "chmod": lambda: os.chmod(kept, 0),
    "truncate": lambda: os.truncate(kept, 0),
    "own": lambda: __import__("fcntl").fcntl(0, 8, victim),
    "environment": lambda: open(f"/proc/{victim}/environ").read() if held else os.fork(),
    "memory": lambda: open(f"/proc/{victim}/mem", "rb") if held else os.fork(),
}.items():
    try:
        attempt()
        allowed.append(name)
    except PermissionError:
        pass
with open(kept) as file:
    print(allowed, file.read())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the filter of system calls is Linux's")
@pytest.mark.parametrize("user", ["root", "ordinary"])
def test_the_kernel_refuses_by_itself_for_root_and_for_an_ordinary_user(user: str, tmp_path: Path) -> None:
    python = sys.executable
    identity: dict[str, int] = {}
    if user == "ordinary" and os.getuid() == 0:
        # Root's own interpreter may lie where nobody else can read.
        python = "/usr/bin/python3"
        if not Path(python).exists():
            pytest.skip("no interpreter that an ordinary user can run")
        identity = {"user": 65534, "group": 65534}
    kept = tmp_path / "kept"
    kept.write_text("whole", encoding="utf-8")
    script = tmp_path / "child.py"
    script.write_text(Path(mop.sandbox.__file__).with_name("child.py").read_text(encoding="utf-8"), encoding="utf-8")
    for path in (*tmp_path.parents[:3], tmp_path):
        path.chmod(0o755)
    kept.chmod(0o666)
    said = subprocess.run(
        [python, "-S", "-c", ATTEMPTS, str(script), str(kept)], capture_output=True, text=True, check=False, **identity
    )
    assert said.stdout == "[] whole\n", said.stderr


def test_without_the_kernels_filter_python_refuses_itself(tmp_path: Path) -> None:
    script = tmp_path / "child.py"
    text = Path(mop.sandbox.__file__).with_name("child.py").read_text(encoding="utf-8")
    script.write_text(text.replace('sys.platform != "linux" or', "True or"), encoding="utf-8")
    request = tmp_path / "request.json"
    for action, expected in (("pass", b"passed token open"), ("os.fork()", b"failed: PermissionError")):
        request.write_text(
            f'{{"programs": [{inside(action)!r}], "tests": {CHECK!r}, "entry_point": "f", '.replace("'", '"')
            + f'"cpu_seconds": 2, "memory_bytes": {2**29}}}',
            encoding="utf-8",
        )
        result, write = os.pipe()
        token, give = os.pipe()
        os.write(give, b"token")
        command = [sys.executable, "-s", "-S", "-P", str(script), str(request), str(write), str(token)]
        subprocess.run(command, pass_fds=(write, token), check=True)
        for end in (write, token, give):
            os.close(end)
        assert os.read(result, 999).startswith(expected)
        os.close(result)


def test_the_filter_allows_nothing_by_name_that_makes_processes_sockets_or_files() -> None:
    module = child()
    for machine, calls in module.SYSCALLS.items():
        assert not set(calls) & {"clone", "clone3", "fork", "execve", "socket", "kill", "tgkill", "openat", "unlinkat"}
        assert len(set(calls.values())) == len(calls)
        assert len(module.filter_of(machine)) % 8 == 0
