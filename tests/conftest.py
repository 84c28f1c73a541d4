"""Real parts that several test modules share: the smallest chat model, the encoder, a server of the former.

The models are fetched once into the user's normal cache (about 95 MB each) and found there ever after.
"""

import os
import signal

os.environ["HF_HUB_OFFLINE"] = "1"

from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
from fake_upstream import FakeUpstream
from postgres import Postgres, serving
from serving import Running, running, small_app

from mop.lm.local import LocalServer
from mop.lm.weights import DEFAULT_ENCODER, pull

# A shell starts background commands with Ctrl-C ignored; tests of it would wait for ever.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes says more of the machine than of the code.
hypothesis.settings.register_profile("mop", deadline=None)
hypothesis.settings.load_profile("mop")

TINY_MODEL = "local/smollm2-135m-instruct"


@pytest.fixture(scope="session")
def tiny_model() -> Path:
    """The GGUF file of the smallest chat model."""
    return pull(TINY_MODEL)


@pytest.fixture(scope="session")
def encoder_path() -> Path:
    """The folder of the default encoder."""
    return pull(DEFAULT_ENCODER)


@pytest.fixture(scope="session")
def tiny_server(tiny_model: Path) -> Iterator[LocalServer]:
    """A server of the smallest chat model with one slot of 2048 tokens."""
    with LocalServer.start(TINY_MODEL, context=2048, threads=1, cache_mib=512) as server:
        yield server


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server for all tests of the session."""
    with serving() as server:
        yield server


@pytest.fixture(scope="module")
def upstream() -> Iterator[FakeUpstream]:
    """A stand-in for a provider; a module may have another of its own."""
    with FakeUpstream() as server:
        yield server


@pytest.fixture
def server(upstream: FakeUpstream) -> Iterator[Running]:
    """`mop serve` with a small mixture before that provider."""
    with running(small_app(upstream.base_url)) as one:
        yield one
