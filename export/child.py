"""Runs one heavy conversion in a child process, so that its memory goes back and its chatter stays away.

The child prints what it likes. Here its output becomes progress: a line `stage: NAME` begins a stage, and the counters
that conversion libraries print (`12/291 [`, `[ 12/ 291]`, `decoder layer 12`) move it. Knows no model format.
"""

import errno
import os
import re
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import IO

import outrider.no_telemetry  # noqa: F401  before a library is loaded
from outrider.errors import DiskFull, EngineError, InvalidModel, MissingExtra
from outrider.progress import Progress

__all__ = ["require", "run_child"]

STAGE = "stage: "
COUNTERS = (re.compile(r"(\d+)/(\d+) \["), re.compile(r"\[ *(\d+)/ *(\d+)\]"), re.compile(r"decoder layer (\d+)()"))
NUM_KEPT_LINES = 40


def require(*modules: str, extra: str = "export") -> None:
    """Raise MissingExtra before the work begins if one of `modules`, which `extra` brings, is not installed."""
    for module in modules:
        if find_spec(module) is None:
            raise MissingExtra(
                f'this export needs {module}, which is not installed; run: pip install "outrider[{extra}]"'
            )


def run_child(module: str, job: bytes, work: Path, progress: Progress) -> None:
    """Run `python -m module`, the job on its standard input, with `work` as its directory for everything temporary.

    Raises DiskFull, EngineError (killed, most often for want of memory) or InvalidModel with the child's last line.
    """
    # An empty part of the path would be the working folder.
    paths = filter(None, [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH")])
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONUNBUFFERED": "1",
        "PYTHONWARNINGS": "ignore",
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(work / "cache"),
        "TOKENIZERS_PARALLELISM": "false",
        "TMPDIR": str(work),
    }
    with tempfile.TemporaryFile(dir=work) as stdin:
        stdin.write(job)
        stdin.seek(0)
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", module],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=work,
            env=environment,
        )
        assert child.stdout is not None
        try:
            last_lines = follow(child.stdout, progress)
            status = child.wait()
        finally:
            child.stdout.close()
            if child.poll() is None:
                child.kill()
                child.wait()
    if status != 0:
        raise failure(status, last_lines)


def follow(output: IO[bytes], progress: Progress) -> list[str]:
    """Turn the child's output into progress until it ends; returns its last lines."""
    kept: deque[str] = deque(maxlen=NUM_KEPT_LINES)
    stage = ""
    done, total = 0, 0
    for line in read_lines(output):
        if line.startswith(STAGE):
            if stage:
                progress(stage, total or 1, total or 1)
            stage, done, total = line.removeprefix(STAGE), 0, 0
            progress(stage, 0, 0)
            continue
        match = next(filter(None, (counter.search(line) for counter in COUNTERS)), None)
        if match and stage:
            done, total = int(match[1]), int(match[2] or 0)
            progress(stage, done, total)
        if not match:
            kept.append(line)
    if stage:
        progress(stage, total or 1, total or 1)
    return list(kept)


def read_lines(output: IO[bytes]) -> Iterator[str]:
    """Lines as they come; a carriage return, with which progress bars redraw themselves, ends one too."""
    rest = b""
    while block := os.read(output.fileno(), 65536):
        *lines, rest = re.split(rb"[\r\n]+", rest + block)
        for line in lines:
            if line.strip():
                yield line.decode(errors="replace").strip()
    if rest.strip():
        yield rest.decode(errors="replace").strip()


def failure(status: int, last_lines: list[str]) -> Exception:
    if any(os.strerror(errno.ENOSPC) in line for line in last_lines):
        return DiskFull("the disk filled up during the conversion; free some space and run the same command again")
    if status < 0:
        return EngineError(
            f"the conversion was killed by signal {-status}; if memory ran out, "
            "close other programs or take a smaller model"
        )
    reason = last_lines[-1] if last_lines else f"exit status {status}"
    return InvalidModel(f"the model cannot be converted ({reason}); try the other builder, or another source")
