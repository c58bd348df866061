"""Ways to a verifier: in this process, over a WebSocket, or none. Interchangeable."""

from edge_runtime.links.base import Link
from edge_runtime.links.in_process import InProcessLink
from edge_runtime.links.nowhere import NoLink
from edge_runtime.links.switch import LinkSwitch, SwitchedLink
from edge_runtime.links.websocket import WebSocketLink

__all__ = ["InProcessLink", "Link", "LinkSwitch", "NoLink", "SwitchedLink", "WebSocketLink"]
