"""The link of a device that has no verifier and looks for none: it is lost from the start."""

from typing import NoReturn

from outrider.errors import LinkLost
from outrider.wire import Up

__all__ = ["NoLink"]


class NoLink:
    bytes_up = 0
    bytes_down = 0
    is_padded = False

    async def open(self) -> NoReturn:
        raise _nobody()

    async def send(self, message: Up) -> NoReturn:
        raise _nobody()

    async def receive(self) -> NoReturn:
        raise _nobody()

    async def close(self) -> None:
        """There is nothing to leave."""


def _nobody() -> LinkLost:
    return LinkLost("nobody verifies here; ask for a way of answering that has a verifier")
