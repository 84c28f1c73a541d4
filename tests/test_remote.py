"""Mixtures at URLs: what is fetched, what is refused, and that nothing secret of a URL is ever told."""

from __future__ import annotations

import shutil
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fake_upstream import FakeUpstream
from serving import Running, chat, running, wait_until
from small import WordEncoder, small_mixture

import mop
from mop.artifact import to_bytes
from mop.errors import ArtifactError, SettingsError
from mop.prompts import Prompt
from mop.remote import Remote, is_url
from mop.serve.app import create_app
from mop.serve.loading import Loader, Source
from mop.serve.watching import Watch

WHOLE = to_bytes(small_mixture())
CHANGED = to_bytes(small_mixture(generalist=Prompt("A new one.")))
#: A user, a password and a signature that must never be told.
SECRETS = ("dora", "hunter2", "s1gnature")


class Site:
    """A web server of one file; ``etag``, ``modified``, ``status``, ``pause`` and ``headers`` are what it answers."""

    def __init__(self) -> None:
        self.content, self.etag, self.modified, self.status = WHOLE, "", "", 200
        self.headers: dict[str, str] = {}
        self.pause = 0.0
        self.asked: list[dict[str, str]] = []
        self.sent = 0

        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.asked.append({name.lower(): value for name, value in self.headers.items()})
                known = (self.headers.get("if-none-match"), self.headers.get("if-modified-since"))
                if site.status == 200 and any(known) and set(known) & {site.etag, site.modified} - {""}:
                    self.send_response(304)
                    self.end_headers()
                    return
                self.send_response(site.status)
                for name, value in {"etag": site.etag, "last-modified": site.modified, **site.headers}.items():
                    if value:
                        self.send_header(name, value)
                self.end_headers()
                for start in range(0, len(site.content), 1000):
                    time.sleep(site.pause)
                    self.wfile.write(site.content[start : start + 1000])
                    site.sent += 1000

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients that hang up
        self.url = (
            f"http://{SECRETS[0]}:{SECRETS[1]}@127.0.0.1:{self.server.server_port}/m/bank.mop?signature={SECRETS[2]}"
        )


@pytest.fixture
def site() -> Iterator[Site]:
    one = Site()
    thread = threading.Thread(target=one.server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield one
    one.server.shutdown()
    one.server.server_close()


def told(caught: pytest.ExceptionInfo[BaseException]) -> str:
    """Return everything that an error shows, with those behind it; check that no secret is there."""
    parts, error = [], caught.value
    while error is not None:
        parts.append(f"{error} {error!r}")
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)  # type: ignore[assignment]
    text = " ".join(parts)
    assert not [secret for secret in SECRETS if secret in text]
    return text


def test_a_mixture_is_loaded_from_the_web_a_file_system_and_a_file_url(site: Site, tmp_path: Path) -> None:
    fsspec.filesystem("memory").pipe_file("/mixtures/bank.mop", WHOLE)
    (tmp_path / "a b.mop").write_bytes(WHOLE)
    for url in (site.url, "memory://mixtures/bank.mop", (tmp_path / "a b.mop").as_uri()):
        assert mop.load(url).experts == small_mixture().experts
    assert site.asked[0]["authorization"].startswith("Basic ")


@pytest.mark.parametrize("validator", ["etag", "modified", "none"])
def test_news_are_what_is_not_known_yet_by_whatever_the_server_tells(site: Site, validator: str) -> None:
    values = {"etag": ('"1"', '"2"'), "modified": ("Thu, 01 Jan 2026 00:00:00 GMT", "Fri, 02 Jan 2026 00:00:00 GMT")}
    if validator != "none":
        setattr(site, validator, values[validator][0])
    remote = Remote(site.url)
    assert remote.read() == WHOLE
    assert remote.news() is None
    sent = site.sent
    assert remote.news() is None
    assert (site.sent == sent) is (validator != "none")  # only what cannot be told otherwise is fetched again
    site.content = CHANGED
    if validator != "none":
        setattr(site, validator, values[validator][1])
    assert remote.news() == CHANGED
    assert remote.news() is None


def test_news_of_a_file_system_go_by_its_state() -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/state/bank.mop", WHOLE)
    remote = Remote("memory://state/bank.mop")
    assert remote.read() == WHOLE
    assert remote.news() is None
    memory.pipe_file("/state/bank.mop", CHANGED)
    assert remote.news() == CHANGED


@pytest.mark.parametrize("status", [301, 401, 403, 404, 500])
def test_a_status_other_than_200_is_an_artifact_error(site: Site, status: int) -> None:
    site.status = status
    with pytest.raises(ArtifactError, match=f"status {status}") as caught:
        Remote(site.url).read()
    assert "/m/bank.mop" in told(caught)


def test_a_redirect_leads_to_other_hosts_and_never_to_a_file(site: Site, tmp_path: Path) -> None:
    (tmp_path / "bank.mop").write_bytes(WHOLE)
    site.status, site.headers = 302, {"location": (tmp_path / "bank.mop").as_uri()}
    with pytest.raises(ArtifactError, match="connection failed") as caught:
        Remote(site.url).read()
    told(caught)
    site.headers = {"location": site.url}
    with pytest.raises(ArtifactError, match="connection failed") as caught:
        Remote(site.url).read()
    told(caught)
    assert len(site.asked) < 10


@pytest.mark.skipif(shutil.which("openssl") is None, reason="The certificate is made by openssl.")
def test_no_step_of_a_redirect_leaves_encryption(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From an encrypted address over a plain one, where anybody may answer, and on to an encrypted one."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    made = ["-keyout", str(key), "-out", str(certificate), "-days", "2", "-subj", "/CN=localhost"]
    subprocess.run(
        [
            *["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-addext", "subjectAltName=DNS:localhost"],
            *made,
        ],
        check=True,
        capture_output=True,
    )
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    encrypted = Site()
    encrypted.server.socket = context.wrap_socket(encrypted.server.socket, server_side=True)
    threading.Thread(target=encrypted.server.serve_forever, args=(0.01,), daemon=True).start()
    url = f"https://localhost:{encrypted.server.server_port}/bank.mop"
    assert Remote(url).read() == WHOLE
    encrypted.status, encrypted.headers = 302, {"location": site.url}
    site.status, site.headers = 302, {"location": url}
    with pytest.raises(ArtifactError, match="without encryption") as caught:
        Remote(url).read()
    told(caught)
    assert not site.asked
    encrypted.server.shutdown()
    encrypted.server.server_close()


def test_more_bytes_than_allowed_are_not_fetched_whether_announced_or_not(site: Site) -> None:
    site.content, site.headers = bytes(2_000_000), {"content-length": "2000000"}
    with pytest.raises(ArtifactError, match="more than") as caught:
        Remote(site.url, most=10_000).read()
    told(caught)
    site.headers = {}
    with pytest.raises(ArtifactError, match="more than"):
        Remote(site.url, most=10_000).read()
    fsspec.filesystem("memory").pipe_file("/large.mop", bytes(20_000))
    with pytest.raises(ArtifactError, match="more than"):
        Remote("memory://large.mop", most=10_000).read()


def test_a_fetch_has_a_time_and_only_one_goes_on(site: Site) -> None:
    site.content, site.pause = bytes(100_000), 0.05
    remote = Remote(site.url, seconds=0.3)
    began = time.monotonic()
    with pytest.raises(ArtifactError, match=r"within 0\.3 s") as caught:
        remote.read()
    assert time.monotonic() - began < 20
    told(caught)
    with pytest.raises(ArtifactError, match="hasn't ended yet"):
        remote.read()


@pytest.mark.parametrize(
    ("url", "error", "words"),
    [
        ("http://dora:hunter2@127.0.0.1:1/b.mop?s=s1gnature", ArtifactError, "connection failed"),
        ("http://dora:hunter2@[::1/b.mop?s=s1gnature", SettingsError, "cannot be understood"),
        ("http://dora:hunter2@127.0.0.1:99999999/b.mop?s=s1gnature", ArtifactError, "cannot be"),
        ("memory://none/b.mop", ArtifactError, "no such file"),
        ("s3://dora:hunter2@bucket/b.mop?s=s1gnature", SettingsError, "s3fs"),
        ("nothing://dora:hunter2@host/b.mop?s=s1gnature", ArtifactError, "file system failed"),
        ("https://", SettingsError, "names no file"),
    ],
)
def test_what_cannot_be_fetched_is_a_typed_error_without_secrets(url: str, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        Remote(url).read()
    told(caught)


def test_what_is_fetched_is_as_hostile_as_a_file(site: Site) -> None:
    site.content = b"<html>not here</html>"
    with pytest.raises(ArtifactError, match=r"m/bank\.mop is damaged") as caught:
        mop.load(site.url)
    told(caught)


def test_a_source_may_be_a_url_with_or_without_a_name(tmp_path: Path) -> None:
    url = "https://dora:hunter2@example.com/m/bank%20one.mop?a=b&s=s1gnature"
    source, named = Source.of(url), Source.of(f"desk={url}")
    assert (source.name, named.name) == ("bank one", "desk")
    assert not [secret for secret in SECRETS if secret in f"{source} {named}"]
    (tmp_path / "here.mop").touch()
    assert Source.of((tmp_path / "here.mop").as_uri()) == Source("here", tmp_path / "here.mop")
    assert not is_url("C:\\bank.mop")
    assert not is_url("bank=https://example.com/x.mop")


@contextmanager
def watched(url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    monkeypatch.setattr("mop.serve.loading.resolve_recorded_encoder", lambda _name, state=None: WordEncoder())
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    with FakeUpstream() as upstream:
        source, loader = Source.of(url), Loader(base_url=upstream.base_url)
        watch = Watch([source], loader, remote_seconds=0.05)
        with running(create_app([loader.load(source)], background=[watch])) as server:
            yield server


def stale(server: Running) -> Any:
    return server.get("/readyz").json()["models"]["bank"]["stale"]


def test_a_served_url_is_taken_up_when_it_changes_and_bad_news_change_nothing(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    site.etag = '"1"'
    with watched(site.url, monkeypatch) as server:
        before = server.get("/readyz").json()["models"]["bank"]["version"]
        site.status = 503
        wait_until(lambda: stale(server) == "ArtifactError")
        assert server.post("/v1/chat/completions", chat("card")).status_code == 200
        site.status = 200
        wait_until(lambda: stale(server) is None)
        site.content, site.etag = b"junk", '"2"'
        wait_until(lambda: stale(server) == "ArtifactError")
        site.status = 503
        time.sleep(0.2)
        site.status = 200  # back, but with the same junk
        time.sleep(0.2)
        assert stale(server) == "ArtifactError"
        assert server.get("/readyz").json()["models"]["bank"]["version"] == before
        site.content, site.etag = CHANGED, '"3"'
        wait_until(lambda: server.get("/readyz").json()["models"]["bank"]["version"] != before)
        assert stale(server) is None
        shown = server.get("/v1/models").text + server.get("/metrics").text + server.get("/readyz").text
    assert not [secret for secret in SECRETS if secret in shown + caplog.text]
