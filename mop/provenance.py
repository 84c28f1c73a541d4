"""Provenance: the name of a run, and what the file of a mixture says of the run that learned it."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from mop.examples import Splits
from mop.lm.budget import Spend
from mop.metrics import get_metric, metric_name
from mop.settings import Settings


def made_by() -> dict[str, Any]:
    """Return when (``SOURCE_DATE_EPOCH`` if it is set), by which mop and by which Python a file was made."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    created = datetime.fromtimestamp(int(epoch), UTC) if epoch else datetime.now(UTC)
    return {
        "created": created.isoformat(timespec="seconds"),
        "mop": version("mop"),
        "python": platform.python_version(),
    }


def data_hash(splits: Splits) -> str:
    """Return the SHA-256 of the training and validation examples, in order."""
    digest = hashlib.sha256()
    for name, examples in (("train", splits.train), ("validation", splits.validation)):
        digest.update(name.encode())
        for example in examples:
            digest.update(json.dumps([example.input, example.outputs]).encode())
    return digest.hexdigest()


def run_name(settings: Settings, splits: Splits) -> str:
    """Return the run's name in the ledger: the same for the same settings and data, so that a resumed run keeps it.

    Another version of mop may take other decisions, so its run is another one.
    """
    # Where calls are made is no part of a call's key either: the same calls elsewhere are the same run.
    elsewhere = {"base_url", "proposer_url", "judge_url", "backend", "scheduler"}
    # What came later is no part of the name of a run that does without it, so that such a run keeps its name.
    unused = set() if settings.persona else {"persona"}
    left_out = {"concurrency", "metric", "allow_code", *elsewhere, *unused}
    given = settings.model_dump(mode="json", exclude=left_out)
    metric = metric_name(get_metric(settings.metric, allow_code=settings.allow_code))
    text = json.dumps([given, metric, data_hash(splits), version("mop")], sort_keys=True)
    return f"optimize {hashlib.sha256(text.encode()).hexdigest()[:12]}"


def provenance_of(settings: Settings, splits: Splits, spend: Spend) -> dict[str, Any]:
    """Return what the file of a mixture says of the run that learned it, before what only its end knows."""
    # Only what the run decided and used goes in, never how fast it was or what the ledger held already: the same
    # seed and answers give the same file.
    return {
        **made_by(),
        "method": settings.method,
        "seed": settings.seed,
        "model": settings.model,
        "proposer": settings.proposer or settings.model,
        # Not the address itself: it may be private, and a port of today means nothing tomorrow.
        "own_endpoint": bool(settings.base_url or os.environ.get("OPENAI_BASE_URL")),
        "data_sha256": data_hash(splits),
        "run": run_name(settings, splits),
        "train": len(splits.train),
        "validation": len(splits.validation),
        "calls": spend.calls,
        "calls_by_role": {role: part.calls for role, part in sorted(spend.by_role.items())},
        "prompt_tokens": spend.usage.prompt_tokens,
        "completion_tokens": spend.usage.completion_tokens,
        "settings": {
            name: getattr(settings, name)
            for name in (
                "budget",
                "tokens",
                "usd",
                "experts",
                "max_demos",
                "prompt_tokens",
                "retrieved",
                "confidence",
                "refit",
                "coverage",
                "soft",
                "border_share",
                "personas",
            )
        }
        | ({"persona": {one.name: one.text for one in settings.persona}} if settings.persona else {}),
    }
