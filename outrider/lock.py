"""One process at a time, where two would write the same files. The system takes a lock back when its holder dies."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from outrider.errors import OutriderError

__all__ = ["one_process"]


@contextlib.contextmanager
def one_process(path: Path, taken: OutriderError) -> Iterator[None]:
    """Hold the lock file `path`, which goes with the lock. Raises `taken` at once while another holds it; OSError."""
    from filelock import FileLock, Timeout

    lock = FileLock(path, timeout=0, thread_local=False)
    try:
        lock.acquire()
    except Timeout:
        raise taken from None
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # where an open file cannot go, it stays
            path.unlink()
        lock.release()
