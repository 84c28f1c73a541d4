"""The mixture at run time: it routes with the right encoder only, and asks each query once, expert by expert."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_endpoint import FakeEndpoint
from small import TOPICS, WordEncoder, small_mixture

import mop
from mop.cli.learning import validated
from mop.connect import connect
from mop.embeddings.encoders import SentenceTransformerEncoder, Vectors
from mop.errors import DataError, EncoderMismatch, SettingsError
from mop.lm.client import ModelClient
from mop.lm.ledger import Ledger
from mop.mixture import PROBES, EncoderRecord, Mixture, Route

QUERIES = ["my meeting moved", "my card is gone", "parcel please", "the card again", "where is my parcel"]


@pytest.fixture
def endpoint() -> Iterator[FakeEndpoint]:
    with FakeEndpoint(lambda messages: f"  about {messages[-1]['content']} \n") as served:
        yield served


@pytest.fixture
def client(endpoint: FakeEndpoint) -> ModelClient:
    return connect("simulated", ledger=Ledger.in_memory(), base_url=endpoint.base_url, concurrency=1)


# -- routing


def test_a_query_goes_to_the_expert_whose_centroid_is_nearest() -> None:
    mixture = small_mixture()
    for number, topic in enumerate(TOPICS):
        route = mixture.route(f"my {topic}")
        assert isinstance(route, Route)
        assert route.expert == number
        assert 0 <= route.distance < route.distance + route.margin


def test_one_query_gives_one_route_and_a_list_gives_a_list_of_the_same_routes() -> None:
    mixture = small_mixture()
    routes = mixture.route(QUERIES)
    assert [route.expert for route in routes] == [2, 0, 1, 0, 1]
    for query, route in zip(QUERIES, routes, strict=True):
        alone = mixture.route(query)
        assert (alone.expert, alone.fallback) == (route.expert, route.fallback)
        assert (alone.distance, alone.margin) == pytest.approx((route.distance, route.margin), abs=1e-5)
    assert mixture.route([]) == []


def test_distance_and_margin_are_squared_euclidean() -> None:
    mixture = small_mixture()
    vector = WordEncoder().encode(["card meeting meeting"])
    squared = ((mixture.centroids - vector) ** 2).sum(axis=1)
    route = mixture.route("card meeting meeting")
    assert route.expert == squared.argmin()
    assert route.distance == pytest.approx(squared.min(), abs=1e-5)
    assert route.margin == pytest.approx(np.sort(squared)[1] - squared.min(), abs=1e-5)


def test_with_one_expert_the_margin_is_infinite() -> None:
    whole = small_mixture()
    mixture = small_mixture(experts=whole.experts[:1], centroids=whole.centroids[:1])
    assert mixture.route("anything") == Route(0, pytest.approx(mixture.route("anything").distance), np.inf, False)


def test_routing_goes_through_the_projection() -> None:
    encoder = WordEncoder()
    # A projection to the one place that "parcel" is counted in: everything else looks the same.
    place = int(encoder.encode(["parcel"])[0].argmax())
    projection = np.zeros((33, 2), np.float32)
    projection[place, 0] = 1
    projection[-1] = [-0.2, 0.1]
    centroids = np.asarray([[-1, 0.5], [1, 0.2], [0, -1]], np.float32)
    mixture = small_mixture(projection=projection, centroids=centroids)
    assert [route.expert for route in mixture.route(["card", "parcel", "meeting"])] == [0, 1, 0]


@pytest.mark.parametrize(
    ("queries", "words"),
    [
        (["a", ""], "Query 2 is ''"),
        ([" \n"], "Query 1"),
        ([None], "Query 1 is None"),
        ([3], "Query 1 is 3"),
        (["ok", "\ud800"], "Query 2.*UTF-8"),
    ],
)
def test_a_query_that_is_no_text_is_a_data_error_that_says_which(queries: list[Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        small_mixture().route(queries)


def test_queries_may_come_from_any_iterable_but_not_as_one_string() -> None:
    mixture = small_mixture()
    assert len(mixture.route(query for query in QUERIES)) == len(QUERIES)  # type: ignore[call-overload]
    assert len(mixture.route(np.asarray(QUERIES))) == len(QUERIES)  # type: ignore[call-overload]
    with pytest.raises(DataError, match="list of queries"):
        mixture.predict("my card")


# -- the encoder


class Turned:
    """The same vectors in another order of components: an encoder of the same dimension that means something else."""

    def __init__(self, encoder: SentenceTransformerEncoder) -> None:
        self._encoder = encoder
        self.identity = "turned@1"

    def encode(self, texts: Sequence[str]) -> Vectors:
        return np.ascontiguousarray(self._encoder.encode(texts)[:, ::-1])


@pytest.fixture(scope="module")
def real(encoder_path: Path) -> SentenceTransformerEncoder:
    return SentenceTransformerEncoder(encoder_path, name="local/all-minilm-l6-v2")


@pytest.fixture(scope="module")
def saved(real: SentenceTransformerEncoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "real.mop"
    small_mixture(
        centroids=real.encode(TOPICS),
        encoder_record=EncoderRecord("local/all-minilm-l6-v2", real.identity, real.encode(PROBES)),
    ).save(path)
    return path


def test_a_loaded_mixture_finds_its_encoder_by_itself(saved: Path) -> None:
    routes = mop.load(saved).route(["credit card", "package delivery", "appointment in the office"])
    assert [route.expert for route in routes] == [0, 1, 2]


def test_another_encoder_is_a_mismatch_that_names_both(saved: Path, real: SentenceTransformerEncoder) -> None:
    with pytest.raises(EncoderMismatch) as raised:
        mop.load(saved).use_encoder(Turned(real))
    assert real.identity in str(raised.value)
    assert "turned@1" in str(raised.value)


def test_an_encoder_of_another_dimension_is_a_mismatch_that_names_both(saved: Path) -> None:
    with pytest.raises(EncoderMismatch, match=r"all-minilm-l6-v2@\w+ \(dimension 384\).*words:0@32.*dimension 32"):
        mop.load(saved).use_encoder(WordEncoder())


def test_other_weights_under_the_recorded_name_are_a_mismatch_when_routing(
    real: SentenceTransformerEncoder, encoder_path: Path
) -> None:
    turned = Turned(real)
    record = EncoderRecord(str(encoder_path), turned.identity, turned.encode(PROBES))
    mixture = small_mixture(centroids=turned.encode(TOPICS), encoder_record=record)
    del mixture.__dict__["encoder"]
    with pytest.raises(EncoderMismatch, match="turned@1"):
        mixture.route("my card")


def test_an_encoder_that_gives_no_numbers_is_a_mismatch(saved: Path, real: SentenceTransformerEncoder) -> None:
    class Broken(Turned):
        def encode(self, texts: Sequence[str]) -> Vectors:
            return np.full((len(texts), 384), np.nan, np.float32)

    with pytest.raises(EncoderMismatch, match="nan"):
        mop.load(saved).use_encoder(Broken(real))


def test_the_right_encoder_under_another_path_is_accepted(saved: Path, encoder_path: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").symlink_to(encoder_path)
    mixture = mop.load(saved).use_encoder(SentenceTransformerEncoder(tmp_path / "elsewhere"))
    assert mixture.route("credit card").expert == 0


def test_an_embeddings_endpoint_of_a_file_gets_nothing_unless_the_environment_names_it_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.delenv("MOP_ENCODER", raising=False)
    name = "endpoint:embedder@http://embeddings.invalid/v1"
    record = replace(small_mixture().encoder_record, name=name)
    mixture = small_mixture(encoder_record=record)
    del mixture.__dict__["encoder"]
    with pytest.raises(SettingsError, match=r"embeddings\.invalid.*MOP_ENCODER"):
        mixture.route("my card")


def test_an_embeddings_endpoint_on_this_machine_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOP_API_KEY", "key")
    from mop.encoding import resolve_encoder

    with FakeEndpoint() as endpoint:
        name = f"endpoint:embedder@{endpoint.base_url}"
        encoder = resolve_encoder(name)
        mixture = small_mixture(
            centroids=encoder.encode(TOPICS),
            encoder_record=EncoderRecord(name, encoder.identity, encoder.encode(PROBES)),
        )
        del mixture.__dict__["encoder"]
        assert [route.expert for route in mixture.route(TOPICS)] == [0, 1, 2]


# -- answering


def test_each_query_is_asked_once_and_answers_keep_the_order_of_the_queries(
    endpoint: FakeEndpoint, client: ModelClient
) -> None:
    answers = small_mixture().predict(QUERIES, client)
    assert [answer.text for answer in answers] == [f"about {query}" for query in QUERIES]
    assert [answer.expert for answer in answers] == [2, 0, 1, 0, 1]
    assert all(answer.usage.prompt_tokens > 0 for answer in answers)
    assert endpoint.served == len(QUERIES)


def test_queries_of_one_expert_are_asked_together_with_the_same_prefix(
    endpoint: FakeEndpoint, client: ModelClient
) -> None:
    mixture = small_mixture()
    mixture.predict(QUERIES, client)
    asked = [body["messages"] for body in endpoint.bodies]
    assert [messages[-1]["content"] for messages in asked] == [
        "my card is gone",
        "the card again",
        "parcel please",
        "where is my parcel",
        "my meeting moved",
    ]
    prefixes = [json.dumps(messages[:-1]) for messages in asked]
    assert prefixes[0] == prefixes[1] != prefixes[2] == prefixes[3] != prefixes[4]


def test_a_region_that_fell_back_is_answered_by_the_generalist(endpoint: FakeEndpoint, client: ModelClient) -> None:
    mixture = small_mixture()
    route = mixture.route("my meeting moved")
    assert route.fallback
    assert mixture.prompt_of(route) == mixture.generalist
    mixture.predict(["my meeting moved"], client)
    assert endpoint.bodies[0]["messages"][0]["content"] == mixture.generalist.instruction
    assert mixture.kept == 2


def test_the_decoding_of_the_mixture_is_used(endpoint: FakeEndpoint, client: ModelClient) -> None:
    small_mixture().predict(["my card"], client)
    body = endpoint.bodies[0]
    assert (body["model"], body["max_tokens"], body["stop"], body["temperature"]) == ("simulated", 16, ["\n"], 0)


def test_a_client_of_another_model_is_asked_for_its_own(endpoint: FakeEndpoint) -> None:
    other = connect("other", ledger=Ledger.in_memory(), base_url=endpoint.base_url)
    small_mixture().predict(["my card"], other)
    assert endpoint.bodies[0]["model"] == "other"


def test_an_empty_query_is_a_data_error_before_anything_is_asked(endpoint: FakeEndpoint, client: ModelClient) -> None:
    with pytest.raises(DataError, match="Query 2 is ' '"):
        small_mixture().predict(["my card", " "], client)
    assert endpoint.served == 0


def test_no_queries_are_no_calls(endpoint: FakeEndpoint, client: ModelClient) -> None:
    assert small_mixture().predict([], client) == []
    assert endpoint.served == 0


def test_without_a_client_the_model_of_the_mixture_is_asked_and_the_users_ledger_used(
    endpoint: FakeEndpoint, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", endpoint.base_url)
    monkeypatch.setenv("MOP_LEDGER", str(tmp_path / "ledger.sqlite"))
    for _ in range(2):
        assert small_mixture().predict(["my card"])[0].text == "about my card"
    assert endpoint.served == 1


async def test_the_async_form_gives_the_same_answers(client: ModelClient) -> None:
    answers = await small_mixture().apredict(QUERIES, client)
    assert [answer.text for answer in answers] == [f"about {query}" for query in QUERIES]
    await client.aclose()


def test_prediction_works_while_a_loop_is_running(client: ModelClient) -> None:
    import asyncio

    async def cell() -> list[mop.Answer]:
        return small_mixture().predict(["my card"], client)

    assert asyncio.run(cell())[0].text == "about my card"


# -- what is loaded, and when


def modules_after(script: str, *arguments: str) -> set[str]:
    code = f"import sys\n{script}\nprint('\\n'.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=60, check=True
    )
    return set(done.stdout.split())


def test_importing_mop_loads_nothing_heavy() -> None:
    loaded = modules_after("import mop")
    heavy = {"numpy", "torch", "faiss", "openai", "sklearn", "pydantic", "sqlalchemy", "asyncio", "pandas"}
    assert not loaded & heavy


def test_importing_mop_takes_under_a_third_of_a_second() -> None:
    def microseconds() -> int:
        done = subprocess.run(
            [sys.executable, "-X", "importtime", "-c", "import mop"],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        line = next(line for line in done.stderr.splitlines() if line.split("|")[-1].strip() == "mop")
        return int(line.split("|")[1])

    assert min(microseconds() for _ in range(3)) < 300_000


def test_loading_and_routing_load_neither_the_search_nor_scikit_learn_nor_torch(tmp_path: Path) -> None:
    small_mixture().save(tmp_path / "m.mop")
    script = f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n" + (
        "import mop\nfrom small import WordEncoder\n"
        "mixture = mop.load(sys.argv[1]).use_encoder(WordEncoder())\n"
        "assert mixture.route('my parcel').expert == 1"
    )
    loaded = modules_after(script, str(tmp_path / "m.mop"))
    assert "mop.mixture" in loaded
    assert not {name for name in loaded if name.startswith("mop.search")}
    assert not loaded & {"sklearn", "torch", "sentence_transformers", "openai", "sqlalchemy"}


def test_finding_the_encoder_loads_neither_the_search_nor_scikit_learn(encoder_path: Path) -> None:
    script = (
        "from mop.encoding import resolve_encoder\n"
        "assert resolve_encoder(sys.argv[1]).identity.startswith('sentence-transformers:')"
    )
    loaded = modules_after(script, str(encoder_path))
    assert not {name for name in loaded if name.startswith("mop.search")}
    assert not loaded & {"sklearn", "torch", "openai", "sqlalchemy"}


def test_every_public_name_is_there() -> None:
    for name in mop.__all__:
        assert getattr(mop, name) is not None
    assert mop.Mixture is Mixture
    with pytest.raises(AttributeError, match="nothing"):
        mop.nothing  # noqa: B018


def test_a_mixture_that_too_few_examples_judged_is_not_said_to_show_no_gain() -> None:
    gate = {"layout": "2 experts", "mixture": 1.0, "generalist": 0.1, "gain": 0.9, "gain_low": 0.7, "open": False}
    for validation, words in [(7, "So few examples show nothing (20 are needed)"), (40, "That does not show a gain")]:
        report = {"gate": {**gate, "validation": validation}}
        assert validated(replace(small_mixture(), report=report))[-1].startswith(words)
