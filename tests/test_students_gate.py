"""The gate: tested on templates it hasn't seen, beside baselines; it beats the region table or the table is kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small import small_mixture

from mop.embeddings.encoders import SentenceTransformerEncoder
from mop.errors import ArtifactError, DataError
from mop.mixture import PROBES, EncoderRecord
from mop.seeds import stream
from mop.students.features import Regions, Rows, regions_of
from mop.students.gate import Gate, Linear
from mop.students.gate_files import load_gate, regions_from, save_gate
from mop.students.gate_training import train_gate

TEMPLATES, EACH, WIDTH = 8, 8, 16
SHA = "a" * 64


def drawn(signal: float, marked: float = 0.0, *, seed: int = 0) -> tuple[Rows, list[bool], list[str]]:
    """Rows whose first number tells the label by ``signal``, and whose second tells the template by ``marked``.

    Half of the templates have the label True throughout.
    """
    rng = stream(seed, "gate tests")
    rows = rng.normal(size=(TEMPLATES * EACH, WIDTH))
    template = np.arange(len(rows)) // EACH
    labels = template % 2 == 1
    rows[:, 0] += signal * np.where(labels, 1, -1)
    for number in range(TEMPLATES):
        rows[template == number, 1 + number] += marked
    return rows, labels.tolist(), [f"template {number}" for number in template]


def test_a_gate_that_knows_is_learned_and_beats_majority_random_permuted_labels_and_the_table() -> None:
    gate = train_gate({"first layer": drawn(3.0)[0]}, *drawn(3.0)[1:])
    found = gate.evidence["balanced_accuracy"]
    assert gate.kind == "learned"
    assert found["learned"] > 0.95
    assert found["majority"] == found["table"] == 0.5
    assert 0.3 < found["random"] < 0.7
    assert found["permuted labels"] < 0.75
    assert gate.evidence["learned_minus_table"]["low"] > 0
    assert gate.evidence["folds"] == 4


def test_what_marks_only_templates_does_not_count_because_templates_are_held_out() -> None:
    rows, labels, templates = drawn(0.0, marked=8.0)
    inside = np.array(labels)
    linear = train_gate({"first layer": rows}, labels, templates)
    # On its own templates such a gate is perfect, which would have shown nothing.
    from sklearn.linear_model import LogisticRegression

    assert LogisticRegression().fit(rows, inside).score(rows, inside) > 0.98
    assert linear.evidence["balanced_accuracy"]["learned"] < 0.7


def test_noise_beats_no_table_and_the_table_is_kept() -> None:
    rows, labels, templates = drawn(0.0)
    regions = np.where(np.array(labels)[:, None] == np.array([[False, True]]), 0.0, 1.0)
    gate = train_gate({"first layer": rows, "regions": regions}, labels, templates)
    assert gate.kind == "table"
    assert gate.evidence["balanced_accuracy"]["table"] == 1.0
    assert gate.needs == ("regions",)
    probabilities = gate.probabilities({"regions": regions}, len(labels))
    assert gate.decide(probabilities).tolist() == labels


def test_the_table_is_that_of_the_regions_of_a_mixture() -> None:
    mixture = small_mixture()
    queries = [f"my {topic} is {word}" for topic in ("card", "parcel", "meeting") for word in ("lost", "late", "red")]
    regions = regions_of(mixture)(queries)
    assert regions.argmin(axis=1).tolist() == [route.expert for route in mixture.route(queries)]
    labels = ["card" in query for query in queries]
    noise = stream(0, "noise").normal(size=(len(queries), 4))
    gate = train_gate({"first layer": noise, "regions": regions}, labels, [query.split()[-1] for query in queries])
    assert gate.evidence["balanced_accuracy"]["table"] == 1.0
    if gate.kind == "table":
        assert gate.table is not None
        assert (gate.table >= 0.5).tolist() == [True, False, False]


def test_labels_that_agree_make_a_gate_that_never_opens_or_never_shuts() -> None:
    rows, labels, templates = drawn(1.0)
    for label in (True, False):
        gate = train_gate({"first layer": rows}, [label] * len(labels), templates)
        assert gate.kind == "constant"
        assert gate.decide(gate.probabilities({}, 3)).tolist() == [label] * 3


def test_where_nothing_tells_the_base_model_answers_unless_the_persona_was_mostly_better() -> None:
    rows, labels, templates = drawn(0.0)
    assert sum(labels) * 2 == len(labels)
    gate = train_gate({"first layer": rows}, labels, templates)
    assert gate.kind == "constant"
    assert not gate.decide(gate.probabilities({}, 1)).any()


def test_one_template_cannot_test_a_gate() -> None:
    rows, labels, _ = drawn(1.0)
    with pytest.raises(DataError, match="two or more"):
        train_gate({"first layer": rows}, labels, ["one"] * len(labels))
    with pytest.raises(DataError, match="a label and a template for each query"):
        train_gate({"first layer": rows}, labels[:-1], ["one"] * len(labels))


def test_the_same_seed_gives_the_same_gate() -> None:
    rows, labels, templates = drawn(0.5)
    one, other = (train_gate({"first layer": rows}, labels, templates, seed=3) for _ in range(2))
    assert one.evidence == other.evidence


# --- files


def learned(width: int = 4) -> Gate:
    numbers = np.arange(width, dtype=np.float64)
    return Gate("learned", ("first layer",), Linear(numbers, numbers + 1, numbers - 2, 0.25), evidence={"rows": 3})


def test_a_gate_comes_back_from_its_files_as_it_was(tmp_path: Path) -> None:
    rows = stream(0, "rows").normal(size=(5, 4))
    for gate in (learned(), Gate("constant", constant=0.75)):
        save_gate(gate, tmp_path, base="tiny", base_sha256=SHA)
        stored = load_gate(tmp_path)
        assert (stored.base, stored.base_sha256, stored.gate.kind) == ("tiny", SHA, gate.kind)
        inputs = {"first layer": rows}
        assert np.array_equal(stored.gate.probabilities(inputs, 5), gate.probabilities(inputs, 5))


def test_a_gate_that_looks_at_regions_brings_them_with_it(tmp_path: Path, encoder_path: Path) -> None:
    encoder = SentenceTransformerEncoder(encoder_path, name="local/all-minilm-l6-v2")
    record = EncoderRecord("local/all-minilm-l6-v2", encoder.identity, encoder.encode(PROBES))
    regions = Regions(encoder, record, encoder.encode(["cooking and recipes", "sums and numbers"]))
    gate = Gate("table", table=np.array([0.9, 0.1]))
    save_gate(gate, tmp_path, base="tiny", base_sha256=SHA, features=(regions,))
    stored = load_gate(tmp_path)
    queries = ["How do I bake bread?", "What is 7 times 8?"]
    again = regions_from(stored)
    assert again is not None
    np.testing.assert_allclose(again(queries), regions(queries), atol=1e-5)
    inputs = {"regions": again(queries)}
    assert stored.gate.decide(stored.gate.probabilities(inputs, 2)).tolist() == [True, False]


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "learned", "features": ["regions"]},
        {"threshold": 2.0},
        {"bias": "x"},
        {"surprise": 1},
        {"numbers_sha256": "0" * 64},
        {"kind": "table"},
    ],
)
def test_a_damaged_gate_gives_an_error(tmp_path: Path, change: dict[str, Any]) -> None:
    save_gate(learned(), tmp_path, base="tiny", base_sha256=SHA)
    content = json.loads((tmp_path / "gate.json").read_text())
    (tmp_path / "gate.json").write_text(json.dumps(content | change))
    with pytest.raises(ArtifactError):
        load_gate(tmp_path)


@settings(max_examples=25, deadline=None)
@given(content=st.binary(max_size=60))
def test_numbers_that_are_not_safetensors_give_an_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    folder = tmp_path_factory.mktemp("gate")
    save_gate(learned(), folder, base="tiny", base_sha256=SHA)
    (folder / "gate.safetensors").write_bytes(content)
    with pytest.raises(ArtifactError):
        load_gate(folder)
    (folder / "gate.safetensors").unlink()
    with pytest.raises(ArtifactError, match=r"has no gate\.safetensors"):
        load_gate(folder)


def test_features_of_another_width_are_refused() -> None:
    with pytest.raises(DataError, match="trained on 4 features"):
        learned().probabilities({"first layer": np.zeros((1, 5))}, 1)
    with pytest.raises(DataError, match="missing: first layer"):
        learned().probabilities({}, 1)
