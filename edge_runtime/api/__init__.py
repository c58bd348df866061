"""The OpenAI-compatible endpoint on the device. Needs the extra `server`; whoever imports it has checked that."""

from edge_runtime.api.app import create_api
from edge_runtime.api.key import ApiKey
from edge_runtime.api.modes import Modes
from edge_runtime.api.server import ApiSettings, create_api_server

__all__ = ["ApiKey", "ApiSettings", "Modes", "create_api", "create_api_server"]
