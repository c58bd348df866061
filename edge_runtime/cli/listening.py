"""What commands that serve share: a socket to listen on, who may not be let in unasked, and how it is told to stop."""

import ipaddress
import signal
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from outrider.errors import InvalidParameter

if TYPE_CHECKING:
    import uvicorn

__all__ = ["check_exposure", "is_loopback", "listen", "stop_at_signals", "url_of"]


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_exposure(
    host: str, cert: Path | None, key: Path | None, *, secrets: str, has_secrets: bool, how: str, is_insecure: bool
) -> None:
    """Raises InvalidParameter for what would let strangers in, or let them listen, without the operator's word.

    `secrets` is what clients show here, and `how` how the operator makes some.
    """
    if (cert is None) != (key is None):
        raise InvalidParameter("a certificate and its key go together; give both --tls-cert and --tls-key")
    if is_loopback(host) or is_insecure or (has_secrets and cert):
        return
    lacking = " and ".join(
        word for word, is_there in ((secrets, has_secrets), ("TLS", cert is not None)) if not is_there
    )
    raise InvalidParameter(
        f"{host} is not a loopback address, and the service would have no {lacking}; {how}, give --tls-cert and "
        "--tls-key, or say --allow-insecure"
    )


def listen(host: str, port: int) -> socket.socket:
    """Bound, not listening yet: whoever comes too early is refused. Raises InvalidParameter."""
    if not 0 <= port <= 65535:
        raise InvalidParameter(f"--port is {port}; give a number from 0 to 65535")
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except (OSError, TypeError) as error:  # a name that cannot be encoded is a TypeError
        listener.close()
        why = error.strerror if isinstance(error, OSError) else "no host's name"
        raise InvalidParameter(
            f"{host} port {port} cannot be had ({why}); choose another with --host or --port"
        ) from None
    return listener


def url_of(listener: socket.socket, *, is_tls: bool) -> str:
    address, port = listener.getsockname()[:2]
    at = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
    return f"{'https' if is_tls else 'http'}://{at}"


def stop_at_signals(server: "uvicorn.Server") -> None:
    """Also before the server runs and listens to them itself."""

    def stop(number: int, frame: object) -> None:
        server.should_exit = True

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
