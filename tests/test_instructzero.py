"""InstructZero: soft prompts move a real model, the kernel couples what the paper couples, the search finds more."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fake_endpoint import FakeEndpoint
from gpytorch.kernels import MaternKernel
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated import splits
from stand_in import StandIn

from mop.artifact import load
from mop.errors import NotRecorded, SettingsError, WeightsError
from mop.lm.causal import Continuation
from mop.lm.ledger import Ledger
from mop.lm.soft_prompts import SoftPrompt
from mop.lm.white_box import WhiteBox
from mop.optimization import Run, aoptimize, optimize
from mop.search.baselines.coupled_kernel import CoupledKernel, answer_similarity
from mop.search.baselines.instructzero import OPENING
from mop.search.baselines.latent_search import sobol, suggest
from mop.seeds import stream
from mop.settings import make_settings
from mop.sync import run

TINY = "local/smollm2-135m-instruct"
QUESTION = "Input: hot\nOutput: cold\n\nInput: big\nOutput: small\n\nWhat was the instruction?"


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOP_API_KEY", "key")
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch, tiny_model: Path) -> list[Any]:
    """What the stand-in for the model was asked."""
    monkeypatch.setattr("mop.lm.causal.Causal", StandIn)
    monkeypatch.setattr(StandIn, "asked", [])
    return StandIn.asked


# --- the projection


def test_a_soft_prompt_is_a_fixed_linear_map_of_its_latent() -> None:
    one, other = (0.5, -1.0, 0.25), (0.1, 0.2, 0.3)
    total = tuple(a + b for a, b in zip(one, other, strict=True))
    first, second, both = (SoftPrompt(latent, tokens=4).vectors(32) for latent in (one, other, total))
    np.testing.assert_allclose(first + second, both, atol=1e-6)
    assert first.shape == (4, 32)
    assert not SoftPrompt((0.0,) * 3).vectors(32).any()
    assert (SoftPrompt(one, seed=1).vectors(32) != SoftPrompt(one, seed=2).vectors(32)).any()


def test_the_matrix_is_uniform_and_keeps_distances() -> None:
    rows = np.stack([SoftPrompt(tuple(row), tokens=5).vectors(400).ravel() for row in np.eye(10)])
    assert -1 <= rows.min() < -0.99
    assert 0.99 < rows.max() <= 1
    points = stream(0, "points").uniform(-1, 1, (12, 10))
    near = np.linalg.norm(points[:, None] - points[None], axis=2)
    far = np.linalg.norm((points @ rows)[:, None] - (points @ rows)[None], axis=2)
    ratio = far[near > 0] / near[near > 0]
    assert ratio.max() / ratio.min() < 1.2  # Johnson-Lindenstrauss


# --- the kernel


def coupled(latents: np.ndarray, similarity: np.ndarray) -> CoupledKernel:
    kernel = MaternKernel(nu=2.5).double()
    kernel.lengthscale = 1.5
    return CoupledKernel(kernel, torch.as_tensor(latents), torch.as_tensor(similarity))


@settings(max_examples=25, deadline=None)
@given(
    answers=st.lists(st.lists(st.sampled_from("abc"), min_size=6, max_size=6), min_size=2, max_size=9),
    seed=st.integers(0, 99),
)
def test_the_coupled_kernel_is_symmetric_positive_and_recovers_the_similarity_of_instructions(
    answers: list[list[str]], seed: int
) -> None:
    similarity = answer_similarity(answers)
    assert (similarity == similarity.T).all()
    assert (np.diag(similarity) == 1).all()
    assert np.linalg.eigvalsh(similarity).min() > -1e-9
    latents = stream(seed, "latents").uniform(0, 1, (len(answers), 10))
    kernel = coupled(latents, similarity)
    np.testing.assert_allclose(kernel(kernel.latents).to_dense().numpy(), similarity, atol=1e-3)
    new = torch.as_tensor(stream(seed, "new").uniform(0, 1, (15, 10)))
    matrix = kernel(new).to_dense().numpy()
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-12)
    assert np.linalg.eigvalsh(matrix).min() > -1e-9
    np.testing.assert_allclose(kernel(new, diag=True).numpy(), np.diag(matrix), atol=1e-9)


def test_two_latents_that_give_the_same_instruction_are_perfectly_correlated_however_far_apart() -> None:
    latents = np.array([[0.0] * 10, [1.0] * 10, [0.0] * 9 + [0.1]])
    answers = [["cold", "small"], ["Cold.", "small"], ["hot", "big"]]
    matrix = coupled(latents, answer_similarity(answers))(torch.as_tensor(latents)).to_dense().numpy()
    assert matrix[0, 1] == pytest.approx(1, abs=1e-3)
    assert matrix[0, 2] == pytest.approx(0, abs=1e-3)  # the nearer one, with other answers


# --- the search


def landscape(seed: int) -> Callable[[np.ndarray], list[str]]:
    """Return answers to 20 examples, of which more are right the nearer a latent is to a hidden one."""
    generator = stream(seed, "landscape")
    hidden, hardness = generator.uniform(-0.6, 0.6, 10), generator.uniform(0, 1, 20)

    def answers(latent: np.ndarray) -> list[str]:
        quality = np.exp(-((latent - hidden) ** 2).mean() / 0.35)
        return ["right" if quality > one else "wrong" for one in hardness]

    return answers


def best_found(seed: int, guided: bool, evaluations: int = 20, rounds: int = 2) -> float:
    answers = landscape(seed)
    start = evaluations // 2 if guided else evaluations
    latents = sobol(start, 10, seed, "start")
    seen = [answers(latent) for latent in latents]
    for _ in range(rounds if guided else 0):
        scores = np.array([row.count("right") / 20 for row in seen])
        fresh = suggest(latents, scores, answer_similarity(seen), (evaluations - start) // rounds, seed)
        latents, seen = np.concatenate([latents, fresh]), seen + [answers(latent) for latent in fresh]
    assert len(seen) == evaluations
    return max(row.count("right") / 20 for row in seen)


def test_the_search_finds_better_latents_than_chance_with_as_many_evaluations() -> None:
    gains = [best_found(seed, guided=True) - best_found(seed, guided=False) for seed in range(5)]
    assert np.mean(gains) > 0.08
    assert sum(gain < 0 for gain in gains) <= 1


def test_suggestions_are_new_distinct_inside_the_cube_and_the_same_every_time() -> None:
    answers, latents = landscape(3), sobol(8, 10, 3, "start")
    seen = [answers(latent) for latent in latents]
    scores = np.array([row.count("right") / 20 for row in seen])
    one, again = (suggest(latents, scores, answer_similarity(seen), 3, seed=7) for _ in range(2))
    np.testing.assert_array_equal(one, again)
    assert one.shape == (3, 10)
    assert np.abs(one).max() <= 1
    every = np.vstack([latents, one])
    assert np.unique(every.round(3), axis=0).shape == every.shape


def test_where_all_scores_are_equal_the_search_looks_elsewhere() -> None:
    latents = sobol(4, 10, 0, "start")
    fresh = suggest(latents, np.zeros(4), np.ones((4, 4)), 5, seed=0)
    assert fresh.shape == (5, 10)
    assert np.ptp(fresh, axis=0).min() > 0.2


# --- the white box


def test_a_real_model_writes_what_the_soft_prompt_says_and_nothing_is_written_twice(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    box = WhiteBox(TINY, ledger=ledger, run="test")
    latents = [(0.0,) * 10, *(tuple(map(float, row)) for row in sobol(3, 10, 1, "test"))]

    def texts(box: WhiteBox) -> list[str]:
        return [run(box.answer(SoftPrompt(latent), QUESTION, OPENING, 16)).text for latent in latents]

    written = texts(box)
    assert box.written == 4
    assert box.seconds > 0
    assert len(set(written)) >= 3, written
    assert all(re.search(r"[a-z]{3} [a-z]", text) for text in written), written
    # Zero soft prompts: greedy decoding gives the same text from a model that has meanwhile done other things.
    again = WhiteBox(TINY, ledger=Ledger.in_memory())
    again._loaded = box._loaded
    assert run(again.answer(SoftPrompt(latents[0]), QUESTION, OPENING, 16)).text == written[0]
    # A second run is served by the ledger: loading the model would be an error.
    monkeypatch.setattr("mop.lm.causal.Causal.__init__", lambda *_: pytest.fail("the model was loaded"))
    second = WhiteBox(TINY, ledger=ledger)
    assert texts(second) == written
    assert (second.written, second.from_ledger) == (0, 4)
    with pytest.raises(NotRecorded, match="white-box model"):
        run(WhiteBox(TINY, ledger=ledger, replay=True).answer(SoftPrompt((0.5,) * 10), QUESTION, OPENING, 16))
    assert ledger.totals(("role",))[("propose",)].calls == 4


def test_a_white_box_that_cannot_be_used_is_named_before_anything_is_spent(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ledger = Ledger.in_memory()
    with pytest.raises(WeightsError, match="no such model"):
        WhiteBox(str(tmp_path / "absent"), ledger=ledger)
    with pytest.raises(SettingsError, match="is an encoder"):
        WhiteBox("local/all-minilm-l6-v2", ledger=ledger)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "botorch" else object())
    with pytest.raises(SettingsError, match=r'needs botorch.*pip install "mop\[instructzero\]"'):
        WhiteBox(TINY, ledger=ledger)


# --- the method


def by_instruction(messages: list[dict[str, Any]]) -> str:
    """Answer rightly the more often, the smaller the number in the instruction is."""
    query = messages[-1]["content"]
    number = int(re.search(r"way (\d+)", messages[0]["content"] + " way 4096")[1])  # type: ignore[index]
    chance = int.from_bytes(hashlib.sha256(query.encode()).digest()[:4], "big") / 2**32
    answers = {one.input: one.output for one in (*splits().train, *splits().validation)}
    return answers[query] if chance > number / 4096 else "unknown"


def learned(endpoint: FakeEndpoint, ledger: Path, **options: Any) -> tuple[Any, Run]:
    used = Run()
    given = {"method": "instructzero", "budget": 120, "white_box": TINY, "model": "simulated", **options}
    given |= {"base_url": endpoint.base_url, "encoder": f"endpoint:fake@{endpoint.base_url}"}
    mixture = run(aoptimize(splits(), make_settings(given, environment={}), ledger=ledger, used=used))
    return mixture, used


def test_instructzero_finds_a_good_instruction_within_the_budget_and_saves_it(
    stand_in: list[Any], tmp_path: Path
) -> None:
    with FakeEndpoint(by_instruction) as endpoint:
        mixture, used = learned(endpoint, tmp_path / "ledger.sqlite", budget=240)
        assert 120 <= used.sent <= 240
        tried = {body["messages"][0]["content"] for body in endpoint.bodies if "messages" in body}
    assert used.spend.by_role.keys() == {"execute"}
    assert used.white_box[0] == len(stand_in) == mixture.report["white_box"]["latents"]
    numbers = sorted(int(text.split()[-1][:-1]) for text in tried)
    chosen = int(mixture.generalist.instruction.split()[-1][:-1])
    assert chosen in numbers[:2]
    assert 5 < len(numbers) == mixture.report["white_box"]["instructions"] <= 8
    mixture.save(tmp_path / "one.mop")
    assert load(tmp_path / "one.mop").generalist == mixture.generalist


def test_a_second_run_writes_and_sends_nothing_and_gives_the_same_mixture(stand_in: list[Any], tmp_path: Path) -> None:
    with FakeEndpoint(by_instruction) as endpoint:
        one, _ = learned(endpoint, tmp_path / "ledger.sqlite")
        one.save(tmp_path / "one.mop")
        asked = len(stand_in)
        other, used = learned(endpoint, tmp_path / "ledger.sqlite")
        other.save(tmp_path / "other.mop")
    assert used.sent == 0
    assert used.white_box == (0, asked, 0.0)
    assert (tmp_path / "one.mop").read_bytes() == (tmp_path / "other.mop").read_bytes()


def test_a_run_that_dies_in_the_middle_goes_on_where_it_was(
    stand_in: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FakeEndpoint(by_instruction) as endpoint:
        whole, _ = learned(endpoint, tmp_path / "whole.sqlite")
        latents = len(stand_in)
        stand_in.clear()
        write = StandIn.write

        def dying(self: StandIn, soft: Any, *asked: Any) -> Any:
            if len(stand_in) == 2:
                raise KeyboardInterrupt
            return write(self, soft, *asked)

        monkeypatch.setattr(StandIn, "write", dying)
        with pytest.raises(KeyboardInterrupt):
            learned(endpoint, tmp_path / "half.sqlite")
        monkeypatch.setattr(StandIn, "write", write)
        resumed, used = learned(endpoint, tmp_path / "half.sqlite")
    assert len(stand_in) == latents
    assert used.white_box[1] == 2
    assert resumed.generalist == whole.generalist


def test_an_instruction_that_many_latents_give_is_paid_for_once(
    stand_in: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(StandIn, "write", lambda *_: _continuation("Name the state of the thing, way 7."))
    with FakeEndpoint(by_instruction) as endpoint:
        mixture, used = learned(endpoint, tmp_path / "ledger.sqlite")
    assert mixture.generalist.instruction == "Name the state of the thing, way 7."
    assert used.sent == 20
    assert mixture.report["white_box"] | {"sha256": ""} == {
        "name": TINY,
        "sha256": "",
        "latents": 8,
        "instructions": 1,
    }


def test_where_nothing_usable_is_written_the_default_instruction_stays(
    stand_in: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(StandIn, "write", lambda *_: _continuation("?"))
    with FakeEndpoint(by_instruction) as endpoint:
        mixture, _ = learned(endpoint, tmp_path / "ledger.sqlite")
    assert mixture.generalist.instruction
    assert mixture.experts[0].proposer == "given"


def test_under_a_cap_on_tokens_it_plans_by_what_calls_take(stand_in: list[Any], tmp_path: Path) -> None:
    class Heavy(FakeEndpoint):
        """Counts three times the tokens that anybody would expect."""

        def _chat(self, body: dict[str, Any]) -> dict[str, Any]:
            answer = super()._chat(body)
            answer["usage"]["prompt_tokens"] *= 3
            return answer

    with Heavy(by_instruction, record=False) as endpoint:
        mixture, used = learned(
            endpoint, tmp_path / "ledger.sqlite", budget="40k tokens", method="instructzero-random-fair"
        )
    assert 10_000 < used.spend.tokens <= 40_000
    assert mixture.experts[0].validation > 0
    assert mixture.report["generalist"]["score"] is not None


def test_optimize_takes_the_white_box_by_name(tiny_model: Path, tmp_path: Path) -> None:
    with FakeEndpoint(by_instruction) as endpoint, pytest.raises(WeightsError, match="no such model"):
        optimize(
            [(one.input, one.output) for one in splits().train],
            model="simulated",
            base_url=endpoint.base_url,
            encoder=f"endpoint:fake@{endpoint.base_url}",
            method="instructzero",
            white_box=str(tmp_path / "absent"),
            ledger=tmp_path / "ledger.sqlite",
        )
    assert not endpoint.bodies


def _continuation(text: str) -> Any:
    return Continuation(text, "stop", 10, 5)
