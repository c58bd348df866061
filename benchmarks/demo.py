"""`make demo`: a verifier in a process of its own, a device that drafts for it over a socket, one answer."""

import re
import signal
import subprocess
import sys
from pathlib import Path

from outrider.engines.machine import resolve_threads

PROMPT = "Write a Python class for a binary search tree with insert, search and in-order traversal, with docstrings."
OUTRIDER = str(Path(sys.executable).with_name("outrider"))


def main() -> int:
    """The exit status. What the verifier says while the answer is written is shown after it."""
    # Both are on this machine: a half of its cores each, so that the drafter does not run on the verifier's.
    threads = ["--threads", str(max(1, resolve_threads(0) // 2))]
    command = [OUTRIDER, "verifier", "--port", "0", *threads]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as verifier:
        try:
            address = listening(verifier)
            if address is None:
                return verifier.wait()
            ask = [OUTRIDER, "generate", PROMPT, "--verifier", address, "--max-tokens", "300", "--no-journal"]
            return subprocess.call([*ask, *threads])
        except KeyboardInterrupt:
            return 130
        finally:
            verifier.send_signal(signal.SIGINT)
            sys.stderr.write(verifier.communicate()[1])


def listening(verifier: "subprocess.Popen[str]") -> str | None:
    """The verifier's address, once it has said so; what it says until then is shown. None when it ended instead."""
    assert verifier.stderr is not None
    for line in verifier.stderr:
        sys.stderr.write(line)
        sys.stderr.flush()
        if found := re.search(r" verifies at (\S+)", line):
            return found[1]
    return None


if __name__ == "__main__":
    sys.exit(main())
