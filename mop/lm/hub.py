"""Model files from a Hugging Face repository: the second source, for the same hashes as the first.

Plain HTTP ranges, so that an interrupted download goes on with the missing ranges. Knows nothing of models;
what arrives is checked by the caller's hashes. Honours ``HF_ENDPOINT``, ``HF_TOKEN`` and ``HF_HUB_OFFLINE``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict

from mop.errors import WeightsError
from mop.lm.assembly import Assembly

if TYPE_CHECKING:
    import httpx2

_RANGE = 64 << 20
_ATTEMPTS = 4


class HubSource(BaseModel):
    """A repository and, for each file of the model, the file's name there."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    type: Literal["huggingface"]
    repo: str
    revision: str = "main"
    files: dict[str, str]


def fetch(source: HubSource, assembly: Assembly, transport: httpx2.BaseTransport | None = None) -> None:
    """Bring every missing range of ``source``'s files into ``assembly``.

    Args:
        source: the repository.
        assembly: where the bytes go.
        transport: what carries the requests; default is the network.

    Raises:
        WeightsError: the hub cannot be reached, or does not have the file.
    """
    import httpx2
    import stamina

    if os.environ.get("HF_HUB_OFFLINE", "").lower() in {"1", "true", "yes", "on"}:
        raise WeightsError(f"{source.repo}: not tried, because HF_HUB_OFFLINE is set; unset it to allow it.")
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    token = os.environ.get("HF_TOKEN")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    timeout = httpx2.Timeout(60, connect=15)
    with httpx2.Client(transport=transport, headers=headers, follow_redirects=True, timeout=timeout) as client:
        for path, remote in source.files.items():
            url = f"{endpoint}/{source.repo}/resolve/{source.revision}/{remote}"
            size = assembly.files[path].size
            for offset in range(0, size, _RANGE):
                length = min(_RANGE, size - offset)
                if assembly.has(path, offset, length):
                    continue
                try:
                    for attempt in stamina.retry_context(on=httpx2.TransportError, attempts=_ATTEMPTS):
                        with attempt:
                            _fetch_range(client, url, assembly, (path, offset, length))
                except httpx2.TransportError as error:
                    raise WeightsError(
                        f"{url}: no connection ({type(error).__name__}: {error}). Check the network, or set "
                        "HF_ENDPOINT to a mirror, and run the same command again."
                    ) from error


def _fetch_range(client: httpx2.Client, url: str, assembly: Assembly, part: tuple[str, int, int]) -> None:
    path, offset, length = part
    ranges = {"Range": f"bytes={offset}-{offset + length - 1}", "Accept-Encoding": "identity"}
    with client.stream("GET", url, headers=ranges) as response:
        whole = offset == 0 and length == assembly.files[path].size
        if response.status_code != 206 and not (response.status_code == 200 and whole):
            raise WeightsError(
                f"{url}: the hub answered {response.status_code} {response.reason_phrase}. Check HF_ENDPOINT "
                "and HF_TOKEN, or give the path of a file that you have."
            )
        assembly.write(path, offset, length, _Body(response.iter_bytes(1 << 20)))


class _Body:
    """A response's blocks, readable in any size."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks = blocks
        self._rest = b""

    def read(self, size: int, /) -> bytes:
        """Return at most ``size`` bytes."""
        self._rest = self._rest or next(self._blocks, b"")
        taken, self._rest = self._rest[:size], self._rest[size:]
        return taken
