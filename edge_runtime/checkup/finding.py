"""One thing that a check found, and how checks are run: whatever goes wrong in one is a finding of it."""

from collections.abc import Callable, Iterable
from typing import Literal

import msgspec

from outrider.errors import OutriderError

__all__ = ["Finding", "examine"]


class Finding(msgspec.Struct, frozen=True):
    """`note`: works, but could be better. `fix`: the command that does it, "" where there is none."""

    name: str
    state: Literal["ok", "note", "broken"]
    detail: str
    fix: str = ""


def examine(name: str, check: Callable[[], Iterable[Finding]]) -> list[Finding]:
    """What the check finds. Raises nothing."""
    try:
        return list(check())
    except OutriderError as error:
        return [Finding(name, "broken", f"{error} [{error.code}]")]
    except Exception as error:  # noqa: BLE001  whatever it is, the other checks still say what they find
        return [Finding(name, "broken", f"this cannot be looked at ({type(error).__name__}: {error})")]
