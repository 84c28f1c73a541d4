"""Remote: the bytes of a file that a URL names, and whether they have changed. Knows nothing of mixtures.

``https`` and ``http`` are asked directly; redirects are followed to any host, but from ``https`` only to ``https``, and
never to a file of this machine. Other schemes (``s3``, ``gs``, ``abfs``, ``memory``, …) are fsspec's, whose file
systems take their credentials from where they always do. Size and time are bounded. What a URL holds beside its place
(a user, a password, a query with a signature) is in no error: errors name it as `Remote.shown` does.

>>> Remote("https://me:secret@example.com/mixtures/bank.mop?signature=abc").shown
'https://example.com/mixtures/bank.mop'
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

from mop.errors import ArtifactError, SettingsError

#: Most bytes of a file: what `mop.artifact` unpacks at most.
MOST_BYTES = 1024 * 1024 * 1024
#: Seconds for one fetch, all in all.
SECONDS = 120.0
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_REDIRECTS = 5
_CHUNK = 1 << 20
#: What file systems call the state of a file; those that there are make its stamp.
_STATE = (
    *("ETag", "etag", "md5Hash", "content_md5", "checksum", "generation", "version_id", "VersionId"),
    *("mtime", "LastModified", "last_modified", "updated", "modified", "created", "size"),
)

T = TypeVar("T")


def is_url(text: object) -> bool:
    """Return whether a text is a URL, such as ``s3://bucket/bank.mop``."""
    return isinstance(text, str) and _URL.match(text) is not None


def place_of(url: str) -> Path | Remote:
    """Return the path that a ``file://`` URL names, and a `Remote` for every other URL."""
    parts = urlsplit(url)
    return Path(url2pathname(parts.path)) if parts.scheme == "file" else Remote(url)


class Remote:
    """One file at a URL.

    Args:
        url: Where it is.
        most: Bytes that it may have.
        seconds: Time for one fetch.

    Raises:
        SettingsError: It isn't a URL with a path.
    """

    def __init__(self, url: str, *, most: int = MOST_BYTES, seconds: float = SECONDS) -> None:
        self._url, self._most, self._seconds = url, most, seconds
        try:
            parts = urlsplit(url)
        except ValueError:
            raise SettingsError("A URL cannot be understood; give one such as https://host/bank.mop.") from None
        self.shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
        self.stem = PurePosixPath(unquote(parts.path)).stem or parts.netloc.rpartition("@")[2]
        if not is_url(url) or not self.stem:
            raise SettingsError(f"{self.shown} names no file; give a URL such as https://host/bank.mop.")
        self._web = parts.scheme in ("http", "https")
        self._stamp = ""
        self._busy: threading.Thread | None = None

    def __str__(self) -> str:
        return self.shown

    def __repr__(self) -> str:
        return f"Remote({self.shown!r})"

    def read(self) -> bytes:
        """Return the file's content. Raises ArtifactError."""
        self._stamp = ""
        content = self.news()
        if content is None:
            raise self._error("the server answers that it is unchanged, though nothing was known of it")
        return content

    def news(self) -> bytes | None:
        """Return the content if it isn't what was fetched before, else None. Raises ArtifactError."""
        found = self._within(self._from_web if self._web else self._from_filesystem)
        if found is None or found[1] == self._stamp:
            return None
        self._stamp = found[1]
        return found[0]

    def _from_web(self) -> tuple[bytes, str] | None:
        import httpx2

        kind, _, known = self._stamp.partition(" ")
        headers = {"accept-encoding": "identity", "user-agent": "mop"}
        if kind in ("if-none-match", "if-modified-since"):
            headers[kind] = known
        encrypted = self._url.lower().startswith("https:")

        def check(request: httpx2.Request) -> None:
            # Before each step is asked: whoever answers one without encryption could lead back to encrypted ones.
            if encrypted and request.url.scheme != "https":
                raise self._error("it redirects to an address without encryption")

        try:
            with (
                httpx2.Client(
                    follow_redirects=True,
                    max_redirects=_REDIRECTS,
                    timeout=self._seconds,
                    event_hooks={"request": [check]},
                ) as client,
                client.stream("GET", self._url, headers=headers) as response,
            ):
                if response.status_code == 304 and known:
                    return None
                if response.status_code != 200:
                    raise self._error(f"the server answers with status {response.status_code}")
                self._check_size(response.headers.get("content-length"))
                content = self._bounded(response.iter_bytes(_CHUNK))
                return content, _stamp_of_response(response.headers, content)
        except httpx2.InvalidURL:
            raise self._error("its address cannot be used") from None
        except httpx2.HTTPError as error:
            raise self._error(f"the connection failed ({type(error).__name__})") from None

    def _from_filesystem(self) -> tuple[bytes, str] | None:
        try:
            from fsspec.core import url_to_fs
        except ImportError:
            raise SettingsError('Mixtures at URLs need fsspec: run `pip install "mop[serve]"`.') from None
        try:
            system, path = url_to_fs(self._url)
            system.invalidate_cache()
            state = system.info(path)
            stamp = repr([(name, str(state[name])) for name in _STATE if state.get(name) is not None])
            if stamp == self._stamp:
                return None
            self._check_size(state.get("size"))
            with system.open(path, "rb") as file:
                content = self._bounded(iter(lambda: file.read(_CHUNK), b""))
        except ArtifactError:
            raise
        except ImportError as error:  # it names the package, and nothing of the URL
            raise SettingsError(f"{self.shown} needs another package: {str(error)[:200]}.") from None
        except FileNotFoundError:
            raise self._error("there is no such file") from None
        except PermissionError:
            raise self._error("the credentials at hand may not read it") from None
        except Exception as error:  # noqa: BLE001  # each file system has its own errors, whose words may hold secrets
            raise self._error(f"its file system failed ({type(error).__name__})") from None
        # Without a state that tells, the content must.
        tells = any(state.get(name) is not None for name in _STATE[:-1])
        return content, stamp if tells else hashlib.sha256(content).hexdigest()

    def _check_size(self, told: Any) -> None:
        if str(told or "").isdigit() and int(told) > self._most:
            raise self._error(f"it has {told} bytes, more than the {self._most} that are fetched at most")

    def _bounded(self, chunks: Any) -> bytes:
        content = bytearray()
        for chunk in chunks:
            content += chunk
            self._check_size(len(content))
        return bytes(content)

    def _within(self, work: Callable[[], T]) -> T:
        """Do the work in a thread that nobody waits for longer than the time allows."""
        if self._busy is not None and self._busy.is_alive():
            raise self._error("the fetch before this one hasn't ended yet")
        outcome: list[T] = []
        failure: list[BaseException] = []

        def run() -> None:
            try:
                outcome.append(work())
            except BaseException as error:  # noqa: BLE001  # raised below
                failure.append(error)

        self._busy = threading.Thread(target=run, daemon=True, name="mop-fetch")
        self._busy.start()
        self._busy.join(self._seconds)
        if failure:
            raise failure[0]
        if not outcome:
            raise self._error(f"it did not arrive within {self._seconds:g} s")
        return outcome[0]

    def _error(self, why: str) -> ArtifactError:
        return ArtifactError(f"The mixture {self.shown} cannot be fetched: {why}.")


def _stamp_of_response(headers: Mapping[str, str], content: bytes) -> str:
    if "etag" in headers:
        return f"if-none-match {headers['etag']}"
    if "last-modified" in headers:
        return f"if-modified-since {headers['last-modified']}"
    return f"sha256 {hashlib.sha256(content).hexdigest()}"
