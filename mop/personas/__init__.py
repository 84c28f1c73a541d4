"""Personas: expert identities written for each instruction, and the answers that experts give (ExpertPrompting).

`write_identities` writes and checks identities; `curate` makes a data set of answers in which no identity shows;
`ablate` measures what the exemplars do. `remove_mentions` and `why_dropped` are the rules, and need no model.
"""

from mop.personas.ablation import Ablation, Cell, ablate
from mop.personas.curation import Models, curate, identify
from mop.personas.exemplars import DIVERSE, SIMILAR, Exemplar, chosen
from mop.personas.expected import Expected, expect
from mop.personas.identities import Identities, Identity, write_identities
from mop.personas.instructions import Instruction, read_instructions
from mop.personas.mentions import Cleaned, remove_mentions
from mop.personas.records import Answer, Curated, Plan, Reject, Row
from mop.personas.refusing import why_dropped
from mop.personas.regions import region_instructions
from mop.personas.removal import Comparison, compare_removal

__all__ = [
    "DIVERSE",
    "SIMILAR",
    "Ablation",
    "Answer",
    "Cell",
    "Cleaned",
    "Comparison",
    "Curated",
    "Exemplar",
    "Expected",
    "Identities",
    "Identity",
    "Instruction",
    "Models",
    "Plan",
    "Reject",
    "Row",
    "ablate",
    "chosen",
    "compare_removal",
    "curate",
    "expect",
    "identify",
    "read_instructions",
    "region_instructions",
    "remove_mentions",
    "why_dropped",
    "write_identities",
]
