"""Scoring systems on the same examples, and retrieved few-shot prompts as an opponent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fake_endpoint import FakeEndpoint
from simulated import nearest_demo_answer, splits

from mop.decoding import Decoding
from mop.errors import DataError, SettingsError
from mop.evaluation import evaluate, single_prompter
from mop.examples import Example
from mop.lm.client import ModelClient
from mop.lm.ledger import Ledger
from mop.mixture import PROBES, EncoderRecord, Expert, Mixture
from mop.prompts import Demo, Prompt
from mop.search.knn import NearestDemos
from mop.search.words import region_words


class LetterEncoder:
    """Encodes a text by whether it speaks of cards or parcels."""

    identity = "letters"

    def encode(self, texts: Sequence[str]) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
        rows = [[1.0, 0.0] if "card" in text else [0.0, 1.0] for text in texts]
        return np.asarray(rows, dtype=np.float32)


def mixture(*, fallback: bool = False) -> Mixture:
    encoder = LetterEncoder()
    prompts = [Prompt("Name it.", (Demo(f"my {kind} is gone", f"{kind}_gone"),)) for kind in ("card", "parcel")]
    return Mixture(
        experts=(Expert(prompts[0], 5, 2), Expert(prompts[1], 5, 2, fallback=fallback)),
        generalist=Prompt("Name it.", (Demo("my card is gone", "card_gone"),)),
        centroids=np.eye(2, dtype=np.float32),
        encoder_record=EncoderRecord("letters", "letters", encoder.encode(PROBES)),
        model="simulated",
        decoding=Decoding(16),
        metric="exact_match",
    ).use_encoder(encoder)


ROWS = [Example("the card is gone", ("card_gone",)), Example("the parcel is gone", ("parcel_gone",))] * 3


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> object:
    monkeypatch.setenv("MOP_API_KEY", "key")
    with FakeEndpoint(nearest_demo_answer) as endpoint:
        yield ModelClient("simulated", ledger=Ledger.in_memory(), base_url=endpoint.base_url)


def test_a_mixture_is_scored_beside_its_generalist_on_the_same_examples(client: ModelClient) -> None:
    result = evaluate(mixture(), ROWS, client)
    scores = {system.name: system.accuracy for system in result.systems}
    assert scores == {"mixture": 1.0, "generalist": 0.5}
    difference = result.difference("mixture", "generalist")
    assert (difference.wins, difference.losses, difference.ties) == (3, 0, 3)


def test_a_region_that_falls_back_is_answered_by_the_generalist(client: ModelClient) -> None:
    result = evaluate(mixture(fallback=True), ROWS, client)
    assert result.systems[0].accuracy == result.systems[1].accuracy == 0.5


def test_equal_questions_of_one_system_are_one_call(client: ModelClient) -> None:
    assert evaluate(mixture(), ROWS, client).systems[0].calls == 2


def test_an_opponent_is_scored_as_well_and_the_result_is_plain_data(client: ModelClient) -> None:
    mute = single_prompter(Prompt("Say nothing useful."))
    result = evaluate(mixture(), ROWS, client, against={"mute": mute}).to_dict()
    assert [system["name"] for system in result["systems"]] == ["mixture", "generalist", "mute"]
    assert result["differences"][1]["mean"] == 1.0
    assert result["systems"][0]["usd_per_1000"] is None, "the price of this model isn't known, and not zero"


def test_nothing_to_evaluate_on_is_an_error(client: ModelClient) -> None:
    with pytest.raises(DataError, match="no examples"):
        evaluate(mixture(), [], client)


def test_retrieved_demos_are_the_nearest_ones_with_the_nearest_last(encoder_path: Path) -> None:
    from mop.embeddings.encoders import SentenceTransformerEncoder

    train = splits().train
    prompter = NearestDemos(train, SentenceTransformerEncoder(encoder_path), "Name it.", k=5)
    (prompt,) = prompter([train[7].input])
    assert len(prompt.demos) == 5
    assert prompt.demos[-1].input == train[7].input
    assert train[7].output in prompt.instruction


def test_words_mark_a_region_by_what_is_rare_elsewhere() -> None:
    texts = ["my card broke", "the card again", "my parcel broke", "the parcel again"]
    words = region_words(texts, np.array([0, 0, 1, 1]), 2, words=1)
    assert words == (("card",), ("parcel",))


def test_regions_of_numbers_have_no_words() -> None:
    assert region_words(["1 2", "3 4"], np.array([0, 1]), 3) == ((), (), ())


def test_a_file_does_not_get_to_say_which_code_runs(client: ModelClient) -> None:
    hostile = replace(mixture(), metric="os:execv").with_known_encoder(LetterEncoder())
    with pytest.raises(SettingsError, match="trust"):
        evaluate(hostile, ROWS, client)
    assert evaluate(hostile, ROWS, client, metric="exact_match").systems[0].accuracy == 1.0
