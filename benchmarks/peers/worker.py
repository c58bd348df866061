"""`python -m benchmarks.peers.worker`: the process in which one peer is loaded and asked, until its input ends.

Pins itself before any library is there to start threads. What libraries print goes to standard error.
"""

import importlib
import os
import sys
from typing import BinaryIO

import msgspec

from benchmarks.peers.program import Answered, Ask, Failed, Job, Opened, Program, Reply

__all__: list[str] = []


def main() -> None:
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    job = msgspec.json.decode(sys.stdin.buffer.readline(), type=Job)
    if job.cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, job.cores)
    os.environ["OMP_NUM_THREADS"] = str(job.num_threads)
    try:
        program: Program = importlib.import_module(job.module).open_program(job)
    except Exception as error:  # noqa: BLE001 - whatever a foreign library raises is its reason
        tell(replies, Failed(said(error)))
        return
    tell(replies, Opened())
    for line in sys.stdin.buffer:
        ask = msgspec.json.decode(line, type=Ask)
        try:
            tell(replies, Answered(program.generate(ask.prompt_ids, ask.max_tokens)))
        except Exception as error:  # noqa: BLE001 - as above
            tell(replies, Failed(said(error)))
    replies.flush()
    os._exit(0)  # some libraries crash while they are torn down, and nothing here needs it


def tell(replies: BinaryIO, reply: Reply) -> None:
    replies.write(msgspec.json.encode(reply) + b"\n")
    replies.flush()


def said(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


if __name__ == "__main__":
    main()
