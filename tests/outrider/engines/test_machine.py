"""Threads where nobody names a number: the cores there are, or a container's share of them."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from outrider.engines import machine
from outrider.errors import InvalidParameter

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads what Linux tells")


@pytest.fixture(autouse=True)
def _anew() -> Iterator[None]:
    machine.num_physical_cores.cache_clear()
    yield
    machine.num_physical_cores.cache_clear()


@pytest.mark.parametrize(
    ("told", "cores"),
    [("150000 100000", 1), ("50000 100000", 1), ("300000 100000", 3), ("max 100000", 8), ("", 8), (None, 8)],
)
def test_no_more_threads_than_a_container_is_granted(
    told: str | None, cores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if told is not None:
        (tmp_path / "cpu.max").write_text(f"{told}\n")
    monkeypatch.setattr(machine, "QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr(machine, "TOPOLOGY", tmp_path)  # each processor a core
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    assert machine.num_physical_cores() == machine.resolve_threads(0) == cores


def test_two_hardware_threads_of_a_core_are_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for cpu in range(4):
        folder = tmp_path / f"cpu{cpu}" / "topology"
        folder.mkdir(parents=True)
        (folder / "physical_package_id").write_text("0\n")
        (folder / "core_id").write_text(f"{cpu % 2}\n")
    monkeypatch.setattr(machine, "TOPOLOGY", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3})
    assert machine.num_physical_cores() == 2


def test_a_number_is_taken_at_its_word_but_none_below_zero() -> None:
    assert machine.resolve_threads(3) == 3
    with pytest.raises(InvalidParameter, match="give a number from 1"):
        machine.resolve_threads(-1)
