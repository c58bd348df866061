"""Journals in memory where the system has room there: nobody pulls the plug here, and a disk takes a while to flush."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

MEMORY = Path("/dev/shm")  # Linux
ENOUGH = 2**28


@pytest.fixture
def tmp_path(tmp_path: Path) -> Iterator[Path]:
    if not MEMORY.is_dir() or shutil.disk_usage(MEMORY).free < ENOUGH:
        yield tmp_path
        return
    with TemporaryDirectory(prefix="outrider-", dir=MEMORY) as folder:
        yield Path(folder)
