"""The embedded model: llama.cpp's own server on 127.0.0.1, spoken to like any other OpenAI endpoint.

The server (of the ``xllamacpp`` wheels) runs in a child process that ends with this one, whatever way this
one ends; its native log goes to a file. Knows nothing of prompts, clients or the ledger: it gives a
``base_url``.

    >>> with LocalServer.start("local/smollm2-135m-instruct") as server:    # doctest: +SKIP
    ...     client = openai.OpenAI(base_url=server.base_url, api_key="none")
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import subprocess
import sys
import threading
import time
import urllib.request
import weakref
from pathlib import Path
from types import TracebackType

from mop.errors import ModelError, SettingsError
from mop.lm.memory import available_mib
from mop.lm.weights import cache_dir, catalogue, model_path

_PROGRAM = Path(__file__).with_name("llama_server.py")
_MAGIC = b"GGUF"
_START_SECONDS = 600.0
_LOGS_KEPT = 10
#: Share of the memory left beside the weights that the prompt cache may take.
_CACHE_SHARE = 0.5


class LocalServer:
    """A running server; make one with ``start`` or ``shared_server``.

    It is closed by ``close``, at the end of a ``with`` block, when nothing refers to it any more, and when
    the process ends.

    Attributes:
        model_id: the catalogue's id, or the stem of the file; the ``model`` of requests and responses.
        base_url: the OpenAI endpoint, ``http://127.0.0.1:PORT/v1``. It wants no key.
        context: tokens that one request may use, prompt and answer together.
        slots: requests that are worked on at the same time.
        native_log: the file that llama.cpp logs to.
    """

    def __init__(
        self, process: subprocess.Popen[bytes], address: str, model_id: str, slots: int, native_log: Path
    ) -> None:
        self._process = process
        self._stop = weakref.finalize(self, _end, process, os.getpid())  # runs at exit, too
        self.model_id = model_id
        self.base_url = f"{address}/v1"
        self.slots = slots
        self.native_log = native_log
        self.context = self._served_context(address)

    @classmethod
    def start(
        cls,
        model: str | Path,
        *,
        slots: int = 1,
        context: int = 8192,
        cache_mib: int = 8192,
        threads: int | None = None,
        log_path: Path | None = None,
    ) -> LocalServer:
        """Start a server and wait until it answers.

        Args:
            model: an id of the catalogue, or the path of a GGUF file.
            slots: requests worked on at the same time. One is best for cached prefixes.
            context: tokens per slot; the model's own limit wins if it is lower.
            cache_mib: MiB of memory for the prompts' cached prefixes, at most half of what is free beside
                the weights. Zero switches the cache off.
            threads: default is the number of physical cores that this process may use.
            log_path: where the native log goes; default is a new file in the cache's ``logs`` folder.

        Raises:
            SettingsError: a value is out of range, or the extra ``local`` isn't installed.
            WeightsError: the model isn't here.
            ModelError: llama.cpp cannot load the file; the message has its reason and the log's path.
        """
        if importlib.util.find_spec("xllamacpp") is None:
            raise SettingsError('Local models need llama.cpp, which is not installed: run `pip install "mop[local]"`.')
        for name, value, least in (
            ("slots", slots, 1),
            ("context", context, 16),
            ("cache_mib", cache_mib, 0),
        ):
            if value < least:
                raise SettingsError(f"{name} is {value}; it must be at least {least}.")
        if threads is not None and threads < 1:
            raise SettingsError(f"threads is {threads}; it must be at least 1.")
        path = model_path(model).absolute()
        _require_gguf(path)
        model_id = str(model) if str(model) in catalogue() else path.stem
        if model_id in catalogue():
            context = min(context, catalogue()[model_id].context)  # more would only take memory
        log = log_path or _new_log(model_id)
        settings = {
            "model": str(path),
            "alias": model_id,
            "slots": slots,
            "context": context,
            "cache_mib": _affordable(cache_mib, path.stat().st_size),
            "threads": threads or _physical_cores(),
            "log": str(log),
        }
        process = _spawn(settings, log)
        try:
            address = _await_address(process, path, log)
            return cls(process, address, model_id, slots, log)
        except BaseException:
            _end(process, os.getpid())
            raise

    @property
    def alive(self) -> bool:
        """Whether the server's process still runs."""
        return self._process.poll() is None

    def close(self) -> None:
        """Stop the server and free its memory. Closing twice is fine."""
        self._stop()

    def __enter__(self) -> LocalServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = self.base_url if self.alive else "closed"
        return f"LocalServer({self.model_id!r}, {state}, slots={self.slots}, context={self.context})"

    def _served_context(self, address: str) -> int:
        # No proxy: an HTTP_PROXY of the environment must not be asked for the loopback.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(f"{address}/props", timeout=60) as response:
                return int(json.load(response)["default_generation_settings"]["n_ctx"])
        except (OSError, ValueError, KeyError) as error:
            raise ModelError(
                f"llama.cpp started but did not describe itself ({error}); see {self.native_log}."
            ) from error


_shared: dict[tuple[Path, int, int], LocalServer] = {}
_shared_lock = threading.Lock()


def shared_server(
    model: str | Path,
    *,
    slots: int = 1,
    context: int = 8192,
    cache_mib: int = 8192,
    threads: int | None = None,
) -> LocalServer:
    """Return this process's server for (model, slots, context); start it if there is none that lives.

    ``cache_mib`` and ``threads`` matter only to the call that starts it. It is closed when the process ends.
    Arguments and errors are those of ``LocalServer.start``.
    """
    key = (model_path(model).resolve(), slots, context)
    with _shared_lock:
        server = _shared.get(key)
        if server is None or not server.alive:
            server = LocalServer.start(model, slots=slots, context=context, cache_mib=cache_mib, threads=threads)
            _shared[key] = server
        return server


def _require_gguf(path: Path) -> None:
    """Refuse what is plainly no model file before native code sees it."""
    if path.is_dir():
        raise ModelError(f"{path} is a folder; give the path of a .gguf file.")
    with open(path, "rb") as file:
        magic = file.read(len(_MAGIC))
    if magic != _MAGIC:
        raise ModelError(
            f"{path} is not a GGUF file: it starts with {magic!r}, expected {_MAGIC!r}. Give a .gguf file or "
            "an id that `mop models` lists."
        )


def _spawn(settings: dict[str, object], log: Path) -> subprocess.Popen[bytes]:
    # A session of its own, so that Ctrl-C reaches this process only, which then decides.
    apart: dict[str, int] = (
        {"creationflags": getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)}
        if os.name == "nt"
        else {"start_new_session": True}
    )
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        with open(log, "ab") as output:
            return subprocess.Popen(  # type: ignore[call-overload, no-any-return]
                # -P: neither the program's folder nor the working directory shadows installed packages.
                [sys.executable, "-P", str(_PROGRAM), json.dumps(settings)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                **apart,
            )
    except OSError as error:
        raise ModelError(f"llama.cpp's server could not be started with its log in {log}: {error}.") from error


def _await_address(process: subprocess.Popen[bytes], path: Path, log: Path) -> str:
    assert process.stdout is not None  # it was asked for in _spawn
    watchdog = threading.Timer(_START_SECONDS, process.kill)
    watchdog.daemon = True
    watchdog.start()
    try:
        line = process.stdout.readline()
    finally:
        watchdog.cancel()
        process.stdout.close()
    answer: dict[str, str] = json.loads(line) if line else {}
    if "address" in answer:
        return answer["address"]
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=5)  # until then the log may lack its last lines
    reason = answer.get("error") or f"the process ended with status {process.poll()}"
    raise ModelError(
        f"llama.cpp could not load {path}: {_last_error(log) or reason}. The file may be truncated, "
        f"damaged or too large for the memory; `mop models pull` fetches a good one. The log is {log}."
    )


def _last_error(log: Path) -> str:
    """Return the first line that llama.cpp marked as an error: the cause; later ones are consequences."""
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
        stamp, _, rest = line.partition(" E ")
        if rest and stamp.replace(".", "").isdigit():
            return " ".join(rest.split())
    return ""


def _end(process: subprocess.Popen[bytes], owner: int) -> None:
    if os.getpid() != owner:
        return  # a fork of the process that started it
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
    try:
        process.wait(timeout=3)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _affordable(cache_mib: int, model_bytes: int) -> int:
    free = available_mib()
    if free is None:
        return cache_mib
    return min(cache_mib, max(0, int((free - (model_bytes >> 20)) * _CACHE_SHARE)))


def _physical_cores() -> int:
    import joblib

    return int(joblib.cpu_count(only_physical_cores=True))


def _new_log(model_id: str) -> Path:
    """Return a fresh log's path, and keep only the newest few of the old ones."""
    folder = cache_dir() / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    # Other processes tidy up, too: a log may be gone between the look and the touch.
    aged = []
    for log in folder.glob("*.log"):
        with contextlib.suppress(FileNotFoundError):
            aged.append((log.stat().st_mtime, log))
    for _, log in sorted(aged)[: max(0, len(aged) - _LOGS_KEPT + 1)]:
        for stale in (log, log.with_name(log.name + ".1")):
            with contextlib.suppress(OSError):
                stale.unlink(missing_ok=True)
    name = model_id.rpartition("/")[2]
    return folder / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}-{time.monotonic_ns() % 10**6}.log"
