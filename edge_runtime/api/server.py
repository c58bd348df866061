"""The endpoint's HTTP server: with the bounds that the verifier's has, for fewer and slower clients."""

import asyncio
import socket
from dataclasses import dataclass

from cloud_verifier.server import BoundedServer, bounded
from cloud_verifier.settings import DoorSettings
from edge_runtime.api.app import create_api
from edge_runtime.api.modes import Modes

__all__ = ["ApiServer", "ApiSettings", "create_api_server"]

FRAME_BYTES = 1024  # of a WebSocket, which nothing here answers
LEAVE_S = 2.0  # for last words to be written


@dataclass(frozen=True, slots=True)
class ApiSettings(DoorSettings):
    max_connections: int = 256
    max_connections_each: int = 64  # answers under way at once, streams included
    grace_s: float = 5.0


class ApiServer(BoundedServer):
    """At a stop answers under way have `grace_s` to end; those that are left then are told to come again."""

    def __init__(self, modes: Modes, settings: ApiSettings) -> None:
        app = create_api(modes, settings)
        super().__init__(bounded(app, settings, FRAME_BYTES, settings.grace_s + LEAVE_S))
        self._modes = modes
        self._grace_s = settings.grace_s

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        leaving = asyncio.get_running_loop().call_later(self._grace_s, self._modes.leave)
        await super().shutdown(sockets)
        leaving.cancel()


def create_api_server(modes: Modes, settings: ApiSettings | None = None) -> ApiServer:
    """The endpoint, ready to run on sockets of the caller's."""
    return ApiServer(modes, settings or ApiSettings())
