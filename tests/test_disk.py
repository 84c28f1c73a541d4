"""Disks that are full, read-only or failing: what was there stays whole, and the error says what to do."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from asking import asks
from fake_endpoint import FakeEndpoint
from small import small_mixture
from test_ledger import call

from mop import artifact
from mop.cli import main
from mop.errors import ArtifactError, LedgerError
from mop.lm.client import ModelClient
from mop.lm.database import explain
from mop.lm.ledger import Ledger

TESTS = str(Path(__file__).parent)


def in_a_process(script: str, *arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    code = f"import sys; sys.path.insert(0, {TESTS!r})\n{script}"
    argv = [sys.executable, "-c", code, *arguments]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60, **options)  # type: ignore[call-overload, no-any-return]


def test_a_full_disk_leaves_the_old_mixture_whole_and_says_what_to_do(tmp_path: Path) -> None:
    target = tmp_path / "m.mop"
    small_mixture().save(target)
    before = target.read_bytes()
    done = in_a_process(
        "import resource\n"
        "from small import small_mixture\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "small_mixture(report={'text': 'longer'}).save(sys.argv[1])",
        str(target),
    )
    assert "ArtifactError" in done.stderr
    assert "Make room" in done.stderr
    assert target.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["m.mop"]


@pytest.mark.parametrize("step", ["write", "fsync", "rename"])
def test_whichever_step_of_saving_fails_the_old_file_stays_and_nothing_else_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    target = tmp_path / "m.mop"
    small_mixture().save(target)
    before = target.read_bytes()

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    if step == "rename":
        monkeypatch.setattr(Path, "replace", fail)
    elif step == "fsync":
        monkeypatch.setattr(artifact.os, "fsync", fail)
    else:
        monkeypatch.setattr(Path, "open", fail)
    with pytest.raises(ArtifactError, match=r"No space left.*Make room.*pays for none twice"):
        small_mixture(metric="f1").save(target)
    monkeypatch.undo()
    assert target.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["m.mop"]


def test_a_ledger_on_a_full_disk_ends_the_run_and_keeps_what_it_had(tmp_path: Path) -> None:
    path = tmp_path / "l"
    with FakeEndpoint(lambda _: "long answer " * 300) as server:
        done = in_a_process(
            "import asyncio, resource\n"
            "from asking import ModelClient, Ledger, asks\n"
            "client = ModelClient('fake', base_url=sys.argv[1], ledger=Ledger(sys.argv[2]), concurrency=4)\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))\n"
            "asyncio.run(client.complete_many(asks(300)))",
            server.base_url,
            str(path),
        )
        served = server.served
    assert "LedgerError" in done.stderr
    assert "make room, then run this again" in done.stderr
    assert served < 150, "no more calls are paid for once they cannot be recorded"
    ledger = Ledger(path)
    recorded = ledger.totals(by=())[()].calls
    assert 0 < recorded <= served
    assert served - recorded <= 8
    ledger.close()


async def test_after_room_was_made_the_same_ledger_goes_on(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "l")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with FakeEndpoint(lambda _: "x" * 5000) as server:
        client = ModelClient("fake", base_url=server.base_url, ledger=ledger)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
        try:
            with pytest.raises(LedgerError, match="full"):
                await client.complete_many(asks(100))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        recorded = ledger.totals(by=())[()].calls
        before = server.served
        assert len(await client.complete_many(asks(100))) == 100
        assert server.served - before == 100 - recorded
        await client.aclose()
    ledger.close()


def test_a_read_only_folder_is_told_before_any_call(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        tmp_path.chmod(0o500)
        with pytest.raises(LedgerError, match="writable folder"):
            Ledger(tmp_path / "l")
        return
    # Root may write anywhere, so somebody else tries: in a process, which reads what it needs before.
    done = in_a_process(
        "import os\n"
        "from small import small_mixture\n"
        "from mop.lm.ledger import Ledger\n"
        "mixture = small_mixture(); from mop.artifact import to_bytes; to_bytes(mixture); Ledger.in_memory()\n"
        "os.chmod(sys.argv[1], 0o555); os.chdir(sys.argv[1]); os.setuid(65534)\n"
        "for work in (lambda: Ledger('l'), lambda: mixture.save('m.mop')):\n"
        "    try: work()\n"
        "    except Exception as error: print(type(error).__name__, error)",
        str(tmp_path),
    )
    ledger, mixture = done.stdout.splitlines()
    assert ledger.startswith("LedgerError")
    assert "writable folder" in ledger
    assert mixture.startswith("ArtifactError")
    assert "Permission denied" in mixture
    assert list(tmp_path.iterdir()) == []


def test_a_mixture_that_cannot_be_written_is_told_before_the_search(tmp_path: Path, capsys: object) -> None:
    assert main(["optimize", "-", "-o", str(tmp_path / "absent" / "m.mop"), "--model", "x"]) == 7


@pytest.mark.parametrize(
    ("problem", "advice"),
    [
        ("database or disk is full", "make room"),
        ("disk I/O error", "make room"),
        ("database disk image is malformed", "mop ledger repair l"),
        ("attempt to write a readonly database", "writable folder"),
        ("database is locked", "let it finish"),
    ],
)
def test_what_the_database_says_is_told_with_what_to_do(problem: str, advice: str) -> None:
    assert advice in explain(problem, "l")


def test_an_export_to_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "l")
    ledger.put_many([call(str(i), "x" * 500) for i in range(100)])
    ledger.close()
    target = tmp_path / "calls.jsonl"
    target.write_text("old")
    script = (
        "import resource; from mop.cli import main\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))\n"
        "sys.exit(main(['ledger', 'export', sys.argv[1], '-o', sys.argv[2]]))"
    )
    assert in_a_process(script, str(tmp_path / "l"), str(target)).returncode == 6
    assert target.read_text() == "old"
