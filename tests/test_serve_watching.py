"""Files that change while a server runs: taken up without a request being dropped, or refused with the old one kept."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import openai
import pytest
from fake_upstream import FakeUpstream
from serving import Running, chat, running, wait_until
from small import WordEncoder, small_mixture

from mop.errors import ModelUnavailable
from mop.prompts import Prompt
from mop.serve.app import create_app
from mop.serve.keys import add_key
from mop.serve.loading import Loader, Source
from mop.serve.registry import Served
from mop.serve.watching import Watch


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A server that watches the file of its mixture, and that file."""
    monkeypatch.setattr("mop.serve.loading.resolve_recorded_encoder", lambda _name, state=None: WordEncoder())
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    path = tmp_path / "bank.mop"
    small_mixture().save(path)
    keys = tmp_path / "keys"
    add_key(keys, "app")
    with FakeUpstream(pace=0.02, words=20) as upstream:
        source, loader = Source.of(str(path)), Loader(base_url=upstream.base_url)
        watch = Watch([source], loader, keys=keys, seconds=0.03)
        with running(create_app([loader.load(source)], background=[watch])) as server:
            yield server, path, keys, upstream


def version(server: Running) -> str:
    return str(server.get("/readyz").json()["models"]["bank"]["version"])


def test_a_changed_mixture_answers_without_a_request_being_dropped(watched: Any) -> None:
    server, path, _, upstream = watched
    before = version(server)
    statuses: set[int] = set()
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            statuses.add(server.post("/v1/chat/completions", chat("card")).status_code)

    asking = [threading.Thread(target=ask) for _ in range(2)]
    client = openai.OpenAI(base_url=server.url, api_key="x", max_retries=0)
    stream = client.chat.completions.create(**chat("card"), stream=True)
    for thread in asking:
        thread.start()
    small_mixture(generalist=Prompt("A new one.")).save(path)
    wait_until(lambda: version(server) != before)
    assert len(list(stream)) == 21
    stop.set()
    for thread in asking:
        thread.join()
    assert statuses == {200}
    server.post("/v1/chat/completions", chat("meeting"))
    assert upstream.bodies[-1]["messages"][0] == {"role": "system", "content": "A new one."}
    assert server.metric('mop_reloads_total{mixture="bank",outcome="taken_up"}') == 1


def test_a_bad_new_file_keeps_the_old_one_and_says_so(watched: Any, caplog: pytest.LogCaptureFixture) -> None:
    server, path, _, _ = watched
    before = version(server)
    good = path.read_bytes()
    path.write_bytes(good[: len(good) // 2])
    wait_until(lambda: server.get("/readyz").json()["models"]["bank"]["stale"] == "ArtifactError")
    assert server.get("/readyz").status_code == 200
    assert version(server) == before
    assert server.post("/v1/chat/completions", chat("card")).status_code == 200
    assert server.metric('mop_stale{mixture="bank"}') == 1
    assert "cannot be used" in caplog.text
    path.unlink()
    wait_until(lambda: server.metric('mop_reloads_total{mixture="bank",outcome="refused"}') == 2)
    path.write_bytes(good)
    wait_until(lambda: server.get("/readyz").json()["models"]["bank"]["stale"] is None)
    assert server.metric('mop_stale{mixture="bank"}') == 0


def test_a_change_whose_encoder_is_out_of_reach_is_taken_up_once_it_is_back(
    watched: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, path, _, _ = watched
    before, load, tries = version(server), Loader.load, list[Source]()

    def late(self: Loader, source: Source, content: bytes | None = None) -> Served:
        tries.append(source)
        if len(tries) < 3:
            raise ModelUnavailable("The encoder is away.")
        return load(self, source, content)

    monkeypatch.setattr(Loader, "load", late)
    small_mixture(generalist=Prompt("A new one.")).save(path)
    wait_until(lambda: version(server) != before)
    assert server.get("/readyz").json()["models"]["bank"]["stale"] is None
    assert server.metric('mop_reloads_total{mixture="bank",outcome="refused"}') == 1
    assert len(tries) == 3


def test_a_mixture_of_another_encoder_is_refused_while_serving(watched: Any) -> None:
    server, path, _, _ = watched
    other = WordEncoder(seed=1)
    record = small_mixture().encoder_record
    small_mixture(encoder_record=type(record)("words", "other", other.encode(["a"] * 6))).save(path)
    wait_until(lambda: server.get("/readyz").json()["models"]["bank"]["stale"] == "EncoderMismatch")
    assert server.post("/v1/route", {"input": "card"}).status_code == 200


def test_a_key_that_is_removed_ends_while_serving_and_a_bad_file_changes_nothing(watched: Any) -> None:
    server, _, keys, _ = watched
    key = add_key(keys, "late")
    wait_until(lambda: server.get("/v1/models").status_code == 401)
    known = {"authorization": f"Bearer {key}"}
    assert server.get("/v1/models", headers=known).status_code == 200
    keys.write_text("nonsense")
    time.sleep(0.2)
    assert server.get("/v1/models", headers=known).status_code == 200
    keys.write_text("")
    wait_until(lambda: server.get("/v1/models", headers=known).status_code == 401)
