"""The blocking face: the same events and errors, and nothing left running by who leaves early."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

import edge_runtime
from edge_runtime.blocking import iterate
from outrider import catalog
from outrider.engines import EngineSettings
from outrider.errors import EmptyPrompt, LinkLost
from outrider.manifest import Source, file_sha256
from tests.export.models import write_gguf


def num_threads() -> int:
    return sum(thread.name == "events" for thread in threading.enumerate())


async def counting(end: int, ended: list[str]) -> AsyncGenerator[int, None]:
    try:
        for number in range(end):
            yield number
            await asyncio.sleep(0)
    finally:
        ended.append("closed")


def test_all_events_come_in_order() -> None:
    ended: list[str] = []
    assert list(iterate(counting(100, ended))) == list(range(100))
    assert (ended, num_threads()) == (["closed"], 0)


def test_who_leaves_early_ends_the_generator() -> None:
    ended: list[str] = []
    events = iterate(counting(10**9, ended))
    assert next(events) == 0
    assert num_threads() == 1
    events.close()
    assert (ended, num_threads()) == (["closed"], 0)


def test_an_error_is_raised_where_the_events_are_heard() -> None:
    async def failing() -> AsyncGenerator[int, None]:
        yield 1
        raise LinkLost("it broke")

    events = iterate(failing())
    assert next(events) == 1
    with pytest.raises(LinkLost, match="it broke"):
        next(events)
    assert num_threads() == 0


def test_a_runtime_answers_code_that_blocks_as_it_answers_code_that_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OUTRIDER_HOME", str(tmp_path))
    file = write_gguf(tmp_path / "tiny" / "tiny.gguf")
    source = Source("random", file_sha256(file))
    catalog.install_gguf(file, tmp_path / "tiny", name="tiny", licence="none", source=source)
    settings = EngineSettings(num_threads=1, max_context=256)
    with edge_runtime.Runtime.local("tiny", "lookup", settings) as runtime:

        async def main() -> str:
            events = runtime.generate("hello", max_tokens=20)
            return "".join([event.text async for event in events if isinstance(event, edge_runtime.Piece)])

        want = asyncio.run(main())
        for _ in range(2):
            *pieces, finished = runtime.answer("hello", max_tokens=20)
            assert "".join(piece.text for piece in pieces if isinstance(piece, edge_runtime.Piece)) == want
            assert isinstance(finished, edge_runtime.Finished)
        with pytest.raises(EmptyPrompt):
            next(runtime.answer(""))


def test_names_of_the_package_are_there_and_cost_nothing_until_asked_for() -> None:
    for name in edge_runtime.__all__:
        assert getattr(edge_runtime, name).__name__ == name
    assert edge_runtime.__all__ == sorted(edge_runtime.HOMES)
    with pytest.raises(AttributeError):
        edge_runtime.nothing  # noqa: B018
    script = "import sys, edge_runtime; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
