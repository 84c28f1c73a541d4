"""What do the experts add to the demos that a mixture retrieves? Its generalist with the same demos says it.

    python -m benchmarks.retrieval_alone helpdesk.mop

Scores the mixture, its generalist, and its generalist with the mixture's retrieved demos, on the help desk's test
messages or on ``--data FILE``; all answers go to the ledger.
"""

from __future__ import annotations

import argparse
import json

import mop
from mop.connect import connect, open_ledger
from mop.data import read_examples
from mop.datasets import helpdesk
from mop.evaluation import evaluate, retrieving_prompter


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("mixture")
    parser.add_argument("--data")
    parser.add_argument("--base-url")
    parser.add_argument("--ledger")
    given = parser.parse_args()
    mixture = mop.load(given.mixture)
    rows = read_examples(given.data) if given.data else helpdesk().test
    ledger = open_ledger(given.ledger)
    client = connect(mixture.model, ledger=ledger, base_url=given.base_url)
    alone = {"generalist, retrieving": retrieving_prompter(mixture.generalist, mixture)}
    print(json.dumps(evaluate(mixture, rows, client, against=alone).to_dict(), indent=1))


if __name__ == "__main__":
    main()
