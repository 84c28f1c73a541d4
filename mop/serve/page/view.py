"""View: a served mixture as the words and numbers that the page shows. Knows no HTML, no requests."""

from __future__ import annotations

from mop.serve.registry import Served
from mop.views.view import MixtureView, plural


class View(MixtureView):
    """What the page shows of one mixture.

    Args:
        served: The mixture and what answers for it.
    """

    def __init__(self, served: Served) -> None:
        super().__init__(served.mixture)
        self.served = served

    @property
    def facts(self) -> list[tuple[str, str]]:
        """What else is worth knowing, name by name."""
        mixture, origin = self.mixture, self.mixture.provenance
        own = f"{mixture.kept} of {plural(len(mixture), 'region')} by a prompt of their own, the rest by the generalist"
        facts = [
            ("Answered by", self.served.style.model),
            ("Learned for", mixture.model),
            ("Regions", own if len(mixture) > 1 else "one prompt for every query"),
            ("Encoder", mixture.encoder_record.identity),
            ("Metric", mixture.metric),
        ]
        if (retrieval := mixture.retrieval) is not None:
            nearest = f"the {plural(retrieval.count, 'demo')} nearest to the query, of {len(retrieval.demos):,}"
            facts.append(("Retrieved", f"{nearest}, after an expert's own"))
        facts += [] if mixture.limits is None else mixture.limits.sentences()
        for name, key in (("Learned", "created"), ("Training examples", "train"), ("Model calls", "calls")):
            if isinstance(value := origin.get(key), str | int):
                facts.append((name, f"{value:,}" if isinstance(value, int) else value))
        return [*facts, ("Version", self.served.version or "none")]
