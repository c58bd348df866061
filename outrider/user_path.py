"""A path as a user writes it: `~` is the home folder. Of a user whom nobody knows `~name` is a folder of that name."""

import os
from pathlib import Path

__all__ = ["user_path"]


def user_path(text: str | Path) -> Path:
    """`Path.expanduser` raises where `~name` is nobody; this does not."""
    return Path(os.path.expanduser(text))
