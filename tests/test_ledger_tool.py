"""``mop ledger`` and replays, as a user sees them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from asking import asks, expected
from fake_endpoint import FakeEndpoint
from simulated import nearest_demo_answer, splits, task
from small import small_mixture
from test_client import SECRET
from test_ledger import call

import mop
from mop.artifact import to_bytes
from mop.bill import bill
from mop.cli import main
from mop.errors import LedgerError, NotRecorded, SettingsError
from mop.lm.client import ModelClient
from mop.lm.ledger import Ledger
from mop.lm.prices import Prices
from mop.lm.request import Reply, Request, Usage
from mop.lm.upkeep import Choice, export, prune, read_age
from mop.optimization import Run, aoptimize
from mop.settings import make_settings
from mop.sync import run

DAY = 86400.0


def priced(query: str, model: str = "gpt-4o-mini", role: str = "execute") -> tuple[Request, Reply]:
    request = Request(model, (("user", query),), role=role)  # type: ignore[arg-type]
    return request, Reply("answer", Usage(1000, 400, 100), "stop", request.key, False, 2.0)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A ledger of three days, four models and two runs, which is also the user's own."""
    path = tmp_path / "ledger.sqlite"
    ledger = Ledger(path)
    days = {20_000: [priced("a"), priced("b", role="propose")], 20_001: [priced("c", "local/tiny")]}
    with pytest.MonkeyPatch.context() as patch:
        for day, calls in days.items():
            patch.setattr("time.time", lambda day=day: day * DAY + 10)
            ledger.put_many(calls, f"run {day}")
    ledger.put_many([priced("d", "mystery")])
    ledger.close()
    monkeypatch.setenv("MOP_LEDGER", str(path))
    return path


def said(capsys: pytest.CaptureFixture[str], *argv: str, code: int = 0) -> Any:
    capsys.readouterr()
    assert main([*argv, "--json"]) == code
    return json.loads(capsys.readouterr().out)


def test_stats_sum_calls_tokens_and_money_by_whatever_is_asked(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = said(capsys, "ledger", "stats", "--by", "model")
    one = (600 * 0.15 + 400 * 0.075 + 100 * 0.6) / 1e6
    assert [(line["model"], line["calls"], line["usd"]) for line in found["groups"]] == [
        ("gpt-4o-mini", 2, pytest.approx(2 * one)),
        ("local/tiny", 1, 0.0),
        ("mystery", 1, None),
    ]
    assert found["total"]["prompt_tokens"] == 4000
    by_day = said(capsys, "ledger", "stats", str(path), "--by", "day", "--by", "run")["groups"]
    assert [(line["day"], line["run"], line["calls"]) for line in by_day[:2]] == [
        ("2024-10-04", "run 20000", 2),
        ("2024-10-05", "run 20001", 1),
    ]
    assert by_day[2]["run"] is None
    assert main(["ledger", "stats"]) == 0
    assert "the price isn't known" in capsys.readouterr().out


def test_a_bill_takes_the_users_own_prices(path: Path) -> None:
    ledger = Ledger(path)
    lines = bill(ledger, ("role",), Prices({"mystery": {"input": 1.0, "output": 1.0}}))
    ledger.close()
    assert [line.group for line in lines] == [("execute",), ("propose",)]
    assert lines[0].usd == pytest.approx(0.00018 + 0.0011)


def test_export_gives_every_call_as_a_line_oldest_first(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ledger", "export"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["request"]["messages"][0][1] for line in lines[2:]] == ["c", "d"]
    assert {line["role"] for line in lines} == {"execute", "propose"}
    target = path.with_name("calls.jsonl")
    assert said(capsys, "ledger", "export", "-o", str(target), "--model", "gpt-4o-mini")["calls"] == 2
    assert len(target.read_text().splitlines()) == 2


def test_an_export_of_many_calls_misses_none_and_can_be_left_in_the_middle(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "l")
    ledger.put_many([call(str(i)) for i in range(2500)])  # all of one moment
    assert len({line["key"] for line in export(ledger)}) == 2500
    next(export(ledger))
    ledger.close()


def test_prune_drops_what_was_named_and_nothing_else(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    size = path.stat().st_size
    asked = said(capsys, "ledger", "prune", "--older-than", "30d", "--dry-run")
    assert (asked["calls"], asked["deleted"]) == (3, 0)
    assert "--yes" in said(capsys, "ledger", "prune", "--older-than", "30d", code=2)["error"]["message"]
    assert said(capsys, "ledger", "stats")["total"]["calls"] == 4
    assert said(capsys, "ledger", "prune", "--older-than", "30d", "--role", "propose", "--yes")["deleted"] == 1
    assert said(capsys, "ledger", "prune", "--run", "run 20001", "--yes")["deleted"] == 1
    assert [line["model"] for line in said(capsys, "ledger", "stats", "--by", "model")["groups"]] == [
        "gpt-4o-mini",
        "mystery",
    ]
    assert said(capsys, "ledger", "verify")["problems"] == []
    assert path.stat().st_size <= size
    assert main(["ledger", "prune", "--yes"]) == 2


def test_pruning_nothing_in_particular_is_refused_and_ages_are_read(path: Path) -> None:
    ledger = Ledger(path)
    with pytest.raises(SettingsError, match="delete the file"):
        prune(ledger, Choice())
    ledger.close()
    assert [read_age(text) for text in ("90d", "1.5 h", "2w")] == [90 * DAY, 5400, 14 * DAY]
    with pytest.raises(SettingsError, match="90d"):
        read_age("a month")


def test_verify_and_repair_tell_programs_and_people_what_is_wrong(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said(capsys, "ledger", "verify")["calls"] == 4
    assert said(capsys, "ledger", "repair")["damaged"] is None
    path.write_bytes(path.read_bytes()[:-8192])
    found = said(capsys, "ledger", "verify", code=6)["error"]
    assert found["type"] == "DamagedLedger"
    assert found["problems"]
    assert said(capsys, "ledger", "stats", code=6)["error"]["type"] == "LedgerError"
    done = said(capsys, "ledger", "repair")
    assert Path(done["damaged"]).exists()
    assert said(capsys, "ledger", "stats")["total"]["calls"] == done["calls"]


def test_a_repair_of_which_only_the_log_was_left_says_where_that_is_now(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    writer = Ledger(tmp_path / "w")
    writer.put_many([priced("a"), priced("b")])
    (tmp_path / "l-wal").write_bytes((tmp_path / "w-wal").read_bytes())
    writer.close()
    assert main(["ledger", "repair", str(tmp_path / "l")]) in (0, None)
    assert "2 calls" in capsys.readouterr().out
    (kept,) = tmp_path.glob("l.damaged-*")
    (tmp_path / "m-wal").write_bytes(kept.read_bytes())
    assert Path(said(capsys, "ledger", "repair", str(tmp_path / "m"))["damaged"]).name.endswith("-wal")


def test_a_tool_makes_no_ledger_where_there_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("stats", "export", "verify", "repair"):
        assert main(["ledger", command, str(tmp_path / "absent")]) == 6
        assert "There is no ledger" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


# -- replays


def test_a_replay_gives_what_was_recorded_and_sends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    ledger = Ledger(tmp_path / "l")

    async def ask(client: ModelClient, count: int) -> list[str]:
        replies = await client.complete_many(asks(count))
        await client.aclose()
        return [reply.text for reply in replies]

    with FakeEndpoint() as server:
        first = asyncio.run(ask(ModelClient("fake", base_url=server.base_url, ledger=ledger, api_key="k"), 5))
        replayed = ModelClient("fake", base_url=server.base_url, ledger=ledger, replay=True)
        assert asyncio.run(ask(replayed, 5)) == first == expected(asks(5))
        with pytest.raises(NotRecorded, match=r"user: '5'.*Run it once without replay"):
            asyncio.run(ask(replayed, 7))
        with pytest.raises(NotRecorded):
            asyncio.run(replayed.embed(["a"]))
        assert server.served == 5
    no_key_needed = ModelClient("gpt-4o", ledger=ledger, replay=True)
    with pytest.raises(NotRecorded):
        asyncio.run(ask(no_key_needed, 6))
    ledger.close()


def test_a_search_is_replayed_from_its_ledger_without_model_and_network(tmp_path: Path, encoder_path: Path) -> None:
    book, used = str(tmp_path / "l"), Run()
    options: dict[str, Any] = {"model": "simulated", "instruction": "Name it.", "budget": 80, "prompt_tokens": 200}
    with FakeEndpoint(nearest_demo_answer) as server:
        options["base_url"] = server.base_url
        first = run(aoptimize(splits(), make_settings(options), ledger=book))
    second = run(aoptimize(splits(), make_settings(options), ledger=book, used=used, replay=True))
    assert {**first.provenance, "created": 0} == {**second.provenance, "created": 0}
    assert first.experts == second.experts
    assert used.sent == 0
    runs = Ledger(book).totals(("run",))
    assert [group[0].split()[0] for group in runs] == ["optimize"]
    rows = task(rows_per_answer=2)
    with pytest.raises(NotRecorded):
        mop.optimize(rows, ledger=book, replay=True, **options)
    with pytest.raises(NotRecorded, match="There is no ledger"):
        mop.optimize(rows, ledger=tmp_path / "absent", replay=True, **options)
    assert not (tmp_path / "absent").exists()


def test_ask_and_evaluate_replay_and_say_which_call_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MOP_LEDGER", str(tmp_path / "l"))
    data, mixture = tmp_path / "test.jsonl", str(tmp_path / "m.mop")
    data.write_text("".join(json.dumps({"input": e.input, "output": e.output}) + "\n" for e in splits().test[:4]))
    commands = (["ask", mixture, "my card is lost"], ["evaluate", mixture, str(data)])
    with FakeEndpoint(nearest_demo_answer) as server:
        mop.optimize(
            task(rows_per_answer=2),
            model="simulated",
            budget=60,
            base_url=server.base_url,
            encoder=f"endpoint:words@{server.base_url}",
            ledger=tmp_path / "l",
        ).save(mixture)
        first = [said(capsys, *command, "--base-url", server.base_url) for command in commands]
    # Nobody listens any more: a call, or a text for the encoder, would be an error.
    again = [said(capsys, *command, "--replay") for command in commands]
    assert again == first
    missing = said(capsys, "evaluate", mixture, str(data), "--replay", "--model", "other", code=6)
    assert missing["error"]["type"] == "NotRecorded"
    assert "other is not in the ledger" in missing["error"]["message"]


def test_a_replaying_prediction_refuses_a_client_that_sends(tmp_path: Path) -> None:
    ledger = Ledger.in_memory()
    client = ModelClient("fake", base_url="http://127.0.0.1:9/v1", ledger=ledger)
    with pytest.raises(SettingsError, match="replay=True"):
        small_mixture().predict(["my card is lost"], client, replay=True)
    replaying = ModelClient("fake", ledger=ledger, replay=True)
    with pytest.raises(NotRecorded):
        small_mixture().predict(["my card is lost"], replaying, replay=True)


def test_no_key_is_in_the_ledger_its_log_or_its_exports(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    book = Ledger(tmp_path / "l")
    with FakeEndpoint() as server:
        client = ModelClient(
            "fake",
            base_url=server.base_url.replace("http://", f"http://user:{SECRET}@"),
            ledger=book,
            api_key=SECRET,
            run="a run",
        )
        asyncio.run(client.complete_many(asks(20)))
        assert server.served == 20
    written = [file.read_bytes() for file in tmp_path.iterdir()]  # with the log, before it is folded in
    book.close()
    main(["ledger", "export", str(tmp_path / "l"), "-o", str(tmp_path / "calls.jsonl")])
    main(["ledger", "stats", str(tmp_path / "l"), "--by", "run"])
    written += [file.read_bytes() for file in tmp_path.iterdir()]
    assert len(written) >= 4
    assert all(SECRET.encode() not in content for content in written)
    assert SECRET not in "".join(capfd.readouterr())


def test_a_ledger_of_another_kind_names_its_url_without_the_password() -> None:
    with pytest.raises(LedgerError) as caught:
        Ledger("postgresql+nosuchdriver://user:hunter2@127.0.0.1/run")
    assert "hunter2" not in str(caught.value)


def test_the_same_search_has_the_same_bytes_when_it_is_replayed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoder_path: Path
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    options: dict[str, Any] = {"model": "simulated", "budget": 40, "ledger": tmp_path / "l"}
    rows = task(rows_per_answer=1)[:12]
    with FakeEndpoint(nearest_demo_answer) as server:
        first = mop.optimize(rows, base_url=server.base_url, **options)
        again = mop.optimize(rows, base_url=server.base_url, replay=True, **options)
    assert to_bytes(first) == to_bytes(again)
