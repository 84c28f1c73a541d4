"""Story: where the notebooks' answers come from, and how their pictures look. Knows nothing of what they tell.

Answers and vectors come from ``recorded.jsonl.gz`` and ``recorded.safetensors``: what a real model (Qwen2.5-Coder-1.5B)
and a real encoder said once. With ``MOP_LIVE=1`` in the environment they are asked again.

    python story.py LEDGER      # records anew: every call and vector of this ledger
"""

from __future__ import annotations

import gzip
import io
import json
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mop.lm.ledger import Ledger
from mop.lm.request import Reply, Request, Usage
from mop.mixture import Mixture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HERE = Path(__file__).parent
CALLS, VECTORS = HERE / "recorded.jsonl.gz", HERE / "recorded.safetensors"
LIVE = os.environ.get("MOP_LIVE") == "1"
REPLAY = not LIVE
_STYLE = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "0.9",
    "figure.facecolor": "white",
    "savefig.dpi": 110,
    "svg.hashsalt": "mop",
}
#: A place for files that the notebooks write; it goes when Python ends.
_FOLDER = tempfile.TemporaryDirectory(prefix="mop-notebook-")


def folder() -> Path:
    """Return an empty folder for what a notebook writes."""
    return Path(_FOLDER.name)


def open_ledger() -> Ledger:
    """Return the ledger of a notebook, and make it the default of everything in mop.

    It holds the recorded calls and vectors, or, with ``MOP_LIVE=1``, what earlier live runs asked.
    """
    # An encoder that is loaded asks for a progress bar of the notebook's; there is one only with ipywidgets.
    warnings.filterwarnings("ignore", message="IProgress not found")
    path = HERE / "live.ledger.sqlite" if LIVE else folder() / "recorded.ledger.sqlite"
    os.environ["MOP_LEDGER"] = str(path)
    ledger = Ledger(path)
    if REPLAY:
        _restore(ledger)
    return ledger


def with_known_vectors(mixture: Mixture, ledger: Ledger) -> Mixture:
    """Return ``mixture`` with an encoder that asks the ledger first; the same vectors, without loading a model."""
    from mop.embeddings.encoders import CachedEncoder

    return mixture.with_known_encoder(CachedEncoder(mixture.encoder, ledger))


def _restore(ledger: Ledger) -> None:
    from safetensors import safe_open

    with gzip.open(CALLS, "rt", encoding="utf-8") as lines:
        ledger.put_many([_call(json.loads(line)) for line in lines])
    with safe_open(VECTORS, "numpy") as stored:
        encoder, keys = stored.metadata()["encoder"], stored.metadata()["keys"].split()
        vectors = stored.get_tensor("codes") * stored.get_tensor("scales")[:, None]
        ledger.put_vectors(encoder, dict(zip(keys, vectors, strict=True)))


def _call(row: Mapping[str, Any]) -> tuple[Request, Reply]:
    asked = dict(row["request"])
    messages = tuple((role, content) for role, content in asked.pop("messages"))
    request = Request(messages=messages, role=row["role"], **{**asked, "stop": tuple(asked.get("stop", ()))})
    usage = Usage(row["prompt_tokens"], row["cached_tokens"], row["completion_tokens"])
    return request, Reply(row["text"], usage, row["finish_reason"], request.key, False, row["seconds"])


def record(path: str) -> None:
    """Write the recording: all calls and vectors of the ledger at ``path``."""
    import sqlalchemy as sa
    from safetensors.numpy import save_file

    from mop.lm.tables import EMBEDDINGS
    from mop.lm.upkeep import export

    ledger = Ledger(path)
    kept = (
        "request",
        "text",
        "finish_reason",
        "role",
        "prompt_tokens",
        "cached_tokens",
        "completion_tokens",
        "seconds",
    )
    lines = [json.dumps({name: row[name] for name in kept}, ensure_ascii=False) for row in export(ledger)]
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", mtime=0) as file:
        file.write("".join(f"{line}\n" for line in lines).encode())
    CALLS.write_bytes(packed.getvalue())
    query = sa.select(EMBEDDINGS.c.encoder, EMBEDDINGS.c.key).order_by(EMBEDDINGS.c.key)
    rows = ledger.database.run(lambda connection: connection.execute(query).all(), write=False)
    (encoder,) = {str(row[0]) for row in rows}
    keys = [str(row[1]) for row in rows]
    found = ledger.get_vectors(encoder, keys)
    vectors = np.stack([found[key] for key in keys])
    # Half the size, and no component is off by more than a 65,000th of the vector's largest.
    scales = np.abs(vectors).max(axis=1) / 32767
    codes = np.round(vectors / scales[:, None]).astype(np.int16)
    save_file({"codes": codes, "scales": scales}, VECTORS, {"encoder": encoder, "keys": " ".join(keys)})
    print(f"{len(lines)} calls, {len(keys)} vectors")


# -- pictures


@contextmanager
def picture(name: str, width: float = 7.0, height: float = 3.6) -> Iterator[Axes]:
    """Yield the axes of a picture and show it; with ``MOP_PICTURES=1`` it is also a file in ``pictures/``."""
    import matplotlib.pyplot as plt
    from IPython.display import display

    with plt.rc_context(_STYLE):
        figure, axes = plt.subplots(figsize=(width, height), layout="constrained")
        yield axes
        if os.environ.get("MOP_PICTURES") == "1":
            (HERE / "pictures").mkdir(exist_ok=True)
            figure.savefig(HERE / "pictures" / f"{name}.png", metadata={"Software": None})
        display(figure)
        plt.close(figure)


def score_bars(axes: Axes, scores: Mapping[str, tuple[float, float, float]], ours: str = "mixture") -> None:
    """Draw scores (mean, low, high) as bars with their intervals; ``ours`` is the dark one."""
    names = list(scores)[::-1]
    means, lows, highs = (np.array([scores[name][part] for name in names]) for part in range(3))
    shades = ["#0b5cad" if name == ours else "#c9d3de" for name in names]
    axes.barh(names, means, color=shades, xerr=(means - lows, highs - means), ecolor="black", capsize=3, height=0.6)
    for place, (mean, high) in enumerate(zip(means, highs, strict=True)):
        axes.text(high + 0.02, place, f"{mean:.2f}", va="center")
    axes.set_xlim(0, max(1.0, float(highs.max()) + 0.1))
    axes.grid(axis="y", visible=False)


def cost_dots(axes: Axes, systems: Sequence[Any]) -> None:
    """Draw `mop.evaluation.SystemScore`s: accuracy against prompt tokens, a dot for fresh ones, a ring for all."""
    for system, shade in zip(systems, ("#0b5cad", "#c4501b", "#16805a", "#a5387e", "#8a6a00", "#5b4fc0"), strict=False):
        low, high = system.interval.low, system.interval.high
        axes.plot([system.fresh_tokens, system.prompt_tokens], [system.accuracy] * 2, ":", color=shade)
        axes.plot([system.fresh_tokens] * 2, [low, high], "-", color=shade, linewidth=1)
        axes.plot(system.fresh_tokens, system.accuracy, "o", color=shade)
        axes.plot(system.prompt_tokens, system.accuracy, "o", color=shade, markerfacecolor="white")
        axes.annotate(system.name, (system.prompt_tokens, system.accuracy), (7, -3), textcoords="offset points")
    axes.set_xlabel("prompt tokens a query (dot: served by no cache; ring: all)")
    axes.set_ylabel("accuracy")
    axes.set_xlim(0, 1.5 * max(system.prompt_tokens for system in systems))


def region_map(axes: Axes, mixture: Mixture) -> None:
    """Draw the map of the regions that the mixture's file holds: examples as points, regions by their words."""
    drawn = mixture.region_map
    if drawn is None:
        return
    marks = "osD^vPX"
    for region, expert in enumerate(mixture.experts):
        here = drawn.sample[drawn.regions == region]
        line = axes.plot(here[:, 0], here[:, 1], marks[region % len(marks)], markersize=3, alpha=0.5)[0]
        x, y = drawn.places[region]
        ring = {"boxstyle": "circle,pad=0.2", "facecolor": "white", "edgecolor": line.get_color(), "linewidth": 1.5}
        # Labels lie on top of the picture and have no say in its size.
        axes.text(x, y, str(region), ha="center", va="center", fontsize=7, bbox=ring, in_layout=False)
        words = ", ".join(expert.words[:2])
        axes.annotate(words, (x, y), (0, -10), textcoords="offset points", ha="center", va="top", fontsize=7).set(
            in_layout=False
        )
    everything = np.vstack([drawn.sample, drawn.places])
    low, high = everything.min(axis=0), everything.max(axis=0)
    room = 0.1 * (high - low)
    axes.set_xlim(low[0] - room[0], high[0] + room[0])
    axes.set_ylim(high[1] + room[1], low[1] - room[1])  # as on the page: down is more
    axes.set_axis_off()


if __name__ == "__main__":
    record(sys.argv[1])
