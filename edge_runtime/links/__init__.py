"""Ways to a verifier: in this process, or over a WebSocket. Interchangeable."""

from edge_runtime.links.base import Link
from edge_runtime.links.in_process import InProcessLink
from edge_runtime.links.switch import LinkSwitch, SwitchedLink
from edge_runtime.links.websocket import WebSocketLink

__all__ = ["InProcessLink", "Link", "LinkSwitch", "SwitchedLink", "WebSocketLink"]
