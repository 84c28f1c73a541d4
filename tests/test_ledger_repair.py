"""A ledger that the disk has damaged: it is told, never taken for an empty one, and what can be read is saved."""

from __future__ import annotations

import os
import random
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from test_ledger import call

from mop.errors import LedgerError
from mop.lm import salvage
from mop.lm.ledger import Ledger
from mop.lm.salvage import repair
from mop.lm.tables import CALLS as CALLS_TABLE
from mop.lm.tables import SCHEMA
from mop.lm.verify import verify

#: Some requests and some answers are longer than a page of the file.
CALLS = [call(f"{i} " + "question " * (i * 37 % 900), f"[{i}] " + "answer " * (i * 53 % 1200)) for i in range(120)]
KEYS = [request.key for request, _ in CALLS]
VECTORS = {f"text {i}": np.full(384, i, dtype=np.float32) for i in range(30)}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("whole") / "l"
    ledger = Ledger(path)
    for start in range(0, len(CALLS), 10):
        ledger.put_many(CALLS[start : start + 10], "a run")
        ledger.put_vectors("e", dict(list(VECTORS.items())[start // 4 : start // 4 + 3]))
    ledger.close()
    return path.read_bytes()


def read(path: Path) -> dict[str, str]:
    """Return all answers of a ledger; raises LedgerError."""
    ledger = Ledger(path)
    try:
        found = ledger.get_many(KEYS)
        ledger.get_vectors("e", list(VECTORS))
        assert ledger.totals(by=())[()].calls == len(found)
        return {key: reply.text for key, reply in found.items()}
    finally:
        ledger.close()


TRUE = {reply.key: reply.text for _, reply in CALLS}


@pytest.mark.parametrize("share", [0.0, 0.00005, 0.001, 0.1, 0.33, 0.5, 0.77, 0.99])
def test_a_ledger_cut_off_anywhere_is_told_and_what_is_left_of_it_is_saved(
    whole: bytes, tmp_path: Path, share: float
) -> None:
    path, cut = tmp_path / "l", int(len(whole) * share)
    path.write_bytes(whole[:cut])
    with pytest.raises(LedgerError, match=r"mop ledger repair"):
        read(path)
    assert verify(path).problems
    if share < 0.05:
        with pytest.raises(LedgerError, match="left as it is"):
            repair(path)
        assert path.read_bytes() == whole[:cut]
        return
    done = repair(path)
    saved = read(path)
    assert len(saved) == done.calls > share * len(CALLS) * 0.6
    assert saved.items() <= TRUE.items()
    assert done.damaged is not None
    assert done.damaged.stat().st_size == cut
    assert verify(path).problems == ()


def test_rows_between_damaged_pages_are_all_saved_and_none_is_wrong(whole: bytes, tmp_path: Path) -> None:
    path, rng = tmp_path / "l", random.Random(0)
    for _ in range(6):
        damaged = bytearray(whole)
        for _ in range(4):
            place = rng.randrange(100, len(damaged) - 64)
            damaged[place : place + 64] = rng.randbytes(64)
        path.write_bytes(damaged)
        assert verify(path).problems
        done = repair(path)
        saved = read(path)
        assert saved.items() <= TRUE.items()
        assert len(saved) == done.calls >= len(CALLS) - 45


def test_a_flipped_letter_in_an_answer_is_an_error_and_not_an_answer(whole: bytes, tmp_path: Path) -> None:
    path = tmp_path / "l"
    request, reply = CALLS[1]
    place = whole.index(reply.text[:5].encode())
    path.write_bytes(whole[:place] + b"(" + whole[place + 1 :])
    ledger = Ledger(path)
    with pytest.raises(LedgerError, match="isn't what was written"):
        ledger.get_many([request.key])
    ledger.close()
    assert any("reply isn't the one" in problem for problem in verify(path).problems)
    assert repair(path).dropped == 1
    assert set(read(path)) == set(KEYS) - {request.key}


def test_what_a_killed_process_left_in_the_log_is_saved_though_the_file_is_cut(tmp_path: Path) -> None:
    writer = Ledger(tmp_path / "w")
    writer.put_many(CALLS[:60])
    path = tmp_path / "l"
    path.write_bytes((tmp_path / "w").read_bytes()[:5000])
    path.with_name("l-wal").write_bytes((tmp_path / "w-wal").read_bytes())
    writer.close()
    repair(path)
    assert len(read(path)) == 60


def test_a_ledger_whose_file_is_gone_and_whose_log_is_not_is_told_and_saved(tmp_path: Path) -> None:
    writer = Ledger(tmp_path / "w")
    writer.put_many(CALLS[:9])
    path = tmp_path / "l"
    path.with_name("l-wal").write_bytes((tmp_path / "w-wal").read_bytes())
    writer.close()
    with pytest.raises(LedgerError, match=r"is gone, but its log l-wal is there"):
        Ledger(path)
    assert repair(path).calls == 9
    assert len(read(path)) == 9


def with_log(folder: Path) -> tuple[Path, Path]:
    """Return a ledger as a killed process leaves it, and its log, which holds four commits."""
    writer = Ledger(folder / "w")
    for start in range(0, 40, 10):
        writer.put_many(CALLS[start : start + 10])
    path, log = folder / "l", folder / "l-wal"
    path.write_bytes((folder / "w").read_bytes())
    log.write_bytes((folder / "w-wal").read_bytes())
    writer.close()
    return path, log


def test_a_whole_log_is_left_where_it_is_by_a_repair(tmp_path: Path) -> None:
    path, log = with_log(tmp_path)
    before = path.read_bytes(), log.read_bytes()
    done = repair(path)
    assert (done.calls, done.damaged) == (40, None)
    assert (path.read_bytes(), log.read_bytes()) == before
    assert not verify(path).problems


@pytest.mark.parametrize("place", [20, 100, 0.5, -3000])
def test_a_flipped_byte_in_the_log_is_told_and_what_comes_after_it_is_saved(tmp_path: Path, place: float) -> None:
    path, log = with_log(tmp_path)
    content = bytearray(log.read_bytes())
    content[int(place * len(content)) if place == 0.5 else int(place)] ^= 1
    log.write_bytes(content)
    assert any("log" in problem for problem in verify(path).problems)
    assert log.read_bytes() == content
    done = repair(path)
    assert len(read(path)) == done.calls >= 30
    assert done.damaged is not None
    assert done.damaged.exists()


def test_a_log_that_ends_in_the_middle_of_a_commit_is_whole(tmp_path: Path) -> None:
    path, log = with_log(tmp_path)
    log.write_bytes(log.read_bytes()[:-5000])
    assert not verify(path).problems
    assert len(read(path)) == 30


def test_a_ledger_that_is_whole_is_left_alone(whole: bytes, tmp_path: Path) -> None:
    path = tmp_path / "l"
    path.write_bytes(whole)
    done = repair(path)
    assert (done.calls, done.vectors, done.damaged) == (len(CALLS), len(VECTORS), None)
    assert [file.name for file in tmp_path.iterdir()] == ["l"]


def test_a_ledger_in_use_is_not_repaired(whole: bytes, tmp_path: Path) -> None:
    path = tmp_path / "l"
    path.write_bytes(whole)
    script = "import sys; from mop.lm.ledger import Ledger; held = Ledger(sys.argv[1]); print('held'); input()"
    holder = subprocess.Popen(  # locks of one's own process say nothing
        [sys.executable, "-uc", script, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(LedgerError, match="in use"):
        repair(path)
    holder.communicate("\n", timeout=20)
    assert repair(path).damaged is None


def test_a_repair_that_cannot_write_leaves_everything_as_it_was(
    whole: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "l"
    path.write_bytes(whole[: len(whole) // 2])

    def full(_path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(salvage, "sync", full)
    with pytest.raises(LedgerError, match=r"No space left.*Nothing was lost"):
        repair(path)
    assert path.read_bytes() == whole[: len(whole) // 2]
    assert not [file for file in tmp_path.iterdir() if file.name.startswith(".l")]


def test_a_ledger_of_the_first_version_is_brought_up_to_date_and_can_be_saved(tmp_path: Path) -> None:
    path = tmp_path / "l"
    Ledger(path).close()
    request, reply = CALLS[5]
    with sqlite3.connect(path) as raw:
        raw.executescript(
            "DROP INDEX calls_bill; ALTER TABLE calls DROP COLUMN run; ALTER TABLE calls DROP COLUMN crc;"
            "ALTER TABLE embeddings DROP COLUMN crc; UPDATE meta SET value = '1'"
        )
        values = (reply.key, "fake", "execute", request.canonical(), reply.text, "stop", 10, 4, 2, 0.5, 1.7e9)
        raw.execute(f"INSERT INTO calls VALUES ({','.join('?' * 11)})", values)
    raw.close()
    old = path.read_bytes()
    assert read(path) == {reply.key: reply.text}
    with sqlite3.connect(path) as raw:
        assert raw.execute("SELECT value FROM meta WHERE name = 'schema'").fetchone() == (str(SCHEMA),)
        columns = {row[1] for row in raw.execute("PRAGMA table_info(calls)")}
    raw.close()
    assert columns == set(CALLS_TABLE.c.keys())
    found = verify(path)
    assert (found.calls, found.version, found.problems) == (1, SCHEMA, ())
    path.write_bytes(old[:-4096])  # its last page is the embeddings' index
    repair(path)
    assert read(path) == {reply.key: reply.text}
    ledger = Ledger(path)
    ledger.put_many(CALLS[:6], "new")
    assert {group: total.calls for group, total in ledger.totals(("run",)).items()} == {("",): 1, ("new",): 5}
    ledger.close()


def test_a_process_killed_while_it_makes_a_ledger_leaves_none(tmp_path: Path) -> None:
    if (child := os.fork()) == 0:
        from mop.lm import database

        database.os.link = lambda *_: os._exit(1)  # type: ignore[assignment]
        Ledger(tmp_path / "l")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
    assert not (tmp_path / "l").exists()
    fresh = Ledger(tmp_path / "l")
    assert fresh.get_many(KEYS) == {}
    fresh.close()


KILLED = """
import os, sys
sys.path.insert(0, sys.argv[2])
from mop.lm.ledger import Ledger
from test_ledger_repair import CALLS
ledger = Ledger(sys.argv[1])
for start in range(0, 60, 10):
    ledger.put_many(CALLS[start : start + 10], "a run")
    print(start, flush=True)
if len(sys.argv) > 3:
    sys.stdin.read()
os._exit(9)
"""


def _killed(path: Path) -> tuple[int, int]:
    """Leave a ledger as a killed process does, with the index of its log; return the sizes of file and log."""
    command = [sys.executable, "-c", KILLED, str(path), str(Path(__file__).parent)]
    assert subprocess.run(command, check=False, stdout=subprocess.DEVNULL, timeout=60).returncode == 9
    assert path.with_name("l-shm").exists()
    return path.stat().st_size, path.with_name("l-wal").stat().st_size


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 0.9])
def test_a_log_cut_off_in_the_middle_is_told_and_not_taken_for_a_shorter_one(tmp_path: Path, share: float) -> None:
    path = tmp_path / "l"
    _, size = _killed(path)
    os.truncate(path.with_name("l-wal"), int(size * share))
    with pytest.raises(LedgerError, match="was cut off"):
        Ledger(path)
    assert any("was cut off" in problem for problem in verify(path).problems)
    if not share:  # all commits were in the log
        with pytest.raises(LedgerError, match="No row"):
            repair(path)
        return
    done = repair(path)
    assert 0 < done.calls < 60
    assert read(path).items() <= TRUE.items()
    assert not verify(path).problems


def test_a_log_that_is_whole_is_not_told_to_be_cut_also_while_another_process_writes(tmp_path: Path) -> None:
    path = tmp_path / "l"
    _killed(path)
    assert len(read(path)) == 60
    assert not verify(path).problems
    other = tmp_path / "other"
    command = [sys.executable, "-c", KILLED, str(other), str(Path(__file__).parent), "stay"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        for line in writer.stdout:
            first = Ledger(other)
            assert len(first.get_many(KEYS)) >= int(line) + 10
            again = Ledger(other)  # a second one in this process, which must not touch the locks of the first
            again.put_many(CALLS[60:61])
            first.close()
            again.close()
            if line.strip() == "50":
                break
        writer.kill()
    assert len(read(other)) == 61
