"""Roles for conversations: written by a model that sees examples, kept if they fit, resumed from the ledger."""

import json
from pathlib import Path

import pytest
from fake_endpoint import FakeEndpoint
from small import WordEncoder, small_mixture

from mop.cli import main
from mop.lm.client import ModelClient
from mop.lm.ledger import Ledger
from mop.students.annotation import annotate, annotate_by_region, fit_of, read_role, role_problem, role_request
from mop.students.conversations import Conversation, read_conversations

TOPICS = {
    "bread": "a baker who bakes bread",
    "trees": "a gardener who prunes trees",
    "loans": "a banker who sells loans",
}


def asking(question: str) -> Conversation:
    turns = ({"role": "user", "content": question}, {"role": "assistant", "content": "So."})
    return Conversation(turns, 1)


def fitting(messages: list[dict[str, str]]) -> str:
    question = messages[-1]["content"]
    return next((role for topic, role in TOPICS.items() if topic in question), "a clerk who files papers")


@pytest.fixture
def ledger(tmp_path: Path):
    opened = Ledger(tmp_path / "ledger.sqlite")
    yield opened
    opened.close()


def client_of(endpoint: FakeEndpoint, ledger: Ledger) -> ModelClient:
    return ModelClient("m", ledger=ledger, base_url=endpoint.base_url, api_key="k")


ROWS = [asking(f"Tell me about {topic}, please. Number {n}.") for n, topic in enumerate(TOPICS)]


async def test_each_conversation_gets_the_role_that_fits_it(ledger):
    with FakeEndpoint(fitting) as endpoint:
        done = await annotate(ROWS, client_of(endpoint, ledger), WordEncoder(256))
        assert [row.role for row in done.rows] == list(TOPICS.values())
        assert not done.refused
        assert done.fit.own > done.fit.shuffled
        assert done.fit.nearer == 1.0
        assert endpoint.served == 3
        again = await annotate(ROWS, client_of(endpoint, ledger), WordEncoder(256))
        assert again.rows == done.rows
        assert endpoint.served == 3  # the second time from the ledger


async def test_a_role_that_fits_other_questions_better_is_asked_for_again_and_then_set_aside(ledger):
    def swapped(messages: list[dict[str, str]]) -> str:
        return "a baker who bakes bread" if "trees" in messages[-1]["content"] else fitting(messages)

    with FakeEndpoint(swapped) as endpoint:
        done = await annotate(ROWS, client_of(endpoint, ledger), WordEncoder(256))
    assert [row.role for row in done.rows] == [TOPICS["bread"], TOPICS["loans"]]
    [(row, role, reason)] = done.refused
    assert (row, role) == (ROWS[1], TOPICS["bread"])
    assert "no nearer to its own question" in reason
    assert endpoint.served == 5  # three at first, and twice again for one


async def test_roles_that_have_nothing_to_do_with_their_questions_do_not_fit(ledger):
    questions = [f"Tell me about {topic}" for topic in TOPICS] * 4
    roles = [*list(TOPICS.values())[1:], next(iter(TOPICS.values()))] * 4
    found = fit_of(roles, questions, WordEncoder(256))
    assert not found.fits
    assert fit_of(list(TOPICS.values()) * 4, questions, WordEncoder(256)).fits
    assert fit_of(["a clerk"] * 3, questions[:3], WordEncoder(256)) is None


async def test_a_mixtures_regions_give_the_roles_and_nobody_where_a_region_had_no_gain(ledger):
    mixture = small_mixture()
    asked = [asking("my card is lost"), asking("my parcel is lost"), asking("my meeting is lost")]
    routes = mixture.route([row.question for row in asked])
    assert [route.fallback for route in routes] == [False, False, True]

    def by_region(messages: list[dict[str, str]]) -> str:
        return "a bank clerk who replaces cards" if "card" in messages[-1]["content"] else "a postman who finds parcels"

    with FakeEndpoint(by_region) as endpoint:
        done = await annotate_by_region(asked, client_of(endpoint, ledger), mixture)
    assert [row.role for row in done.rows] == ["a bank clerk who replaces cards", "a postman who finds parcels", None]
    assert all(row.annotated for row in done.rows)
    assert endpoint.served == 2


@pytest.mark.parametrize(
    ("reply", "role"),
    [
        ("A nurse who explains calmly.", "a nurse who explains calmly"),
        ('Role: "a nurse who explains calmly"', "a nurse who explains calmly"),
        ("You are a nurse who explains calmly\nand more", "a nurse who explains calmly"),
        ("\n  an actor on small stages  \n", "an actor on small stages"),
    ],
)
def test_a_reply_is_read_as_one_line_that_names_a_person(reply, role):
    assert read_role(reply) == role
    assert role_problem(role, "How are you?") is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Sure! Here is the answer",
        "a nurse",
        "a nurse " + "who " * 50,
        "a nurse [with] brackets",
        "a poet who works with few words and plain pictures from everyday life",
        "a person who knows how are you? and more",
    ],
)
def test_what_is_no_role_is_refused(text):
    assert role_problem(read_role(text), "How are you?")


def test_later_attempts_are_other_requests_and_examples_come_as_turns():
    first, second = (role_request("m", "Why?", attempt) for attempt in (0, 1))
    assert first.key != second.key
    assert [role for role, _ in first.messages] == ["system", *["user", "assistant"] * 4, "user"]
    assert first.messages[-1] == ("user", "Why?")


def test_the_command_line_annotates_and_goes_on_from_its_ledger(tmp_path, monkeypatch, capsys, encoder_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MOP_API_KEY", "k")
    rows = [
        {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": "So."}]}
        for question in ("How long does bread rise?", "When do I prune trees?", "What do loans cost?", "Help?")
    ]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with FakeEndpoint(
        lambda messages: "no idea" if "Help" in messages[-1]["content"] else fitting(messages)
    ) as endpoint:
        asked = ["students", "annotate", "data.jsonl", "--model", "m", "--base-url", endpoint.base_url]
        asked += ["--ledger", "l.sqlite", "--json"]
        assert main([*asked, "-o", "roles.jsonl"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert (found["annotated"], found["refused"], found["nobody"]) == (3, 1, 0)
        assert found["fit"]["own"] > found["fit"]["shuffled"]
        served = endpoint.served
        assert main([*asked, "-o", "again.jsonl"]) == 0
        assert endpoint.served == served
        assert main([*asked, "-o", "data.jsonl"]) == 3
        assert "would be replaced" in capsys.readouterr().err
    written = read_conversations("roles.jsonl", annotated=True)
    assert [row.role for row in written] == list(TOPICS.values())
    assert (tmp_path / "again.jsonl").read_bytes() == (tmp_path / "roles.jsonl").read_bytes()
    [reject] = [json.loads(text) for text in (tmp_path / "roles.rejects.jsonl").read_text().splitlines()]
    assert (reject["line"], reject["role"]) == (4, "no idea")


def test_no_role_at_all_is_an_error_that_names_the_rejects(tmp_path, monkeypatch, capsys, encoder_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MOP_API_KEY", "k")
    row = {"messages": [{"role": "user", "content": "Help?"}, {"role": "assistant", "content": "So."}]}
    (tmp_path / "data.jsonl").write_text(json.dumps(row))
    with FakeEndpoint(lambda _messages: "no idea") as endpoint:
        asked = ["students", "annotate", "data.jsonl", "-o", "roles.jsonl", "--model", "m", "--ledger", "l.sqlite"]
        assert main([*asked, "--base-url", endpoint.base_url]) not in (0, 1)
    assert "roles.rejects.jsonl says why" in capsys.readouterr().err
    assert "no idea" in (tmp_path / "roles.rejects.jsonl").read_text()


def test_the_fit_of_many_roles_takes_little_memory():
    import tracemalloc

    roles = [f"a person with {n} cats" for n in range(4000)]
    encoder = WordEncoder(8)
    tracemalloc.start()
    fit_of(roles, roles, encoder)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 100_000_000  # lists of all others alone took 8 bytes times the square of their number
