"""The embedded model answers, keeps prefixes, is silent on the terminal, and ends when its user ends."""

import os
import pty
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import httpx2
import pytest

from mop.errors import ModelError, SettingsError, WeightsError
from mop.lm import llama_server, local, memory
from mop.lm.local import LocalServer, shared_server

TINY_MODEL = "local/smollm2-135m-instruct"


def chat(server: LocalServer, *messages: tuple[str, str], tokens: int = 4) -> dict:
    body = {
        "model": server.model_id,
        "messages": [{"role": role, "content": content} for role, content in messages],
        "max_tokens": tokens,
        "temperature": 0,
    }
    response = httpx2.post(f"{server.base_url}/chat/completions", json=body, timeout=60, trust_env=False)
    response.raise_for_status()
    return response.json()


def gone(pid: int, within: float = 5.0) -> bool:
    """Whether the process ends within some seconds."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
            if " Z " in Path(f"/proc/{pid}/stat").read_text():
                return True  # it ended; only its new parent has not looked yet
        except (ProcessLookupError, FileNotFoundError):
            return True
        time.sleep(0.05)
    return False


# --- answering


def test_it_listens_on_the_loopback_and_answers_under_its_own_name(tiny_server):
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/v1", tiny_server.base_url)
    answer = chat(tiny_server, ("user", "Say hello."))
    assert answer["model"] == tiny_server.model_id == TINY_MODEL
    assert answer["choices"][0]["message"]["content"]


def test_the_second_request_with_the_same_prefix_takes_it_from_the_cache(tiny_server):
    instruction = ("system", "Answer with the opposite of the word. " * 20)
    chat(tiny_server, instruction, ("user", "hot"))
    usage = chat(tiny_server, instruction, ("user", "tall"))["usage"]
    assert usage["prompt_tokens_details"]["cached_tokens"] > 0.8 * usage["prompt_tokens"]


def test_alternating_prefixes_stay_cached_with_one_slot(tiny_server):
    prefixes = [("system", f"{word} " * 30) for word in ("Cats sleep.", "Dogs bark.", "Birds sing.")]
    for prefix in prefixes:
        chat(tiny_server, prefix, ("user", "warm"), tokens=1)
    for prefix in prefixes:
        usage = chat(tiny_server, prefix, ("user", "go"), tokens=1)["usage"]
        assert usage["prompt_tokens_details"]["cached_tokens"] > 0.8 * usage["prompt_tokens"]


def test_it_reports_the_context_that_is_really_served(tiny_server, tiny_model):
    assert tiny_server.context == 2048
    with LocalServer.start(TINY_MODEL, context=100_000, threads=1, cache_mib=0) as greedy:
        assert greedy.context == 8192  # the model's own limit


def test_the_web_page_is_off_and_other_origins_are_not_let_in(tiny_server):
    root = tiny_server.base_url.removesuffix("/v1")
    page = httpx2.get(root, headers={"Accept": "text/html"}, trust_env=False)
    assert page.status_code == 404
    other = httpx2.get(f"{root}/v1/models", headers={"Origin": "https://example.com"}, trust_env=False)
    assert other.headers.get("access-control-allow-origin") not in {"*", "https://example.com"}


# --- one server per process


def test_a_process_shares_one_server_per_model_and_replaces_one_that_died(tiny_model):
    first = shared_server(TINY_MODEL, context=512, threads=1, cache_mib=0)
    try:
        assert shared_server(tiny_model, context=512) is first
        os.kill(first._process.pid, signal.SIGKILL)
        first._process.wait()
        second = shared_server(TINY_MODEL, context=512, threads=1, cache_mib=0)
        assert second is not first
        assert chat(second, ("user", "hi"))["choices"]
        second.close()
        second.close()
        assert not second.alive
        assert "closed" in repr(second)
    finally:
        for server in local._shared.values():
            server.close()
        local._shared.clear()


# --- the terminal and the end

SCRIPT = """
    import fcntl, json, sys, termios, time, urllib.request
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # the terminal's Ctrl-C is for this program
    from mop.lm.local import shared_server
    server = shared_server("local/smollm2-135m-instruct", context=512, threads=1, cache_mib=64)
    body = json.dumps({"messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}).encode()
    request = urllib.request.Request(server.base_url + "/chat/completions", body,
                                     {"Content-Type": "application/json"})
    urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request).read()
    print("to stderr", file=sys.stderr)
    print("READY", server._process.pid, flush=True)
"""
ENDINGS = {
    "returns": ("", "", 0),
    "raises": ("raise SystemExit('an error of mine')", "an error of mine", 1),
    "ctrl-c": ("time.sleep(60)", "KeyboardInterrupt", -signal.SIGINT),
    "killed": ("time.sleep(60)", "", -signal.SIGKILL),
}


def read_until(terminal: int, mark: str | None, text: str = "") -> str:
    """Read the terminal until the mark, or until its last writer has ended."""
    while mark is None or not re.search(mark, text):
        try:
            block = os.read(terminal, 4096)
        except OSError:  # Linux says EIO when the other side is closed
            block = b""
        if not block:
            break
        text += block.decode()
    return text


@pytest.mark.parametrize("ending", ENDINGS)
def test_nothing_native_reaches_the_terminal_and_the_program_ends_at_once(tiny_model, ending):
    line, said, status = ENDINGS[ending]
    terminal, inner = pty.openpty()
    program = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(SCRIPT) + line],
        stdin=inner,
        stdout=inner,
        stderr=inner,
        start_new_session=True,
    )
    os.close(inner)
    try:
        text = read_until(terminal, r"READY \d+\s")
        ready = re.search(r"READY (\d+)", text)
        assert ready, text
        began = time.monotonic()
        if ending == "ctrl-c":
            os.write(terminal, b"\x03")
        if ending == "killed":
            program.kill()
        assert program.wait(timeout=20) == status
        assert time.monotonic() - began < 5
        assert gone(int(ready[1]))
        text = read_until(terminal, None, text)
    finally:
        os.close(terminal)
        program.kill()
        program.wait()
    lines = [line for line in text.replace("^C", "").splitlines() if line.strip()]
    assert lines[:2] == ["to stderr", f"READY {ready[1]}"]
    after = "\n".join(lines[2:])
    if ending == "ctrl-c":
        assert after.startswith("Traceback")
        assert lines[-1] == said
    else:
        assert after == said


# --- what cannot be served


def test_a_file_that_is_not_gguf_is_refused_before_native_code_sees_it(tmp_path):
    path = tmp_path / "notes.gguf"
    path.write_text("just text")
    with pytest.raises(ModelError, match="not a GGUF file: it starts with b'just'"):
        LocalServer.start(path)
    with pytest.raises(ModelError, match="is a folder"):
        LocalServer.start(tmp_path)
    with pytest.raises(WeightsError, match="no such file"):
        LocalServer.start(tmp_path / "absent.gguf")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [("truncated", "not within the file bounds"), ("garbage", "number of tensors is -1")],
)
def test_a_damaged_model_gives_llamas_reason_and_its_log(tiny_model, tmp_path, damage, reason):
    path = tmp_path / "damaged.gguf"
    with open(tiny_model, "rb") as whole:
        head = whole.read(6_000_000)
    path.write_bytes(head if damage == "truncated" else head[:8] + b"\xff" * 5000)
    log = tmp_path / "logs" / "native.log"
    with pytest.raises(ModelError, match="could not load") as caught:
        LocalServer.start(path, threads=1, log_path=log)
    assert str(log) in str(caught.value)
    assert reason in str(caught.value)
    assert "failed to load model" in log.read_text()


def test_without_llama_the_error_names_the_extra(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SettingsError, match=r'pip install "mop\[local\]"'):
        LocalServer.start(TINY_MODEL)


@pytest.mark.parametrize("wrong", [{"slots": 0}, {"context": 1}, {"cache_mib": -1}, {"threads": 0}])
def test_a_value_out_of_range_is_named(wrong):
    with pytest.raises(SettingsError, match=f"{next(iter(wrong))} is"):
        LocalServer.start(TINY_MODEL, **wrong)


# --- logs and memory


def test_the_native_log_is_a_file_that_holds_the_requests(tiny_server):
    chat(tiny_server, ("user", "hi"))
    deadline = time.monotonic() + 5
    while "print_timing" not in tiny_server.native_log.read_text() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert "print_timing" in tiny_server.native_log.read_text()


def test_a_log_that_grew_too_large_is_begun_anew_under_its_writer(tmp_path, monkeypatch):
    monkeypatch.setattr(llama_server, "_LOG_LIMIT", 100)
    path = tmp_path / "native.log"
    with open(path, "ab", buffering=0) as writer:
        writer.write(b"x" * 101)
        llama_server._limit_log(str(path))
        writer.write(b"more")
    assert path.read_bytes() == b"more"
    assert (tmp_path / "native.log.1").read_bytes() == b"x" * 101


def test_only_the_newest_logs_are_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("MOP_CACHE", str(tmp_path))
    for age in range(15):
        log = local._new_log(TINY_MODEL)
        log.touch()
        os.utime(log, (1000 + age, 1000 + age))
    kept = sorted(int(log.stat().st_mtime) for log in (tmp_path / "logs").iterdir())
    assert kept == list(range(1005, 1015))


def test_the_prompt_cache_never_takes_more_than_half_of_the_memory_beside_the_weights(monkeypatch):
    monkeypatch.setattr(local, "available_mib", lambda: 3000)
    assert local._affordable(8192, 1000 << 20) == 1000
    assert local._affordable(500, 1000 << 20) == 500
    assert local._affordable(8192, 4000 << 20) == 0
    monkeypatch.setattr(local, "available_mib", lambda: None)
    assert local._affordable(8192, 1000 << 20) == 8192


def test_a_containers_limit_counts_and_its_file_cache_is_free(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    alone = memory.available_mib()
    assert alone is not None
    assert alone > 64
    (tmp_path / "memory.max").write_text(f"{64 << 20}\n")
    (tmp_path / "memory.current").write_text(f"{60 << 20}\n")
    (tmp_path / "memory.stat").write_text(f"anon 1\ninactive_file {20 << 20}\n")
    assert memory.available_mib() == 24
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.available_mib() > 64
