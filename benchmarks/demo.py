"""`make demo`: a verifier in a process of its own, a device that drafts for it over a socket, one answer."""

import re
import signal
import subprocess
import sys
from pathlib import Path

PROMPT = "Write a Python class for a binary search tree with insert, search and in-order traversal, with docstrings."
OUTRIDER = Path(sys.executable).with_name("outrider")


def main() -> int:
    verifier = subprocess.Popen([OUTRIDER, "verifier", "--port", "0"], stderr=subprocess.PIPE, text=True)
    try:
        address = None
        for line in verifier.stderr or ():
            sys.stderr.write(line)
            if found := re.search(r"http://\S+", line):
                address = found[0]
                break
        if address is None:
            return verifier.wait()
        return subprocess.call([OUTRIDER, "generate", PROMPT, "--verifier", address, "--max-tokens", "300"])
    finally:
        verifier.send_signal(signal.SIGINT)
        verifier.wait()


if __name__ == "__main__":
    sys.exit(main())
