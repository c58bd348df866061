"""One replica of the service on Ray Serve: an engine behind the doors, its health, its load, and how it leaves.

A WebSocket stays on the replica that accepted it. What a replica holds is only a cache: when it leaves or is killed,
its devices open their lists elsewhere. Ray waits for open sockets and in the end cuts them, without a word to the
application; so a replica watches the list that routers get, and drains by itself when it is no longer on it. Knows
nothing of how replicas are made or how many there are.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import ray
from ray import serve
from ray.serve._private.common import DeploymentTargetInfo
from ray.serve._private.constants import SERVE_CONTROLLER_NAME, SERVE_NAMESPACE
from ray.serve._private.long_poll import LongPollClient, LongPollNamespace
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cloud_verifier.loop import VerifierLoop
from cloud_verifier.service import create_app
from cloud_verifier.settings import ServiceSettings
from cloud_verifier.tokens import TokenFile

__all__ = ["PENDING_PASSES", "REPLICA_HEADER", "VerifierReplica"]

logger = logging.getLogger(__name__)

PENDING_PASSES = "pending_passes"  # the measure that replicas are scaled by
REPLICA_HEADER = b"x-outrider-replica"  # on every answer: whose it is
LOOK_S = 0.1  # between two looks at whether the last session has ended


class VerifierReplica:
    """Ray makes it, asks after its health and load, and ends it. `build` opens the target and starts its loop.

    `tokens`: the file of those that let devices in; None lets in everybody who calls it by this machine's own names.

    A replica that leaves gives its sessions `grace_s` seconds to end; those still open are told to go elsewhere.
    """

    def __init__(self, build: Callable[[], VerifierLoop], tokens: Path | None, grace_s: float) -> None:
        self._settings = ServiceSettings(tokens=TokenFile(tokens) if tokens else None)
        self._loop = build()
        self._grace_s = grace_s
        self._is_listed = False
        self._leaving: asyncio.Task[None] | None = None
        self._id = serve.get_replica_context().replica_id
        self._watch = LongPollClient(
            ray.get_actor(SERVE_CONTROLLER_NAME, namespace=SERVE_NAMESPACE),
            {(LongPollNamespace.DEPLOYMENT_TARGETS, self._id.deployment_id): self._see},
            call_in_event_loop=asyncio.get_running_loop(),
            client_id=f"verifier:{self._id.unique_id}",
        )

    def __serve_build_asgi_app__(self) -> ASGIApp:
        return _named(create_app(self._loop, self._settings), self._id.unique_id)

    def _see(self, targets: DeploymentTargetInfo) -> None:
        """The replicas that routers know, whenever they change."""
        is_listed = any(replica.replica_id == self._id for replica in targets.running_replicas)
        if self._is_listed and not is_listed and self._leaving is None:
            self._watch.stop()
            self._leaving = asyncio.create_task(asyncio.to_thread(self._leave))
        self._is_listed = is_listed

    def _leave(self) -> None:
        """No new sessions, time for those that run, then word to go on elsewhere."""
        self._loop.start_draining()
        end_s = time.monotonic() + self._grace_s
        while self._loop.num_connections and time.monotonic() < end_s:
            time.sleep(LOOK_S)
        logger.info("drained: %d sessions were moved", self._loop.num_connections)
        self._loop.close()

    def check_health(self) -> None:
        """Raises LinkLost when the verifier's thread has ended; Ray then makes another replica."""
        if self._leaving is None:
            self._loop.connect(lambda message: None).close()

    def record_autoscaling_stats(self) -> Mapping[str, float]:
        """How many passes it would take to serve everybody who waits now."""
        verifier = self._loop.verifier
        return {PENDING_PASSES: (verifier.num_ready + self._loop.num_waiting) / verifier.num_slots}

    async def __del__(self) -> None:
        self._watch.stop()
        await asyncio.to_thread(self._loop.close)


def _named(app: ASGIApp, name: str) -> ASGIApp:
    """The application, with the replica's name on every answer."""
    header = (REPLICA_HEADER, name.encode())

    async def named(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_named(message: Message) -> None:
            if message["type"] in ("http.response.start", "websocket.accept"):
                message = {**message, "headers": [*message.get("headers", ()), header]}
            await send(message)

        await app(scope, receive, send_named)

    return named
