"""The inside of the sandbox: locks its own process up for good, then runs a program and its tests.

Run as a script by `mop.sandbox` in a fresh interpreter; imports the standard library only. Usage:
``child.py REQUEST RESULT_FD TOKEN_FD``: the request is a JSON file; the token, which stands for "passed", is read only
when the tests have ended and written to the result.
"""

import ctypes
import errno
import importlib
import json
import os
import platform
import resource
import struct
import sys
from collections.abc import Callable, Sequence
from typing import Any

#: System calls that stay allowed, with their numbers; everything else fails with EPERM. None of them makes a process
#: or a socket, sends a signal, or changes a file; those that could with other arguments are in `CHECKED`.
SYSCALLS = {
    "x86_64": {
        "read": 0, "write": 1, "close": 3, "stat": 4, "fstat": 5, "lstat": 6, "poll": 7, "lseek": 8, "mmap": 9,
        "mprotect": 10, "munmap": 11, "brk": 12, "rt_sigaction": 13, "rt_sigprocmask": 14, "rt_sigreturn": 15,
        "pread64": 17, "readv": 19, "writev": 20, "access": 21, "select": 23, "sched_yield": 24, "mremap": 25,
        "madvise": 28, "dup": 32, "dup2": 33, "nanosleep": 35, "getitimer": 36, "alarm": 37, "setitimer": 38,
        "getpid": 39, "exit": 60, "uname": 63, "getcwd": 79, "readlink": 89, "gettimeofday": 96, "getrlimit": 97,
        "getrusage": 98, "sysinfo": 99, "times": 100, "getuid": 102, "getgid": 104, "geteuid": 107, "getegid": 108,
        "getppid": 110, "capset": 126, "sigaltstack": 131, "arch_prctl": 158, "gettid": 186, "time": 201, "futex": 202,
        "sched_getaffinity": 204, "getdents64": 217, "set_tid_address": 218, "restart_syscall": 219,
        "clock_gettime": 228, "clock_getres": 229, "clock_nanosleep": 230, "exit_group": 231, "newfstatat": 262,
        "readlinkat": 267, "faccessat": 269, "pselect6": 270, "ppoll": 271, "set_robust_list": 273, "dup3": 292,
        "getrandom": 318, "membarrier": 324, "statx": 332, "rseq": 334, "faccessat2": 439,
    },
    "aarch64": {
        "getcwd": 17, "dup": 23, "dup3": 24, "faccessat": 48, "close": 57, "getdents64": 61, "lseek": 62, "read": 63,
        "write": 64, "readv": 65, "writev": 66, "pread64": 67, "pselect6": 72, "ppoll": 73, "readlinkat": 78,
        "newfstatat": 79, "fstat": 80, "capset": 91, "exit": 93, "exit_group": 94, "set_tid_address": 96, "futex": 98,
        "set_robust_list": 99, "nanosleep": 101, "getitimer": 102, "setitimer": 103, "clock_gettime": 113,
        "clock_getres": 114, "clock_nanosleep": 115, "sched_getaffinity": 123, "sched_yield": 124,
        "restart_syscall": 128, "sigaltstack": 132, "rt_sigaction": 134, "rt_sigprocmask": 135, "rt_sigreturn": 139,
        "times": 153, "uname": 160, "getrlimit": 163, "getrusage": 165, "gettimeofday": 169, "getpid": 172,
        "getppid": 173, "getuid": 174, "geteuid": 175, "getgid": 176, "getegid": 177, "gettid": 178, "sysinfo": 179,
        "brk": 214, "munmap": 215, "mremap": 216, "mmap": 222, "mprotect": 226, "madvise": 233, "getrandom": 278,
        "membarrier": 283, "statx": 291, "rseq": 293, "faccessat2": 439,
    },
}  # fmt: skip
#: Flags with which open changes something; 0o20000000 is the part of O_TMPFILE that is its own.
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND | 0o20000000
#: System calls that are allowed for some values of one argument (its place, and a test of it): no flag of ``_WRITING``,
#: or one of these values (terminal? close on exec; duplicate, flags).
CHECKED: dict[str, list[tuple[int, int, tuple[int, ...]]]] = {
    "x86_64": [(2, 1, ()), (257, 2, ()), (16, 1, (0x5401, 0x5450, 0x5451)), (72, 1, (0, 1, 2, 3, 1030))],
    "aarch64": [(56, 2, ()), (29, 1, (0x5401, 0x5450, 0x5451)), (25, 1, (0, 1, 2, 3, 1030))],
}
_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
#: Landlock: system calls, the same on both machines, and all rights over files that change something.
_CREATE_RULESET, _RESTRICT_SELF = 444, 446
_CHANGING = 0x1FF2
#: Version of the structure that `capset` takes.
_CAPABILITIES_VERSION = 0x20080522
_PR_SET_PDEATHSIG, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 22, 38
#: What Python itself reports before it does something that the sandbox forbids: a second lock, and the only one of the
#: kind where the kernel has none.
FORBIDDEN = (
    "socket.", "subprocess.", "os.fork", "os.exec", "os.posix_spawn", "os.spawn", "os.system", "os.startfile",
    "os.kill", "os.remove", "os.unlink", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate",
    "os.chmod", "os.chown", "os.utime", "os.setxattr", "os.removexattr", "shutil.", "tempfile.", "ctypes.", "pty.",
    "signal.pthread_kill", "resource.setrlimit", "resource.prlimit", "syslog.", "webbrowser.", "urllib.", "ftplib.",
    "http.", "smtplib.", "_posixsubprocess.", "os.putenv", "_thread.start_new_thread", "mmap.",
)  # fmt: skip


#: Modules that programs of the benchmarks import.
COMMON = (
    "bisect", "collections", "copy", "datetime", "decimal", "fractions", "functools", "hashlib", "heapq", "itertools",
    "math", "operator", "random", "re", "statistics", "string", "sys", "typing",
)  # fmt: skip


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p))


def filter_of(machine: str) -> bytes:
    """Return the kernel's filter of system calls for ``machine``: classic BPF, 8 bytes an instruction."""
    allow, deny, kill = 0x7FFF0000, 0x00050000 | errno.EPERM, 0x80000000

    def load(offset: int) -> bytes:
        return struct.pack("HBBI", 0x20, 0, 0, offset)

    def jump(code: int, value: int, yes: int, no: int) -> bytes:
        return struct.pack("HBBI", code, yes, no, value)

    def end(verdict: int) -> bytes:
        return struct.pack("HBBI", 0x06, 0, 0, verdict)

    equal, some_bit = 0x15, 0x45
    program = load(4) + jump(equal, _ARCHITECTURES[machine], 1, 0) + end(kill) + load(0)
    for number, argument, values in CHECKED[machine]:
        # Arguments are 64 bits each from byte 16 on; what is tested is in the lower half.
        if values:
            tests = b"".join(jump(equal, value, len(values) - place, 0) for place, value in enumerate(values))
        else:
            tests = jump(some_bit, _WRITING, 0, 1)
        body = load(16 + 8 * argument) + tests + end(deny) + end(allow)
        program += jump(equal, number, 0, len(body) // 8) + body
    for number in SYSCALLS[machine].values():
        program += jump(equal, number, 0, 1) + end(allow)
    return program + end(deny)


def lock_kernel() -> bool:
    """Let the kernel refuse all system calls but those above; return whether it does."""
    machine = platform.machine()
    if sys.platform != "linux" or machine not in SYSCALLS or struct.calcsize("P") != 8:
        return False
    call = ctypes.CDLL(None, use_errno=True).prctl
    call.argtypes = [ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_ulong]
    code = ctypes.create_string_buffer(filter_of(machine))
    program = _Program(len(code.raw) // 8, ctypes.addressof(code))
    if call(_PR_SET_NO_NEW_PRIVS, 1, None, 0, 0):
        return False
    return bool(call(_PR_SET_SECCOMP, 2, ctypes.addressof(program), 0, 0) == 0)


def lock_processes() -> bool:
    """Let the kernel refuse a look into other processes, such as their environment, with Landlock; whether it does.

    A process under any Landlock rule may not trace processes that aren't, and ``/proc`` asks the same question, except
    of root's capabilities (`drop_capabilities`). The rule itself, no change of files, is one that the filter has too.
    """
    if sys.platform != "linux" or struct.calcsize("P") != 8:
        return False
    library = ctypes.CDLL(None, use_errno=True)
    call, control = library.syscall, library.prctl
    call.restype = ctypes.c_long
    changes = ctypes.c_uint64(_CHANGING)
    rules = call(ctypes.c_long(_CREATE_RULESET), ctypes.byref(changes), ctypes.c_size_t(8), ctypes.c_uint32(0))
    if rules < 0:
        return False
    try:
        if control(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
            return False
        return bool(call(ctypes.c_long(_RESTRICT_SELF), ctypes.c_int(rules), ctypes.c_uint32(0)) == 0)
    finally:
        os.close(rules)


def drop_capabilities() -> None:
    """Keep root's name but none of its powers, some of which look into any process."""
    version = (ctypes.c_uint32 * 2)(_CAPABILITIES_VERSION, 0)
    if ctypes.CDLL(None, use_errno=True).capset(version, (ctypes.c_uint32 * 6)()):
        raise OSError(ctypes.get_errno(), "capabilities can't be given up")


def lock_python() -> None:
    """Let Python refuse what the kernel would, with an error that says so."""
    forbidden, writing, refuse, resolve = FORBIDDEN, _WRITING, PermissionError, os.path.realpath

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, flags = arguments[0], arguments[2]
            if isinstance(flags, int) and flags & writing:
                raise refuse("the sandbox writes no files")
            if isinstance(path, str | bytes) and f"{os.fsdecode(resolve(path))}/".startswith("/proc/"):
                raise refuse("the sandbox reads nothing of processes")
        elif event.startswith(forbidden):
            raise refuse(f"the sandbox forbids {event}")

    sys.addaudithook(hook)


def limit(request: dict[str, Any]) -> None:
    """Bound time, memory, files and processes of this process for good."""
    bounds = {
        "RLIMIT_CPU": request["cpu_seconds"],
        "RLIMIT_AS": request["memory_bytes"],
        "RLIMIT_FSIZE": 0,
        "RLIMIT_NOFILE": 64,
        "RLIMIT_CORE": 0,
        "RLIMIT_NPROC": 0,
    }
    for name, bound in bounds.items():
        if hasattr(resource, name):
            resource.setrlimit(getattr(resource, name), (bound, bound))


def drop_root() -> None:
    """Become nobody: without the kernel's filter, root could do what limits forbid."""
    if os.getuid() == 0:
        os.setgroups([])
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)


def first_that_compiles(programs: Sequence[str]) -> Any:
    """Return the code of the first program that Python can read; raises SyntaxError if there is none."""
    for program in programs:
        try:
            return compile(program, "answer", "exec", dont_inherit=True)
        except (SyntaxError, ValueError):
            continue
    raise SyntaxError("no reading of the answer is Python")


def main(request_path: str, result: int, token: int) -> None:
    """Lock up, run, and write the result: the token, or ``failed:`` with the reason."""
    with open(request_path, encoding="utf-8") as file:
        request = json.load(file)
    write, read, end, execute = os.write, os.read, os._exit, exec
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, 9, 0, 0, 0)
    tests = compile(request["tests"], "tests", "exec", dont_inherit=True)
    limit(request)
    if os.getuid() == 0:
        # Without root's powers the interpreter's own folder may be closed, so what programs import is there before.
        for name in COMMON:
            importlib.import_module(name)
    lock_processes()
    locked = lock_kernel()
    if locked:
        drop_capabilities()
    else:
        drop_root()
    lock_python()
    said = b"failed: ended without a word"
    try:
        run(first_that_compiles(request["programs"]), tests, request["entry_point"], execute)
        said = b"passed " + read(token, 64)
    except BaseException as error:  # noqa: BLE001 - whatever the program does is its failure, an exit among it
        said = f"failed: {type(error).__name__}: {error!s:.200}".encode(errors="replace")
    finally:
        write(result, said + (b" locked" if locked else b" open"))
        end(0)


def run(program: Any, tests: Any, entry_point: str, execute: Callable[..., None]) -> None:
    """Run a program, then its tests in the same names, and the function ``check`` that they define if there is one."""
    names: dict[str, Any] = {"__name__": "answer"}
    execute(program, names)
    tested = names[entry_point] if entry_point else None
    execute(tests, names)
    if entry_point:
        names["check"](tested)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
