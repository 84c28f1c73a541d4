"""Encoders: unit vectors in the order of the texts, each text encoded once ever, and identities that tell weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from fake_endpoint import FakeEndpoint
from small import WordEncoder

from mop.embeddings.encoders import CachedEncoder, EndpointEncoder, SentenceTransformerEncoder
from mop.encoding import resolve_encoder, resolve_recorded_encoder
from mop.errors import ModelError, SettingsError, WeightsError
from mop.lm.ledger import Ledger

TEXTS = ["my card was swallowed", "x", "", "größer 🦊", "a much longer text than the others " * 30, "my card is gone"]


@pytest.fixture(scope="module")
def real(encoder_path: Path) -> SentenceTransformerEncoder:
    return SentenceTransformerEncoder(encoder_path)


# -- sentence-transformers


def test_vectors_have_unit_norm_and_one_row_per_text(real: SentenceTransformerEncoder) -> None:
    vectors = real.encode(TEXTS)
    assert vectors.shape == (len(TEXTS), 384)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_rows_are_in_the_order_of_the_texts_whatever_their_length(real: SentenceTransformerEncoder) -> None:
    vectors = real.encode(TEXTS)
    for text, vector in zip(TEXTS, vectors, strict=True):
        assert float(real.encode([text])[0] @ vector) > 0.9999


def test_texts_of_one_meaning_are_nearer_than_others(real: SentenceTransformerEncoder) -> None:
    card, gone, other = real.encode(["my card was swallowed", "the machine kept my card", "how old is the moon"])
    assert card @ gone > card @ other + 0.2


def test_no_texts_give_no_rows_of_the_right_dimension(real: SentenceTransformerEncoder) -> None:
    assert real.encode([]).shape == (0, 384)


def test_the_identity_tells_the_name_and_the_weights(encoder_path: Path) -> None:
    encoder = SentenceTransformerEncoder(encoder_path, name="local/all-minilm-l6-v2")
    assert encoder.identity == "sentence-transformers:local/all-minilm-l6-v2@53aa51172d142c89"


def test_the_identity_covers_all_files_of_weights(tmp_path: Path) -> None:
    (tmp_path / "one.safetensors").write_bytes(b"1")
    single = SentenceTransformerEncoder(tmp_path, name="n").identity
    (tmp_path / "2_Dense").mkdir()
    (tmp_path / "2_Dense" / "model.safetensors").write_bytes(b"2")
    double = SentenceTransformerEncoder(tmp_path, name="n").identity
    (tmp_path / "2_Dense" / "model.safetensors").write_bytes(b"3")
    changed = SentenceTransformerEncoder(tmp_path, name="n").identity
    assert len({single, double, changed}) == 3


def test_a_model_known_by_name_only_has_no_hash() -> None:
    assert SentenceTransformerEncoder("some/model").identity == "sentence-transformers:some/model@hub"


@pytest.mark.parametrize("kind", ["missing", "empty", "truncated"])
def test_a_folder_that_is_no_encoder_is_a_settings_error_that_says_what_to_do(
    kind: str, tmp_path: Path, encoder_path: Path
) -> None:
    folder = tmp_path / kind
    if kind != "missing":
        folder.mkdir()
    if kind == "truncated":
        for file in encoder_path.iterdir():
            if file.is_file():
                (folder / file.name).write_bytes(
                    file.read_bytes()[:1000] if file.stat().st_size > 10**7 else file.read_bytes()
                )
        (folder / "1_Pooling").symlink_to(encoder_path / "1_Pooling")
    with pytest.raises(SettingsError, match=f"{kind}.*cannot be loaded.*mop models pull"):
        SentenceTransformerEncoder(folder).encode(["x"])


# -- the cache


def test_each_text_is_encoded_once_ever(tmp_path: Path) -> None:
    texts = ["one", "two", "one", "three"]
    inner = WordEncoder()
    first = CachedEncoder(inner, Ledger(tmp_path / "ledger.sqlite"))
    vectors = first.encode(texts)
    assert sorted(inner.encoded) == ["one", "three", "two"]
    first.encode(["two", "four"])
    assert sorted(inner.encoded) == ["four", "one", "three", "two"]

    later = WordEncoder()
    again = CachedEncoder(later, Ledger(tmp_path / "ledger.sqlite"))
    np.testing.assert_array_equal(again.encode(texts), vectors)
    assert later.encoded == []


def test_the_cache_keeps_the_order_with_duplicates() -> None:
    texts = ["b", "a", "b", "c", "a", "a"]
    cached = CachedEncoder(WordEncoder(), Ledger.in_memory())
    cached.encode(["c", "b"])
    np.testing.assert_array_equal(cached.encode(texts), WordEncoder().encode(texts))


def test_vectors_of_different_encoders_are_kept_apart() -> None:
    ledger = Ledger.in_memory()
    CachedEncoder(WordEncoder(seed=1), ledger).encode(["a", "b"])
    other = CachedEncoder(WordEncoder(seed=2), ledger)
    np.testing.assert_array_equal(other.encode(["a", "b"]), WordEncoder(seed=2).encode(["a", "b"]))


def test_the_cache_is_who_it_caches_and_takes_no_texts_too() -> None:
    cached = CachedEncoder(WordEncoder(), Ledger.in_memory())
    assert cached.identity == WordEncoder().identity
    assert cached.encode([]).shape == (0, 32)


# -- embeddings endpoints


def test_an_endpoint_gives_unit_vectors_in_the_order_of_the_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOP_API_KEY", "key")
    texts = [f"text {number}" for number in range(150)]  # several calls
    with FakeEndpoint() as endpoint:
        encoder = resolve_encoder(f"endpoint:embedder@{endpoint.base_url}")
        vectors = encoder.encode(texts)
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
        np.testing.assert_allclose(encoder.encode(texts[77:78])[0], vectors[77], atol=1e-6)
        assert encoder.identity == f"endpoint:embedder@{endpoint.base_url}"
        assert encoder.encode([]).shape == (0, 0)
        assert {body["model"] for body in endpoint.bodies} == {"embedder"}


@pytest.mark.parametrize(
    "rows", [[[1.0, 0.0]], [[1.0], [1.0, 2.0]], [[1.0, float("nan")], [1.0, 0.0]], [[1e300, 0.0], [1.0, 0.0]]]
)
def test_an_endpoint_that_gives_no_usable_vectors_is_a_model_error(rows: list[list[float]]) -> None:
    with np.errstate(over="ignore"), pytest.raises(ModelError, match="endpoint:embedder gave"):
        EndpointEncoder(lambda _: rows, name="embedder").encode(["a", "b"])


def test_a_vector_of_zeros_stays_finite() -> None:
    def zeros(texts: Sequence[str]) -> list[list[float]]:
        return [[0.0, 0.0] for _ in texts]

    assert EndpointEncoder(zeros, name="n").encode(["a"]).tolist() == [[0.0, 0.0]]


def test_a_model_may_have_an_at_sign_in_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOP_API_KEY", "key")
    with FakeEndpoint() as endpoint:
        encoder = resolve_encoder(f"endpoint:@cf/baai/bge@1@{endpoint.base_url}")
        encoder.encode(["x"])
        assert endpoint.bodies[0]["model"] == "@cf/baai/bge@1"


# -- names


@pytest.mark.parametrize("name", ["", "  ", "endpoint:", "endpoint:@http://127.0.0.1:1/v1"])
def test_a_name_that_names_nothing_is_a_settings_error(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOP_API_KEY", "key")  # or the missing key would be the error
    with pytest.raises(SettingsError):
        resolve_encoder(name)


def test_a_model_that_the_registry_does_not_have_is_said_to_be_missing() -> None:
    with pytest.raises((SettingsError, WeightsError), match="local/no-such-encoder"):
        resolve_encoder("local/no-such-encoder")


def test_with_a_ledger_vectors_are_kept_in_it(encoder_path: Path, real: SentenceTransformerEncoder) -> None:
    ledger = Ledger.in_memory()
    encoder = resolve_encoder(str(encoder_path), ledger=ledger)
    encoder.encode(["x"])
    assert isinstance(encoder, CachedEncoder)
    assert encoder.identity == real.identity
    assert len(ledger.get_vectors(encoder.identity, [_sha256("x")])) == 1


def _sha256(text: str) -> str:
    import hashlib

    return hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize("variable", ["MOP_ENCODER", "OPENAI_BASE_URL"])
def test_a_recorded_endpoint_elsewhere_is_trusted_once_the_environment_names_it(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = "https://embeddings.invalid/v1"
    for name in ("MOP_ENCODER", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SettingsError, match="would get your queries and your API key"):
        resolve_recorded_encoder(f"endpoint:m@{url}")
    monkeypatch.setenv(variable, f"endpoint:m@{url}" if variable == "MOP_ENCODER" else url)
    assert resolve_recorded_encoder(f"endpoint:m@{url}").identity == f"endpoint:m@{url}"
