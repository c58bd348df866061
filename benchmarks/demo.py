"""`make demo`: a verifier in a process of its own, a device that drafts for it over a socket, one answer."""

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from outrider.engines.machine import resolve_threads

PROMPT = "Write a Python class for a binary search tree with insert, search and in-order traversal, with docstrings."
OUTRIDER = str(Path(sys.executable).with_name("outrider"))


def main() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    # Both are on this machine: a half of its cores each, so that the drafter does not run on the verifier's.
    threads = ["--threads", str(max(1, resolve_threads(0) // 2))]
    verifier = subprocess.Popen([OUTRIDER, "verifier", "--port", str(port), *threads])
    try:
        if not answers(port, verifier):
            return verifier.wait()
        address = f"http://127.0.0.1:{port}"
        ask = [OUTRIDER, "generate", PROMPT, "--verifier", address, "--max-tokens", "300", "--no-journal"]
        return subprocess.call([*ask, *threads])
    except KeyboardInterrupt:
        return 130
    finally:
        verifier.send_signal(signal.SIGINT)
        verifier.wait()


def answers(port: int, verifier: "subprocess.Popen[bytes]") -> bool:
    """Waits until the verifier accepts connections; False when it ended instead."""
    while verifier.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return True
        except OSError:
            time.sleep(0.1)
    return False


if __name__ == "__main__":
    sys.exit(main())
