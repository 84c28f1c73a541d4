"""Retrieved demos: the ones nearest to the query come last, after a prefix that is the same for every query."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from artifact_files import members, packed
from fake_endpoint import FakeEndpoint
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors
from small import WordEncoder, small_mixture

from mop.artifact import MANIFEST, VECTORS, from_bytes, to_bytes
from mop.connect import connect
from mop.embeddings.regions import Regions
from mop.errors import ArtifactError, SettingsError
from mop.evaluation import mixture_prompter, retrieving_prompter
from mop.examples import Example
from mop.lm.ledger import Ledger
from mop.mixture import Mixture
from mop.prompts import Demo, Prompt
from mop.retrieval import Retrieval
from mop.search.experts import DemoPool, Layout, Recipe

SHELF = (
    Demo("my card is blue", "card_blue"),
    Demo("my card is torn", "card_torn"),
    Demo("my parcel is wet", "parcel_wet"),
    Demo("my meeting is dull", "meeting_dull"),
)


def retrieval(count: int = 2) -> Retrieval:
    return Retrieval(SHELF, WordEncoder().encode([demo.input for demo in SHELF]), count)


def retrieving_mixture(count: int = 2) -> Mixture:
    return small_mixture(retrieval=retrieval(count))


@pytest.fixture
def endpoint() -> Iterator[FakeEndpoint]:
    with FakeEndpoint(lambda messages: "fine") as served:
        yield served


# -- prompts


def test_retrieved_demos_stand_between_an_experts_own_demos_and_the_query() -> None:
    prompt = Prompt("Name it.", (Demo("a", "A"),)).retrieving([Demo("b", "B")])
    assert [content for _, content in prompt.messages("q")] == ["Name it.", "a", "A", "b", "B", "q"]


def test_the_prefix_is_the_prompt_without_them() -> None:
    prompt = Prompt("Name it.", (Demo("a", "A"),))
    assert prompt.retrieving([Demo("b", "B")]).prefix == prompt
    assert prompt.prefix is prompt


def test_the_one_block_layout_shows_them_as_well() -> None:
    prompt = Prompt("Name it.", (Demo("a", "A"),), "block").retrieving([Demo("b", "B")])
    ((_, text),) = prompt.messages("q")
    assert text.index("Input: a") < text.index("Input: b") < text.index("Input: q")


# -- finding them


def test_the_nearest_demo_is_the_last_one() -> None:
    found = retrieval().nearest(WordEncoder().encode(["is my card torn"]))
    assert [demo.output for demo in found[0]] == ["card_blue", "card_torn"]


def test_no_more_are_retrieved_than_there_are() -> None:
    assert len(retrieval(50).nearest(WordEncoder().encode(["my card"]))[0]) == len(SHELF)


def test_a_message_that_was_labelled_twice_is_retrieved_once() -> None:
    examples = (Example("my card", ("a",)), Example("my card", ("b",)), Example("my parcel", ("c",)))
    vectors = WordEncoder().encode([example.input for example in examples])
    layout = Layout.build(Recipe(1, retrieved=2), Regions(vectors[:1]), None, DemoPool(examples, vectors), ())
    assert layout.retrieval is not None
    assert [demo.output for demo in layout.retrieval.demos] == ["a", "c"]


def test_a_layout_retrieves_in_the_space_in_which_it_routes() -> None:
    examples = (Example("x", ("a",)), Example("y", ("b",)))
    vectors = np.array([[1.0, 0.0], [0.0, 1.0]], dtype=np.float32)
    projection = np.array([[0.0], [5.0], [0.0]], dtype=np.float32)  # keeps the second component, times five
    pool = DemoPool(examples, vectors)
    layout = Layout.build(Recipe(1, retrieved=1), Regions(np.zeros((1, 1), np.float32)), projection, pool, ())
    (retrieved,) = layout.retrieved(np.array([[0.9, 0.8]], dtype=np.float32))
    assert [demo.output for demo in retrieved] == ["b"]


# -- in a mixture


def test_a_routed_query_asks_its_expert_with_the_demos_nearest_to_it(endpoint: FakeEndpoint) -> None:
    mixture = retrieving_mixture()
    client = connect("simulated", ledger=Ledger.in_memory(), base_url=endpoint.base_url)
    mixture.predict(["my card is torn"], client)
    sent = [message["content"] for message in endpoint.bodies[-1]["messages"]]
    assert sent[:3] == ["Answer about the card.", "my card is lost", "card_lost"]
    assert sent[3:] == ["my card is blue", "card_blue", "my card is torn", "card_torn", "my card is torn"]


def test_a_region_that_fell_back_asks_the_generalist_without_any() -> None:
    mixture = retrieving_mixture()
    route = mixture.route("my meeting is dull")
    assert route.fallback
    assert route.retrieved == ()
    assert mixture.prompt_of(route) == mixture.generalist


def test_one_prompt_can_retrieve_what_a_mixture_does_which_shows_what_the_experts_add() -> None:
    mixture, single = retrieving_mixture(), Prompt("One for all.")
    (prompt,) = retrieving_prompter(single, mixture)(["my card is torn"])
    assert prompt.prefix == single
    assert prompt.retrieved == mixture_prompter(mixture)(["my card is torn"])[0].retrieved
    with pytest.raises(SettingsError, match="retrieves no demos"):
        retrieving_prompter(single, small_mixture())


# -- in a file


def test_a_file_keeps_what_a_mixture_retrieves() -> None:
    mixture = retrieving_mixture()
    loaded = from_bytes(to_bytes(mixture)).with_known_encoder(WordEncoder())
    assert loaded.retrieval is not None
    assert (loaded.retrieval.demos, loaded.retrieval.count) == (SHELF, 2)
    assert loaded.route("my card is torn") == mixture.route("my card is torn")
    assert to_bytes(loaded) == to_bytes(mixture)


def test_a_file_without_retrieval_loads_as_a_mixture_without() -> None:
    parts = members()
    manifest = json.loads(parts[MANIFEST])
    del manifest["retrieval"]
    manifest["schema_version"] = 1
    assert from_bytes(packed({**parts, MANIFEST: json.dumps(manifest).encode()})).retrieval is None


@pytest.mark.parametrize(
    "change",
    [
        lambda arrays: arrays.pop("retrieved"),
        lambda arrays: arrays.update(retrieved=arrays["retrieved"][:-1]),
        lambda arrays: arrays.update(retrieved=arrays["retrieved"][:, :-1]),
        lambda arrays: arrays.update(retrieved=np.full_like(arrays["retrieved"], np.nan)),
    ],
)
def test_vectors_that_do_not_fit_the_demos_are_an_artifact_error(change: Any) -> None:
    parts = members(to_bytes(retrieving_mixture()))
    arrays = load_tensors(parts[VECTORS])
    change(arrays)
    vectors = save_tensors(arrays)
    manifest = {**json.loads(parts[MANIFEST]), "vectors_sha256": hashlib.sha256(vectors).hexdigest()}
    with pytest.raises(ArtifactError):
        from_bytes(packed({MANIFEST: json.dumps(manifest).encode(), VECTORS: vectors}))


def test_vectors_of_demos_that_the_text_does_not_have_are_an_artifact_error() -> None:
    parts = members(to_bytes(retrieving_mixture()))
    manifest = {**json.loads(parts[MANIFEST]), "retrieval": None}
    with pytest.raises(ArtifactError, match="retrieved"):
        from_bytes(packed({**parts, MANIFEST: json.dumps(manifest).encode()}))


def test_a_prompt_made_for_one_query_cannot_be_an_experts() -> None:
    mixture = small_mixture(generalist=Prompt("Answer.").retrieving([Demo("a", "A")]))
    with pytest.raises(ArtifactError, match="retrieved"):
        to_bytes(mixture)
