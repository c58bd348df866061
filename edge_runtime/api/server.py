"""The endpoint's HTTP server: with the bounds that the verifier's has, for fewer and slower clients."""

from dataclasses import dataclass

from cloud_verifier.server import BoundedServer, bounded
from cloud_verifier.settings import DoorSettings
from edge_runtime.api.app import create_api
from edge_runtime.api.modes import Modes

__all__ = ["ApiSettings", "create_api_server"]

FRAME_BYTES = 1024  # of a WebSocket, which nothing here answers


@dataclass(frozen=True, slots=True)
class ApiSettings(DoorSettings):
    max_connections: int = 256
    max_connections_each: int = 64  # answers under way at once, streams included
    grace_s: float = 5.0


def create_api_server(modes: Modes, settings: ApiSettings | None = None) -> BoundedServer:
    """The endpoint, ready to run on sockets of the caller's."""
    settings = settings or ApiSettings()
    return BoundedServer(bounded(create_api(modes, settings), settings, FRAME_BYTES, settings.grace_s))
