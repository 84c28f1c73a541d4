"""``mop serve`` as its users run it: a process, real files, the real encoder, signals."""

from __future__ import annotations

import asyncio
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import openai
import pytest
from fake_upstream import FakeUpstream
from serving import chat, running
from small import WordEncoder, small_mixture

from mop.cli import main
from mop.encoding import resolve_encoder
from mop.errors import EncoderMismatch, SettingsError
from mop.mixture import PROBES, EncoderRecord
from mop.serve.process import Plan, bind, make_app

NAME = "local/all-minilm-l6-v2"


@pytest.fixture(scope="module")
def mixture(tmp_path_factory: pytest.TempPathFactory, encoder_path: Path) -> Path:
    """The file of a mixture that routes with the real encoder."""
    encoder = resolve_encoder(NAME)
    path = tmp_path_factory.mktemp("serve") / "bank.mop"
    small_mixture(
        centroids=encoder.encode(["my card is lost", "where is my parcel", "when is the meeting"]),
        encoder_record=EncoderRecord(NAME, encoder.identity, encoder.encode(PROBES)),
    ).save(path)
    return path


@pytest.fixture
def upstream() -> Iterator[FakeUpstream]:
    with FakeUpstream(pace=0.1, words=10) as server:
        yield server


def test_a_process_serves_with_keys_and_finishes_its_stream_when_it_is_stopped(
    mixture: Path, upstream: FakeUpstream, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = tmp_path / "keys"
    assert main(["serve-key", "app", "--keys", str(keys)]) == 0
    key = capsys.readouterr().out.strip()
    command = [sys.executable, "-m", "mop", "serve", f"desk={mixture}", "--port", "0"]
    command += ["--upstream", upstream.base_url, "--keys", str(keys)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            said = []
            while not said or not (match := re.search(r"Serving on (\S+)", said[-1])):
                said.append(process.stderr.readline())
                assert said[-1], f"It ended: {said}"
            with pytest.raises(openai.AuthenticationError):
                openai.OpenAI(base_url=match[1], api_key="wrong", max_retries=0).models.list()
            client = openai.OpenAI(base_url=match[1], api_key=key, max_retries=0)
            raw = client.chat.completions.with_raw_response.create(**{**chat("I lost my visa card"), "model": "desk"})
            assert (raw.headers["x-mop-mixture"], raw.headers["x-mop-expert"]) == ("desk", "0")
            assert "server" not in raw.headers
            stream = client.chat.completions.create(**{**chat("the package is late"), "model": "desk"}, stream=True)
            first = next(stream)
            process.send_signal(signal.SIGTERM)
            text = "".join(piece.choices[0].delta.content or "" for piece in [first, *stream])
            assert text == "".join(f"word{number} " for number in range(10))
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 0
    assert out == ""
    assert "Traceback" not in err
    assert key not in "".join(said) + err
    assert said[0].startswith("desk: 3 experts, answered by simulated at http://127.0.0.1:")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "MIXTURES"),
        (["{folder}/none.mop"], 2, "There is no mixture file"),
        (["{folder}/junk.mop"], 7, "isn't a mixture"),
        (["{mixture}", "--keys", "{folder}/no-keys"], 2, "mop serve-key"),
        (["{mixture}", "--upstream", "local/a", "--model", "local/b"], 2, "two models"),
        (["{mixture}", "--upstream", "ftp://host"], 2, "cannot be used"),
        (["{mixture}", "--timeout", "0"], 2, "limit seconds"),
        (["{mixture}", "--port", "99999999"], 2, "cannot listen"),
        (["{mixture}", "--host", "192.0.2.1"], 2, "cannot listen"),
    ],
)
def test_what_cannot_be_served_is_said_before_serving(
    mixture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, message: str
) -> None:
    (tmp_path / "junk.mop").write_text("junk")
    filled = [one.format(folder=tmp_path, mixture=mixture) for one in arguments]
    port = [] if "--port" in filled else ["--port", "0"]
    assert main(["serve", *filled, *port]) == code
    assert message in capsys.readouterr().err


def test_a_port_that_is_taken_is_named() -> None:
    with bind("127.0.0.1", 0) as first:
        first.listen()
        with pytest.raises(SettingsError, match="Choose another --port"):
            bind("127.0.0.1", first.getsockname()[1])


async def test_answers_do_not_wait_for_the_callers_acknowledgement() -> None:
    accepted: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def connected(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        own = writer.get_extra_info("socket")
        accepted.set_result(own.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        writer.close()

    with bind("127.0.0.1", 0) as bound:
        async with await asyncio.start_server(connected, sock=bound):
            _, writer = await asyncio.open_connection(*bound.getsockname())
            assert await accepted == 1
            writer.close()


def test_without_its_parts_the_server_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    from mop.cli.serving import require_parts

    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SettingsError, match=r'pip install "mop\[serve\]"'):
        require_parts()


def test_an_encoder_at_hand_routes_after_the_same_check_as_one_that_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "bank.mop"
    small_mixture().save(path)  # its encoder has no name under which one could be loaded
    plan = Plan((str(path),), base_url="http://127.0.0.1:9/v1", warm=False)
    with running(make_app(plan, encoder=lambda record: WordEncoder())) as server:
        found = server.post("/v1/route", {"model": "bank", "input": ["where is my parcel", "a card"]}).json()
    assert [one["expert"] for one in found["data"]] == [1, 0]
    with pytest.raises(EncoderMismatch):
        make_app(plan, encoder=lambda record: WordEncoder(seed=1))


def test_the_embedded_model_answers_through_the_official_client(tiny_server: object) -> None:
    from serving import running, serve_small

    from mop.serve.app import create_app
    from mop.serve.upstream import Upstream
    from mop.serve.warming import warm_all

    upstream = Upstream(start=lambda: tiny_server.base_url, concurrency=1)  # type: ignore[attr-defined]
    with running(create_app([serve_small("bank", upstream)], background=[warm_all])) as server:
        client = openai.OpenAI(base_url=server.url, api_key="x", max_retries=0)
        pieces = list(
            client.chat.completions.create(**chat("card"), stream=True, stream_options={"include_usage": True})
        )
        assert any(piece.choices and piece.choices[0].delta.content for piece in pieces)
        answer = client.chat.completions.create(**chat("my parcel"), max_tokens=4)
        assert answer.choices[0].message.content
        assert answer.usage is not None
        assert answer.usage.prompt_tokens_details is not None
        assert (answer.usage.prompt_tokens_details.cached_tokens or 0) > 0
        # Warming asks the model for every prefix, behind the calls above.
        ends = time.monotonic() + 60
        while (ready := httpx2.get(f"{server.root}/readyz", trust_env=False)).status_code == 503:
            assert time.monotonic() < ends, ready.text
            time.sleep(0.2)
        assert ready.status_code == 200
