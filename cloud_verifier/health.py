"""Asks a verifier how it is, for whoever looks after it: `python -m cloud_verifier.health [URL]`, exit status 0 or 1.

Made for a container's health check and an orchestrator's probe, which run it every few seconds: it needs the standard
library alone and starts at once. The token that /readyz asks for is read from the environment. Knows no messages.
"""

import http.client
import ipaddress
import os
import ssl
import sys
from urllib.parse import SplitResult, urlsplit

__all__ = ["ask", "main"]

DEFAULT = "http://127.0.0.1:8700/healthz"
TOKEN_VARIABLE = "OUTRIDER_TOKEN"  # noqa: S105  the name of a variable, the device's too
LIMIT_S = 4.0


def ask(url: str, token: str = "") -> int:
    """The status that `url` answers with. Raises OSError or HTTPException where none comes, ValueError for no URL.

    On this machine's own addresses the certificate is not checked: it is for the name that devices use.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{url} is no address of a verifier; give http:// or https://, a host and a path")
    connection = _connect(parts)
    try:
        shown = {"authorization": f"Bearer {token}"} if token else {}
        connection.request("GET", parts.path or "/healthz", headers=shown)
        return connection.getresponse().status
    finally:
        connection.close()


def _connect(parts: SplitResult) -> http.client.HTTPConnection:
    host = parts.hostname or ""
    if parts.scheme == "http":
        return http.client.HTTPConnection(host, parts.port, timeout=LIMIT_S)
    context = ssl.create_default_context()
    if _is_here(host):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return http.client.HTTPSConnection(host, parts.port, timeout=LIMIT_S, context=context)


def _is_here(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def main(arguments: list[str]) -> int:
    """0 for a status of 200, else 1 and a line that says what came instead."""
    url = arguments[0] if arguments else DEFAULT
    try:
        status = ask(url, os.environ.get(TOKEN_VARIABLE, "").strip())
    except (OSError, http.client.HTTPException, ValueError) as error:
        sys.stderr.write(f"{url}: {error}\n")
        return 1
    if status != 200:
        sys.stderr.write(f"{url}: status {status}\n")
    return int(status != 200)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
