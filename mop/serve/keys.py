"""Keys: which callers may ask. The file holds names and SHA-256 hashes; a key itself is shown once, when it is made.

A line of the file is ``NAME sha256:HEX``; empty lines and those that begin with # don't count. Keys are 256 random
bits, so a plain hash is as good as a slow one: there is nothing to guess.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path

from mop.errors import SettingsError

PREFIX = "mop-"
_LINE = re.compile(r"(?P<name>\S+)\s+sha256:(?P<hash>[0-9a-fA-F]{64})")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")


class KeyRing:
    """The callers that are let in; without any, nobody is.

    Args:
        hashes: SHA-256 of each caller's key, by the caller's name.
    """

    def __init__(self, hashes: Mapping[str, bytes]) -> None:
        self._hashes = dict(hashes)

    def __len__(self) -> int:
        return len(self._hashes)

    def caller(self, key: str) -> str | None:
        """Return the name of the caller whose key this is; takes as long whichever it is, or if it is none."""
        given = hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
        found = None
        for name, expected in self._hashes.items():
            if hmac.compare_digest(given, expected):
                found = name
        return found


def read_keys(path: str | os.PathLike[str]) -> KeyRing:
    """Read a file of keys. Raises SettingsError that names the line; it never quotes one, which may hold a key."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise SettingsError(f"The keys cannot be read: {error}. Make one with `mop serve-key`.") from error
    hashes: dict[str, bytes] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _LINE.fullmatch(line.strip())
        if match is None:
            raise SettingsError(f"{path}, line {number}: expected NAME sha256:HEX, as `mop serve-key` writes it.")
        if match["name"] in hashes:
            raise SettingsError(f"{path}, line {number}: there is a key called {match['name']} already.")
        hashes[match["name"]] = bytes.fromhex(match["hash"])
    return KeyRing(hashes)


def add_key(path: str | os.PathLike[str], name: str) -> str:
    """Make a key for ``name``, add its hash to the file (made if need be, for its owner only), and return the key.

    Raises SettingsError for a name that is there or cannot be one, or a file that cannot be written.
    """
    target = Path(path)
    if not _NAME.fullmatch(name):
        raise SettingsError(f"{name!r} cannot be a caller's name; use letters, digits and . _ @ - (at most 64).")
    if target.exists() and name in read_keys(target)._hashes:
        raise SettingsError(f"{target} has a key called {name} already; remove its line first, or use another name.")
    key = PREFIX + secrets.token_urlsafe(32)
    line = f"{name} sha256:{hashlib.sha256(key.encode()).hexdigest()}\n"
    try:
        descriptor = os.open(target, os.O_RDWR | os.O_CREAT, 0o600)
        with os.fdopen(descriptor, "r+b") as file:
            old = file.read()
            # A file that somebody edited may lack its last line feed.
            file.write((b"\n" if old and not old.endswith(b"\n") else b"") + line.encode())
    except OSError as error:
        raise SettingsError(f"The key cannot be written to {target}: {error}.") from error
    return key
