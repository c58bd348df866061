"""A Ray cluster on this machine and toy replicas on it, and devices that see which replica answers. For tests only."""

import contextlib
import inspect
import socket
import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection

import ray
from ray import serve
from ray.serve.config import AutoscalingContext

from cloud_verifier.loop import VerifierLoop
from cloud_verifier.replica import PENDING_PASSES, REPLICA_HEADER
from cloud_verifier.verifier import Verifier
from edge_runtime.links import WebSocketLink
from outrider.wire import Down, Fault
from tests.toy import ToyEngine

HEADER = REPLICA_HEADER.decode()
PATIENCE_S = 60.0  # against hangs; nothing is measured by it


def toy_verifier() -> VerifierLoop:
    return VerifierLoop(Verifier(ToyEngine(max_sequences=32), target="t", vocabulary="v"))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@contextlib.contextmanager
def cluster() -> Iterator[str]:
    """Ray and its HTTP door on loopback addresses; where the door is."""
    port = free_port()
    ray.init(address="local", _node_ip_address="127.0.0.1", include_dashboard=False, num_cpus=4, log_to_driver=False)
    try:
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        yield f"http://127.0.0.1:{port}"
    finally:
        serve.shutdown()
        ray.shutdown()


def until(is_so: Callable[[], bool]) -> None:
    """Ray tells of its state only when asked."""
    end_s = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < end_s, serve.status()
        time.sleep(0.1)


def num_running(app: str = "default") -> int:
    """Replicas that serve; 0 while some come. Those that leave do not count."""
    deployments = serve.status().applications[app].deployments if app in serve.status().applications else {}
    states = deployments["verifier"].replica_states if deployments else {}
    return states.get("RUNNING", 0) if set(states) <= {"RUNNING", "STOPPING"} else 0


def kill(replica: str) -> None:
    """End a replica's process at once."""
    names = [actor["name"] for actor in ray.util.list_named_actors(all_namespaces=True)]
    ray.kill(ray.get_actor(next(name for name in names if name.endswith(replica)), namespace="serve"))


def replica_for(url: str, session_id: str) -> str:
    """Which replica answers a request with this session id."""
    connection = HTTPConnection(url.removeprefix("http://"), timeout=PATIENCE_S)
    try:
        connection.request("GET", "/healthz", headers={"x-session-id": session_id})
        response = connection.getresponse()
        assert response.status == 200
        return response.headers[HEADER]
    finally:
        connection.close()


def context_of(pending: dict[str, float], num_sockets: int) -> AutoscalingContext:
    """What Ray would ask the policy with: by replica, the passes that are waited for; and the sockets in all."""
    fields = dict.fromkeys(inspect.signature(AutoscalingContext).parameters)
    fields["aggregated_metrics"], fields["total_num_requests"] = {PENDING_PASSES: pending}, num_sockets
    return AutoscalingContext(**fields)


class WatchedLink(WebSocketLink):
    """Keeps what a user never sees: the replicas that served it, and why it had to go on elsewhere."""

    def __init__(self, url: str, token: str = "") -> None:
        super().__init__(url, token=token)
        self.replicas: list[str] = []
        self.faults: list[str] = []

    async def open(self) -> None:
        await super().open()
        assert self._socket is not None
        assert self._socket.response is not None
        self.replicas.append(self._socket.response.headers[HEADER])

    async def receive(self) -> Down:
        message = await super().receive()
        if isinstance(message, Fault):
            self.faults.append(message.code)
        return message
