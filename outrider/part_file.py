"""A file that is still coming in: written under another name, hashed on the way, renamed when it is whole and right.

Knows nothing about where the bytes come from.
"""

import contextlib
import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import NoReturn

from outrider.errors import DiskFull, WrongHash

__all__ = ["PartFile", "disk_errors", "require_space"]

BLOCK = 1 << 20


class PartFile:
    """`path` while it is written. Opening it takes over what an earlier try left there, `size` bytes.

    Use it as a context manager; the file stays for a later try unless `finish` renamed it or found it wrong.
    """

    def __init__(self, path: Path, *, num_bytes: int, sha256: str | None) -> None:
        """`sha256` None: only the size is checked, where the publisher gives no hash."""
        self.path = path
        self.num_bytes = num_bytes
        self.expected = sha256
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a+b")
        self._digest = hashlib.sha256()
        self._file.seek(0)
        while block := self._file.read(BLOCK):
            self._digest.update(block)
        self.size = self._file.tell()
        if self.size > num_bytes:
            self.restart()

    def __enter__(self) -> "PartFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with disk_errors(self.path):
            self._file.close()

    def restart(self) -> None:
        """Forget what was written."""
        self._file.truncate(0)
        self._digest = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> None:
        """Append. Raises DiskFull, and WrongHash when there is more than there should be."""
        if self.size + len(data) > self.num_bytes:
            self.reject(f"more than the {self.num_bytes} bytes expected")
        with disk_errors(self.path):
            self._file.write(data)
        self._digest.update(data)
        self.size += len(data)

    def finish(self, target: Path) -> str:
        """Rename to `target` if the bytes are all there and right; their SHA-256. Raises WrongHash, DiskFull."""
        found = self._digest.hexdigest()
        if self.size != self.num_bytes:
            self.reject(f"{self.size} bytes where {self.num_bytes} were expected")
        if self.expected is not None and found != self.expected:
            self.reject("content with another hash than expected")
        with disk_errors(self.path):
            self._file.flush()
            os.fsync(self._file.fileno())
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(self.path, target)
        return found

    def reject(self, what: str) -> NoReturn:
        """Throw away what came. Raises WrongHash."""
        self.path.unlink(missing_ok=True)
        raise WrongHash(f"{self.path.stem} came with {what} and was thrown away; run it again, or from another network")


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """A full disk, a full quota or a folder that may not be written becomes DiskFull."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EPERM):
            raise
        reason = "is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "may not be written"
        raise DiskFull(f"{path.parent} {reason}; free some space or set OUTRIDER_HOME to another disk") from None


def require_space(folder: Path, num_bytes: int, name: str) -> None:
    """Raises DiskFull when `folder`'s disk has less than `num_bytes` free."""
    with disk_errors(folder / name):
        folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < num_bytes:
        raise DiskFull(
            f"{name} needs {num_bytes / 1e6:.0f} MB more and {folder} has {free / 1e6:.0f} MB free; "
            "free some space or set OUTRIDER_HOME to another disk"
        )
