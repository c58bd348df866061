"""A verifier service over the toy, in a process of its own: PORT GRACE_S. Prints its port once it listens.

Several may listen on one port at once, as replicas behind one address do.
"""

import socket
import sys

from cloud_verifier.logs import configure_logs, formatter_of
from cloud_verifier.loop import VerifierLoop
from cloud_verifier.server import create_server
from cloud_verifier.settings import ServiceSettings
from cloud_verifier.verifier import Verifier
from tests.toy import ToyEngine


def serve(port: int, grace_s: float) -> None:
    configure_logs(formatter_of("json"))
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen()
    verifier = Verifier(ToyEngine(max_sequences=4), target="t", vocabulary="v")
    loop = VerifierLoop(verifier)
    server = create_server(loop, ServiceSettings(grace_s=grace_s))
    print(listener.getsockname()[1], flush=True)
    server.run(sockets=[listener])
    loop.close()
    verifier.check_integrity()


if __name__ == "__main__":
    serve(int(sys.argv[1]), float(sys.argv[2]))
