"""The machine itself, the store and the journal. Reads files and asks the system; loads no model."""

import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from edge_runtime.checkup.finding import Finding
from edge_runtime.journal import Journal
from outrider import catalog
from outrider.engines.machine import num_physical_cores, processor

__all__ = ["available_bytes", "check_journal", "check_machine", "check_store"]

LITTLE_SPACE = 4e9  # bytes: less than the default models and what is needed to make them
GROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")
MEMINFO = Path("/proc/meminfo")


def check_machine() -> Iterator[Finding]:
    cores = num_physical_cores()
    system = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
    yield Finding("machine", "ok", f"{processor()}, {_counted(cores, 'physical core')}; {system}")
    available = available_bytes()
    if available is not None:
        yield Finding("memory", "ok", f"{available / 1e9:.1f} GB available")


def available_bytes() -> int | None:
    """Memory that may be taken now, as the system and a container's limit have it. None: nobody says."""
    found = []
    with suppress(OSError, ValueError, StopIteration):
        line = next(line for line in MEMINFO.read_text().splitlines() if line.startswith("MemAvailable:"))
        found.append(1024 * int(line.split()[1]))
    with suppress(OSError, ValueError):
        found.append(int(GROUP_LIMIT.read_text()))
    if not found:
        with suppress(OSError, ValueError):
            found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return min(found, default=None)


def check_store() -> Iterator[Finding]:
    home = catalog.home()
    there = next(folder for folder in (home, *home.absolute().parents) if folder.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        detail = f"{home}: {there} is no folder that can be written; choose another"
        yield Finding("store", "broken", detail, "export OUTRIDER_HOME=FOLDER")
        return
    free = shutil.disk_usage(there).free
    detail = f"{home}, {free / 1e9:.1f} GB free"
    if free < LITTLE_SPACE:
        yield Finding("store", "note", f"{detail}: the default models may not fit; free some space")
    else:
        yield Finding("store", "ok", detail)
    for folder in sorted((home / "partial").glob("*/")):
        if any(folder.glob("*.part")):
            name = folder.name.replace("--", "/")
            yield Finding("store", "note", f"{name} was not fetched to its end", f"outrider pull {name}")


def check_journal() -> Iterator[Finding]:
    path = catalog.home() / "journal.sqlite"
    if not path.exists():
        yield Finding("journal", "ok", "none yet; it begins with the first answer that is kept")
        return
    with Journal() as opened:
        opened.check_integrity()
        conversations = opened.conversations()
    yield Finding("journal", "ok", f"{path} is sound, {_counted(len(conversations), 'conversation')}")
    waiting = sum(one.num_provisional for one in conversations)
    cut_short = sum(one.num_unfinished for one in conversations)
    if waiting or cut_short:
        waits = f"{_counted(waiting, 'provisional token')}, {_counted(cut_short, 'answer')} cut short"
        yield Finding("journal", "note", f"waiting for a verifier: {waits}", "outrider sync --verifier ADDRESS")


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
