"""Where something was measured: the machine, the versions, how busy it was. Asks and changes nothing."""

import functools
import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec

from outrider.engines.machine import num_physical_cores, processor, resolve_threads

__all__ = ["Environment", "current", "plain"]

LIBRARIES = (
    "outrider",
    "numpy",
    "onnxruntime",
    "onnxruntime-genai",
    "llama-cpp-python",
    "xllamacpp",
    "torch",
    "transformers",
    "tokenizers",
    "websockets",
    "uvicorn",
)
HERE = Path(__file__).parent


class Environment(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    processor: str
    cores: int  # physical, that this process may use
    threads: int  # of each model
    memory_gib: float | None
    system: str
    python: str
    versions: dict[str, str]  # of what is installed
    commit: str  # of the checkout, "-dirty" where it was changed; "" outside of one
    date: str
    load: float | None  # of the last minute, before it began


def current(num_threads: int = 0) -> Environment:
    return Environment(
        processor=processor(),
        cores=num_physical_cores(),
        threads=resolve_threads(num_threads),
        memory_gib=_memory_gib(),
        system=platform.platform(terse=True),
        python=platform.python_version(),
        versions=_versions(),
        commit=_commit(),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        load=round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    )


def plain(options: object) -> dict[str, Any]:
    """A dataclass of options as JSON has it."""
    told: dict[str, Any] = msgspec.to_builtins(options, enc_hook=str)
    return told


def _versions() -> dict[str, str]:
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, OSError, ValueError):  # not on this system
        return None


@functools.cache  # the code that runs is the one that was loaded
def _commit() -> str:
    if _git("ls-files", Path(__file__).name) is None:  # installed: what surrounds it is somebody else's
        return ""
    return _git("describe", "--always", "--dirty", "--abbrev=12", "--exclude=*") or ""


def _git(*words: str) -> str | None:
    try:
        done = subprocess.run(["git", *words], cwd=HERE, capture_output=True, text=True, timeout=10, check=True)  # noqa: S607
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
