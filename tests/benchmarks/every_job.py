"""A process that opens one job after the other and answers the same questions with each, for the tests of the peers.

Reads the jobs and the questions as one line of JSON and prints the answers to each job in turn.
"""

import importlib
import os
import sys

import msgspec

from benchmarks.peers.base import PeerAnswer
from benchmarks.peers.program import Ask, Job


class Errand(msgspec.Struct):
    jobs: list[Job]
    asks: list[Ask]


def answers(errand: Errand) -> list[list[PeerAnswer]]:
    result = []
    for job in errand.jobs:
        program = importlib.import_module(job.module).open_program(job)
        result.append([program.generate(ask.prompt_ids, ask.max_tokens) for ask in errand.asks])
    return result


def main() -> None:
    replies = os.dup(1)
    os.dup2(2, 1)
    os.write(replies, msgspec.json.encode(answers(msgspec.json.decode(sys.stdin.buffer.read(), type=Errand))))
    os._exit(0)


if __name__ == "__main__":
    main()
