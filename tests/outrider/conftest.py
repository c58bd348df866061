from collections.abc import Iterator

import pytest

from tests.outrider.hub_server import Hub, serve_hub


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub on a local port that the program takes for the real one."""
    with serve_hub() as served:
        monkeypatch.setenv("HF_ENDPOINT", served.url)
        yield served


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub behind a port that refuses connections."""
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
