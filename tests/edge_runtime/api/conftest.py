"""One store and one local pair for all tests of the endpoint."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cloud_verifier.target import LocalVerifier, open_verifier
from edge_runtime.runtime import Runtime
from outrider import catalog
from tests.edge_runtime.api.tiny import SETTINGS, client, endpoint, write_store
from tests.lazy import openai


@pytest.fixture(scope="package")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="package")
def pair(home: Path) -> Iterator[Runtime]:
    """The target `tiny`, and `tiny` again to draft for it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OUTRIDER_HOME", str(home))
        runtime = Runtime.local("tiny", "tiny", SETTINGS)
    with runtime:
        yield runtime


@pytest.fixture(scope="package")
def target(home: Path) -> Iterator[LocalVerifier]:
    """`tiny` again, for verifiers that come and go."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OUTRIDER_HOME", str(home))
        target = open_verifier(catalog.find("tiny"), SETTINGS)
    yield target
    target.close()


@pytest.fixture(scope="package")
def url(pair: Runtime) -> Iterator[str]:
    with endpoint(pair, model="tiny") as url:
        yield url


@pytest.fixture(scope="package")
def ai(url: str) -> Iterator[openai.OpenAI]:
    with client(url) as ai:
        yield ai
