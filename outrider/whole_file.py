"""Writes a small file in one step: readers see the old one or the new one, never half, whatever breaks meanwhile."""

import os
import tempfile
from pathlib import Path

__all__ = ["write_whole"]


def write_whole(path: Path, data: bytes, mode: int = 0o600) -> None:
    """In a folder that exists. Raises OSError; then the old file stands, and nothing else is left beside it."""
    temporary = tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}-", delete=False)  # noqa: SIM115
    try:
        with temporary:
            temporary.write(data)
            temporary.flush()
            os.fsync(temporary.fileno())
        os.chmod(temporary.name, mode)
        os.replace(temporary.name, path)
    except BaseException:
        os.unlink(temporary.name)
        raise
