"""One search on two Dask workers with one PostgreSQL: each does part of the calls, both end with the same mixture."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

from fake_endpoint import FakeEndpoint, fingerprint
from postgres import PASSWORD, QUOTED, Postgres
from simulated import nearest_demo_answer

import mop
from mop.lm.ledger import Ledger

TESTS = Path(__file__).parent

CLUSTER = """
import sys
from dask.distributed import Client, LocalCluster
from joblib import Parallel, delayed, parallel_config

def learn(worker, url, ledger):
    sys.path.insert(0, sys.argv[1])
    import mop
    from simulated import splits
    parts = splits()
    mixture = mop.optimize(
        parts.train, "simulated", 120, validation=parts.validation, ledger=ledger, base_url=url,
        encoder=f"endpoint:words@{url}", prompt_tokens=200, concurrency=4, instruction="Name the thing and its state.",
    )
    mixture.save(f"{worker}.mop")

if __name__ == "__main__":
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster):
        with parallel_config("dask"):
            Parallel(n_jobs=2, batch_size=1)(delayed(learn)(n, *sys.argv[2:]) for n in range(2))
"""


def test_one_search_on_two_dask_workers_gives_the_mixture_of_one_process_and_pays_for_each_call_once(
    postgres: Postgres, tmp_path: Path
) -> None:
    (tmp_path / "cluster.py").write_text(CLUSTER, encoding="utf-8")
    environment = os.environ | {"MOP_API_KEY": "key", "SOURCE_DATE_EPOCH": "1700000000"}
    url = postgres.url()
    asked, said = [], ""
    with FakeEndpoint(nearest_demo_answer, latency=0.05) as server:
        for ledger, program in ((url, "cluster.py"), (str(tmp_path / "l"), "alone.py")):
            if program == "alone.py":
                alone = CLUSTER[: CLUSTER.index("if __name__")] + "learn('alone', *sys.argv[2:])\n"
                (tmp_path / program).write_text(alone, encoding="utf-8")
            server.bodies.clear()
            command = [sys.executable, program, str(TESTS), server.base_url, ledger]
            done = subprocess.run(
                command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
            )
            assert done.returncode == 0, done.stderr
            said += done.stdout + done.stderr
            asked.append(Counter(fingerprint(body) for body in server.bodies if "messages" in body))
    assert set(asked[0].values()) == {1}
    assert asked[0] == asked[1]
    content = (tmp_path / "alone.mop").read_bytes()
    assert (tmp_path / "0.mop").read_bytes() == content == (tmp_path / "1.mop").read_bytes()
    assert mop.load(tmp_path / "0.mop").provenance["calls"] == asked[0].total()
    book = Ledger(url)
    assert book.totals(by=())[()].calls == asked[0].total()
    book.close()
    for secret in (PASSWORD, QUOTED):
        assert secret not in said
        assert secret.encode() not in content
