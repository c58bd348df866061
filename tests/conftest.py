"""Every test has its own empty store and no configuration; a test marked `weights` sees the real store."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("steady", deadline=None)  # a slow moment of the machine fails no test
settings.load_profile("steady")

REAL_HOME = os.environ.get("OUTRIDER_HOME", str(Path(__file__).parent.parent / "models" / "store"))


@pytest.fixture(autouse=True)
def _own_store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = request.node.get_closest_marker("weights") is not None
    monkeypatch.setenv("OUTRIDER_HOME", REAL_HOME if weights else str(tmp_path / "store"))
    monkeypatch.setenv("OUTRIDER_CONFIG", str(tmp_path / "config.toml"))


@pytest.fixture(scope="module")
def real_store() -> Iterator[None]:
    """The real store for a module-wide fixture, which is made before any test's own environment."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OUTRIDER_HOME", REAL_HOME)
        yield
