"""What a mixture does where its regions end: far queries, queries near a border, a kernel; and what its file keeps."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small import TOPICS, WordEncoder, small_mixture

from mop.artifact import from_bytes, to_bytes
from mop.cli import main
from mop.embeddings.encoders import Vectors
from mop.errors import ArtifactError
from mop.limits import FAR, NO_GAIN, Limits
from mop.manifest import manifest_text, mixture_of, read_manifest
from mop.mixture import Mixture
from mop.prompts import Demo
from mop.retrieval import Retrieval

DEMOS = tuple(Demo(f"my {topic} {state}", f"{topic}_{state}") for topic in TOPICS for state in ("lost", "late"))
NONE = (math.inf,) * 3


def encoded(*texts: str) -> Vectors:
    return WordEncoder().encode(texts)


def limited(limits: Limits | None, *, retrieves: bool = True) -> Mixture:
    retrieval = Retrieval(DEMOS, encoded(*(demo.input for demo in DEMOS)), 1) if retrieves else None
    return small_mixture(limits=limits, retrieval=retrieval)


def test_a_query_far_from_all_examples_goes_to_the_generalist_and_says_why() -> None:
    mixture = limited(Limits((0.5,) * 3, coverage=0.99, measure="demo"))
    near, far = mixture.route(["my card lost", "zebras sing underwater operas"])
    assert (near.fallback, near.reason, near.retrieved) == (False, None, (DEMOS[0],))
    assert (far.fallback, far.reason, far.retrieved) == (True, FAR, ())
    assert mixture.prompt_of(far) == mixture.generalist
    assert mixture.prompt_of(near).demos[-1] == mixture.experts[0].prompt.demos[-1]


def test_without_limits_the_same_query_keeps_its_expert() -> None:
    for limits in (None, Limits(NONE)):
        assert limited(limits).route("card: zebras sing underwater operas").reason is None


def test_a_region_without_gain_says_so_whatever_the_distance() -> None:
    mixture = limited(Limits((0.0, 0.0, 0.0), coverage=0.9, measure="demo"))
    assert mixture.route("meeting").reason == NO_GAIN
    assert mixture.route("card blue").reason == FAR


def test_each_region_has_the_threshold_of_its_own() -> None:
    mixture = limited(Limits((0.01, math.inf, 0.5), coverage=0.9, measure="centroid"), retrieves=False)
    card, parcel = mixture.route(["a card please", "a parcel please"])
    assert (card.reason, parcel.reason) == (FAR, None)


def test_a_query_near_a_border_also_gets_the_second_regions_nearest_demo_before_the_nearest_one() -> None:
    (between,) = limited(None).route(["card lost parcel lost late"])
    assert 0 <= between.margin < 0.2
    (soft,) = limited(Limits(NONE, margin=0.2)).route(["card lost parcel lost late"])
    assert len(soft.retrieved) == 2
    assert soft.retrieved[-1] == between.retrieved[0]
    assert {demo.output.split("_")[0] for demo in soft.retrieved} == {"card", "parcel"}
    # The prefix that caches keep is the same; only what follows it is longer.
    plain, longer = limited(None).prompt_of(between), limited(None).prompt_of(soft)
    assert plain.prefix == longer.prefix


def test_a_query_within_a_region_gets_no_second_demo() -> None:
    (route,) = limited(Limits(NONE, margin=0.2)).route(["my card lost"])
    assert route.margin > 0.2
    assert len(route.retrieved) == 1


def test_a_kernel_sends_a_query_near_a_border_to_the_expert_that_gains_more() -> None:
    query = "card card parcel"
    plain = limited(None).route(query)
    assert plain.expert == 0
    kernel = limited(Limits(NONE, width=10.0)).route(query)
    # Expert 1 gains 0.43, expert 0 only 0.1; expert 2 gains most but has fallen back.
    assert kernel.expert == 1
    np.testing.assert_allclose(kernel.distance, ((encoded(query) - encoded("parcel")) ** 2).sum(), rtol=1e-5, atol=1e-6)
    assert limited(Limits(NONE, width=1e-3)).route(query).expert == 0


@pytest.mark.parametrize("retrieves", [True, False])
def test_a_kernel_changes_nothing_about_which_queries_are_far(retrieves: bool) -> None:
    query = "card card parcel"
    measure = "demo" if retrieves else "centroid"
    for thresholds, reason in [((2.0, 0.0, 0.0), None), ((0.0, 2.0, 2.0), FAR)]:
        limits = Limits(thresholds, 0.99, measure, width=10.0)
        # The nearest centroid is 0, the kernel's 1; the threshold that was calibrated for such a query is that of 0.
        route = limited(limits, retrieves=retrieves).route(query)
        assert (route.expert, route.reason) == (1, reason)
    distance = float(((encoded(query) - encoded("card")) ** 2).sum())
    between = Limits((distance + 0.01,) * 3, 0.99, "centroid", width=10.0)
    assert limited(between).route(query).reason is None


def test_routes_do_not_depend_on_what_is_routed_beside_them() -> None:
    mixture = limited(Limits((0.7, 0.7, 0.7), 0.99, "demo", margin=0.3))
    queries = ["my card lost", "card parcel", "zebra opera", "meeting late", "parcel meeting lost"]
    assert mixture.route(queries) == [mixture.route(query) for query in queries]


def test_the_file_keeps_the_limits() -> None:
    limits = Limits((0.25, math.inf, 1.5), 0.99, "demo", 0.1, 0.05, {"thresholds": {"flagged": 0.01}})
    content = to_bytes(limited(limits))
    loaded = from_bytes(content).limits
    assert loaded is not None
    assert (loaded.thresholds, loaded.coverage, loaded.measure) == ((0.25, math.inf, 1.5), 0.99, "demo")
    assert (loaded.margin, loaded.width, loaded.measured) == (0.1, 0.05, limits.measured)
    assert to_bytes(from_bytes(content)) == content


@pytest.mark.parametrize("version", [1, 2])
def test_an_older_file_has_no_limits(version: int) -> None:
    mixture = small_mixture()
    data = json.loads(manifest_text(mixture, "0" * 64))
    del data["limits"]
    data["schema_version"] = version
    manifest = read_manifest(json.dumps(data).encode(), "old")
    arrays = {"centroids": mixture.centroids, "probes": mixture.encoder_record.probes}
    assert mixture_of(manifest, arrays).limits is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"thresholds": [0.1]}, "1 thresholds for 3 experts"),
        ({"thresholds": [0.1, -1, 0.2]}, "greater than or equal to 0"),
        ({"coverage": 1.0}, "less than 1"),
        ({"measure": "vibes"}, "measure"),
        ({"width": 0}, "greater than 0"),
        ({"margin": -0.1}, "greater than or equal to 0"),
        ({"hook": "os.system"}, "hook"),
    ],
)
def test_limits_that_cannot_be_are_an_artifact_error(change: dict[str, Any], words: str) -> None:
    data = json.loads(manifest_text(limited(Limits((0.1, 0.2, 0.3), 0.9)), "0" * 64))
    data["limits"].update(change)
    with pytest.raises(ArtifactError, match=words):
        read_manifest(json.dumps(data).encode(), "bad")


def test_limits_that_speak_of_demos_need_demos() -> None:
    with pytest.raises(ArtifactError, match="retrieves none"):
        to_bytes(limited(Limits(NONE, margin=0.1), retrieves=False))


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        (Limits(NONE), []),
        (Limits((0.5, 0.5, 0.5), 0.99), ["centroid than a threshold go to the generalist; at most 0.01 of queries"]),
        (
            Limits((0.5, math.inf, 0.5), 0.9, "demo"),
            ["the nearest example than a threshold go to the generalist, in 2"],
        ),
        (Limits(NONE, 0.99), ["it takes 99 validation examples"]),
        (Limits(NONE, margin=0.125), ["farther by 0.125 at most"]),
        (Limits((0.5,) * 3, 0.9, width=0.1), ["at most 0.1 of", "not the nearest"]),
    ],
)
def test_show_says_what_the_limits_do(
    limits: Limits, said: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    limited(limits).save(tmp_path / "bank.mop")
    assert main(["show", str(tmp_path / "bank.mop")]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith(("far ", "borders "))]
    assert len(lines) == len(said)
    for words, line in zip(said, lines, strict=True):
        assert words in line
