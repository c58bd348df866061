"""Forks a verifier service over the toy for each line it reads: "PORT PASS". Says "PID PORT" once the service listens.

PORT 0 is any free port. In its pass number PASS, if not 0, the service says "in pass" and computes for ever. All is
imported before the forks, so that a service starts at once. One runs at a time: who asks for another has killed it.
"""

import os
import socket
import sys
import threading

from cloud_verifier.loop import VerifierLoop
from cloud_verifier.server import create_server
from cloud_verifier.verifier import Verifier
from tests.toy import ToyEngine


class HangingEngine(ToyEngine):
    def __init__(self, hang_in_pass: int) -> None:
        super().__init__()
        self._hang_in_pass = hang_in_pass

    def extend(self, chunks):
        rows = super().extend(chunks)
        if self.num_passes == self._hang_in_pass:
            print("in pass", flush=True)
            threading.Event().wait()
        return rows


def run(port: int, hang_in_pass: int) -> None:
    listener = socket.create_server(("127.0.0.1", port))
    print(os.getpid(), listener.getsockname()[1], flush=True)
    loop = VerifierLoop(Verifier(HangingEngine(hang_in_pass), target="t", vocabulary="v"))
    create_server(loop).run(sockets=[listener])


if __name__ == "__main__":
    child = 0
    for line in sys.stdin:
        if child:
            os.waitpid(child, 0)  # it was killed; its port is free when it is gone
        if (child := os.fork()) == 0:
            run(*map(int, line.split()))
            sys.exit()
