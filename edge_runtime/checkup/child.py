"""Runs a check's `main` in a process of its own: native code that crashes takes only that one along."""

import signal
import subprocess
import sys

import outrider.no_telemetry  # noqa: F401  before a library is loaded
from outrider.errors import EngineError

__all__ = ["run_child"]

LIMIT_S = 300.0


def run_child(module: str, *arguments: str) -> tuple[list[str], str]:
    """Its lines on standard output, and how it ended: "" well, else in words. Raises EngineError when it hangs."""
    command = [sys.executable, "-P", "-c", f"from {module} import main; main()", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        raise EngineError(f"it did not end within {LIMIT_S:.0f} s; free the machine and try again") from None
    lines = done.stdout.splitlines()
    if done.returncode >= 0:
        return lines, "" if done.returncode == 0 else (done.stderr.strip().splitlines() or ["failed"])[-1]
    try:
        name = signal.Signals(-done.returncode).name
    except ValueError:
        name = f"signal {-done.returncode}"
    return lines, f"crashed ({name})"
