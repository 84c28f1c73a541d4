import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mop.errors import DataError, LedgerError, LedgerUnavailable
from mop.lm.ledger import CHUNK, Ledger
from mop.lm.request import Reply, Request, Usage


def call(query: str, text: str = "cold", **fields) -> tuple[Request, Reply]:
    request = Request("fake", (("user", query),), **fields)
    return request, Reply(text, Usage(10, 4, 2), "stop", request.key, False, 0.5)


@pytest.fixture
def ledger():
    ledger = Ledger.in_memory()
    yield ledger
    ledger.close()


def test_a_recorded_reply_is_found_by_its_key_and_says_that_it_is_from_the_ledger(ledger):
    request, reply = call("hot")
    ledger.put_many([(request, reply)])
    found = ledger.get_many([request.key, "0" * 64])
    assert found == {request.key: Reply("cold", Usage(10, 4, 2), "stop", request.key, True, 0.5)}


def test_a_database_that_has_no_connection_free_for_long_is_an_outage_of_the_ledger(tmp_path, monkeypatch):
    def wait_in_vain():
        raise sa.exc.TimeoutError("QueuePool limit of size 5 overflow 10 reached")

    with closing(Ledger(tmp_path / "run.sqlite")) as ledger:
        monkeypatch.setattr(ledger.database._engine.pool, "connect", wait_in_vain)
        with pytest.raises(LedgerUnavailable, match="QueuePool limit"), ledger.database.transaction(write=False):
            pass


def test_replies_survive_closing_and_opening_the_file(tmp_path):
    path = tmp_path / "new" / "folder" / "run.sqlite"
    first = Ledger(path)
    first.put_many([call("hot")])
    first.close()
    second = Ledger(path)
    assert second.get_many([call("hot")[0].key])[call("hot")[0].key].text == "cold"
    second.close()


def test_the_first_record_of_a_key_stays_and_is_what_the_second_writer_gets_back(ledger):
    ledger.put_many([call("hot", "first")])
    back = ledger.put_many([call("new", "fresh"), call("hot", "second")])
    assert [reply.text for reply in back] == ["fresh", "first"]


def test_more_keys_than_one_statement_takes_are_all_found(ledger):
    calls = [call(str(i), str(i)) for i in range(2 * CHUNK + 3)]
    ledger.put_many(calls)
    found = ledger.get_many([request.key for request, _ in calls] * 2)
    assert [found[request.key].text for request, _ in calls] == [reply.text for _, reply in calls]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    query=st.text(),
    text=st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    tokens=st.tuples(*[st.integers(0, 2**31 - 1)] * 3),
    sample=st.integers(0, 5),
)
def test_any_storable_text_comes_back_unchanged(ledger, query, text, tokens, sample):
    request = Request("fake", (("system", text), ("user", query)), sample=sample)
    reply = Reply(text, Usage(*tokens), "stop", request.key, False, 0.25)
    recorded = ledger.put_many([(request, reply)])[0]
    found = ledger.get_many([request.key])[request.key]
    assert (found.text, found.usage, found.seconds) == (recorded.text, recorded.usage, recorded.seconds)


def test_totals_group_by_role_and_model(ledger):
    ledger.put_many([call("a"), call("b"), call("c", role="judge")])
    totals = ledger.totals()
    assert {group: total.calls for group, total in totals.items()} == {
        ("execute", "fake"): 2,
        ("judge", "fake"): 1,
    }
    assert totals["execute", "fake"].usage == Usage(20, 8, 4)
    assert ledger.totals(by=())[()].seconds == 1.5


def test_vectors_come_back_bit_by_bit_and_only_for_their_encoder(ledger):
    vector = np.array([1.5, -0.0, 3e-38], dtype=np.float32)
    ledger.put_vectors("minilm", {"k": vector})
    found = ledger.get_vectors("minilm", ["k", "absent"])
    assert list(found) == ["k"]
    assert found["k"].tobytes() == vector.tobytes()
    assert ledger.get_vectors("other", ["k"]) == {}


def test_a_vector_of_the_wrong_length_is_an_error_not_a_wrong_vector(tmp_path):
    ledger = Ledger(tmp_path / "l")
    ledger.put_vectors("e", {"k": np.ones(3, dtype=np.float32)})
    with sqlite3.connect(tmp_path / "l") as raw:
        raw.execute("UPDATE embeddings SET dim = 4")
    with pytest.raises(LedgerError, match="12 bytes of 16"):
        ledger.get_vectors("e", ["k"])
    ledger.close()


def test_what_was_committed_survives_kill_9(tmp_path):
    script = (
        "import os, signal, sys; sys.path.insert(0, sys.argv[2])\n"
        "from test_ledger import Ledger, call\n"
        "ledger = Ledger(sys.argv[1])\n"
        "for i in range(20): ledger.put_many([call(str(i))])\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    path = tmp_path / "run.sqlite"
    command = [sys.executable, "-c", script, str(path), str(Path(__file__).parent)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    ledger = Ledger(path)
    assert len(ledger.get_many([call(str(i))[0].key for i in range(20)])) == 20
    ledger.close()


def _write(path: Path, worker: int) -> None:
    ledger = Ledger(path)
    for i in range(20):
        ledger.put_many([call(f"{i}", f"{worker}"), call(f"{worker} {i}")])
    ledger.close()


def test_several_processes_open_and_write_one_file_at_the_same_time(tmp_path):
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_write, args=(tmp_path / "l", n)) for n in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(30)
    assert [worker.exitcode for worker in workers] == [0, 0, 0, 0]
    ledger = Ledger(tmp_path / "l")
    assert ledger.totals(by=())[()].calls == 20 + 4 * 20
    ledger.close()


def test_a_file_that_is_no_database_is_named_and_left_alone(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("just some notes, longer than a header of a database is, so that it is looked at\n" * 20)
    before = path.read_bytes()
    with pytest.raises(LedgerError, match=r"notes\.txt.*not a SQLite file"):
        Ledger(path)
    assert path.read_bytes() == before


def test_a_damaged_file_is_an_error_that_says_so(tmp_path):
    path = tmp_path / "l"
    ledger = Ledger(path)
    ledger.put_many([call(str(i), "x" * 500) for i in range(200)])
    ledger.close()
    data = bytearray(path.read_bytes())
    data[4096:] = b"\xff" * (len(data) - 4096)
    path.write_bytes(data)
    with pytest.raises(LedgerError, match="damaged"):
        Ledger(path).get_many([call("1")[0].key])


def test_a_folder_that_cannot_hold_the_file_is_an_error_that_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(LedgerError, match="cannot be made"):
        Ledger(tmp_path / "file" / "l")
    with pytest.raises(LedgerError, match="writable folder"):
        Ledger(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_an_error_that_says_so(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(LedgerError, match="writable folder"):
        Ledger(tmp_path / "l")


def test_a_ledger_of_a_newer_version_is_refused(tmp_path):
    Ledger(tmp_path / "l").close()
    with sqlite3.connect(tmp_path / "l") as raw:
        raw.execute("UPDATE meta SET value = '99'")
    with pytest.raises(LedgerError, match=r"schema version 99.*Upgrade mop"):
        Ledger(tmp_path / "l")


def test_a_database_of_another_program_is_refused(tmp_path):
    with sqlite3.connect(tmp_path / "l") as raw:
        raw.execute("CREATE TABLE calls (id INTEGER)")
    with pytest.raises(LedgerError, match="another program"):
        Ledger(tmp_path / "l").put_many([call("a")])


def test_an_unknown_database_url_is_an_error_that_hides_its_password():
    with pytest.raises(LedgerError, match="driver") as caught:
        Ledger("nosuchdb://user:hunter2@host/run")
    assert "hunter2" not in str(caught.value)


def test_the_key_depends_on_what_determines_the_answer_and_on_nothing_else():
    plain = Request("fake", (("user", "hot"),))
    same = [
        Request("fake", (("user", "hot"),), role="judge"),
        Request("fake", (("user", "hot"),), temperature=0),
    ]
    other = [
        Request("fake2", (("user", "hot"),)),
        Request("fake", (("user", "hot "),)),
        Request("fake", (("system", "hot"),)),
        Request("fake", (("user", "hot"),), sample=1),
        Request("fake", (("user", "hot"),), max_tokens=7),
        Request("fake", (("user", "hot"),), stop=("\n",)),
        Request("fake", (("user", "hot"),), temperature=0.1),
        Request("fake", (("user", "hot"),), top_p=0.9),
        Request("fake", (("user", "hot"),), seed=0),
        Request("fake", (("user", "hot"),), extra='{"a":1}'),
    ]
    assert {request.key for request in same} == {plain.key}
    assert len({request.key for request in [plain, *other]}) == 1 + len(other)


def test_text_that_cannot_be_written_as_utf_8_is_refused_when_the_request_is_made():
    with pytest.raises(DataError, match="surrogate"):
        Request("fake", (("user", "\ud800"),))
